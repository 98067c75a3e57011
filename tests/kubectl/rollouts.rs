//! `apply`, `scale`, `set image`, `rollout` and `describe` on a Deployment.

use crate::{Test, stage::Stage, support::file};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("rolling_out_and_back", rolling_out_and_back), ("applying", applying), ("describing", describing)];

const ROLLED_OUT: &str = "deployment \"my-first-deployment\" successfully rolled out\n";

/// The image of the ReplicaSet whose two pods serve.
fn image(stage: &Stage) -> String {
    let serving = "{.items[?(@.status.availableReplicas==2)].spec.template.spec.containers[0].image}";
    stage.kubectl.ok(&format!("get replicaset -l app=nginx -o jsonpath={serving}"))
}

fn rolling_out_and_back(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok(&format!("create -f {}", file("tests/seed/deployment-definition.yaml")));
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    kubectl.says("scale deployment/my-first-deployment --replicas=5", "deployment.apps/my-first-deployment scaled");
    let progress = kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    assert!(progress.ends_with(ROLLED_OUT), "{progress}");
    assert_eq!(kubectl.table("get deployment my-first-deployment")[0]["READY"], "5/5");
    kubectl.says("scale deployment/my-first-deployment --replicas=2", "deployment.apps/my-first-deployment scaled");
    kubectl.ok("wait --for=jsonpath={.status.replicas}=2 deployment/my-first-deployment --timeout=60s");

    kubectl.says(
        "set image deployment/my-first-deployment nginx=nginx:1.9.1",
        "deployment.apps/my-first-deployment image updated",
    );
    let progress = kubectl.ok("rollout status deployment/my-first-deployment --timeout=90s");
    assert!(progress.ends_with(ROLLED_OUT), "{progress}");
    assert!(progress.contains("Waiting for deployment \"my-first-deployment\" rollout to finish"), "{progress}");
    kubectl.says(
        "annotate deployment/my-first-deployment kubernetes.io/change-cause=newer",
        "deployment.apps/my-first-deployment annotated",
    );
    kubectl.ok("wait --for=jsonpath={.status.replicas}=2 deployment/my-first-deployment --timeout=60s");
    assert_eq!(image(stage), "nginx:1.9.1");
    // The controller copies the cause to the current revision.
    let newest = kubectl.ok("get replicaset -l app=nginx --sort-by=.metadata.creationTimestamp -o name");
    let newest = newest.lines().last().unwrap();
    let cause = "jsonpath={.metadata.annotations.kubernetes\\.io/change-cause}";
    kubectl.ok(&format!("wait --for={cause}=newer {newest} --timeout=30s"));
    assert_eq!(history(stage), [("1", "<none>"), ("2", "newer")].map(owned));
    let revision = kubectl.ok("rollout history deployment/my-first-deployment --revision=1");
    assert!(
        revision.starts_with("deployment.apps/my-first-deployment with revision #1\nPod Template:\n"),
        "{revision}"
    );
    assert!(revision.contains("nginx:1.7.9"), "{revision}");

    kubectl.says("rollout undo deployment/my-first-deployment", "deployment.apps/my-first-deployment rolled back");
    let progress = kubectl.ok("rollout status deployment/my-first-deployment --timeout=90s");
    assert!(progress.ends_with(ROLLED_OUT), "{progress}");
    kubectl.ok("wait --for=jsonpath={.status.replicas}=2 deployment/my-first-deployment --timeout=60s");
    assert_eq!(image(stage), "nginx:1.7.9");
    let revisions: Vec<String> = history(stage).into_iter().map(|(revision, _)| revision).collect();
    assert_eq!(revisions, ["2", "3"]);
    kubectl.fails(
        "rollout undo deployment/my-first-deployment --to-revision=9",
        "error: unable to find specified revision 9 in history",
    );

    kubectl.says("rollout pause deployment/my-first-deployment", "deployment.apps/my-first-deployment paused");
    kubectl.ok("set image deployment/my-first-deployment nginx=nginx:1.25");
    kubectl.says("rollout resume deployment/my-first-deployment", "deployment.apps/my-first-deployment resumed");
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=90s");
    kubectl.says("rollout restart deployment/my-first-deployment", "deployment.apps/my-first-deployment restarted");
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=90s");
    assert_eq!(history(stage).last().map(|(revision, _)| revision.as_str()), Some("5"));
}

fn owned((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}

/// Revisions and their causes.
fn history(stage: &Stage) -> Vec<(String, String)> {
    let text = stage.kubectl.ok("rollout history deployment/my-first-deployment");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("deployment.apps/my-first-deployment "), "{text}");
    assert_eq!(lines.next(), Some("REVISION  CHANGE-CAUSE"), "{text}");
    let rows = lines.filter_map(|line| line.split_once(' '));
    rows.map(|(revision, cause)| owned((revision, cause.trim()))).collect()
}

