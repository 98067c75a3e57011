//! Which objects, in which order, in which pages, and until when: `--field-selector`, `--sort-by`, `--chunk-size`, `wait`.

use crate::{Stage, WEB};

#[test]
fn fields_select() {
    let stage = Stage::new("fields");
    let kubectl = &stage.kubectl;
    kubectl.ok(&format!("create -f {}", stage.write("web.json", WEB)));
    kubectl.ok("wait --for=condition=Available deployment/web --timeout=60s");
    kubectl.ok("create secret generic word --type=example.com/word");
    kubectl.ok("create secret generic other");
    for (query, expected) in [
        ("pods --field-selector=spec.nodeName=node-1,status.phase=Running", 1),
        ("pods --field-selector=spec.nodeName!=node-1", 0),
        ("pods --field-selector=status.phase==Pending", 0),
        ("pods -A --field-selector=metadata.namespace=default,spec.restartPolicy=Always", 1),
        ("secrets --field-selector=type=example.com/word", 1),
        ("secrets --field-selector=type!=example.com/word", 1),
        ("nodes --field-selector=spec.unschedulable=false", 1),
        ("namespaces --field-selector=status.phase=Active,metadata.name!=default", 3),
        ("replicasets --field-selector=status.replicas=1", 1),
        (
            "events --field-selector=involvedObject.kind=Deployment,involvedObject.name=web,reason=ScalingReplicaSet,type=Normal",
            1,
        ),
    ] {
        assert_eq!(kubectl.ok(&format!("get {query} -o name")).lines().count(), expected, "{query}");
    }
    kubectl.fails(
        "get configmaps --field-selector=data.x=y",
        "Error from server (BadRequest): Unable to find \"/v1, Resource=configmaps\" that match label selector \"\", field \
         selector \"data.x=y\": \"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
    );
    kubectl.says("delete secrets --field-selector=type=example.com/word", "secret \"word\" deleted");
}

#[test]
fn rows_are_sorted_and_come_in_pages() {
    let stage = Stage::new("pages");
    let kubectl = &stage.kubectl;
    let mut manifest = String::new();
    for (index, rank) in [3, 1, 2, 5, 4].into_iter().enumerate() {
        manifest += &crate::config_map(&format!("map-{index}"), &format!("{{rank: '{rank}'}}"));
    }
    kubectl.ok(&format!("create -f {}", stage.write("maps.yaml", &manifest)));
    let sorted = kubectl.ok("get configmaps -l set=x --sort-by=.data.rank -o name");
    assert_eq!(sorted, ["1", "2", "0", "4", "3"].map(|index| format!("configmap/map-{index}\n")).concat());
    let table = kubectl.table("get configmaps -l set=x --sort-by={.data.rank}");
    assert_eq!(
        table.iter().map(|row| row["NAME"].as_str()).collect::<Vec<_>>(),
        ["map-1", "map-2", "map-0", "map-4", "map-3"]
    );
    let newest = kubectl.ok("get namespaces --sort-by=.metadata.creationTimestamp -o name");
    assert_eq!(newest.lines().count(), 4);

    let whole = kubectl.ok("get configmaps -A -o name");
    for size in [0, 1, 2, 500] {
        let pages = kubectl.run(&format!("get configmaps -A -o name --chunk-size={size} -v=7"));
        assert_eq!(pages.stdout, whole);
        let asked = pages.stderr.lines().filter(|line| line.contains(" GET ") && line.contains("/configmaps")).count();
        let expected = if size == 0 { 1 } else { whole.lines().count().div_ceil(size) };
        assert_eq!(asked, expected, "pages of {size}");
    }
}

#[test]
fn waiting_for_a_value() {
    let stage = Stage::new("wait");
    let kubectl = &stage.kubectl;
    // The waiting begins before there is anything.
    let waiter = kubectl.clone();
    let waits = std::thread::spawn(move || waiter.ok("wait --for=create deployment/web --timeout=60s"));
    kubectl.ok(&format!("create -f {}", stage.write("web.json", WEB)));
    assert_eq!(waits.join().unwrap(), "deployment.apps/web condition met\n");
    kubectl.says(
        "wait --for=jsonpath={.status.readyReplicas}=1 deployment/web --timeout=60s",
        "deployment.apps/web condition met",
    );
    let pods = kubectl.ok("wait --for=jsonpath={.status.podIP} pods -l app=web --timeout=60s");
    assert!(pods.starts_with("pod/web-") && pods.ends_with(" condition met\n"), "{pods}");
    kubectl
        .ok("wait --for=jsonpath={.spec.containers[?(@.name==\"side\")].image}=side:1 pods -l app=web --timeout=60s");
    kubectl.fails(
        "wait --for=jsonpath={.spec.replicas}=7 deployment/web --timeout=1s",
        "error: timed out waiting for the condition on deployments/web",
    );
    kubectl.fails(
        "wait --for=condition=Available=False deployment/web --timeout=1s",
        "error: timed out waiting for the condition on deployments/web",
    );
    kubectl.fails(
        "wait --for=jsonpath={.a}=b deployment/none",
        "Error from server (NotFound): deployments.apps \"none\" not found",
    );
    let waiter = kubectl.clone();
    let waits = std::thread::spawn(move || waiter.ok("wait --for=delete pods -l app=web --timeout=60s"));
    kubectl.says("delete deployment web", "deployment.apps \"web\" deleted");
    waits.join().unwrap();
    assert_eq!(kubectl.ok("get pods -o name"), "");
}
