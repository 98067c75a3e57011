//! What changes objects in place: `edit`, `patch`, `label`, `annotate`, `set`, `scale`, `replace`.

use serde_json::Value;

use crate::{
    Stage, WEB,
    support::{Answer, Kubectl},
};

impl Kubectl {
    /// Edits with a script in place of an editor.
    fn edit(&self, editor: &str, arguments: &str) -> Answer {
        let mut command = self.command(&format!("edit {arguments}"));
        command.env("KUBE_EDITOR", editor);
        self.finish(command, "")
    }

    /// A part of the Deployment.
    #[track_caller]
    fn web(&self, path: &str) -> String {
        self.ok(&format!("get deployment web -o jsonpath={path}"))
    }
}

/// A stage with the Deployment on it.
fn stage(name: &str) -> Stage {
    let stage = Stage::new(name);
    stage.kubectl.says(&format!("create -f {}", stage.write("web.json", WEB)), "deployment.apps/web created");
    stage
}

#[test]
fn editing_by_script() {
    let stage = stage("edit");
    let kubectl = &stage.kubectl;
    let edited = kubectl.edit("sed -i s/web:1/web:2/", "deployment web");
    assert_eq!((edited.code, edited.stdout.as_str()), (0, "deployment.apps/web edited\n"), "{edited:#?}");
    assert_eq!(kubectl.web("{.spec.template.spec.containers[0].image}"), "web:2");
    let edited = kubectl.edit("sed -i s/web:2/web:3/", "deployment web --output-patch");
    let (said, patch) = edited.stdout.split_once('\n').unwrap();
    assert_eq!(
        said,
        "Patch: {\"spec\":{\"template\":{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"main\"},{\"name\":\"side\"}],\"containers\":[{\"image\":\"web:3\",\"name\":\"main\"}]}}}}"
    );
    assert_eq!(patch, "deployment.apps/web edited\n");
    let same = kubectl.edit("true", "deployment web");
    assert_eq!(same.stderr, "Edit cancelled, no changes made.\n");
    // What is refused is given back, and what is refused twice is kept in a file.
    let wrong = kubectl.edit("sed -i s/maxSurge:.*/maxSurge:\\ -1/", "deployment web");
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.starts_with("error: deployments.apps \"web\" is invalid\n"), "{wrong:#?}");
    let kept = wrong.stderr.split('"').find(|word| word.ends_with(".yaml")).unwrap();
    let text = std::fs::read_to_string(kept).unwrap();
    let reason = "# deployments.apps \"web\" was not valid:\n# * spec.strategy.rollingUpdate.maxSurge: -1\n";
    assert!(text.contains(reason), "{text}");
    // A part of the status, by the door of the status.
    let edited = kubectl.edit("sed -i s/cpu:.*/cpu:\\ 3/", "node node-1 --subresource=status");
    assert_eq!(edited.stdout, "node/node-1 edited\n", "{edited:#?}");
}

