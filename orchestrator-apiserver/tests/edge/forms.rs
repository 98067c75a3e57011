//! In which forms answers come, and what the server says of its own place.

use std::{net::SocketAddr, sync::Arc};

use http::Request;
use http_body_util::{BodyExt, Full};
use orchestrator_apiserver::{
    ApiServer,
    http::{CertificateAuthority, Endpoint, HttpService},
};
use orchestrator_core::{client::UserInfo, env::Env, yaml};
use orchestrator_store_mem::MemStore;
use serde_json::{Value, json};
use tower_service::Service;

use crate::support::{Api, run};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn accepting(api: &Api, accept: &str, path: &str) -> (u16, String) {
    let request = Request::get(path).header("accept", accept).body(Full::<bytes::Bytes>::default()).unwrap();
    let response = HttpService::new(&api.server, UserInfo::admin()).call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    (parts.status.as_u16(), text)
}

#[test]
fn lists_in_yaml_say_what_lists_in_json_say() {
    run(async |api| {
        let (_, empty) = accepting(&api, "application/yaml", MAPS).await;
        assert!(empty.starts_with("apiVersion: v1\nitems: []\nkind: ConfigMapList\nmetadata:\n"), "{empty}");
        for index in 0..20 {
            let text = "line\n".repeat(2_000);
            let map = json!({"metadata": {"name": format!("m{index}")}, "data": {"yes": "0644", "text": text}});
            assert_eq!(api.send(UserInfo::admin(), "POST", MAPS, &map.to_string()).await.code, 201);
        }
        for view in ["", ";as=Table;v=v1;g=meta.k8s.io", ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"] {
            let (code, json) = accepting(&api, &format!("application/json{view}"), MAPS).await;
            assert_eq!(code, 200);
            let (code, text) = accepting(&api, &format!("application/yaml{view}"), MAPS).await;
            assert_eq!(code, 200);
            assert_eq!(yaml::parse(&text).unwrap(), serde_json::from_str::<Value>(&json).unwrap(), "{view}");
        }
        let (code, refused) = accepting(&api, "application/yaml", &format!("{MAPS}?watch=true")).await;
        assert_eq!(code, 406, "{refused}");
    });
}

#[test]
fn a_stream_of_a_log_is_not_chosen() {
    run(async |api| {
        let answer = api.get("/api/v1/namespaces/default/pods/p/log?stream=Stdout&tailLines=-1").await;
        assert_eq!(answer.code, 422);
        let words =
            "tailLines: Invalid value: -1: must be greater than or equal to 0, stream: Forbidden: may not be specified";
        assert!(answer.text.contains(words), "{}", answer.text);
    });
}

#[test]
fn schemas_name_the_values_of_fields() {
    run(async |api| {
        let document: Value = serde_json::from_str(&api.get("/openapi/v3/api/v1").await.text).unwrap();
        let schemas = &document["components"]["schemas"];
        let policy = &schemas["io.k8s.api.core.v1.Container"]["properties"]["imagePullPolicy"];
        assert_eq!(policy["enum"], json!(["Always", "IfNotPresent", "Never"]));
        let description = policy["description"].as_str().unwrap();
        assert!(
            description.ends_with("\n\nPossible enum values:\n - `\"Always\"`\n - `\"IfNotPresent\"`\n - `\"Never\"`")
        );
        let modes = &schemas["io.k8s.api.core.v1.PersistentVolumeClaimSpec"]["properties"]["accessModes"];
        assert_eq!((&modes["enum"], &modes["items"]["enum"][0]), (&Value::Null, &json!("ReadOnlyMany")));
        let document: Value = serde_json::from_str(&api.get("/openapi/v2").await.text).unwrap();
        let policy = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["restartPolicy"];
        assert_eq!(policy["enum"], json!(["Always", "Never", "OnFailure"]));
    });
}

async fn named_address(server: &ApiServer) -> String {
    let request = Request::get("/api").body(Full::<bytes::Bytes>::default()).unwrap();
    let response = HttpService::new(server, UserInfo::admin()).call(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let versions: Value = serde_json::from_slice(&body).unwrap();
    versions["serverAddressByClientCIDRs"][0]["serverAddress"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_server_is_where_it_listens() {
    let env = Env::real();
    let server = ApiServer::builder(&env, Arc::new(MemStore::new(&env))).build().await.unwrap();
    assert_eq!(named_address(&server).await, "127.0.0.1:443");
    let authority = CertificateAuthority::generate().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let certificate = authority.issue_server(&["localhost"], &[any.ip()]).unwrap();
    let endpoint = Endpoint::start(&env, &server, any, &authority, &certificate).await.unwrap();
    assert_eq!(named_address(&server).await, endpoint.address().to_string());
    endpoint.shutdown().await;
}
