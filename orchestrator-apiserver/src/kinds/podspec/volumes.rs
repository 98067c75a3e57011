//! The volumes of a pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Pod,
    volume_sources::{self, Owner, driver_name, plain_source},
};
use crate::{
    field::{Errors, Field},
    kinds::{certificates, check, go, storage},
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

const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
/// Life of a pod's certificate, in seconds: an hour at least, and 91 days at most, or a day where Kubernetes itself signs.
const CERTIFICATE_SECONDS_MIN: i64 = 3600;
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 24 * 3600;
const OWN_CERTIFICATE_SECONDS_MAX: i64 = 24 * 3600;

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
    let (Pod::Itself { name: pod, .. }, volume) = (pod, volume.get("name").text()) else { return None };
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

/// What a template of objects may say about them. Upstream: `ValidateTemplateObjectMeta`.
pub(crate) fn template_metadata(metadata: &Field<'_>, errors: &mut Errors) {
    check::annotations(&metadata.get("annotations"), errors);
    check::labels(&metadata.get("labels"), errors);
    for (name, shown) in UNTEMPLATED {
        if metadata.get(name).exists() {
            metadata.get(shown).forbidden(errors, "cannot be set");
        }
    }
}

/// A claim that lives as long as its pod.
fn ephemeral(volume: &Field<'_>, source: &Field<'_>, pod: Pod<'_>, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if template.exists() {
        template_metadata(&template.get("metadata"), errors);
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
    source.get("items").items().iter().for_each(|item| file_item(item, errors));
}

fn file_item(item: &Field<'_>, errors: &mut Errors) {
    check::required(&item.get("key"), errors);
    local_path(&item.get("path"), errors);
    check::file_mode(&item.get("mode"), errors);
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
    source.get("items").items().iter().for_each(|item| downward_item(source, item, errors));
}

fn downward_item(source: &Field<'_>, item: &Field<'_>, errors: &mut Errors) {
    // Errors do not tell which of the files they mean.
    let item = item.shown_at(source.path());
    local_path(&item.get("path"), errors);
    let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
    match (field.exists(), resource.exists()) {
        (true, both) => {
            super::environment::volume_field(&field, errors);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                item.wrong(errors, "\"resource\"", detail);
            }
        }
        (false, true) => super::environment::resource_field(&resource, true, errors),
        (false, false) => item.required(errors, "one of fieldRef and resourceFieldRef is required"),
    }
    check::file_mode(&item.get("mode"), errors);
}

fn projected(source: &Field<'_>, errors: &mut Errors) {
    check::file_mode(&source.get("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for part in source.get("sources").items() {
        let there: Vec<_> = PROJECTIONS.into_iter().filter(|kind| part.get(kind).exists()).collect();
        for kind in &there {
            one_projection(kind, source, &part.get(kind), &mut paths, errors);
        }
        if there.len() > 1 {
            part.forbidden(errors, "may not specify more than 1 volume type per source");
        }
    }
}

/// Each path is taken once, by whatever source.
fn take<'a>(
    paths: &mut BTreeSet<&'a str>,
    source: &Field<'_>,
    path: &Field<'a>,
    shown: &Field<'_>,
    errors: &mut Errors,
) {
    if !path.text().is_empty() && !paths.insert(path.text()) {
        source.wrong(errors, Value::from(shown.text()), "conflicting duplicate paths");
    }
}

fn one_projection<'a>(
    kind: &str,
    source: &Field<'_>,
    projection: &Field<'a>,
    paths: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    match kind {
        "secret" | "configMap" => {
            let name = projection.get("name");
            check::required(&name, errors);
            for item in projection.get("items").items() {
                file_item(&item, errors);
                take(paths, source, &item.get("path"), &name, errors);
            }
        }
        "downwardAPI" => {
            for item in projection.get("items").items() {
                downward_item(projection, &item, errors);
                take(paths, source, &item.get("path"), &item.get("path"), errors);
            }
        }
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
        "clusterTrustBundle" => {
            trust_bundle(projection, errors);
            take(paths, source, &projection.get("path"), &projection.get("path"), errors);
        }
        "podCertificate" => pod_certificate(source, projection, paths, errors),
        _ => {}
    }
}

