//! The ways to look at objects: `-o wide`, `json`, `yaml` and others, and what `kubectl` asks of a server itself.

use serde_json::Value;

use crate::{Test, stage::Stage, support::file};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("outputs", outputs), ("the_server", the_server), ("nodes", nodes), ("editing", editing)];

fn outputs(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok(&format!("create -f {}", file("tests/seed/pod-definition.yaml")));
    kubectl.ok("wait --for=condition=Ready pod/myapp-pod --timeout=60s");
    let wide = kubectl.ok("get pods -o wide");
    let header = wide.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty());
    assert_eq!(
        header.collect::<Vec<_>>(),
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    );
    let row = &kubectl.table("get pods -o wide")[0];
    assert!(row["IP"].starts_with("10."), "{row:?}");
    assert!(row["NODE"].starts_with("node-"), "{row:?}");
    assert_eq!((row["NOMINATED NODE"].as_str(), row["READINESS GATES"].as_str()), ("<none>", "<none>"));

    let json: Value = serde_json::from_str(&kubectl.ok("get pod myapp-pod -o json")).unwrap();
    assert_eq!((&json["apiVersion"], &json["kind"]), (&"v1".into(), &"Pod".into()));
    assert_eq!(json["spec"]["containers"][0]["image"], "nginx");
    assert_eq!(json["spec"]["restartPolicy"], "Always");
    assert_eq!(json["status"]["phase"], "Running");
    assert_eq!(json["status"]["podIP"].as_str(), Some(row["IP"].as_str()));
    let list: Value = serde_json::from_str(&kubectl.ok("get pods -o json")).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&"List".into(), Some(1)));
    assert_eq!(list["items"][0], json);

    let yaml = kubectl.ok("get pod myapp-pod -o yaml");
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"), "{yaml}");
    assert!(
        yaml.contains("\n  labels:\n    app: myapp\n    type: front-end\n  name: myapp-pod\n  namespace: default\n"),
        "{yaml}"
    );
    assert!(yaml.contains("\nstatus:\n  conditions:\n"), "{yaml}");
    // What was read can be written back.
    let copy = stage.write("copy.yaml", &yaml);
    kubectl.says(&format!("replace -f {copy}"), "pod/myapp-pod replaced");

    kubectl.says("get pods -o name", "pod/myapp-pod");
    kubectl.says("get pods -l app=myapp,type!=back-end -o name", "pod/myapp-pod");
    assert_eq!(kubectl.ok("get pods -l app=other -o name"), "");
    kubectl.says("get pods --field-selector=status.phase=Running -o name", "pod/myapp-pod");
    kubectl
        .says("get pods --no-headers -o custom-columns=A:.metadata.name,B:.spec.restartPolicy", "myapp-pod   Always");
    assert_eq!(kubectl.table("get pods --show-labels")[0]["LABELS"], "app=myapp,type=front-end");
    assert_eq!(kubectl.table("get pods -L type")[0]["TYPE"], "front-end");
    let all = kubectl.ok("get all");
    assert!(all.contains("pod/myapp-pod ") && all.contains("service/kubernetes "), "{all}");
    let events = kubectl.ok("get events --sort-by=.metadata.creationTimestamp");
    assert!(events.starts_with("LAST SEEN   TYPE "), "{events}");
    for reason in ["Scheduled", "Created", "Started"] {
        // Columns are as wide as what else is told makes them, such as of a disk that is full.
        let is_told = |line: &str| line.split_whitespace().skip(1).take(2).eq(["Normal", reason]);
        assert!(events.lines().any(is_told), "{reason} is not in\n{events}");
    }
    kubectl.fails("get nothings", "error: the server doesn't have a resource type \"nothings\"");
    kubectl.fails("get pods --field-selector=spec.nothing=1", "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \"\", field selector \"spec.nothing=1\": field label not supported: spec.nothing");
}

fn the_server(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let version = kubectl.ok("version -o json");
    let version: Value = serde_json::from_str(&version).unwrap();
    assert_eq!((&version["serverVersion"]["major"], &version["serverVersion"]["minor"]), (&"1".into(), &"36".into()));
    assert!(kubectl.ok("cluster-info").contains("Kubernetes control plane"));
    let resources = kubectl.table("api-resources");
    let pods = resources.iter().find(|row| row["NAME"] == "pods").expect("pods are served");
    assert_eq!((pods["SHORTNAMES"].as_str(), pods["APIVERSION"].as_str(), pods["KIND"].as_str()), ("po", "v1", "Pod"));
    for version in ["apps/v1", "batch/v1", "v1"] {
        assert!(kubectl.ok("api-versions").lines().any(|line| line == version), "{version}");
    }
    let explained = kubectl.ok("explain deployment.spec.strategy");
    assert!(
        explained.contains(
            "GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n\nFIELD: strategy <DeploymentStrategy>"
        ),
        "{explained}"
    );
    kubectl.says("auth can-i create pods", "yes");
    let who = kubectl.ok("auth whoami");
    assert!(who.contains("system:masters"), "{who}");
    assert_eq!(kubectl.ok("get --raw /readyz"), "ok");
    kubectl.fails(
        "get --raw /api/v1/nothings",
        "Error from server (NotFound): the server could not find the requested resource",
    );
}

