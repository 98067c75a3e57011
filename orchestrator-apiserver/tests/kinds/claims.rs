//! Claims of volumes grow where their class lets them.

use serde_json::{Value, json};

use super::support::Api;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const UNSUITABLE: &str = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and \
                          the storageclass that provisions the pvc must support resize";

fn size(size: &str) -> Value {
    json!({"spec": {"resources": {"requests": {"storage": size}}}})
}

#[tokio::test]
async fn a_claim_grows_when_it_is_bound_and_its_class_can() {
    let api = Api::start().await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {
        "storageClassName": "s", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    api.post(CLAIMS, &claim).await.object();
    let path = format!("{CLAIMS}/c");
    // A claim that is not bound breaks a rule of its own.
    assert_eq!(api.merge(&path, &size("2Gi")).await.code, 422);

    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    api.merge(&format!("{path}/status"), &bound).await.object();
    // The class is not there, cannot, and can.
    api.merge(&path, &size("2Gi")).await.assert_refused(403, UNSUITABLE);
    api.post(CLASSES, &json!({"metadata": {"name": "s"}, "provisioner": "p"})).await.object();
    api.merge(&path, &size("2Gi")).await.assert_refused(403, UNSUITABLE);
    api.merge(&format!("{CLASSES}/s"), &json!({"allowVolumeExpansion": true})).await.object();
    let grown = api.merge(&path, &size("2Gi")).await.object();
    assert_eq!(grown["spec"]["resources"]["requests"]["storage"], "2Gi");
}
