//! Drivers of storage: CSIDriver, CSINode and VolumeAttachment.
//!
//! Upstream: `pkg/apis/storage/validation`.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, go, podspec, rules::Rules};
use crate::{
    field::{Errors, Field, member, set_default},
    names,
};

const NODE_ID_BYTES: usize = 256;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Drivers.
pub(super) const DRIVERS: Rules = Rules {
    needs_version: true,
    returns_deleted: true,
    default: |driver| {
        let spec = member(driver, "spec");
        set_default(spec, "attachRequired", true);
        for name in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
            set_default(spec, name, false);
        }
        set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        set_default(spec, "volumeLifecycleModes", json!(["Persistent"]));
    },
    validate: |driver, errors| {
        let spec = driver.get("spec");
        spec.get("fsGroupPolicy").one_of(errors, &["File", "None", "ReadWriteOnceWithFSType"]);
        let modes = spec.get("volumeLifecycleModes");
        for mode in modes.items() {
            mode.shown_at(modes.path()).one_of(errors, &["Persistent", "Ephemeral"]);
        }
        token_requests(&spec.get("tokenRequests"), errors);
    },
    validate_update: |new, old, errors| {
        let (new, old) = (new.get("spec"), old.get("spec"));
        // Upstream misspells the first of the two.
        for (name, shown) in
            [("attachRequired", "spec.attachedRequired"), ("volumeLifecycleModes", "spec.volumeLifecycleModes")]
        {
            new.get(name).shown_at(shown).immutable(&old.get(name), errors);
        }
    },
    ..Rules::NONE
};

/// Drivers on a node.
pub(super) const NODE_DRIVERS: Rules = Rules {
    needs_version: true,
    returns_deleted: true,
    default: |node| set_default(member(node, "spec"), "drivers", Value::Null),
    validate: |node, errors| {
        let mut seen = BTreeSet::new();
        for driver in node.at("spec.drivers").items() {
            let name = driver.get("name");
            podspec::driver_name(&name, errors);
            let node = driver.get("nodeID");
            check::required(&node, errors);
            if node.text().len() > NODE_ID_BYTES {
                node.invalid(errors, &format!("must be {NODE_ID_BYTES} characters or less"));
            }
            driver.at("allocatable.count").not_negative(errors);
            if !seen.insert(name.text()) {
                name.duplicate(errors);
            }
            topology_keys(&driver, errors);
        }
    },
    validate_update: drivers_stay,
    ..Rules::NONE
};

/// Attachments.
pub(super) const ATTACHMENTS: Rules = Rules {
    status: true,
    needs_version: true,
    returns_deleted: true,
    create: |attachment| *member(attachment, "status") = json!({"attached": false}),
    validate: |attachment, errors| {
        let spec = attachment.get("spec");
        if spec.get("attacher").text().is_empty() {
            spec.get("attacher").required(errors, "");
        } else {
            podspec::driver_name(&spec.get("attacher"), errors);
        }
        let source = spec.get("source");
        let (inline, named) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
        match (inline.exists(), named.exists()) {
            (false, false) => {
                source.required(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (true, true) => {
                source.forbidden(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
            }
            (false, true) if named.text().is_empty() => {
                named.required(errors, "must specify non empty persistentVolumeName");
            }
            _ => {}
        }
        check::problems(&spec.get("nodeName"), &names::subdomain(spec.get("nodeName").text()), errors);
    },
    validate_update: |new, old, errors| check::immutable(new, old, "spec", errors),
    ..Rules::NONE
};

/// What a node says of a driver stays, but for how many of its volumes it has room for.
fn drivers_stay(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let fixed = |driver: &Field<'_>| ["name", "nodeID", "topologyKeys"].map(|name| driver.get(name).value().cloned());
    let drivers = new.at("spec.drivers").items();
    for before in old.at("spec.drivers").items() {
        let same = drivers.iter().filter(|driver| driver.get("name").text() == before.get("name").text());
        for driver in same.filter(|driver| fixed(driver) != fixed(&before)) {
            let shown = go::show("NodeDriver", driver.value().unwrap_or(&Value::Null));
            errors.add("CSINodeDriver", FieldErrorKind::Invalid, format!("{shown}: {}", check::IMMUTABLE));
        }
    }
}

fn token_requests(requests: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for request in requests.items() {
        if !seen.insert(request.get("audience").text()) {
            request.get("audience").duplicate(errors);
        }
        let seconds = request.get("expirationSeconds");
        if seconds.int().is_some_and(|seconds| seconds < TOKEN_SECONDS_MIN) {
            seconds.invalid(errors, "may not specify a duration less than 10 minutes");
        }
        if seconds.int().is_some_and(|seconds| seconds > TOKEN_SECONDS_MAX) {
            seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

/// Errors name the driver, not the key; so does upstream.
fn topology_keys(driver: &Field<'_>, errors: &mut Errors) {
    let keys = driver.get("topologyKeys");
    let mut seen = BTreeSet::new();
    for key in keys.items() {
        if key.text().is_empty() {
            driver.required(errors, "");
        }
        if !seen.insert(key.text()) {
            key.shown_at(driver.path()).duplicate(errors);
        }
        for problem in names::qualified_name(key.text()) {
            driver.wrong(errors, keys.shown(), &problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::broken_by_change;

    #[test]
    fn drivers_of_a_node_stay_as_they_are() {
        let node = |id: &str, count: i64| {
            let driver = json!({"name": "d", "nodeID": id, "topologyKeys": null, "allocatable": {"count": count}});
            json!({"metadata": {"name": "n"}, "spec": {"drivers": [driver]}})
        };
        assert_eq!(broken_by_change(&NODE_DRIVERS, node("a", 1), node("a", 2)), [""; 0]);
        let shown = r#"{"Name":"d","NodeID":"b","TopologyKeys":null,"Allocatable":{"Count":1}}"#;
        assert_eq!(
            broken_by_change(&NODE_DRIVERS, node("a", 1), node("b", 1)),
            [format!("CSINodeDriver: {shown}: field is immutable")]
        );
    }
}
