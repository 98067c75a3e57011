//! Names and labels on the engine: whose a container is, what it is, and what was asked for.

use std::collections::BTreeMap;

use orchestrator_core::runtime::{
    ContainerId, ContainerKey, Labels, NamespaceOptions, RuntimeError, SandboxId, SandboxKey,
};

use crate::limits::{CLUSTER_CHARACTERS, NAME_CHARACTERS, NODE_CHARACTERS};

/// Which cluster a container belongs to.
pub(crate) const CLUSTER: &str = "orchestrator.cluster";
/// Which node of the cluster.
pub(crate) const NODE: &str = "orchestrator.node";
/// `sandbox` or `container`.
const KIND: &str = "orchestrator.kind";
/// The sandbox that a container is in; a sandbox names itself.
pub(crate) const SANDBOX: &str = "orchestrator.sandbox";
/// The pod's UID.
pub(crate) const POD_UID: &str = "orchestrator.pod-uid";
/// A [`SandboxRecord`] or a [`ContainerRecord`], as JSON.
const RECORD: &str = "orchestrator.record";
/// Why a container could not be started, where the engine does not remember it.
pub(crate) const START_FAILURE: &str = "orchestrator.start-failure";

/// Whose sandboxes and containers these are: one node of one cluster. No two of them see each other's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    cluster: String,
    node: String,
}

/// What a sandbox's labels keep of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) key: SandboxKey,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) namespaces: NamespaceOptions,
    /// Whether the pod has a `resolv.conf` of its own.
    pub(crate) own_dns: bool,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
}

/// What a container's labels keep of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) sandbox: SandboxKey,
    pub(crate) key: ContainerKey,
    pub(crate) image: String,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
}

/// What labels tell of a container of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Sandbox(SandboxRecord),
    Container(ContainerRecord),
}

impl Owner {
    /// Refuses names that are not those of clusters and nodes.
    pub(crate) fn new(cluster: String, node: String) -> Result<Self, RuntimeError> {
        for (what, name, longest) in [("cluster", &cluster, CLUSTER_CHARACTERS), ("node", &node, NODE_CHARACTERS)] {
            if !is_domain_name(name, longest) {
                let message = format!("the {what}'s name {name:?} is not 1 to {longest} of a-z, 0-9, hyphens and dots");
                return Err(RuntimeError::Invalid(message));
            }
        }
        Ok(Self { cluster, node })
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Repository of the references by which this node holds images.
    pub(crate) fn image_repository(&self) -> String {
        format!("orchestrator.invalid/{}/{}", self.cluster, self.node)
    }

    /// What all names of this node's containers begin with. An underscore is in no part of a name but its end.
    fn prefix(&self) -> String {
        format!("orchestrator_{}_{}_", self.cluster, self.node)
    }

    /// The name of the sandbox with this key.
    pub(crate) fn sandbox(&self, key: &SandboxKey) -> Result<SandboxId, RuntimeError> {
        check_word("the pod's UID", &key.pod_uid)?;
        Ok(SandboxId(format!("{}{}_{}", self.prefix(), key.pod_uid, key.attempt)))
    }

    /// The name of the container with this key.
    pub(crate) fn container(&self, sandbox: &SandboxId, key: &ContainerKey) -> Result<ContainerId, RuntimeError> {
        check_word("the container's name", &key.name)?;
        Ok(ContainerId(format!("{sandbox}_{}_{}", key.name, key.attempt)))
    }

    /// Whether this may be the name of a sandbox or container of ours.
    pub(crate) fn may_own(&self, name: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        name.strip_prefix(&self.prefix()).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_plain))
    }

    /// The name of a container that only tries something. It has no underscore after what all names begin with, and so is
    /// nothing else's.
    pub(crate) fn probe(&self, unique: u64) -> String {
        format!("{}probe-{unique:016x}", self.prefix())
    }

    /// Whether a container with this name only tries something.
    pub(crate) fn is_probe(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix()).is_some_and(|rest| rest.starts_with("probe-") && !rest.contains('_'))
    }

    /// Labels of whatever is this node's.
    pub(crate) fn owner_labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(CLUSTER.to_owned(), self.cluster.clone()), (NODE.to_owned(), self.node.clone())])
    }

    /// Labels by which the engine finds what is this node's.
    pub(crate) fn filters(&self) -> Vec<String> {
        vec![format!("{CLUSTER}={}", self.cluster), format!("{NODE}={}", self.node)]
    }

    /// All labels of a sandbox or container.
    pub(crate) fn labels(&self, sandbox: &SandboxId, record: &Record) -> BTreeMap<String, String> {
        let (kind, pod_uid, json) = match record {
            Record::Sandbox(record) => ("sandbox", &record.key.pod_uid, serde_json::to_string(record)),
            Record::Container(record) => ("container", &record.sandbox.pod_uid, serde_json::to_string(record)),
        };
        let mut labels = self.owner_labels();
        let own = [
            (KIND, kind.to_owned()),
            (SANDBOX, sandbox.0.clone()),
            (POD_UID, pod_uid.clone()),
            // Strings, numbers and maps of strings: there is nothing that JSON could not say.
            (RECORD, json.unwrap_or_default()),
        ];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
        labels
    }

    /// What labels tell; `None` when it is not this node's.
    pub(crate) fn record<'a>(&self, label: impl Fn(&str) -> Option<&'a String>) -> Option<(SandboxId, Record)> {
        if label(CLUSTER) != Some(&self.cluster) || label(NODE) != Some(&self.node) {
            return None;
        }
        let json = label(RECORD)?;
        let record = match label(KIND)?.as_str() {
            "sandbox" => Record::Sandbox(serde_json::from_str(json).ok()?),
            "container" => Record::Container(serde_json::from_str(json).ok()?),
            _ => return None,
        };
        Some((SandboxId(label(SANDBOX)?.clone()), record))
    }
}