/// A certificate of the pod's own, and where it and its key are found.
fn pod_certificate<'a>(
    source: &Field<'_>,
    certificate: &Field<'a>,
    paths: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    let signer = certificate.get("signerName");
    certificates::signer_name(&signer, errors);
    let key = certificate.get("keyType");
    if !KEY_TYPES.contains(&key.text()) {
        key.not_supported(errors, &KEY_TYPES);
    }
    let life = certificate.get("maxExpirationSeconds");
    let domain = signer.text().split('/').next().unwrap_or_default();
    let is_own = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    let longest = if is_own { OWN_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
    if life.int().is_some_and(|seconds| seconds < CERTIFICATE_SECONDS_MIN) {
        let detail = format!("if provided, maxExpirationSeconds must be >= {CERTIFICATE_SECONDS_MIN}");
        life.invalid(errors, &detail);
    }
    if life.int().is_some_and(|seconds| seconds > longest) {
        life.invalid(errors, &format!("if provided, maxExpirationSeconds must be <= {longest}"));
    }
    let places = ["credentialBundlePath", "keyPath", "certificateChainPath"].map(|name| certificate.get(name));
    for path in places.iter().filter(|path| !path.text().is_empty()) {
        local_path(path, errors);
        take(paths, source, path, path, errors);
    }
    if places.iter().all(|path| path.text().is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        certificate.required(errors, detail);
    }
}

/// Certificates by the name of their bundle, or all of a signer's that have some labels.
fn trust_bundle(bundle: &Field<'_>, errors: &mut Errors) {
    let (name, signer, selector) = (bundle.get("name"), bundle.get("signerName"), bundle.get("labelSelector"));
    match (name.exists(), signer.exists()) {
        (true, true) => {
            let shown = go::show("TrustBundle", bundle.value().unwrap_or(&Value::Null));
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
            certificates::signer_name(&signer, errors);
            check::label_selector(&selector, errors);
        }
        (false, false) => bundle.required(errors, "either name or signerName must be specified"),
    }
    local_path(&bundle.get("path"), errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(sources: Value) -> Vec<String> {
        let volume = json!({"projected": {"sources": sources}});
        let mut errors = Errors::default();
        projected(&Field::root(&volume).get("projected"), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    #[test]
    fn paths_are_taken_once_and_told_where_they_are_taken() {
        let map = json!({"configMap": {"name": "m", "items": [{"key": "k", "path": "a"}, {"key": "", "path": "b"}]}});
        let files = json!({"downwardAPI": {"items": [{"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}});
        assert_eq!(
            told(json!([map, map, files])),
            [
                "projected.sources[0].configMap.items[1].key: ",
                "projected: \"m\": conflicting duplicate paths",
                "projected.sources[1].configMap.items[1].key: ",
                "projected: \"m\": conflicting duplicate paths",
                "projected: \"a\": conflicting duplicate paths",
            ]
        );
    }

    #[test]
    fn signers_of_certificates_have_domains() {
        let bundle = |signer: &str| told(json!([{"clusterTrustBundle": {"signerName": signer, "path": "p"}}]));
        assert_eq!(bundle("example.com/signer"), [""; 0]);
        let found = bundle("signer");
        assert!(
            found[0].starts_with("projected.sources[0].clusterTrustBundle.signerName: \"signer\": must be a fully")
        );
        let certificate = |life: i64| {
            let of = json!({"signerName": "kubernetes.io/s", "keyType": "ED25519", "maxExpirationSeconds": life});
            told(json!([{ "podCertificate": of }]))
        };
        let place = "projected.sources[0].podCertificate";
        let nowhere =
            format!("{place}: specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
        let life = format!("{place}.maxExpirationSeconds: 86401: if provided, maxExpirationSeconds must be <= 86400");
        assert_eq!(certificate(86_401), [life, nowhere]);
    }
}
