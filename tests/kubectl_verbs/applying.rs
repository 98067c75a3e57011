//! `apply` in its three ways, and `diff`, which shows what it would change.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Stage, config_map};

/// The first version of a manifest, and one that lacks an object and a key.
fn versions(stage: &Stage) -> (String, String) {
    let both = config_map("one", "{k: v1, gone: 'yes'}") + &config_map("two", "{k: v2}");
    (stage.write("both.yaml", &both), stage.write("one.yaml", &config_map("one", "{k: new}")))
}

#[test]
fn client_side() {
    let stage = Stage::new("client-side");
    let kubectl = &stage.kubectl;
    let (both, one) = versions(&stage);
    kubectl.says(
        &format!("apply -f {both} --dry-run=client"),
        "configmap/one created (dry run)\nconfigmap/two created (dry run)",
    );
    let said = "configmap/one created (server dry run)\nconfigmap/two created (server dry run)";
    kubectl.says(&format!("apply -f {both} --dry-run=server"), said);
    kubectl.says(&format!("apply -f {both}"), "configmap/one created\nconfigmap/two created");
    kubectl.says(&format!("apply -f {both}"), "configmap/one unchanged\nconfigmap/two unchanged");
    kubectl.ok("label configmap one mine=yes");
    kubectl.says(&format!("apply -f {one}"), "configmap/one configured");
    // What the manifest had and has no more is gone, what others added stays.
    assert_eq!(
        kubectl.ok("get configmap one -o jsonpath={.data}{.metadata.labels}"),
        r#"{"k":"new"}{"mine":"yes","set":"x"}"#
    );
    let last =
        "get configmap one -o 'jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}'";
    let last: Value = serde_json::from_str(&kubectl.ok(last)).unwrap();
    assert_eq!(last["data"], serde_json::json!({"k": "new"}));
    assert_eq!(
        kubectl.ok("apply view-last-applied configmap one -o json"),
        serde_json::to_string_pretty(&last).unwrap() + "\n"
    );
    let managers = "get configmap one --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}";
    let managers = kubectl.ok(managers);
    let managers: BTreeSet<&str> = managers.split(' ').collect();
    assert_eq!(managers, ["kubectl-client-side-apply", "kubectl-label"].into());
    // Who did not apply before is told, once.
    kubectl.ok("create configmap three --from-literal=k=v3");
    let three = stage.write("three.yaml", &config_map("three", "{k: other}"));
    let answer = kubectl.run(&format!("apply -f {three}"));
    assert!(answer.stderr.starts_with("Warning: resource configmaps/three is missing the kubectl.kubernetes.io/last-applied-configuration annotation"), "{answer:#?}");
    assert_eq!(answer.stdout, "configmap/three configured\n");
    assert_eq!(kubectl.run(&format!("apply -f {three}")).stderr, "");
}

