//! Nodes come with what their agents know of them.

use serde_json::json;

use super::support::Api;

const NODES: &str = "/api/v1/nodes";

#[tokio::test]
async fn a_new_node_keeps_its_status() {
    let api = Api::start().await;
    let node = json!({
        "metadata": {"name": "n"},
        "spec": {"configSource": {"configMap": {"name": "c", "namespace": "kube-system", "kubeletConfigKey": "k"}}},
        "status": {
            "capacity": {"cpu": "4", "pods": "110"}, "config": {"error": "none"},
            "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.2"},
        },
    });
    let created = api.post(NODES, &node).await.object();
    let status = &created["status"];
    assert_eq!((&status["capacity"]["cpu"], &status["allocatable"]), (&json!("4"), &status["capacity"]));
    assert_eq!(status["conditions"][0]["type"], "Ready");
    assert_eq!(status["nodeInfo"]["kubeletVersion"], "v1.36.2");
    assert_eq!(status["nodeInfo"]["osImage"], "");
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 0);
    assert_eq!((&status["config"], &created["spec"]["configSource"]), (&json!(null), &json!(null)));
    // Afterwards the status has an endpoint of its own.
    let changed = api.merge(&format!("{NODES}/n"), &json!({"status": {"capacity": {"cpu": "5"}}})).await.object();
    assert_eq!(changed["status"]["capacity"]["cpu"], "4");
}
