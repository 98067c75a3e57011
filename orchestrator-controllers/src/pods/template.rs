//! Pods from templates, and short hashes that name what was made from one.

use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde::Serialize;

use crate::limits::NAME_CHARACTERS;

/// The letters of upstream's generated names.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A pod as its template says, in a namespace, controlled by an owner; without a name.
pub(crate) fn pod_from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// What the server completes to the name of a pod of this owner; without a dash where there is no room for one.
pub(crate) fn pod_name_prefix(owner: &str) -> String {
    if owner.len() < NAME_CHARACTERS { format!("{owner}-") } else { owner.to_owned() }
}

/// A stable hash of what an object says, told apart from others by the number of collisions seen so far.
///
/// FNV-1a over the encoding, whose order of fields is fixed, in the letters of generated names: as upstream's
/// `pod-template-hash`, though not the same bits.
pub(crate) fn short_hash(value: &impl Serialize, collisions: Option<i32>) -> String {
    let encoded = serde_json::to_vec(value).unwrap_or_default();
    let salt = collisions.map(i32::to_le_bytes).unwrap_or_default();
    let salt = if collisions.is_some() { &salt[..] } else { &[] };
    let hash = encoded
        .iter()
        .chain(salt)
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_longer_than_a_name() {
        assert_eq!(pod_name_prefix("a"), "a-");
        assert_eq!(pod_name_prefix(&"a".repeat(NAME_CHARACTERS)).len(), NAME_CHARACTERS);
    }

    #[test]
    fn a_hash_is_stable_and_changes_with_content_and_collisions() {
        let base = short_hash(&"template", None);
        assert_eq!(base, short_hash(&"template", None));
        assert_ne!(base, short_hash(&"template2", None));
        assert_ne!(short_hash(&"template", Some(0)), short_hash(&"template", Some(1)));
        assert!(base.bytes().all(|letter| LETTERS.contains(&letter)) && base.len() <= 10);
    }
}
