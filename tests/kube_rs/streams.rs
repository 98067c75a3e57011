//! Logs, exec and attach against a simulated node.

use std::{sync::Arc, time::Duration};

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, AttachedProcess, LogParams, PostParams, TerminalSize},
    runtime::wait,
};
use orchestrator::{
    Cluster, NodeSpec,
    env::Env,
    runtime_sim::{ExecAnswer, MachineConfig, Matcher, PortAnswer, Script, SimMachine},
};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{Door, Reached, soon};

through_both_doors! {
    logs_are_read_and_followed,
    commands_run_with_their_streams_and_their_exit_code,
    terminals_have_a_size_and_attach_joins_what_runs,
    commands_in_what_does_not_run_are_refused,
    ports_are_forwarded,
}

/// A cluster of one simulated node with one running pod, `talker`.
async fn stage(door: Door) -> (Reached, Api<Pod>) {
    let env = Env::real();
    let machine = SimMachine::new(&env, MachineConfig::default());
    let script = Script {
        log_every: Some((Duration::from_millis(50), "tick".to_owned())),
        ..Script::forever()
            .prints("first line")
            .prints("second line")
            .listens(7, PortAnswer::Echo)
            .answers(&["cat"], ExecAnswer { echo: true, ..ExecAnswer::default() })
            .answers(
                &["fails"],
                ExecAnswer { stdout: "out".into(), stderr: "err".into(), exit_code: 3, ..ExecAnswer::default() },
            )
    };
    machine.script(Matcher::Any, script);
    let node = NodeSpec::new("node-1", Arc::new(machine.runtime()));
    let cluster = Reached::start(door, Cluster::builder().env(&env).node(node)).await;
    let api: Api<Pod> = Api::default_namespaced(cluster.kube_client());
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "talker"},
        "spec": {"containers": [{"name": "main", "image": "talker"}], "terminationGracePeriodSeconds": 0}
    }));
    api.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
    let running = wait::await_condition(api.clone(), "talker", wait::conditions::is_pod_running());
    soon("the pod runs", running).await.unwrap();
    (cluster, api)
}

async fn logs_are_read_and_followed(door: Door) {
    let (cluster, api) = stage(door).await;
    let head = LogParams { limit_bytes: Some(22), ..LogParams::default() };
    assert_eq!(api.logs("talker", &head).await.unwrap(), "first line\nsecond line");
    let follow = LogParams { follow: true, container: Some("main".to_owned()), ..LogParams::default() };
    let mut lines = api.log_stream("talker", &follow).await.unwrap().lines();
    let mut read = Vec::new();
    while read.len() < 5 {
        read.push(soon("a line", lines.try_next()).await.unwrap().expect("the log goes on"));
    }
    assert_eq!(read, ["first line", "second line", "tick", "tick", "tick"]);
    let unknown = LogParams { container: Some("other".to_owned()), ..LogParams::default() };
    let kube::Error::Api(status) = api.logs("talker", &unknown).await.unwrap_err() else { panic!("no status") };
    assert_eq!(status.code, 400, "{}", status.message);
    cluster.shutdown().await;
    soon("the stream ends with the cluster", async { while let Ok(Some(_)) = lines.try_next().await {} }).await;
}

async fn commands_run_with_their_streams_and_their_exit_code(door: Door) {
    let (cluster, api) = stage(door).await;
    let mut process = api.exec("talker", ["fails"], &AttachParams::default().stderr(true)).await.unwrap();
    assert_eq!(read(process.stdout()).await, "out");
    assert_eq!(read(process.stderr()).await, "err");
    let status = soon("the status", process.take_status().unwrap()).await.unwrap();
    assert_eq!((status.status.as_deref(), status.reason.as_deref()), (Some("Failure"), Some("NonZeroExitCode")));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("3"));
    soon("the end", process.join()).await.unwrap();

    let mut process = api.exec("talker", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"there and back").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    assert_eq!(read(process.stdout()).await, "there and back");
    let status = soon("the status", process.take_status().unwrap()).await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));
    cluster.shutdown().await;
}

async fn terminals_have_a_size_and_attach_joins_what_runs(door: Door) {
    let (cluster, api) = stage(door).await;
    let parameters = AttachParams::interactive_tty();
    let mut process = api.exec("talker", ["cat"], &parameters).await.unwrap();
    let mut sizes = process.terminal_size().unwrap();
    futures::SinkExt::send(&mut sizes, TerminalSize { width: 80, height: 24 }).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"typed").await.unwrap();
    let mut typed = [0; 5];
    soon("the echo", process.stdout().unwrap().read_exact(&mut typed)).await.unwrap();
    assert_eq!(&typed, b"typed");
    process.abort();

    let mut attached = api.attach("talker", &AttachParams::default().stderr(false)).await.unwrap();
    let mut tick = [0; 5];
    soon("output", attached.stdout().unwrap().read_exact(&mut tick)).await.unwrap();
    assert_eq!(&tick, b"tick\n");
    cluster.shutdown().await;
    soon("the session ends with the cluster", ended(attached)).await;
}

async fn commands_in_what_does_not_run_are_refused(door: Door) {
    let (cluster, api) = stage(door).await;
    for (pod, container) in [("none", "main"), ("talker", "other")] {
        let parameters = AttachParams::default().container(container);
        assert!(soon("the answer", api.exec(pod, ["cat"], &parameters)).await.is_err(), "{pod}/{container}");
    }
    cluster.shutdown().await;
}

async fn ports_are_forwarded(door: Door) {
    let (cluster, api) = stage(door).await;
    let mut forwarder = soon("the forwarder", api.portforward("talker", &[7, 9])).await.unwrap();
    let mut echo = forwarder.take_stream(7).unwrap();
    let large: Vec<u8> = (0..300_000_u32).map(|index| index as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut echo);
    let mut back = vec![0; large.len()];
    let (written, read) =
        soon("all of it", futures::future::join(writer.write_all(&large), reader.read_exact(&mut back))).await;
    written.unwrap();
    read.unwrap();
    assert_eq!(back, large);
    let refused = soon("the refusal", forwarder.take_error(9).unwrap()).await.unwrap();
    assert!(refused.contains('9'), "nobody listens there: {refused}");
    drop(echo);
    forwarder.abort();
    assert!(api.portforward("nobody", &[7]).await.is_err());
    cluster.shutdown().await;
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = String::new();
    soon("the whole stream", stream.unwrap().read_to_string(&mut text)).await.unwrap();
    text
}

/// Whatever the end looks like: it comes.
async fn ended(process: AttachedProcess) {
    let _ = process.join().await;
}
