//! Quotas: what is written beyond them is refused, whoever else writes at the same time.

use serde_json::{Value, json};

use crate::support::Api;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A server with a quota of which this much is used, as the controller would have counted.
async fn start(hard: Value, used: Value) -> Api {
    let api = Api::start().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    api.post(QUOTAS, &quota).await.object();
    api.merge(&format!("{QUOTAS}/q/status"), &json!({"status": {"hard": hard, "used": used}})).await.object();
    api
}

async fn used(api: &Api) -> Value {
    api.get(&format!("{QUOTAS}/q")).await.object()["status"]["used"].clone()
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}

#[tokio::test]
async fn what_is_beyond_is_refused() {
    let api = start(json!({"pods": "2"}), json!({"pods": "1"})).await;
    api.post(&format!("{PODS}?dryRun=All"), &pod("a")).await.object();
    assert_eq!(used(&api).await, json!({"pods": "1"}));
    api.post(PODS, &pod("a")).await.object();
    assert_eq!(used(&api).await, json!({"pods": "2"}));
    // Who is there already costs nothing, and is no matter of quotas.
    assert_eq!(api.post(PODS, &pod("a")).await.code, 409);
    let why = "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
    api.post(PODS, &pod("b")).await.assert_refused(403, why);
    // Another namespace has quotas of its own.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    api.post("/api/v1/namespaces", &namespace).await.object();
    api.post("/api/v1/namespaces/other/pods", &pod("b")).await.object();
}

#[tokio::test]
async fn many_at_once_do_not_exceed_it_together() {
    let api = start(json!({"pods": "3"}), json!({"pods": "0"})).await;
    let names: Vec<String> = (0..12).map(|number| format!("pod-{number}")).collect();
    let pods: Vec<Value> = names.iter().map(|name| pod(name)).collect();
    let answers = futures::future::join_all(pods.iter().map(|pod| api.post(PODS, pod))).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 201).count(), 3);
    assert!(answers.iter().all(|answer| matches!(answer.code, 201 | 403 | 409)));
    assert_eq!(used(&api).await, json!({"pods": "3"}));
}

#[tokio::test]
async fn a_change_costs_what_it_adds() {
    let hard = json!({"services": "5", "services.nodeports": "1"});
    let api = start(hard, json!({"services": "0", "services.nodeports": "0"})).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"name": "a", "port": 1}]},
    });
    api.post(SERVICES, &service).await.object();
    assert_eq!(used(&api).await, json!({"services": "1", "services.nodeports": "1"}));
    let more = json!({"spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    let why = "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, \
               limited: services.nodeports=1";
    api.merge(&format!("{SERVICES}/s"), &more).await.assert_refused(403, why);
    api.merge(&format!("{SERVICES}/s"), &json!({"metadata": {"labels": {"a": "b"}}})).await.object();
    assert_eq!(used(&api).await, json!({"services": "1", "services.nodeports": "1"}));
}

#[tokio::test]
async fn any_kind_has_a_number() {
    let api = start(json!({"count/deployments.apps": "0", "configmaps": "1"}), json!({})).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    let why = "configmaps \"m\" is forbidden: status unknown for quota: q, resources: configmaps";
    api.post(maps, &map).await.assert_refused(403, why);
    let counted = json!({"status": {"used": {"configmaps": "0", "count/deployments.apps": "0"}}});
    api.merge(&format!("{QUOTAS}/q/status"), &counted).await.object();
    api.post(maps, &map).await.object();
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let why = "deployments.apps \"d\" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, used: \
               count/deployments.apps=0, limited: count/deployments.apps=0";
    api.post("/apis/apps/v1/namespaces/default/deployments", &deployment).await.assert_refused(403, why);
}
