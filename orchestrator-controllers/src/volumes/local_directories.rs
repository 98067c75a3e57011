//! Directories of provisioned volumes on this machine's own disk.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use async_trait::async_trait;
use orchestrator_core::env::Env;

use super::DirectoryProvisioner;

/// Anyone may write: which user a container runs as is not known when its volume is made.
const MODE: u32 = 0o777;

/// Makes and removes directories on this machine, where controllers and nodes share a disk.
#[derive(Clone, Debug)]
pub struct LocalDirectories {
    env: Env,
}

impl LocalDirectories {
    /// Works away from the tasks of this environment.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone() }
    }

    async fn run(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let done = self.env.blocking(work).await;
        done.unwrap_or_else(|| Err(io::Error::other("the work on a volume's directory panicked")))
    }
}

#[async_trait]
impl DirectoryProvisioner for LocalDirectories {
    async fn provision(&self, base: &Path, name: &str) -> io::Result<()> {
        let path = child(base, name)?;
        self.run(move || {
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(MODE))
        })
        .await
    }

    async fn remove(&self, base: &Path, name: &str) -> io::Result<()> {
        let path = child(base, name)?;
        // Follows no symbolic link: what a container linked to stays.
        self.run(move || match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        })
        .await
    }
}

/// The path of a direct child; any other name is refused.
fn child(base: &Path, name: &str) -> io::Result<PathBuf> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(first)), None) if first == name => Ok(base.join(name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not the name of a directory"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use orchestrator_core::env::Simulation;

    use super::*;

    #[test]
    fn makes_and_removes_only_its_own() {
        let simulation = Simulation::new(0);
        let directories = LocalDirectories::new(&simulation.env());
        let base = std::env::temp_dir().join(format!("local-directories-{}", std::process::id()));
        let (volumes, kept) = (base.join("volumes"), base.join("kept"));
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("file"), "data").unwrap();
        let ends = simulation.run(async {
            for name in ["a", "a", "b"] {
                directories.provision(&volumes, name).await.unwrap();
            }
            fs::write(volumes.join("a/file"), "data").unwrap();
            symlink(&kept, volumes.join("a/link")).unwrap();
            assert_eq!(fs::metadata(volumes.join("a")).unwrap().permissions().mode() & 0o777, MODE);
            directories.provision(&volumes, "a").await.unwrap();
            assert!(volumes.join("a/file").exists(), "made again, a directory keeps what is in it");
            for name in ["a", "a", "never"] {
                directories.remove(&volumes, name).await.unwrap();
            }
            for name in ["", ".", "..", "../kept", "b/..", "/etc", "b/"] {
                assert!(directories.provision(&volumes, name).await.is_err(), "{name:?}");
                assert!(directories.remove(&volumes, name).await.is_err(), "{name:?}");
            }
        });
        ends.unwrap();
        assert!(!volumes.join("a").exists() && volumes.join("b").exists() && kept.join("file").exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