#[test]
fn server_side() {
    let stage = Stage::new("server-side");
    let kubectl = &stage.kubectl;
    let (both, one) = versions(&stage);
    let applied = "configmap/one serverside-applied\nconfigmap/two serverside-applied";
    kubectl.says(&format!("apply --server-side -f {both}"), applied);
    kubectl.says(&format!("apply --server-side -f {both}"), applied);
    let refused = kubectl.run(&format!("apply --server-side --field-manager=other -f {one}"));
    assert_eq!(refused.code, 1);
    let conflict =
        "error: Apply failed with 1 conflict: conflict with \"kubectl\": .data.k\nPlease review the fields above";
    assert!(refused.stderr.starts_with(conflict), "{refused:#?}");
    let forced = format!("apply --server-side --field-manager=other --force-conflicts -f {one}");
    kubectl.says(&forced, "configmap/one serverside-applied");
    assert_eq!(kubectl.ok("get configmap one -o jsonpath={.data}"), r#"{"gone":"yes","k":"new"}"#);
    let owners = "get configmap one --show-managed-fields -o 'jsonpath={range .metadata.managedFields[*]}{.manager} {.operation} {.fieldsV1.f:data}{\"\\n\"}{end}'";
    kubectl.says(owners, "kubectl Apply {\"f:gone\":{}}\nother Apply {\"f:k\":{}}");
    // Whoever gives a field up that nobody else has takes it away.
    let less = stage.write("less.yaml", &config_map("one", "{}"));
    kubectl.ok(&format!("apply --server-side -f {less}"));
    assert_eq!(kubectl.ok("get configmap one -o jsonpath={.data}"), r#"{"k":"new"}"#);
}

#[test]
fn from_one_side_to_the_other() {
    let stage = Stage::new("sides");
    let kubectl = &stage.kubectl;
    let (both, one) = versions(&stage);
    kubectl.ok(&format!("apply -f {both}"));
    kubectl.says(&format!("apply --server-side -f {one}"), "configmap/one serverside-applied");
    assert_eq!(kubectl.ok("get configmap one -o jsonpath={.data}"), r#"{"k":"new"}"#, "what was owned before goes");
    let managers = "get configmap one --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}";
    assert_eq!(kubectl.ok(managers), "kubectl-last-applied kubectl");
    kubectl.says(&format!("apply -f {both}"), "configmap/one configured\nconfigmap/two unchanged");
}

#[test]
fn what_is_no_longer_in_the_manifests_is_pruned() {
    let stage = Stage::new("prune");
    let kubectl = &stage.kubectl;
    let (both, one) = versions(&stage);
    kubectl.ok(&format!("apply -f {both}"));
    kubectl.ok("create configmap stranger --from-literal=a=b");
    kubectl.ok("label configmap stranger set=x");
    let prune = "apply --prune -l set=x --prune-allowlist=core/v1/ConfigMap";
    kubectl.says(&format!("{prune} -f {one}"), "configmap/one configured\nconfigmap/two pruned");
    kubectl.says("get configmaps -l set=x -o name", "configmap/one\nconfigmap/stranger");
    // All kinds that may be pruned are looked through.
    let other = stage.write("other.yaml", &config_map("other", "{a: b}"));
    let pruned = kubectl.ok(&format!("apply --prune -l set=x -f {other}"));
    assert_eq!(pruned, "configmap/other created\nconfigmap/one pruned\n");

    // An apply set remembers its members in a parent.
    let set = |manifest: &str| {
        let mut command = kubectl.command(&format!("apply --prune --applyset=mine -n default -f {manifest}"));
        command.env("KUBECTL_APPLYSET", "true");
        kubectl.finish(command, "")
    };
    assert_eq!(set(&both).stdout, "configmap/one created\nconfigmap/two created\n");
    assert_eq!(set(&one).stdout, "configmap/one configured\nconfigmap/two pruned\n");
    let parent =
        "get secret mine -o 'jsonpath={.metadata.annotations.applyset\\.kubernetes\\.io/contains-group-kinds}'";
    assert_eq!(kubectl.ok(parent), "ConfigMap");
}

#[test]
fn differences_are_shown() {
    let stage = Stage::new("diff");
    let kubectl = &stage.kubectl;
    let (both, one) = versions(&stage);
    let new = kubectl.run(&format!("diff -f {one}"));
    assert_eq!(new.code, 1, "{new:#?}");
    assert!(new.stdout.contains("\n+  name: one\n"), "{new:#?}");
    kubectl.ok(&format!("apply -f {both}"));
    assert_eq!(kubectl.ok(&format!("diff -f {both}")), "");
    let changed = kubectl.run(&format!("diff -f {one}"));
    assert_eq!(changed.code, 1);
    let lines: Vec<&str> = changed.stdout.lines().filter(|line| line.starts_with(['+', '-'])).skip(2).collect();
    assert_eq!(lines, ["-  gone: \"yes\"", "-  k: v1", "+  k: new"]);
    let changed = kubectl.run(&format!("diff --server-side --force-conflicts -f {one}"));
    assert_eq!(changed.code, 1);
    assert!(changed.stdout.contains("\n-  k: v1\n+  k: new\n"), "{changed:#?}");
    assert_eq!(kubectl.ok("get configmap one -o jsonpath={.data.k}"), "v1", "nothing is changed by looking");
    let wrong = stage.write("wrong.yaml", &config_map("Not_A_Name", "{}"));
    assert_eq!(kubectl.run(&format!("diff -f {wrong}")).code, 2);
}
