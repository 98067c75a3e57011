//! Claims, volumes, and the classes they are made from.
//!
//! Upstream: `ValidatePersistentVolume`, `ValidatePersistentVolumeClaim` and `pkg/apis/storage`.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, go, podspec, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, remove, set_default},
    names,
};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const EXPANSION_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
const CLAIM_UPDATE: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES: usize = 256 << 10;
/// How a claim named its class of old.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// Labels of nodes that have got other names.
const NEW_LABELS: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Claims.
pub(super) const CLAIMS: Rules = Rules {
    status: true,
    returns_deleted: true,
    default: default_claim,
    create: |claim| {
        *member(claim, "status") = json!({"phase": "Pending"});
        protect(claim, "kubernetes.io/pvc-protection");
    },
    validate: |claim, errors| validate_claim_spec(&claim.get("spec"), errors),
    validate_update: update_claim,
    validate_status: validate_claim_status,
    ..Rules::NONE
};

/// Volumes.
pub(super) const VOLUMES: Rules = Rules {
    status: true,
    returns_deleted: true,
    default: default_persistent_volume,
    create: |volume| {
        let since = volume["metadata"]["creationTimestamp"].clone();
        *member(volume, "status") = json!({"phase": "Pending", "lastPhaseTransitionTime": since});
        protect(volume, "kubernetes.io/pv-protection");
    },
    validate: validate_volume,
    validate_update: update_volume,
    ..Rules::NONE
};

/// Storage classes.
pub(super) const STORAGE_CLASSES: Rules = Rules {
    returns_deleted: true,
    default: |class| {
        set_default(class, "provisioner", "");
        set_default(class, "reclaimPolicy", "Delete");
        set_default(class, "volumeBindingMode", "Immediate");
    },
    validate: validate_class,
    validate_update: |new, old, errors| {
        for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            if new.get(name).value() != old.get(name).value() {
                match name {
                    "parameters" => new.get(name).forbidden(errors, "updates to parameters are forbidden."),
                    "provisioner" => new.get(name).forbidden(errors, "updates to provisioner are forbidden."),
                    "reclaimPolicy" => new.get(name).forbidden(errors, "updates to reclaimPolicy are forbidden."),
                    _ => check::immutable(new, old, name, errors),
                }
            }
        }
    },
    ..Rules::NONE
};

/// Capacities.
pub(super) const CAPACITIES: Rules = Rules {
    needs_version: true,
    returns_deleted: true,
    default: |capacity| set_default(capacity, "storageClassName", ""),
    validate: |capacity, errors| {
        let class = capacity.get("storageClassName");
        check::problems(&class, &names::subdomain(class.text()), errors);
        check::label_selector(&capacity.get("nodeTopology"), errors);
        for name in ["capacity", "maximumVolumeSize"] {
            check::quantity_not_negative(&capacity.get(name), errors);
        }
    },
    validate_update: |new, old, errors| {
        check::immutable(new, old, "nodeTopology", errors);
        check::immutable(new, old, "storageClassName", errors);
    },
    ..Rules::NONE
};

/// Attribute classes.
pub(super) const ATTRIBUTE_CLASSES: Rules = Rules {
    returns_deleted: true,
    validate: |class, errors| {
        podspec::driver_name(&class.get("driverName"), errors);
        if class.get("parameters").len() == 0 {
            class.get("parameters").required(errors, "must contain at least one key/value pair");
        }
        parameters(&class.get("parameters"), errors);
    },
    validate_update: |new, old, errors| {
        for name in ["driverName", "parameters"] {
            if new.get(name).value() != old.get(name).value() {
                new.get(name).forbidden(errors, &format!("updates to {name} are forbidden."));
            }
        }
    },
    ..Rules::NONE
};

/// The finalizer that keeps what is in use.
fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = member(member(object, "metadata"), "finalizers");
    match finalizers.as_array_mut() {
        Some(finalizers) if finalizers.iter().any(|present| present == finalizer) => {}
        Some(finalizers) => finalizers.push(finalizer.into()),
        None => *finalizers = json!([finalizer]),
    }
}