fn applying(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let manifest = file("tests/seed/deployment-definition.yaml");
    kubectl.says(&format!("apply -f {manifest}"), "deployment.apps/my-first-deployment created");
    kubectl.says(&format!("apply -f {manifest}"), "deployment.apps/my-first-deployment unchanged");
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    kubectl.says(&format!("apply -f {manifest}"), "deployment.apps/my-first-deployment unchanged");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let changed = text
        .replace("replicas: 3", "replicas: 1")
        .replace("- containerPort: 80", "- containerPort: 80\n              env: [{name: COLOUR, value: blue}]");
    let changed = stage.write("changed.yaml", &changed);
    let difference = kubectl.run(&format!("diff -f {changed}"));
    assert_eq!(difference.code, 1, "{difference:#?}");
    assert!(difference.stdout.contains("\n-  replicas: 3\n+  replicas: 1\n"), "{}", difference.stdout);
    kubectl.says(&format!("apply -f {changed}"), "deployment.apps/my-first-deployment configured");
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    let environment = "get deployment my-first-deployment -o jsonpath={.spec.replicas}{.spec.template.spec.containers[0].env[0].value}";
    assert_eq!(kubectl.ok(environment), "1blue");
    // What the manifest says no more is taken away again, and nothing else.
    kubectl.ok("label deployment my-first-deployment team=ours");
    kubectl.says(&format!("apply -f {manifest}"), "deployment.apps/my-first-deployment configured");
    assert_eq!(kubectl.ok(environment), "3");
    assert_eq!(kubectl.ok("get deployment my-first-deployment -o jsonpath={.metadata.labels.team}"), "ours");
    let several = file("examples/manifests/services.yaml");
    let applied = kubectl.ok(&format!("apply -f {several} -f {manifest}"));
    assert_eq!(applied.lines().count(), 5, "{applied}");
    kubectl.says(&format!("delete -f {manifest}"), "deployment.apps \"my-first-deployment\" deleted");
    kubectl.ok("wait --for=delete pod -l app=nginx --timeout=60s");
    assert_eq!(kubectl.ok(&format!("delete --ignore-not-found -f {manifest}")), "");
}

fn describing(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok(&format!("create -f {}", file("tests/seed/deployment-definition.yaml")));
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    let deployment = kubectl.ok("describe deployment my-first-deployment");
    for part in [
        "Name:                   my-first-deployment\nNamespace:              default\n",
        "Labels:                 app=nginx\nAnnotations:            deployment.kubernetes.io/revision: 1\nSelector:               app=nginx\n",
        "Replicas:               3 desired | 3 updated | 3 total | 3 available | 0 unavailable\nStrategyType:           RollingUpdate\n",
        "RollingUpdateStrategy:  25% max unavailable, 25% max surge\n",
        "  Available      True    MinimumReplicasAvailable\n  Progressing    True    NewReplicaSetAvailable\n",
        "OldReplicaSets:  <none>\nNewReplicaSet:   my-first-deployment-",
        "  Normal  ScalingReplicaSet  ",
        " deployment-controller  Scaled up replica set my-first-deployment-",
    ] {
        assert!(deployment.contains(part), "{part:?} is not in\n{deployment}");
    }
    let pod = kubectl.ok("get pods -l app=nginx -o name").lines().next().unwrap().to_owned();
    let pod = kubectl.ok(&format!("describe {pod}"));
    for part in [
        "Namespace:        default\nPriority:         0\nService Account:  default\nNode:             node-",
        "Labels:           app=nginx\n                  pod-template-hash=",
        "Status:           Running\nIP:               10.",
        "Controlled By:  ReplicaSet/my-first-deployment-",
        "    Image:          nginx:1.7.9\n",
        "    Port:           80/TCP\n    Host Port:      0/TCP\n    State:          Running\n      Started:      ",
        "    Ready:          True\n    Restart Count:  0\n    Environment:    <none>\n    Mounts:\n      /var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-",
        "  PodScheduled                True \n",
        "QoS Class:                   BestEffort\n",
        "Tolerations:                 node.kubernetes.io/not-ready:NoExecute op=Exists for 300s\n                             node.kubernetes.io/unreachable:NoExecute op=Exists for 300s\n",
        " default-scheduler  Successfully assigned default/my-first-deployment-",
        "  Normal  Started    ",
        " kubelet            ",
    ] {
        assert!(pod.contains(part), "{part:?} is not in\n{pod}");
    }
    let node = kubectl.ok("describe node node-1");
    for part in [
        "Name:               node-1\n",
        "  Ready ",
        "Non-terminated Pods:",
        "  default                     my-first-deployment-",
    ] {
        assert!(node.contains(part), "{part:?} is not in\n{node}");
    }
    // A pod that fits nowhere says why.
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: nowhere}\nspec: {nodeSelector: {disk: none}, containers: [{name: main, image: busybox}]}\n";
    let answer = kubectl.run_with("create -f -", manifest);
    assert_eq!(answer.stdout, "pod/nowhere created\n");
    kubectl.ok("wait --for=condition=PodScheduled=False pod/nowhere --timeout=30s");
    assert_eq!(kubectl.table("get pod nowhere")[0]["STATUS"], "Pending");
    kubectl.ok("wait --for=jsonpath={.reason}=FailedScheduling events --field-selector involvedObject.name=nowhere --timeout=30s");
    let described = kubectl.ok("describe pod nowhere");
    let why = "default-scheduler  0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    assert!(described.contains(why), "{described}");
}
