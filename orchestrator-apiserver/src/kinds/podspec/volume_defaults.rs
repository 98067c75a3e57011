//! The defaults of volumes.

use serde_json::{Value, json};

use crate::field::{items_mut, member, set_default};

/// Files made of objects are readable by everyone and writable by their owner: 0644.
const MODE: i64 = 0o644;

/// Writes the defaults of a volume of a pod.
pub(crate) fn default_volume(volume: &mut Value) {
    let sourceless = volume.as_object().is_none_or(|members| members.keys().all(|name| name == "name"));
    if sourceless {
        *member(volume, "emptyDir") = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            set_default(source, "defaultMode", MODE);
        }
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        downward_items(downward);
    }
    if let Some(projected) = volume.get_mut("projected") {
        projected_sources(projected);
    }
    if let Some(image) = volume.get_mut("image") {
        let reference = image["reference"].as_str().unwrap_or_default().to_owned();
        set_default(image, "pullPolicy", super::defaults::pull_policy(&reference));
    }
    if let Some(template) = volume.get_mut("ephemeral").and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate")) {
        set_default(template, "metadata", json!({}));
        let spec = member(template, "spec");
        set_default(spec, "volumeMode", "Filesystem");
        set_default(spec, "resources", json!({}));
    }
    default_source(volume);
}

/// The defaults that volumes of pods and persistent volumes share.
pub(crate) fn default_source(volume: &mut Value) {
    let mut defaults = |source: &str, values: &[(&str, Value)]| {
        if let Some(source) = volume.get_mut(source) {
            for (name, value) in values {
                set_default(source, name, value.clone());
            }
        }
    };
    defaults("hostPath", &[("type", "".into())]);
    defaults("iscsi", &[("iscsiInterface", "default".into())]);
    defaults("rbd", &[("pool", "rbd".into()), ("user", "admin".into()), ("keyring", "/etc/ceph/keyring".into())]);
    defaults(
        "azureDisk",
        &[
            ("cachingMode", "ReadWrite".into()),
            ("kind", "Shared".into()),
            ("fsType", "ext4".into()),
            ("readOnly", false.into()),
        ],
    );
    defaults("scaleIO", &[("storageMode", "ThinProvisioned".into()), ("fsType", "xfs".into())]);
}

fn downward_items(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(field) = item.get_mut("fieldRef") {
            set_default(field, "apiVersion", "v1");
        }
        if let Some(resource) = item.get_mut("resourceFieldRef") {
            set_default(resource, "divisor", "0");
        }
    }
}

fn projected_sources(projected: &mut Value) {
    set_default(projected, "sources", Value::Null);
    for source in items_mut(projected, "sources") {
        if let Some(downward) = source.get_mut("downwardAPI") {
            downward_items(downward);
        }
        if let Some(token) = source.get_mut("serviceAccountToken") {
            set_default(token, "expirationSeconds", 3600);
        }
    }
}