/// Writes the defaults of a claim, or of the template of one.
pub(super) fn default_claim(claim: &mut Value) {
    let spec = member(claim, "spec");
    set_default(spec, "volumeMode", "Filesystem");
    set_default(spec, "resources", json!({}));
    same_sources(spec);
}

/// A claim's source has an old and a new name.
fn same_sources(spec: &mut Value) {
    let namespaced = spec["dataSourceRef"]["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty());
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => *member(spec, "dataSourceRef") = source,
        (None, Some(source)) if !namespaced => *member(spec, "dataSource") = source,
        _ => {}
    }
}

/// What a claim has, and how far its expansion is.
fn validate_claim_status(new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
    let status = new.get("status");
    for (_, amount) in status.get("capacity").entries() {
        basic_amount(&amount, errors);
    }
    let states = status.get("allocatedResourceStatuses");
    for (name, state) in states.entries() {
        expanded_resource(&states, name, errors);
        // Upstream names the resource, not the state that it does not know.
        if !EXPANSION_STATES.contains(&state.text()) {
            states.not_supported_as(errors, &format!("{name:?}"), &EXPANSION_STATES);
        }
    }
    let allocated = status.get("allocatedResources");
    for (name, amount) in allocated.entries() {
        if expanded_resource(&allocated, name, errors) {
            basic_amount(&amount, errors);
        }
    }
}

/// Refuses an amount below zero, which is shown in whole units.
fn basic_amount(amount: &Field<'_>, errors: &mut Errors) {
    if let Some(quantity) = check::quantity(amount).filter(|quantity| quantity.value() < 0) {
        amount.wrong(errors, quantity.value(), "must be a valid resource quantity");
    }
}

/// Of Kubernetes' own resources a claim has storage only. Tells whether this is one that it may have.
fn expanded_resource(place: &Field<'_>, name: &str, errors: &mut Errors) -> bool {
    let problems = names::qualified_name(name);
    for problem in &problems {
        place.wrong(errors, format!("{name:?}"), problem);
    }
    let is_other = (!name.contains('/') || name.contains("kubernetes.io/")) && name != "storage";
    if problems.is_empty() && is_other {
        place.not_supported_as(errors, &format!("{name:?}"), &["storage"]);
    }
    problems.is_empty() && !is_other
}

/// The rules of a claim's spec.
pub(super) fn validate_claim_spec(spec: &Field<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        modes.required(errors, "at least 1 access mode is required");
    }
    check::label_selector(&spec.get("selector"), errors);
    access_modes(&modes, errors);
    let size = spec.at("resources.requests").get("storage");
    let place = format!("{}.resources[storage]", spec.path());
    if size.exists() {
        if check::quantity(&size).is_some_and(|size| size.sign() <= 0) {
            let detail = format!("{}: must be greater than zero", size.shown());
            errors.add(place, FieldErrorKind::Invalid, detail);
        }
    } else {
        errors.add(place, FieldErrorKind::Required, "");
    }
    check::given(&spec.get("storageClassName"), names::subdomain, errors);
    spec.get("volumeMode").one_of(errors, &["Block", "Filesystem"]);
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    data_source(&source, errors);
    data_source(&reference, errors);
    check::given(&reference.get("namespace"), names::label, errors);
    if source.exists() && reference.exists() {
        let shown = format!("{:?}", source.path());
        if !reference.get("namespace").text().is_empty() {
            spec.wrong(errors, shown, "may not be specified when dataSourceRef.namespace is specified");
        } else if ["apiGroup", "kind", "name"].iter().any(|name| source.get(name).text() != reference.get(name).text())
        {
            spec.wrong(errors, shown, "must match dataSourceRef");
        }
    }
    check::given(&spec.get("volumeAttributesClassName"), names::subdomain, errors);
}

