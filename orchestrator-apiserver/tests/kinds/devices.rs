//! Who may ask for administrators' access to devices.

use serde_json::{Value, json};

use super::support::Api;

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
const TEMPLATES: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates";
const WHY: &str = "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the \
                   containing namespace";

fn claim(name: &str, admin: bool) -> Value {
    let exactly = json!({"deviceClassName": "class", "adminAccess": admin});
    json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}})
}

#[tokio::test]
async fn administrators_access_needs_a_labelled_namespace() {
    let api = Api::start().await;
    let refused =
        format!("ResourceClaim.resource.k8s.io \"a\" is invalid: spec.devices.requests[0].adminAccess: {WHY}");
    api.post(CLAIMS, &claim("a", true)).await.assert_refused(422, &refused);
    let template = json!({"metadata": {"name": "a"}, "spec": {"spec": claim("a", true)["spec"]}});
    let refused =
        format!("ResourceClaimTemplate.resource.k8s.io \"a\" is invalid: spec.devices.requests[0].adminAccess: {WHY}");
    api.post(TEMPLATES, &template).await.assert_refused(422, &refused);

    // Nor is it given by a status.
    api.post(CLAIMS, &claim("b", false)).await.object();
    let result = json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": "d", "adminAccess": true});
    let status = json!({"status": {"allocation": {"devices": {"results": [result]}}}});
    let path = format!("{CLAIMS}/b/status");
    let refused = format!(
        "ResourceClaim.resource.k8s.io \"b\" is invalid: status.allocation.devices.results[0].adminAccess: {WHY}"
    );
    api.merge(&path, &status).await.assert_refused(422, &refused);

    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    api.merge("/api/v1/namespaces/default", &label).await.object();
    api.post(CLAIMS, &claim("a", true)).await.object();
    api.post(TEMPLATES, &template).await.object();
    api.merge(&path, &status).await.object();
}
