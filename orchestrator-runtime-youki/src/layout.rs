//! Names of sandboxes and containers, and where their files are.

use std::path::{Path, PathBuf};

use orchestrator_core::runtime::{ContainerId, ContainerKey, RuntimeError, SandboxId, SandboxKey};

use crate::limits::{CONTAINER_NAME_CHARACTERS, POD_UID_CHARACTERS};

/// The directory of one runtime.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The directory of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct SandboxDirectory {
    path: PathBuf,
}

/// The directory of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDirectory {
    path: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn sandbox(&self, id: &SandboxId) -> Result<SandboxDirectory, RuntimeError> {
        if parse_sandbox(&id.0).is_none() {
            return Err(RuntimeError::no_sandbox(id));
        }
        Ok(SandboxDirectory { path: self.sandboxes().join(&id.0) })
    }

    /// The sandbox that a container is in, by its name alone.
    pub(crate) fn sandbox_of(&self, id: &ContainerId) -> Result<(SandboxId, SandboxDirectory), RuntimeError> {
        let sandbox = parse_container(&id.0).ok_or_else(|| RuntimeError::no_container(id))?;
        let directory = self.sandbox(&sandbox).map_err(|_| RuntimeError::no_container(id))?;
        Ok((sandbox, directory))
    }

    /// Names of all sandboxes that have a directory, in order.
    pub(crate) fn list(&self) -> std::io::Result<Vec<SandboxId>> {
        Ok(list_names(&self.sandboxes())?
            .into_iter()
            .filter(|name| parse_sandbox(name).is_some())
            .map(SandboxId)
            .collect())
    }
}

impl SandboxDirectory {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was asked for, written first and never changed.
    pub(crate) fn record(&self) -> PathBuf {
        self.path.join("sandbox.json")
    }

    /// What became of it.
    pub(crate) fn progress(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// Locked by the helper for as long as it lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub(crate) fn socket_name() -> &'static str {
        "helper.sock"
    }

    /// What the helper has to say when it dies of a defect.
    pub(crate) fn helper_log(&self) -> PathBuf {
        self.path.join("helper.log")
    }

    /// libcontainer's own records.
    pub(crate) fn libcontainer(&self) -> PathBuf {
        self.path.join("libcontainer")
    }

    /// `/etc/hosts` and its like, shared by the pod's containers.
    pub(crate) fn pod_file(&self, name: &str) -> PathBuf {
        self.pod_files().join(name)
    }

    /// Where the pod's files are.
    pub(crate) fn pod_files(&self) -> PathBuf {
        self.path.join("etc")
    }

    /// Where the containers' directories are.
    pub(crate) fn all_containers(&self) -> PathBuf {
        self.path.join("containers")
    }

    pub(crate) fn container(&self, id: &ContainerId) -> ContainerDirectory {
        ContainerDirectory { path: self.all_containers().join(&id.0) }
    }

    pub(crate) fn containers(&self) -> std::io::Result<Vec<ContainerId>> {
        Ok(list_names(&self.all_containers())?
            .into_iter()
            .filter(|name| parse_container(name).is_some())
            .map(ContainerId)
            .collect())
    }
}

impl ContainerDirectory {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was asked for, written once.
    pub(crate) fn record(&self) -> PathBuf {
        self.path.join("container.json")
    }

    /// Where it is in its life.
    pub(crate) fn progress(&self) -> PathBuf {
        self.path.join("state.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn older_log(&self) -> PathBuf {
        self.path.join("log.1")
    }

    /// The OCI specification; the directory is the OCI bundle.
    pub(crate) fn specification(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Where the root file system is mounted, in the mount namespace of the container's maker.
    pub(crate) fn root_file_system(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Where the memory for the writable layer is mounted, likewise.
    pub(crate) fn stage(&self) -> PathBuf {
        self.path.join("stage")
    }
}

fn list_names(path: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The name of the sandbox with this key.
pub(crate) fn sandbox_id(key: &SandboxKey) -> Result<SandboxId, RuntimeError> {
    if !is_word(&key.pod_uid, POD_UID_CHARACTERS) {
        return Err(RuntimeError::Invalid(format!(
            "the pod's UID {:?} is not 1 to {POD_UID_CHARACTERS} letters, digits and hyphens",
            key.pod_uid
        )));
    }
    Ok(SandboxId(format!("{}.{}", key.pod_uid, key.attempt)))
}

/// The name of the container with this key.
pub(crate) fn container_id(sandbox: &SandboxId, key: &ContainerKey) -> Result<ContainerId, RuntimeError> {
    if !is_word(&key.name, CONTAINER_NAME_CHARACTERS) {
        return Err(RuntimeError::Invalid(format!(
            "the container's name {:?} is not 1 to {CONTAINER_NAME_CHARACTERS} letters, digits and hyphens",
            key.name
        )));
    }
    Ok(ContainerId(format!("{sandbox}.{}.{}", key.name, key.attempt)))
}

/// The part of a container's name that is its own: libcontainer's name for it, and its cgroup's.
pub(crate) fn short_name(id: &ContainerId) -> String {
    id.0.splitn(3, '.').nth(2).unwrap_or_default().to_owned()
}

fn parse_sandbox(id: &str) -> Option<()> {
    let (uid, attempt) = id.split_once('.')?;
    attempt.parse::<u32>().ok()?;
    is_word(uid, POD_UID_CHARACTERS).then_some(())
}

fn parse_container(id: &str) -> Option<SandboxId> {
    let mut parts = id.rsplitn(3, '.');
    parts.next()?.parse::<u32>().ok()?;
    if !is_word(parts.next()?, CONTAINER_NAME_CHARACTERS) {
        return None;
    }
    let sandbox = parts.next()?;
    parse_sandbox(sandbox)?;
    Some(SandboxId(sandbox.to_owned()))
}

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_sandbox() {
        let sandbox = sandbox_id(&SandboxKey { pod_uid: "ab-12".to_owned(), attempt: 3 }).unwrap();
        let container = container_id(&sandbox, &ContainerKey { name: "web".to_owned(), attempt: 12 }).unwrap();
        assert_eq!(container.0, "ab-12.3.web.12");
        assert_eq!(short_name(&container), "web.12");
        let layout = Layout::new(PathBuf::from("/x"));
        assert_eq!(layout.sandbox_of(&container).unwrap().0, sandbox);
        for wrong in ["", "..", "a", "a.b", "../x.0", "a.0.b", "a.0.b/c.1"] {
            assert!(layout.sandbox_of(&ContainerId(wrong.to_owned())).is_err(), "{wrong}");
        }
        assert!(sandbox_id(&SandboxKey { pod_uid: "../x".to_owned(), attempt: 0 }).is_err());
    }
}