fn nodes(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let nodes = kubectl.table("get nodes -o wide");
    let names: Vec<&str> = nodes.iter().map(|row| row["NAME"].as_str()).collect();
    assert_eq!(names, ["node-1", "node-2"]);
    for row in &nodes {
        assert_eq!((row["STATUS"].as_str(), row["ROLES"].as_str()), ("Ready", "<none>"));
        assert!(row["VERSION"].starts_with("v1.36."), "{row:?}");
        assert!(row["CONTAINER-RUNTIME"].starts_with("youki://"), "{row:?}");
    }
    kubectl.says("cordon node-1", "node/node-1 cordoned");
    assert_eq!(kubectl.table("get node node-1")[0]["STATUS"], "Ready,SchedulingDisabled");
    kubectl.ok(&format!("create -f {}", file("tests/seed/deployment-definition.yaml")));
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    assert_eq!(places(stage), ["node-2"; 3]);
    kubectl.says("uncordon node-1", "node/node-1 uncordoned");
    // Draining moves the pods to the other node.
    let drained = kubectl.ok("drain node-2 --grace-period=1 --timeout=90s");
    assert!(drained.starts_with("node/node-2 cordoned\n") && drained.ends_with("node/node-2 drained\n"), "{drained}");
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    assert_eq!(places(stage), ["node-1"; 3]);
    kubectl.says("taint node node-1 full=yes:NoExecute", "node/node-1 tainted");
    kubectl.ok("wait --for=jsonpath={.status.unavailableReplicas}=3 deployment/my-first-deployment --timeout=60s");
    kubectl.says("taint node node-1 full-", "node/node-1 untainted");
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
}

/// Where the pods of the Deployment are.
fn places(stage: &Stage) -> Vec<String> {
    let text = stage.kubectl.ok("get pods -l app=nginx -o jsonpath={.items[*].spec.nodeName}");
    text.split(' ').map(str::to_owned).collect()
}

fn editing(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.says("create configmap colours --from-literal=sky=blue", "configmap/colours created");
    kubectl.says("create secret generic word --from-literal=pass=open", "secret/word created");
    kubectl.says("get secret word -o go-template={{.data.pass}}{{\"\\n\"}}", "b3Blbg==");
    kubectl.says("patch configmap colours -p {\"data\":{\"sky\":\"grey\"}}", "configmap/colours patched");
    kubectl.says("patch configmap colours -p {\"data\":{\"sky\":\"grey\"}}", "configmap/colours patched (no change)");
    kubectl.says(
        "patch configmap colours --type=json -p [{\"op\":\"add\",\"path\":\"/data/sea\",\"value\":\"green\"}]",
        "configmap/colours patched",
    );
    let row = &kubectl.table("get configmap colours")[0];
    assert_eq!(row["DATA"], "2");
    kubectl.says("label configmap colours nice=yes", "configmap/colours labeled");
    kubectl
        .fails("label configmap colours nice=no", "error: 'nice' already has a value (yes), and --overwrite is false");
    kubectl.says("label configmap colours nice-", "configmap/colours unlabeled");
    kubectl.says("create deployment web --image=nginx --replicas=1", "deployment.apps/web created");
    kubectl.says("expose deployment web --port=80", "service/web exposed");
    kubectl.says("set env deployment/web COLOUR=red", "deployment.apps/web env updated");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.says("autoscale deployment web --max=3", "horizontalpodautoscaler.autoscaling/web autoscaled");
    kubectl.fails(
        "patch deployment web -p {\"spec\":{\"replicas\":-1}}",
        "The Deployment \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    kubectl.says(
        "delete deployment,service,hpa web",
        "deployment.apps \"web\" deleted\nservice \"web\" deleted\nhorizontalpodautoscaler.autoscaling \"web\" deleted",
    );
    kubectl.ok("wait --for=delete pod -l app=web --timeout=60s");
    let job = kubectl.ok("create job once --image=busybox -- sh -c 'echo done' --dry-run=client -o yaml");
    assert!(job.contains("job"), "{job}");
}
