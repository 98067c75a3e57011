//! A cluster inside of a web service: the service starts it, serves workloads on it, and ends it when it ends itself.
//!
//! Without arguments it makes some requests to itself and ends. With `--serve` it stays until it is told to stop.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{Method, Request, StatusCode},
    response::{IntoResponse, Response},
    routing,
};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orchestrator::{
    Cluster, NodeSpec,
    client::{Api, Client},
    core::status::ApiError,
    env::Env,
    k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Pod},
    },
    kube,
    runtime_sim::{MachineConfig, SimMachine},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let env = Env::real();
    let cluster = start_cluster(&env).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    println!("service: http://{address}");

    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let service = axum::serve(listener, router(cluster.client())).with_graceful_shutdown(stopped.cancelled_owned());
    let work = async {
        let outcome = match std::env::args().any(|argument| argument == "--serve") {
            true => stop_signal().await.map_err(Failure::from),
            false => visit(&env, address).await,
        };
        stop.cancel();
        outcome
    };
    let (served, visited) = futures::join!(service.into_future(), work);
    // First the service: it answers what it has begun. Then the cluster: nobody asks it any more.
    cluster.shutdown().await;
    println!("service and cluster have ended");
    served?;
    visited
}

/// A cluster of two machines. With `YoukiRuntime` in the place of `SimMachine` the containers are real.
async fn start_cluster(env: &Env) -> Result<Cluster, Failure> {
    let mut builder = Cluster::builder().env(env);
    for name in ["node-1", "node-2"] {
        let machine = SimMachine::new(env, MachineConfig::default());
        builder = builder.node(NodeSpec::new(name, Arc::new(machine.runtime())));
    }
    Ok(builder.start().await?)
}

/// The service. Its state is a client, which is cheap to clone; the cluster belongs to `main`.
fn router(client: Client) -> Router {
    Router::new()
        .route("/healthz", routing::get(health))
        .route("/workloads/{name}", routing::put(put_workload).get(get_workload).delete(delete_workload))
        .with_state(client)
}

/// What a user asks for.
#[derive(Deserialize)]
struct Workload {
    image: String,
    copies: i32,
}

/// The service is well when its cluster answers.
async fn health(State(client): State<Client>) -> Result<&'static str, Refused> {
    Api::<Namespace>::all(&client).get("default").await?;
    Ok("ok")
}

async fn put_workload(
    State(client): State<Client>,
    Path(name): Path<String>,
    Json(workload): Json<Workload>,
) -> Result<StatusCode, Refused> {
    let deployments: Api<Deployment> = Api::namespaced(&client, "default");
    let labels = json!({"workload": name});
    let spec = json!({
        "replicas": workload.copies,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": workload.image}]},
        },
    });
    if deployments.get_opt(&name).await?.is_some() {
        deployments.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
        return Ok(StatusCode::OK);
    }
    let deployment = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}));
    let deployment = deployment.map_err(|error| ApiError::bad_request(error.to_string()))?;
    deployments.create(&PostParams::default(), &deployment).await?;
    Ok(StatusCode::CREATED)
}

async fn get_workload(State(client): State<Client>, Path(name): Path<String>) -> Result<Json<Value>, Refused> {
    let deployment = Api::<Deployment>::namespaced(&client, "default").get(&name).await?;
    let of_workload = ListParams::default().labels(&format!("workload={name}"));
    let pods = Api::<Pod>::namespaced(&client, "default").list(&of_workload).await?;
    let pod = |pod: &Arc<Pod>| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        json!({"name": pod.metadata.name, "node": node, "phase": pod.status.as_ref().and_then(|it| it.phase.clone())})
    };
    Ok(Json(json!({
        "asked": deployment.spec.as_ref().and_then(|spec| spec.replicas),
        "ready": deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
        "pods": pods.items.iter().map(pod).collect::<Vec<_>>(),
    })))
}

async fn delete_workload(State(client): State<Client>, Path(name): Path<String>) -> Result<StatusCode, Refused> {
    Api::<Deployment>::namespaced(&client, "default").delete(&name, &DeleteParams::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The cluster said no: the service says so with the same code.
struct Refused(ApiError);

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = u16::try_from(self.0.code()).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, self.0.to_string()).into_response()
    }
}

/// A user's visit, over the network as any other.
async fn visit(env: &Env, address: SocketAddr) -> Result<(), Failure> {
    let ask = async |method: Method, path: &str, body: Option<Value>| -> Result<(u16, String), Failure> {
        let (code, answer) = request(address, method.clone(), path, body).await?;
        println!("{method} {path}: {code} {answer}");
        Ok((code, answer))
    };
    assert_eq!(ask(Method::GET, "/healthz", None).await?, (200, "ok".to_owned()));
    let workload = Some(json!({"image": "shop:1", "copies": 3}));
    assert_eq!(ask(Method::PUT, "/workloads/shop", workload).await?.0, 201);
    let ready = async {
        loop {
            let (_, answer) = ask(Method::GET, "/workloads/shop", None).await?;
            if serde_json::from_str::<Value>(&answer)?["ready"] == 3 {
                return Ok::<_, Failure>(());
            }
            env.sleep(Duration::from_millis(100)).await;
        }
    };
    env.timeout(Duration::from_secs(30), ready).await??;
    let refused = ask(Method::PUT, "/workloads/Not%20A%20Name", Some(json!({"image": "x", "copies": 1}))).await?;
    assert_eq!(refused.0, 422);
    assert_eq!(ask(Method::DELETE, "/workloads/shop", None).await?.0, 204);
    assert_eq!(ask(Method::GET, "/workloads/shop", None).await?.0, 404);
    Ok(())
}

async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<(u16, String), Failure> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let body = body.map_or_else(String::new, |body| body.to_string());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body)))?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((code, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let (answer, _) = futures::join!(answer, connection);
    Ok(answer?)
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    futures::future::select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    Ok(())
}