fn check_word(what: &str, word: &str) -> Result<(), RuntimeError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=NAME_CHARACTERS).contains(&word.len()) && word.bytes().all(is_plain) {
        return Ok(());
    }
    let message = format!("{what} {word:?} is not 1 to {NAME_CHARACTERS} letters, digits and hyphens");
    Err(RuntimeError::Invalid(message))
}

/// Lower-case words with hyphens, joined by dots: that is part of a container's name and of an image's reference as well.
fn is_domain_name(name: &str, longest: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(is_plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= longest && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner::new("lab".to_owned(), "node-1.example".to_owned()).unwrap()
    }

    #[test]
    fn names_are_whole() {
        let sandbox = owner().sandbox(&SandboxKey { pod_uid: "ab-12".to_owned(), attempt: 3 }).unwrap();
        assert_eq!(sandbox.0, "orchestrator_lab_node-1.example_ab-12_3");
        let container = owner().container(&sandbox, &ContainerKey { name: "web".to_owned(), attempt: 12 }).unwrap();
        assert_eq!(container.0, "orchestrator_lab_node-1.example_ab-12_3_web_12");
        assert!(owner().may_own(&container.0));
        let like_a_probe = owner().sandbox(&SandboxKey { pod_uid: "probe-1".to_owned(), attempt: 0 }).unwrap();
        assert!(owner().is_probe(&owner().probe(7)) && !owner().is_probe(&like_a_probe.0));
        for wrong in ["", "nothing", "orchestrator_lab_node-1.example_", "orchestrator_lab_node-1.example_../x", "a/b"]
        {
            assert!(!owner().may_own(wrong), "{wrong}");
        }
        assert!(owner().sandbox(&SandboxKey { pod_uid: "a_b".to_owned(), attempt: 0 }).is_err());
        for wrong in ["", "A", "a_b", "-a", "a.", "a..b", "a/b"] {
            assert!(Owner::new(wrong.to_owned(), "n".to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_come_back_to_their_owner_alone() {
        let record = Record::Sandbox(SandboxRecord {
            key: SandboxKey { pod_uid: "u".to_owned(), attempt: 1 },
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            namespaces: NamespaceOptions { host_pid: true, ..NamespaceOptions::default() },
            own_dns: true,
            labels: BTreeMap::from([("app".to_owned(), "a=b".to_owned())]).into(),
            annotations: Labels::default(),
        });
        let id = SandboxId("s".to_owned());
        let labels = owner().labels(&id, &record);
        assert_eq!(owner().record(|name| labels.get(name)), Some((id, record)));
        let other = Owner::new("other".to_owned(), "node-1.example".to_owned()).unwrap();
        assert_eq!(other.record(|name| labels.get(name)), None);
    }
}
