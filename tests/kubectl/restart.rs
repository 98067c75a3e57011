//! A cluster that ends without its containers, and one that begins with them.

use libtest_mimic::Trial;

use crate::stage::{Stage, with_restarted_cluster};

pub(crate) fn trials() -> Vec<Trial> {
    let name = "containers_outlive_the_cluster_and_are_found_again";
    vec![Trial::test(name, || with_restarted_cluster(name, before, afterwards))]
}

/// Pods that stay, one that is not wanted any more when the cluster is back, and one that ends meanwhile.
fn before(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok("create deployment web --image=nginx --replicas=2");
    kubectl.ok("run kept --image=busybox --command -- sh -c 'echo begun; sleep 3600'");
    kubectl.ok("run ending --image=busybox --restart=Never --command -- sh -c 'sleep 3; exit 4'");
    kubectl.ok("wait --for=condition=Ready pod --all --timeout=60s");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("exec kept -- sh -c 'echo here > /tmp/mark'");
}

fn afterwards(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok("wait --for=condition=Ready pod/kept --timeout=60s");
    // The very same container: its files, its log, no restart.
    assert_eq!(kubectl.ok("exec kept -- cat /tmp/mark"), "here\n");
    assert_eq!(kubectl.ok("logs kept"), "begun\n");
    let restarts = "get pods -o jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    assert_eq!(kubectl.ok(restarts), "0 0 0 0");
    // What ended while nobody looked is told truthfully.
    kubectl.ok("wait --for=jsonpath={.status.phase}=Failed pod/ending --timeout=60s");
    let code = "get pod ending -o jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(kubectl.ok(code), "4");
    // And the controllers carry on where they were.
    kubectl.ok("scale deployment web --replicas=1");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("wait --for=jsonpath={.status.replicas}=1 deployment/web --timeout=60s");
    kubectl.ok("delete pod kept --grace-period=1");
}
