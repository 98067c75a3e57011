//! A pod's volumes: what is in them ([`payload`]), and where they are ([`VolumeHost`]).
//!
//! [`DirectoryVolumes`] keeps them in a directory of the machine; [`SimulatedVolumes`] keeps nothing, for simulated
//! containers that read nothing.

mod atomic;
mod directory;
mod files;
pub(crate) mod payload;
pub(crate) mod setup;
mod simulated;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use async_trait::async_trait;

pub use directory::DirectoryVolumes;
pub use simulated::SimulatedVolumes;

/// Where volumes are. All calls may be repeated.
#[async_trait]
pub trait VolumeHost: Send + Sync + fmt::Debug {
    /// An empty directory that lives as long as the pod.
    async fn empty_dir(&self, volume: &VolumeName, options: EmptyDir) -> Result<PathBuf, VolumeError>;

    /// A directory with exactly these files. All of them change at once, as a reader sees it.
    async fn project(&self, volume: &VolumeName, files: Payload, group: Option<i64>) -> Result<PathBuf, VolumeError>;

    /// A path of the machine, of the type that a pod asks for: `Directory`, `FileOrCreate` and so on.
    async fn host_path(&self, path: &str, kind: &str) -> Result<PathBuf, VolumeError>;

    /// A path inside of a volume, made as a directory if it is not there. It does not lead out of the volume.
    async fn sub_path(&self, request: SubPath) -> Result<PathBuf, VolumeError>;

    /// Writes a file of the pod's own, such as `etc-hosts`, and says where it is; `None` where there are no files.
    /// A file that exists is written anew only if `replace` is set.
    async fn write_file(
        &self,
        pod: &str,
        name: &str,
        text: &str,
        replace: bool,
    ) -> Result<Option<PathBuf>, VolumeError>;

    /// The beginning of a file that [`Self::write_file`] made, at most so many bytes.
    async fn read_file(&self, pod: &str, name: &str, limit: usize) -> Result<String, VolumeError>;

    /// Removes all that belongs to a pod.
    async fn remove_pod(&self, pod: &str) -> Result<(), VolumeError>;

    /// The pods that have something here, by UID.
    async fn pods(&self) -> Result<Vec<String>, VolumeError>;
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeName {
    /// The pod's UID.
    pub pod: String,
    /// The volume plug-in's name, as in upstream's paths: `kubernetes.io~empty-dir`.
    pub plugin: &'static str,
    /// The volume's name in the pod.
    pub volume: String,
}

/// What an empty directory is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmptyDir {
    /// In memory.
    pub memory: bool,
    /// At most this large, in bytes. Held to in memory only.
    pub size_limit: Option<i64>,
    /// The group that owns it.
    pub group: Option<i64>,
}

/// A path inside of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    /// The pod's UID.
    pub pod: String,
    /// Names the mount within the pod.
    pub mount: String,
    /// The volume.
    pub volume: PathBuf,
    /// Relative to it.
    pub path: String,
    /// Containers can write to the volume, so its content is not to be trusted.
    pub writable: bool,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, File>;

/// A file to be projected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// A volume cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VolumeError(pub String);

impl VolumeError {
    fn io(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}
