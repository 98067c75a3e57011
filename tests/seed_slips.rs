//! The manifests of the course exactly as it prints them, slips included: `kubectl` is told what Kubernetes tells it.

#[path = "support/kubectl.rs"]
mod kubectl;

#[path = "support/served.rs"]
mod served;

use kubectl::{Kubectl, file};
use served::Served;

/// A cluster without nodes, behind a loopback port.
struct Stage {
    served: Served,
    kubectl: Kubectl,
}

impl Stage {
    fn new(name: &str) -> Self {
        let served = Served::start(&format!("seed-{name}"), None);
        let kubectl = Kubectl::new(&served.kubeconfig, served.directory.join("home"));
        // The first request of all may come before the account that its objects belong to.
        kubectl.ok("wait --for=create serviceaccount/default --timeout=30s");
        Self { served, kubectl }
    }
}

#[test]
fn a_service_with_types() {
    let stage = Stage::new("service");
    let manifest = file("tests/seed/service-definition.yaml");
    stage.kubectl.fails(
        &format!("create -f {manifest}"),
        &format!(
            "Error from server (BadRequest): error when creating \"{manifest}\": Service in version \"v1\" cannot be \
             handled as a Service: strict decoding error: unknown field \"spec.types\""
        ),
    );
    // Without the field it is a Service inside of the cluster, which has no port on nodes.
    stage.kubectl.fails(
        &format!("create --validate=ignore -f {manifest}"),
        "The Service \"myapp-service\" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when `type` is \
         'ClusterIP'",
    );
    assert_nothing_made(&stage, "service", "kubernetes");
}

#[test]
fn a_service_with_types_and_a_warning() {
    let stage = Stage::new("warning");
    let manifest = file("tests/seed/service-definition.yaml");
    let answer = stage.kubectl.run(&format!("create --validate=warn -f {manifest}"));
    assert_eq!(
        answer.stderr,
        "Warning: unknown field \"spec.types\"\nThe Service \"myapp-service\" is invalid: spec.ports[0].nodePort: \
         Forbidden: may not be used when `type` is 'ClusterIP'\n"
    );
    assert_eq!(answer.code, 1);
}

#[test]
fn a_replica_set_out_of_place() {
    let stage = Stage::new("replicaset");
    let manifest = file("tests/seed/replicaset-definition.yaml");
    // The second `spec` takes the place of the first one, so that `replicas` and `selector` are gone.
    stage.kubectl.fails(
        &format!("create -f {manifest}"),
        &format!(
            "Error from server (BadRequest): error when creating \"{manifest}\": ReplicaSet in version \"v1\" cannot be \
             handled as a ReplicaSet: strict decoding error: unknown field \"matchLabels\", unknown field \
             \"spec.containers\", unknown field \"template\""
        ),
    );
    stage.kubectl.fails(
        &format!("create --validate=ignore -f {manifest}"),
        "The ReplicaSet \"high-available-hello\" is invalid: \n* spec.selector: Required value\n* \
         spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`\n* \
         spec.template.spec.containers: Required value",
    );
    assert_nothing_made(&stage, "replicaset", "");
}

#[test]
fn a_stateful_set_of_a_version_that_is_gone() {
    let stage = Stage::new("statefulset");
    let manifest = file("tests/seed/statefulset-definition.yaml");
    let gone = format!(
        "error: resource mapping not found for name: \"my-first-statefulset\" namespace: \"\" from \"{manifest}\": no \
         matches for kind \"StatefulSet\" in version \"apps/v1beta2\"\nensure CRDs are installed first"
    );
    for command in ["create", "create --validate=ignore", "apply"] {
        stage.kubectl.fails(&format!("{command} -f {manifest}"), &gone);
    }
    // With the version of today, the claim's `spec` is still a field of the set.
    let today = stage.served.directory.join("today.yaml");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("apps/v1beta2", "apps/v1");
    std::fs::write(&today, text).unwrap();
    let today = today.display();
    stage.kubectl.fails(
        &format!("create -f {today}"),
        &format!(
            "Error from server (BadRequest): error when creating \"{today}\": StatefulSet in version \"v1\" cannot be \
             handled as a StatefulSet: strict decoding error: unknown field \"spec.spec\""
        ),
    );
    assert_nothing_made(&stage, "statefulset", "");
}

#[test]
fn what_the_course_prints_well_is_taken() {
    let stage = Stage::new("good");
    for (name, made) in [
        ("pod-busybox", "pod/my-first-pod"),
        ("deployment-definition", "deployment.apps/my-first-deployment"),
        ("pod-definition", "pod/myapp-pod"),
        ("namespace-dev", "namespace/dev"),
    ] {
        let manifest = file(&format!("tests/seed/{name}.yaml"));
        stage.kubectl.says(&format!("create -f {manifest}"), &format!("{made} created"));
    }
    stage.kubectl.ok("wait --for=create serviceaccount/default --namespace=dev --timeout=30s");
    let manifest = file("tests/seed/pod-definition-dev.yaml");
    stage.kubectl.says(&format!("create -f {manifest}"), "pod/myapp-pod created");
    stage.kubectl.says("get pods --namespace=dev -o name", "pod/myapp-pod");
}

/// There is nothing of this kind but what was there from the start.
#[track_caller]
fn assert_nothing_made(stage: &Stage, kind: &str, names: &str) {
    let output = stage.kubectl.ok(&format!("get {kind} -o 'jsonpath={{.items[*].metadata.name}}'"));
    assert_eq!(output, names);
}
