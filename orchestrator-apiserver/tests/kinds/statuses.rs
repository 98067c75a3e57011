//! The status of objects, as whoever writes it sees the server's rules.

use serde_json::{Value, json};

use crate::support::Api;

const PODS: &str = "/api/v1/namespaces/default/pods";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

async fn pod(api: &Api, spec: Value) {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    api.post(PODS, &pod).await.object();
}

#[tokio::test]
async fn addresses_of_a_pod_agree() {
    let api = Api::start().await;
    pod(&api, json!({})).await;
    let path = format!("{PODS}/p/status");
    let written = api.merge(&path, &json!({"status": {"podIP": "10.0.0.1"}})).await.object();
    assert_eq!(written["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
    let two = json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}});
    let refused = api.merge(&path, &two).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(refused.message().contains("may specify no more than one IP for each IP family"), "{}", refused.message());
    // Who does not say the class keeps it; who says another one is refused.
    assert_eq!(written["status"]["qosClass"], "Burstable");
    let class = api.merge(&path, &json!({"status": {"qosClass": null}})).await.object();
    assert_eq!(class["status"]["qosClass"], "Burstable");
    let why = "Pod \"p\" is invalid: status.qosClass: Invalid value: \"Guaranteed\": field is immutable";
    api.merge(&path, &json!({"status": {"qosClass": "Guaranteed"}})).await.assert_refused(422, why);
}

#[tokio::test]
async fn a_pod_that_is_not_started_again_stays_ended() {
    let api = Api::start().await;
    pod(&api, json!({"restartPolicy": "Never"})).await;
    let path = format!("{PODS}/p/status");
    let state = |state: Value| {
        json!({"status": {"containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]}})
    };
    api.merge(&path, &state(json!({"terminated": {"exitCode": 1}}))).await.object();
    let why = "Pod \"p\" is invalid: status.containerStatuses[0].state: Forbidden: may not be transitioned to \
               non-terminated state";
    api.merge(&path, &state(json!({"running": {}}))).await.assert_refused(422, why);
}

#[tokio::test]
async fn a_resize_changes_amounts_only() {
    let api = Api::start().await;
    pod(&api, json!({})).await;
    let path = format!("{PODS}/p/resize");
    let resources =
        |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources, "image": "i"}]}});
    let resized = api.merge(&path, &resources(json!({"requests": {"cpu": "2"}}))).await.object();
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    let refused = api.merge(&path, &resources(json!({"requests": {"memory": "1Gi"}}))).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(refused.message().contains("resource requests cannot be removed"), "{}", refused.message());
}

#[tokio::test]
async fn a_job_ends_in_order() {
    let api = Api::start().await;
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    });
    api.post(JOBS, &job).await.object();
    let path = format!("{JOBS}/j/status");
    let hasty = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let refused = api.merge(&path, &hasty).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    for why in [
        "status.completionTime: Required value: completionTime is required for Complete jobs",
        "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        "status.startTime: Required value: startTime is required for finished job",
    ] {
        assert!(refused.message().contains(why), "{why}: {}", refused.message());
    }
    let whole = json!({"status": {
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z", "succeeded": 1,
        "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}],
    }});
    api.merge(&path, &whole).await.object();
    let less = api.merge(&path, &json!({"status": {"succeeded": 0}})).await;
    assert!(less.message().contains("cannot decrease the succeeded counter"), "{}", less.message());
}