#[test]
fn patches_of_every_type() {
    let stage = stage("patch");
    let kubectl = &stage.kubectl;
    let patched = "deployment.apps/web patched";
    let containers = "{.spec.template.spec.containers[*].name}";
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"more","image":"more:1"}]}}}}"#;
    kubectl.says(&format!("patch deployment web --type=strategic -p {strategic}"), patched);
    assert_eq!(kubectl.web(containers), "more main side");
    let merge = r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"web:1"}]}}}}"#;
    kubectl.says(&format!("patch deployment web --type=merge -p {merge}"), patched);
    assert_eq!(kubectl.web(containers), "main");
    let json =
        r#"[{"op":"replace","path":"/spec/replicas","value":3},{"op":"add","path":"/spec/paused","value":true}]"#;
    kubectl.says(&format!("patch deployment web --type=json -p {json}"), patched);
    assert_eq!(kubectl.web("{.spec.replicas}{.spec.paused}"), "3true");
    let file = stage.write("patch.yaml", "spec:\n  paused: null\n");
    kubectl.says(&format!("patch deployment web --patch-file={file}"), patched);
    assert_eq!(kubectl.web("{.spec.paused}"), "");
    kubectl.says(
        r#"patch deployment web --subresource=scale --type=merge -p {"spec":{"replicas":2}}"#,
        "scale.autoscaling/web patched",
    );
    assert_eq!(kubectl.web("{.spec.replicas}"), "2");
    kubectl.says(
        r#"patch node node-1 --subresource=status --type=merge -p {"status":{"capacity":{"example.com/thing":"2"}}}"#,
        "node/node-1 patched",
    );
    let dry = r#"patch deployment web --dry-run=server -p {"spec":{"replicas":9}} -o jsonpath={.spec.replicas}"#;
    assert_eq!((kubectl.ok(dry), kubectl.web("{.spec.replicas}")), ("9".to_owned(), "2".to_owned()));

    let refused = "The request is invalid: the server rejected our request due to an error in our request";
    kubectl.fails(r#"patch deployment web --type=json -p [{"op":"test","path":"/spec/replicas","value":9}]"#, refused);
    kubectl.fails(r#"patch deployment web --type=json -p [{"op":"remove","path":"/spec/nothing"}]"#, refused);
    let unknown = kubectl.run(r#"patch deployment web -p {"spec":{"nothing":1}}"#);
    assert_eq!(unknown.stderr, "Warning: unknown field \"spec.nothing\"\n");
    assert_eq!(unknown.stdout, "deployment.apps/web patched (no change)\n");
}

#[test]
fn labels_and_annotations() {
    let stage = stage("label");
    let kubectl = &stage.kubectl;
    for (verb, done, undone) in [("label", "labeled", "unlabeled"), ("annotate", "annotated", "annotated")] {
        kubectl.says(&format!("{verb} deployment web a=b c=d"), &format!("deployment.apps/web {done}"));
        let taken = kubectl.run(&format!("{verb} deployment web a=e"));
        assert!(
            taken.stderr.contains("already has a value (b)") && taken.stderr.contains("--overwrite is false"),
            "{taken:#?}"
        );
        kubectl.says(&format!("{verb} --overwrite deployment web a=e c-"), &format!("deployment.apps/web {done}"));
        let listed = kubectl.ok(&format!("{verb} --list deployment web"));
        assert!(listed.lines().any(|line| line == "a=e") && !listed.contains("c="), "{listed}");
        kubectl.says(&format!("{verb} deployments --all a-"), &format!("deployment.apps/web {undone}"));
    }
    let stale = kubectl.run("label deployment web x=y --resource-version=1");
    assert_eq!(
        (stale.code, stale.stderr.as_str()),
        (
            1,
            "Error from server (Conflict): Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again\n"
        )
    );
    let bad = kubectl.run("label deployment web 'bad key=1'");
    assert!(
        bad.stderr.starts_with(
            "The Deployment \"web\" is invalid: metadata.labels: Invalid value: \"bad key\": name part must consist of"
        ),
        "{bad:#?}"
    );
}

#[test]
fn setting_parts() {
    let stage = stage("set");
    let kubectl = &stage.kubectl;
    kubectl.says("set image deployment/web main=web:2 side=side:2", "deployment.apps/web image updated");
    kubectl.says("set image deployments --all *=all:1", "deployment.apps/web image updated");
    assert_eq!(kubectl.web("{.spec.template.spec.containers[*].image}"), "all:1 all:1");
    kubectl.says("set env deployment/web -c main A=1 B=2", "deployment.apps/web env updated");
    kubectl.says("set env deployment/web -c main A-", "deployment.apps/web env updated");
    kubectl.ok("create configmap settings --from-literal=depth=9");
    kubectl.says(
        "set env deployment/web -c side --from=configmap/settings --prefix=MY_",
        "deployment.apps/web env updated",
    );
    kubectl.says(
        "set env deployment/web --list --resolve",
        "# Deployment web, container main\nB=2\n# Deployment web, container side\nMY_DEPTH=9",
    );
    let resources = "set resources deployment/web -c main --limits=cpu=200m,memory=64Mi --requests=cpu=100m";
    kubectl.says(resources, "deployment.apps/web resource requirements updated");
    assert_eq!(
        kubectl.web("{.spec.template.spec.containers[0].resources}"),
        r#"{"limits":{"cpu":"200m","memory":"64Mi"},"requests":{"cpu":"100m"}}"#
    );
    kubectl.fails(
        "set resources deployment/web -c main --limits=cpu=1m",
        "error: failed to patch resources update to pod template Deployment.apps \"web\" is invalid: \
         spec.template.spec.containers[0].resources.requests: Invalid value: \"100m\": must be less than or equal to cpu limit of 1m",
    );
    kubectl.ok("create serviceaccount robot");
    kubectl.says("set serviceaccount deployment/web robot", "deployment.apps/web serviceaccount updated");
    kubectl.ok("create service clusterip web --tcp=80");
    kubectl.says("set selector service/web app=other", "service/web selector updated");
    kubectl.ok("create rolebinding readers --role=reader --user=ann");
    kubectl.says(
        "set subject rolebinding readers --user=bob",
        "rolebinding.rbac.authorization.k8s.io/readers subjects updated",
    );
    assert_eq!(kubectl.ok("get rolebinding readers -o jsonpath={.subjects[*].name}"), "ann bob");
    kubectl.says("scale deployment web --replicas=2 --current-replicas=1", "deployment.apps/web scaled");
    kubectl.fails("scale deployment web --replicas=3 --current-replicas=1", "error: Expected replicas to be 1, was 2");
}

#[test]
fn replacing_by_force() {
    let stage = stage("replace");
    let kubectl = &stage.kubectl;
    let uid = kubectl.web("{.metadata.uid}");
    let live: Value = serde_json::from_str(&kubectl.ok("get deployment web -o json")).unwrap();
    let live = stage.write("live.json", &live.to_string().replace("\"replicas\":1", "\"replicas\":2"));
    kubectl.says(&format!("replace -f {live}"), "deployment.apps/web replaced");
    assert_eq!(kubectl.web("{.metadata.uid}"), uid);
    let stale = kubectl.run(&format!("replace -f {live}"));
    assert!(stale.stderr.starts_with("Error from server (Conflict): error when replacing"), "{stale:#?}");
    kubectl
        .says(&format!("replace --force -f {live}"), "deployment.apps \"web\" deleted\ndeployment.apps/web replaced");
    assert_ne!(kubectl.web("{.metadata.uid}"), uid);
    assert_eq!(kubectl.web("{.spec.replicas}"), "2");
}
