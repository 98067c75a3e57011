//! What bodies and parameters may not be.

use serde_json::json;

use super::support::{Api, JSON, THINGS};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_time_limit_is_a_duration() {
    let api = Api::start().await;
    assert_eq!(api.get(&format!("{MAPS}?timeout=1m30s")).await.code, 200);
    api.get(&format!("{MAPS}?timeout=soon"))
        .await
        .assert_refused(400, "invalid timeout specified in the request URL - time: invalid duration \"soon\"");
}

#[tokio::test]
async fn times_are_times() {
    let api = Api::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |time: &str| json!({"metadata": {"name": "a"}, "spec": {"renewTime": time}});
    api.post(leases, &lease("2026-01-01T00:00:00Z")).await.assert_refused(
        400,
        "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"2026-01-01T00:00:00Z\" as \
         \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\"",
    );
    let created = api.post(leases, &lease("2026-01-01T01:00:00.000001+01:00")).await.object();
    assert_eq!(created["spec"]["renewTime"], "2026-01-01T00:00:00.000001Z");
    let patch = json!({"spec": {"renewTime": "never"}});
    let strategic = "application/strategic-merge-patch+json";
    let refused = api.send("PATCH", &format!("{leases}/a"), strategic, patch.to_string()).await;
    refused.assert_refused(
        422,
        " \"\" is invalid: patch: Invalid value: \"map[spec:map[renewTime:never]]\": parsing time \"never\" as \
         \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"never\" as \"2006\"",
    );
}

#[tokio::test]
async fn custom_objects_are_not_read_from_protobuf() {
    let api = Api::start().await;
    api.define(json!({"type": "object"}), json!({})).await.object();
    let protobuf = "application/vnd.kubernetes.protobuf";
    api.send("POST", THINGS, protobuf, "k8s\0").await.assert_refused(
        400,
        "Thing in version \"v1\" cannot be handled as a Thing: object *unstructured.Unstructured does not implement the \
         protobuf marshalling interface and cannot be encoded to a protobuf message",
    );
    assert_eq!(api.send("POST", THINGS, "application/cbor", "x").await.code, 415);
}

#[tokio::test]
async fn a_json_patch_leaves_an_object() {
    let api = Api::start().await;
    api.post(MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.object();
    let patch = async |operations: &str| {
        api.send("PATCH", &format!("{MAPS}/a"), "application/json-patch+json", operations.to_owned()).await
    };
    let list = patch("[{\"op\":\"replace\",\"path\":\"\",\"value\":[1]}]").await;
    assert_eq!(list.code, 422);
    assert!(list.message().contains("patch: Invalid value: \"[1]\": couldn't get version/kind; json parse error: "));
    assert!(list.message().contains("json: cannot unmarshal array into Go value of type struct"));
    // A value that is neither is passed over.
    assert_eq!(patch("[{\"op\":\"replace\",\"path\":\"\",\"value\":1}]").await.object()["data"]["k"], "v");
    assert_eq!(patch("[{\"op\":\"remove\",\"path\":\"\"}]").await.code, 422);
}

#[tokio::test]
async fn repeated_keys_of_yaml_count_once_and_strict_callers_refuse_them() {
    let api = Api::start().await;
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: one\n  k: two\n";
    let path = format!("{MAPS}/a?fieldManager=m");
    let apply = async |path: &str| api.send("PATCH", path, "application/apply-patch+yaml", map).await;
    apply(&format!("{path}&fieldValidation=Strict")).await.assert_refused(
        400,
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"k\" already \
         set in map",
    );
    let applied = apply(&format!("{path}&fieldValidation=Warn")).await;
    assert_eq!((applied.warnings.len(), &applied.object()["data"]["k"]), (0, &json!("two")));
    let map = "metadata: {name: b, name: c}\n";
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let refused = api.send("POST", &strict, "application/yaml", map).await;
    assert!(refused.message().contains("line 1: key \"name\" already set in map"), "{}", refused.body);
    assert_eq!(api.send("POST", MAPS, "application/yaml", map).await.object()["metadata"]["name"], "c");
    let refused = api.send("POST", &strict, JSON, "{\"metadata\":{\"name\":\"d\",\"name\":\"e\"}}").await;
    assert!(refused.message().contains("duplicate field \"metadata.name\""), "{}", refused.body);
}

#[tokio::test]
async fn an_update_makes_objects_of_some_kinds() {
    let api = Api::start().await;
    let named = json!({"metadata": {"name": "a"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let put = api.put(&format!("{leases}/a"), &named).await;
    assert_eq!(put.code, 201, "{}", put.body);
    // A lease that is there is changed only by those who know its version.
    assert_eq!(api.put(&format!("{leases}/a"), &named).await.code, 422);
    assert_eq!(api.put(&format!("{MAPS}/a"), &named).await.code, 404);
    assert_eq!(api.put(&format!("{leases}/b"), &named).await.code, 400);
}
