//! A cluster that ends without its containers, and one that begins with them; clusters that end in mid-work.

use libtest_mimic::Trial;

use crate::{
    Test,
    stage::{Stage, processes_of, with_cluster, with_restarted_cluster},
};

/// In which state a cluster is taken down; that nothing is left is for the stage to see.
const ENDS: &[(&str, Test)] =
    &[("a_starting_cluster_ends", starting), ("a_busy_cluster_ends", busy), ("a_half_dead_cluster_ends", half_dead)];

pub(crate) fn trials() -> Vec<Trial> {
    let name = "containers_outlive_the_cluster_and_are_found_again";
    let restart = Trial::test(name, || with_restarted_cluster(name, before, afterwards));
    let ends = ENDS.iter().map(|&(name, test)| Trial::test(name, move || with_cluster(name, test)));
    ends.chain([restart]).collect()
}

/// Pods are asked for, and nobody waits.
fn starting(stage: &Stage) {
    stage.kubectl.ok("create deployment web --image=nginx --replicas=6");
}

/// A rollout, pods that come, go, fail again and again, and do not listen to their end.
fn busy(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok("create deployment web --image=nginx --replicas=4");
    kubectl.ok("run deaf --image=busybox --command -- sh -c 'trap : TERM; while true; do sleep 0.1; done'");
    kubectl.ok("run failing --image=busybox --command -- sh -c 'exit 3'");
    kubectl.ok("run missing --image=nowhere/nothing:1");
    kubectl.ok("wait --for=condition=Ready pod/deaf --timeout=60s");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("set image deployment/web nginx=nginx:2");
    kubectl.ok("scale deployment web --replicas=6");
    kubectl.ok("delete pod deaf --grace-period=60 --wait=false");
}

/// What runs the containers of one pod has been killed, and the other's containers as well.
fn half_dead(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok("create deployment web --image=nginx --replicas=2");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    let mut killed = 0;
    for process in processes_of(&stage.cgroup) {
        let number = process.split_whitespace().next().and_then(|path| path.strip_prefix("/proc/")).unwrap();
        killed += usize::from(std::process::Command::new("kill").args(["-KILL", number]).status().unwrap().success());
    }
    assert!(killed >= 2, "{killed} processes were there to be killed");
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
