//! Every crate of ours depends on the core and on no other, except those that wire whole clusters, runtimes on images, and stores
//! on what stores on disk share.

use serde_json::{Value, json};

use crate::{array, metadata, text};

const CORE: &str = "orchestrator-core";
const TESTKIT: &str = "orchestrator-testkit";

/// Those that wire whole clusters: they may know every other crate.
const WIRING: [&str; 2] = ["orchestrator", "orchestrator-sim"];

/// The reference implementations of the core's seams. A test of a crate that needs *a* store or *a* runtime takes these.
const REFERENCES: [&str; 2] = ["orchestrator-store-mem", "orchestrator-runtime-sim"];

/// What adapters of `ContainerRuntime` share; it knows nothing of any of them.
const IMAGES: &str = "orchestrator-images";
const RUNTIMES: &str = "orchestrator-runtime-";

/// What stores on disk share; it knows nothing of any of them.
const DISK: &str = "orchestrator-store-disk";
const STORES: &str = "orchestrator-store-";
/// A benchmark measures the first against the second, in one run.
const MEASURED: [&str; 2] = ["orchestrator-store-redb", "orchestrator-store-sled"];

/// The one package that chooses a version of the Kubernetes API, by a feature that can be switched off.
const CHOOSES_VERSION: &str = "orchestrator";

#[test]
fn arrows_point_to_the_core() {
    let metadata = metadata(&["--no-deps"]);
    let packages = array(&metadata["packages"]);
    assert!(packages.iter().any(|package| package["name"] == CORE), "the core is not there");
    let violations: Vec<String> = packages.iter().flat_map(violations).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// What is wrong with a package's dependencies.
fn violations(package: &Value) -> Vec<String> {
    let name = text(&package["name"]);
    let mut found = Vec::new();
    for dependency in array(&package["dependencies"]) {
        let (on, is_dev) = (text(&dependency["name"]), dependency["kind"] == "dev");
        let is_ours = on == "orchestrator" || on.starts_with("orchestrator-");
        if is_ours && !may_depend(name, on, is_dev) {
            let kind = if is_dev { "dev-depends" } else { "depends" };
            found.push(format!("{name} {kind} on {on}"));
        }
        // With a version, a package could not be published before its own test kit.
        if on == TESTKIT && dependency["req"] != "*" {
            found.push(format!("{name} names a version of {on}"));
        }
        for feature in array(&dependency["features"]).iter().map(text).filter(|feature| chooses(on, feature)) {
            found.push(format!("{name} chooses {on}/{feature}"));
        }
    }
    for (own, enabled) in package["features"].as_object().into_iter().flatten() {
        for enabled in array(enabled).iter().map(text) {
            let (on, feature) = enabled.split_once('/').unwrap_or(("", enabled));
            if chooses(on.trim_end_matches('?'), feature) && name != CHOOSES_VERSION {
                found.push(format!("{name} chooses {enabled} by its feature {own}"));
            }
        }
    }
    found
}

fn may_depend(name: &str, on: &str, is_dev: bool) -> bool {
    match (name, on) {
        (_, TESTKIT) => is_dev,
        (name, _) if WIRING.contains(&name) => true,
        (CORE, _) => false,
        (_, CORE) => true,
        (name, IMAGES) => name.starts_with(RUNTIMES),
        (name, DISK) => name.starts_with(STORES),
        (name, on) if [name, on] == MEASURED => is_dev,
        (_, on) => is_dev && REFERENCES.contains(&on),
    }
}

/// Whether a feature compiles `k8s-openapi` for one version, and so breaks embedders who use another.
fn chooses(crate_name: &str, feature: &str) -> bool {
    crate_name == "k8s-openapi" && (feature.starts_with("v1_") || matches!(feature, "earliest" | "latest"))
}

/// A package with one dependency.
fn package(name: &str, on: &str, kind: Option<&str>) -> Value {
    json!({"name": name, "dependencies": [{"name": on, "kind": kind, "req": "*", "features": []}], "features": {}})
}

#[test]
fn wrong_arrows_are_found() {
    for (name, on, kind) in [
        ("orchestrator-node", "orchestrator-apiserver", None),
        ("orchestrator-node", "orchestrator-apiserver", Some("dev")),
        ("orchestrator-node", "orchestrator-runtime-sim", None),
        ("orchestrator-node", "orchestrator-runtime-sim", Some("build")),
        ("orchestrator-node", "orchestrator", None),
        ("orchestrator-core", "orchestrator-store-mem", Some("dev")),
        ("orchestrator-core", "orchestrator-testkit", None),
        ("orchestrator", "orchestrator-testkit", None),
        ("orchestrator-testkit", "orchestrator-store-mem", None),
        ("orchestrator-node", "orchestrator-images", None),
        ("orchestrator-images", "orchestrator-runtime-youki", Some("dev")),
        ("orchestrator-node", "orchestrator-store-disk", Some("dev")),
        ("orchestrator-store-disk", "orchestrator-store-sled", Some("dev")),
        ("orchestrator-store-redb", "orchestrator-store-sled", None),
    ] {
        assert_eq!(violations(&package(name, on, kind)).len(), 1, "{name} on {on}");
    }
    for (name, on, kind) in [
        ("orchestrator-node", "orchestrator-core", None),
        ("orchestrator-node", "orchestrator-runtime-sim", Some("dev")),
        ("orchestrator-core", "orchestrator-testkit", Some("dev")),
        ("orchestrator-sim", "orchestrator-node", None),
        ("orchestrator-runtime-youki", "orchestrator-images", None),
        ("orchestrator-store-sled", "orchestrator-store-disk", None),
        ("orchestrator-store-redb", "orchestrator-store-sled", Some("dev")),
        ("orchestrator-node", "serde", None),
    ] {
        assert_eq!(violations(&package(name, on, kind)), [""; 0], "{name} on {on}");
    }
}

#[test]
fn chosen_versions_are_found() {
    let mut with_feature = package("orchestrator-core", "k8s-openapi", None);
    with_feature["dependencies"][0]["features"] = json!(["std", "v1_36"]);
    assert_eq!(violations(&with_feature), ["orchestrator-core chooses k8s-openapi/v1_36"]);
    let own = |name: &str| json!({"name": name, "dependencies": [], "features": {"default": ["k8s-openapi/latest"]}});
    assert_eq!(violations(&own("orchestrator-core")).len(), 1);
    assert_eq!(violations(&own("orchestrator")), [""; 0]);
    let mut with_version = package("orchestrator-node", TESTKIT, Some("dev"));
    with_version["dependencies"][0]["req"] = "^0.1.0".into();
    assert_eq!(violations(&with_version).len(), 1);
}
