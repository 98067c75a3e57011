//! The volumes of a pod.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Pod,
    volume_sources::{self, Owner, driver_name, plain_source},
};
use crate::{
    field::{Errors, Field},
    kinds::{check, storage},
    names,
};

/// What the metadata of a claim's template cannot say, by upstream's spelling, in its order.
const UNTEMPLATED: [(&str, &str); 13] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

/// What a projected volume is made of.
const PROJECTIONS: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// The sources of a volume, in upstream's order.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// The rules of all volumes of a pod. Gives those that keep them, which containers can mount.
pub(super) fn validate<'a>(volumes: &Field<'a>, pod: Pod<'_>, errors: &mut Errors) -> BTreeMap<&'a str, Field<'a>> {
    let items = volumes.items();
    let ephemeral = items.iter().filter(|volume| volume.get("ephemeral").exists());
    let made: BTreeSet<String> = ephemeral.filter_map(|volume| claim_name(volume, pod)).collect();
    let mut good = BTreeMap::new();
    for volume in items {
        let name = volume.get("name");
        let mut own = Errors::default();
        source(&volume, pod, &mut own);
        check::needed(&name, names::label, &mut own);
        if good.contains_key(name.text()) {
            name.duplicate(&mut own);
        }
        let claim = volume.at("persistentVolumeClaim.claimName");
        if own.is_empty() {
            good.insert(name.text(), volume);
        } else {
            errors.extend(own);
        }
        if made.contains(claim.text()) {
            claim.invalid(errors, "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    good
}

/// What the claim of an ephemeral volume will be called, where that is known.
fn claim_name(volume: &Field<'_>, pod: Pod<'_>) -> Option<String> {
    let (Pod::Itself { name: pod }, volume) = (pod, volume.get("name").text()) else { return None };
    (!pod.is_empty() && !volume.is_empty()).then(|| format!("{pod}-{volume}"))
}

fn source(volume: &Field<'_>, pod: Pod<'_>, errors: &mut Errors) {
    let mut found = 0;
    for kind in SOURCES {
        let source = volume_sources::source(volume, kind);
        if !source.exists() {
            continue;
        }
        found += 1;
        if found > 1 {
            volume_sources::one_too_many(volume, kind, errors);
        } else {
            one_source(kind, volume, &source, pod, errors);
        }
    }
    if found == 0 {
        volume.required(errors, "must specify a volume type");
    }
}

fn one_source(kind: &str, volume: &Field<'_>, source: &Field<'_>, pod: Pod<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            if check::quantity(&source.get("sizeLimit")).is_some_and(|size| size.sign() < 0) {
                source.get("sizeLimit").forbidden(errors, "SizeLimit field must be a valid resource quantity");
            }
        }
        "secret" => files_of(source, "secretName", errors),
        "configMap" => files_of(source, "name", errors),
        "persistentVolumeClaim" => check::required(&source.get("claimName"), errors),
        "downwardAPI" => {
            check::file_mode(&source.get("defaultMode"), errors);
            downward_items(source, errors);
        }
        "projected" => projected(source, errors),
        "csi" => {
            driver_name(&source.get("driver"), errors);
            let secret = source.at("nodePublishSecretRef.name");
            if source.get("nodePublishSecretRef").exists() {
                check::required(&secret, errors);
                check::given(&secret.shown_at(format!("{}.name", source.path())), names::subdomain, errors);
            }
        }
        "ephemeral" => ephemeral(volume, source, pod, errors),
        "image" => {
            if matches!(pod, Pod::Itself { .. }) {
                check::required(&source.get("reference"), errors);
            }
            source.get("pullPolicy").one_of(errors, &["Always", "IfNotPresent", "Never"]);
        }
        _ => plain_source(kind, source, Owner::Pod(volume.get("name").text()), errors),
    }
}

/// A claim that lives as long as its pod.
fn ephemeral(volume: &Field<'_>, source: &Field<'_>, pod: Pod<'_>, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if template.exists() {
        let metadata = template.get("metadata");
        check::annotations(&metadata.get("annotations"), errors);
        check::labels(&metadata.get("labels"), errors);
        for (name, shown) in UNTEMPLATED {
            if metadata.get(name).exists() {
                metadata.get(shown).forbidden(errors, "cannot be set");
            }
        }
        storage::validate_claim_spec(&template.get("spec"), errors);
    } else {
        template.required(errors, "");
    }
    let Some(claim) = claim_name(volume, pod) else { return };
    for problem in names::subdomain(&claim) {
        volume.get("name").invalid(errors, &format!("PVC name {claim:?}: {problem}"));
    }
}

