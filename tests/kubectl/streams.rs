//! What goes on for a while: `logs -f`, `get -w`, `wait`.

use crate::{Test, stage::Stage, support::file};

pub(crate) const TESTS: &[(&str, Test)] = &[("logs", logs), ("watching", watching), ("failing", failing)];

/// Creates a pod that runs a line of shell.
fn pod(stage: &Stage, name: &str, line: &str, more: &str) {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 1, {more} containers: \
         [{{name: main, image: busybox, command: [sh, -c, '{line}']}}]}}\n"
    );
    let answer = stage.kubectl.run_with("create -f -", &manifest);
    assert_eq!(answer.stdout, format!("pod/{name} created\n"), "{answer:#?}");
}

fn logs(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; echo problem >&2; sleep 2";
    pod(stage, "talker", script, "restartPolicy: Never,");
    kubectl.ok("wait --for=jsonpath={.status.containerStatuses[0].state.running.startedAt} pod/talker --timeout=60s");
    // It ends by itself when the container has ended, with all that it said.
    assert_eq!(kubectl.ok("logs -f talker"), "line 1\nline 2\nline 3\nproblem\n");
    kubectl.ok("wait --for=jsonpath={.status.phase}=Succeeded pod/talker --timeout=60s");
    assert_eq!(kubectl.table("get pod talker")[0]["STATUS"], "Completed");
    assert_eq!(kubectl.ok("logs --tail=2 talker"), "line 3\nproblem\n");
    let stamped = kubectl.ok("logs --timestamps --tail=1 talker");
    assert!(stamped.contains("T") && stamped.ends_with("Z problem\n"), "{stamped}");
    // A container that goes on is followed as long as one likes.
    pod(stage, "endless", "n=0; while true; do n=$((n+1)); echo turn $n; sleep 0.1; done", "");
    kubectl.ok("wait --for=condition=Ready pod/endless --timeout=60s");
    let seen = kubectl.follow("logs -f endless", |line| line == "turn 5");
    assert_eq!(seen, ["turn 1", "turn 2", "turn 3", "turn 4", "turn 5"]);
    kubectl.fails(
        "logs nobody",
        "error: error from server (NotFound): pods \"nobody\" not found in namespace \"default\"",
    );
    kubectl.fails("logs endless -c other", "error: container other is not valid for pod endless");
    // The log of the container before the last restart.
    let manifest = "apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: main
    image: busybox
    volumeMounts: [{name: data, mountPath: /data}]
    command:
    - sh
    - -c
    - if [ -e /data/once ]; then echo second; sleep 3600; else touch /data/once; echo first; exit 1; fi
";
    assert_eq!(kubectl.run_with("create -f -", manifest).stdout, "pod/again created\n");
    kubectl.ok("wait --for=jsonpath={.status.containerStatuses[0].restartCount}=1 pod/again --timeout=60s");
    kubectl.ok("wait --for=condition=Ready pod/again --timeout=60s");
    kubectl.says("logs --previous again", "first");
    kubectl.says("logs again", "second");
}

fn watching(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let watcher = kubectl.clone();
    let seen = std::thread::spawn(move || {
        // The header comes with the first object.
        let mut started = false;
        watcher.follow("get pods -w", move |line| {
            started |= line.contains("Running");
            started && line.contains("Terminating")
        })
    });
    // The watch may begin late: it then begins with what is there.
    kubectl.ok(&format!("create -f {}", file("tests/seed/pod-busybox.yaml")));
    kubectl.says("wait --for=condition=Ready pod/my-first-pod --timeout=60s", "pod/my-first-pod condition met");
    let events = kubectl.follow("get events -w", |line| line.contains(" Started "));
    assert!(events.iter().any(|line| line.contains(" Scheduled ")), "{events:?}");
    kubectl.ok("label pod my-first-pod seen=yes");
    kubectl.ok("delete pod my-first-pod --grace-period=1");
    let seen = seen.join().unwrap();
    assert!(seen[0].starts_with("NAME ") && seen[0].contains("READY   STATUS"), "{seen:#?}");
    let states: Vec<&str> = seen[1..].iter().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(states.last(), Some(&"Terminating"), "{seen:#?}");
    let running = states.iter().position(|state| *state == "Running").unwrap();
    assert!(states[..running].iter().all(|state| matches!(*state, "Pending" | "ContainerCreating")), "{seen:#?}");
}

fn failing(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let manifest =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: pull}\nspec: {containers: [{name: main, image: 'nothing:1'}]}\n";
    assert_eq!(kubectl.run_with("create -f -", manifest).stdout, "pod/pull created\n");
    let waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    kubectl.ok(&format!("wait --for={waiting}=ImagePullBackOff pod/pull --timeout=60s"));
    let row = &kubectl.table("get pod pull")[0];
    assert_eq!((row["READY"].as_str(), row["STATUS"].as_str()), ("0/1", "ImagePullBackOff"));
    kubectl.fails(
        "logs pull",
        "Error from server (BadRequest): container \"main\" in pod \"pull\" is waiting to start: trying and failing to pull image",
    );
    kubectl.fails(
        "wait --for=condition=Ready pod/pull --timeout=1s",
        "error: timed out waiting for the condition on pods/pull",
    );
    pod(stage, "crash", "echo on my way out; exit 7", "");
    kubectl.ok(&format!("wait --for={waiting}=CrashLoopBackOff pod/crash --timeout=60s"));
    let row = &kubectl.table("get pod crash")[0];
    assert_eq!(row["STATUS"], "CrashLoopBackOff");
    assert!(row["RESTARTS"].contains(" ago)"), "{row:?}");
    let code = "get pod crash -o jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(kubectl.ok(code), "7");
    let described = kubectl.ok("describe pod crash");
    assert!(described.contains("Back-off restarting failed container main in pod crash_default("), "{described}");
    pod(stage, "wrong", "exit 3", "restartPolicy: Never,");
    kubectl.ok("wait --for=jsonpath={.status.phase}=Failed pod/wrong --timeout=60s");
    assert_eq!(kubectl.table("get pod wrong")[0]["STATUS"], "Error");
    let all = kubectl.ok("delete pods --all --now");
    assert_eq!(all.lines().count(), 3, "{all}");
    let empty = kubectl.run("get pods");
    assert_eq!(empty.stderr, "No resources found in default namespace.\n");
}