/// What a claim's volume is filled from.
fn data_source(source: &Field<'_>, errors: &mut Errors) {
    if !source.exists() {
        return;
    }
    let (group, kind) = (source.get("apiGroup"), source.get("kind"));
    check::required(&source.get("name"), errors);
    check::required(&kind, errors);
    if group.text().is_empty() && kind.text() != "PersistentVolumeClaim" {
        source.wrong(errors, kind.shown(), "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    check::given(&group, names::subdomain, errors);
}

fn access_modes(modes: &Field<'_>, errors: &mut Errors) {
    let items = modes.items();
    for mode in &items {
        if !ACCESS_MODES.contains(&mode.text()) {
            modes.not_supported_as(errors, &mode.shown(), &ACCESS_MODES);
        }
    }
    let single = |mode: &&Field<'_>| mode.text() == "ReadWriteOncePod";
    let shared = |mode: &Field<'_>| ACCESS_MODES.contains(&mode.text()) && !single(&mode);
    if items.iter().any(shared) && items.iter().any(|mode| single(&mode)) {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

fn update_claim(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    let (Some(changed), Some(before)) = (new_spec.value(), old_spec.value()) else { return };
    let (allowed, before_allowed) = claim_without_allowed_changes(new, old, changed, before);
    // Before there was a field for the class there was an annotation.
    let (class, old_class) = (class_annotation(new), class_annotation(old));
    if class.text() != old_class.text() && !is_moved_class(new, old) {
        let place = format!("metadata.annotations.{CLASS_ANNOTATION}");
        errors.add(place, FieldErrorKind::Invalid, format!("{:?}: {}", class.text(), check::IMMUTABLE));
    }
    if allowed != before_allowed {
        let difference = go::difference("ClaimSpec", &before_allowed, &allowed);
        new_spec.forbidden(errors, &format!("{CLAIM_UPDATE}\n{difference}"));
    }
    let size = |spec: &Field<'_>| check::quantity(&spec.at("resources.requests").get("storage"));
    let least = check::quantity(&old.at("status.capacity").get("storage")).unwrap_or_default();
    let (new_size, old_size) = (size(&new_spec).unwrap_or_default(), size(&old_spec).unwrap_or_default());
    if new_size < old_size && new_size <= least {
        let place = new_spec.at("resources.requests.storage");
        place.forbidden(errors, "field can not be less than status.capacity");
    }
    new_spec.get("volumeMode").shown_at("volumeMode").immutable(&old_spec.get("volumeMode"), errors);
    let class = new_spec.get("volumeAttributesClassName");
    let changed = class.value() != old_spec.get("volumeAttributesClassName").value();
    if changed && class.text().is_empty() && old.at("status.currentVolumeAttributesClassName").exists() {
        let what = if class.exists() { "empty string" } else { "nil" };
        let detail = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        class.forbidden(errors, &detail);
    }
}

fn class_annotation<'a>(claim: &Field<'a>) -> Field<'a> {
    claim.at("metadata.annotations").key(CLASS_ANNOTATION)
}

/// Whether the class moves from its annotation to its field.
fn is_moved_class(new: &Field<'_>, old: &Field<'_>) -> bool {
    let (before, now) = (class_annotation(old), class_annotation(new));
    let (old_field, new_field) = (old.at("spec.storageClassName"), new.at("spec.storageClassName"));
    before.exists()
        && !old_field.exists()
        && new_field.exists()
        && new_field.text() == before.text()
        && (!now.exists() || now.text() == before.text())
}

/// The new and the old spec, with what may change made equal.
fn claim_without_allowed_changes(new: &Field<'_>, old: &Field<'_>, changed: &Value, before: &Value) -> (Value, Value) {
    let (mut allowed, mut old_spec) = (changed.clone(), before.clone());
    // A claim is bound to a volume once.
    if before["volumeName"].as_str().is_none_or(str::is_empty) {
        match changed.get("volumeName") {
            Some(name) => *member(&mut old_spec, "volumeName") = name.clone(),
            None => drop(remove(&mut old_spec, "volumeName")),
        }
    }
    let annotation = class_annotation(old);
    let class = new.at("spec.storageClassName");
    let may_name_class = !old.at("spec.storageClassName").exists()
        && class.exists()
        && (!annotation.exists() || class.text() == annotation.text());
    if may_name_class {
        remove(&mut allowed, "storageClassName");
    }
    if new.at("status.phase").text() == "Bound" {
        if allowed["resources"]["requests"].is_object() {
            let requests = member(member(&mut allowed, "resources"), "requests");
            match before["resources"]["requests"].get("storage") {
                Some(size) => *member(requests, "storage") = size.clone(),
                None => drop(remove(requests, "storage")),
            }
        }
        match before.get("volumeAttributesClassName") {
            Some(class) => *member(&mut allowed, "volumeAttributesClassName") = class.clone(),
            None => drop(remove(&mut allowed, "volumeAttributesClassName")),
        }
    }
    (allowed, old_spec)
}

/// The sources of a persistent volume.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn default_persistent_volume(volume: &mut Value) {
    let spec = member(volume, "spec");
    set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_default(spec, "volumeMode", "Filesystem");
    podspec::default_source(spec);
}

fn validate_volume(volume: &Field<'_>, errors: &mut Errors) {
    let spec = volume.get("spec");
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        modes.required(errors, "");
    }
    access_modes(&modes, errors);
    let capacity = spec.get("capacity");
    if capacity.len() == 0 {
        capacity.required(errors, "");
    }
    if capacity.len() != 1 || !capacity.get("storage").exists() {
        let shown = capacity.value().map_or_else(|| "null".to_owned(), Value::to_string);
        capacity.not_supported_as(errors, &shown, &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        basic_amount(&amount, errors);
        check::quantity_positive(&amount, errors);
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    policy.one_of(errors, &["Delete", "Recycle", "Retain"]);
    let affinity = spec.get("nodeAffinity");
    if affinity.exists() {
        let required = affinity.get("required");
        if required.exists() {
            podspec::node_selector(&required, errors);
        } else {
            required.required(errors, "must specify required node constraints");
        }
    }
    volume_source(&spec, volume.at("metadata.name").text(), errors);
    let root = spec.at("hostPath.path").text();
    if policy.text() == "Recycle" && root.starts_with('/') && root.split('/').all(|part| matches!(part, "" | ".")) {
        policy.forbidden(errors, "may not be 'recycle' for a hostPath mount of '/'");
    }
    check::given(&spec.get("storageClassName"), names::subdomain, errors);
    spec.get("volumeMode").one_of(errors, &["Block", "Filesystem"]);
    let attributes = spec.get("volumeAttributesClassName");
    if attributes.exists() {
        if attributes.text().is_empty() {
            attributes.required(errors, "an empty string is disallowed");
        }
        check::given(&attributes, names::subdomain, errors);
        if !spec.get("csi").exists() {
            spec.get("csi").required(errors, "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn volume_source(spec: &Field<'_>, name: &str, errors: &mut Errors) {
    let mut found = 0;
    for kind in SOURCES {
        let source = podspec::source(spec, kind);
        if !source.exists() {
            continue;
        }
        found += 1;
        // One of them stands beside others unnoticed; so it does upstream.
        if found > 1 && kind != "flexVolume" {
            podspec::one_too_many(spec, kind, errors);
            continue;
        }
        match kind {
            "csi" => driver_volume(&source, errors),
            "local" => {
                check::required(&source.get("path"), errors);
                check::no_backsteps(&source.get("path"), errors);
                if !spec.get("nodeAffinity").exists() {
                    spec.get("nodeAffinity").required(errors, "Local volume requires node affinity");
                }
            }
            _ => podspec::plain_source(kind, &source, podspec::Owner::PersistentVolume(name), errors),
        }
    }
    if found == 0 {
        spec.required(errors, "must specify a volume type");
    }
}

/// A volume that a driver has, and the secrets that the driver gets for it.
fn driver_volume(source: &Field<'_>, errors: &mut Errors) {
    podspec::driver_name(&source.get("driver"), errors);
    check::required(&source.get("volumeHandle"), errors);
    for name in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let secret = source.get(name);
        if secret.exists() {
            check::needed(&secret.get("name"), names::subdomain, errors);
            check::needed(&secret.get("namespace"), names::label, errors);
        }
    }
}

fn update_volume(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let source = |spec: &Field<'_>| {
        let sources = SOURCES.iter().filter_map(|kind| Some(((*kind).to_owned(), spec.get(kind).value()?.clone())));
        Value::Object(sources.collect())
    };
    let (mut changed, before) = (source(&new), source(&old));
    // The secret for its expansion may be told later.
    if before["csi"].is_object() && before["csi"].get("controllerExpandSecretRef").is_none() {
        changed.get_mut("csi").map(|driver| remove(driver, "controllerExpandSecretRef"));
    }
    if changed != before {
        let difference = go::difference("PersistentVolumeSource", &before, &changed);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        new.get("persistentvolumesource").forbidden(errors, &detail);
    }
    new.get("volumeMode").shown_at("volumeMode").immutable(&old.get("volumeMode"), errors);
    let (affinity, before) = (new.get("nodeAffinity"), old.get("nodeAffinity"));
    if before.exists() && affinity.value() != with_new_labels(&before, &affinity).as_ref() {
        let shown = affinity.value().map_or_else(|| "null".to_owned(), |value| go::show("VolumeNodeAffinity", value));
        let detail = format!("{}, except for updating from beta label to GA", check::IMMUTABLE);
        affinity.shown_at("nodeAffinity").wrong(errors, shown, &detail);
    }
    let (attributes, before) = (new.get("volumeAttributesClassName"), old.get("volumeAttributesClassName"));
    if before.exists() && !attributes.exists() {
        attributes.forbidden(errors, "update from non-nil value to nil is forbidden");
    }
}

/// An affinity whose old labels are written as the new ones, where another one does so.
fn with_new_labels(affinity: &Field<'_>, other: &Field<'_>) -> Option<Value> {
    let mut tree = affinity.value()?.clone();
    let terms = other.at("required.nodeSelectorTerms").items();
    let Some(required) = tree.get_mut("required") else { return Some(tree) };
    for (term, other) in items_mut(required, "nodeSelectorTerms").zip(terms) {
        for list in ["matchExpressions", "matchFields"] {
            for (expression, other) in items_mut(term, list).zip(other.get(list).items()) {
                let key = other.get("key").text();
                if NEW_LABELS.iter().any(|(old, new)| expression["key"] == *old && key == *new) {
                    *member(expression, "key") = key.into();
                }
            }
        }
    }
    Some(tree)
}

fn validate_class(class: &Field<'_>, errors: &mut Errors) {
    let provisioner = class.get("provisioner");
    check::required(&provisioner, errors);
    if !provisioner.text().is_empty() {
        check::problems(&provisioner, &names::qualified_name(&provisioner.text().to_lowercase()), errors);
    }
    parameters(&class.get("parameters"), errors);
    class.get("reclaimPolicy").one_of(errors, &["Delete", "Retain"]);
    class.get("volumeBindingMode").one_of(errors, &["Immediate", "WaitForFirstConsumer"]);
    topologies(&class.get("allowedTopologies"), errors);
}

/// What is told to who makes volumes.
fn parameters(parameters: &Field<'_>, errors: &mut Errors) {
    let too_long = |most: usize, errors: &mut Errors| {
        parameters.error(errors, FieldErrorKind::TooLong, format!("may not be more than {most} bytes"));
    };
    if parameters.len() > PARAMETERS_MAX {
        return too_long(PARAMETERS_MAX, errors);
    }
    let entries = parameters.entries();
    if entries.iter().any(|(key, _)| key.is_empty()) {
        parameters.wrong(errors, "\"\"", "field can not be empty.");
    }
    if entries.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > PARAMETERS_BYTES {
        too_long(PARAMETERS_BYTES, errors);
    }
}

/// Where volumes may be: no part of the cluster is named twice.
fn topologies(terms: &Field<'_>, errors: &mut Errors) {
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for term in terms.items() {
        let mut labels = BTreeMap::new();
        // Upstream does not tell which of the terms it means.
        let expressions = term.get("matchLabelExpressions");
        let place = expressions.shown_at(format!("{}.matchLabelExpressions", terms.path()));
        for expression in place.items() {
            let (key, values) = (expression.get("key"), expression.get("values"));
            check::required_list(&values, errors);
            let mut set = BTreeSet::new();
            for value in values.items() {
                if !set.insert(value.text()) {
                    value.duplicate(errors);
                }
            }
            check::label_key(&key, errors);
            if labels.insert(key.text(), set).is_some() {
                key.duplicate(errors);
            }
        }
        if seen.contains(&labels) {
            expressions.error(errors, FieldErrorKind::Duplicate, "\"\"");
        }
        seen.push(labels);
    }
}