fn files_of(source: &Field<'_>, name: &str, errors: &mut Errors) {
    check::required(&source.get(name), errors);
    check::file_mode(&source.get("defaultMode"), errors);
    file_items(source, errors);
}

/// The rules of files that are made of the keys of an object.
fn file_items(source: &Field<'_>, errors: &mut Errors) {
    for item in source.get("items").items() {
        check::required(&item.get("key"), errors);
        local_path(&item.get("path"), errors);
        check::file_mode(&item.get("mode"), errors);
    }
}

/// The rules of a path below a volume. Names with two dots in front belong to the volume.
fn local_path(path: &Field<'_>, errors: &mut Errors) {
    if path.text().is_empty() {
        return path.required(errors, "");
    }
    check::descending_path(path, errors);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        path.invalid(errors, "must not start with '..'");
    }
}

fn downward_items(source: &Field<'_>, errors: &mut Errors) {
    for item in source.get("items").items() {
        // Errors do not tell which of the files they mean.
        let item = item.shown_at(source.path());
        local_path(&item.get("path"), errors);
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.exists(), resource.exists()) {
            (true, both) => {
                super::environment::volume_field(&field, errors);
                if both {
                    item.wrong(
                        errors,
                        "\"resource\"",
                        "fieldRef and resourceFieldRef can not be specified simultaneously",
                    );
                }
            }
            (false, true) => super::environment::resource_field(&resource, true, errors),
            (false, false) => item.required(errors, "one of fieldRef and resourceFieldRef is required"),
        }
        check::file_mode(&item.get("mode"), errors);
    }
}

fn projected(source: &Field<'_>, errors: &mut Errors) {
    check::file_mode(&source.get("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for part in source.get("sources").items() {
        let mut found = 0;
        for kind in PROJECTIONS {
            let projection = part.get(kind);
            if !projection.exists() {
                continue;
            }
            found += 1;
            one_projection(kind, source, &projection, errors);
            // Each path is taken once, by whatever source.
            let items = projection.get("items").items();
            let own = items.iter().map(|item| item.get("path")).chain([projection.get("path")]);
            for path in own.filter(|path| !path.text().is_empty() && kind != "serviceAccountToken") {
                if paths.contains(&path.text()) {
                    let named = matches!(kind, "secret" | "configMap");
                    let shown = if named { projection.get("name").shown() } else { path.shown() };
                    source.wrong(errors, shown, "conflicting duplicate paths");
                }
                paths.insert(path.text());
            }
        }
        if found > 1 {
            part.forbidden(errors, "may not specify more than 1 volume type per source");
        }
    }
}

fn one_projection(kind: &str, source: &Field<'_>, projection: &Field<'_>, errors: &mut Errors) {
    match kind {
        "secret" | "configMap" => {
            check::required(&projection.get("name"), errors);
            file_items(projection, errors);
        }
        "downwardAPI" => downward_items(projection, errors),
        "serviceAccountToken" => {
            let seconds = projection.get("expirationSeconds");
            if seconds.int().is_some_and(|number| number < 600) {
                seconds.invalid(errors, "may not specify a duration less than 10 minutes");
            }
            if seconds.int().is_some_and(|number| number > 1 << 32) {
                seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
            }
            local_path(&projection.get("path").shown_at(source.get("path").path()), errors);
        }
        "clusterTrustBundle" => trust_bundle(projection, errors),
        _ => {}
    }
}

/// Certificates by the name of their bundle, or all of a signer's that have some labels.
fn trust_bundle(bundle: &Field<'_>, errors: &mut Errors) {
    let (name, signer, selector) = (bundle.get("name"), bundle.get("signerName"), bundle.get("labelSelector"));
    match (name.exists(), signer.exists()) {
        (true, true) => {
            let shown = bundle.value().map(ToString::to_string).unwrap_or_default();
            bundle.wrong(errors, shown, "only one of name and signerName may be used");
        }
        (true, false) => {
            if name.text().is_empty() {
                name.required(errors, "must be a valid object name");
            }
            // The signer's name stands before the bundle's own.
            let own = name.text().rsplit_once(':').map_or(name.text(), |(_, own)| own);
            for problem in names::subdomain(own) {
                name.invalid(errors, &format!("not a valid clustertrustbundlename: {problem}"));
            }
            if selector.exists() {
                selector.invalid(errors, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.text().is_empty() {
                signer.required(errors, "must be a valid signer name");
            }
            check::label_selector(&selector, errors);
        }
        (false, false) => bundle.required(errors, "either name or signerName must be specified"),
    }
    local_path(&bundle.get("path"), errors);
}
