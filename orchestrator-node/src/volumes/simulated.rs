//! Volumes that nobody reads.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{EmptyDir, Payload, SubPath, VolumeError, VolumeHost, VolumeName};

/// Gives paths and keeps nothing: for simulated containers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedVolumes;

#[async_trait]
impl VolumeHost for SimulatedVolumes {
    async fn empty_dir(&self, volume: &VolumeName, _options: EmptyDir) -> Result<PathBuf, VolumeError> {
        Ok(path(volume))
    }

    async fn project(&self, volume: &VolumeName, _files: Payload, _group: Option<i64>) -> Result<PathBuf, VolumeError> {
        Ok(path(volume))
    }

    async fn host_path(&self, path: &str, _kind: &str) -> Result<PathBuf, VolumeError> {
        Ok(PathBuf::from(path))
    }

    async fn sub_path(&self, request: SubPath) -> Result<PathBuf, VolumeError> {
        Ok(request.volume.join(request.path))
    }

    async fn write_file(&self, _: &str, _: &str, _: &str, _: bool) -> Result<Option<PathBuf>, VolumeError> {
        Ok(None)
    }

    async fn read_file(&self, _: &str, _: &str, _: usize) -> Result<String, VolumeError> {
        Ok(String::new())
    }

    async fn remove_pod(&self, _pod: &str) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<String>, VolumeError> {
        Ok(Vec::new())
    }
}

fn path(volume: &VolumeName) -> PathBuf {
    PathBuf::from(format!("/simulated/{}/{}/{}", volume.pod, volume.plugin, volume.volume))
}
