//! A real registry of images on the loopback address: Debian's `docker-registry`, filled by `skopeo`.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use orchestrator_core::env::Env;

/// How long the registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// The registry's process, which ends when this is dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    host: String,
}

impl DockerRegistry {
    /// Starts a registry that keeps its files in a directory.
    ///
    /// # Errors
    ///
    /// When there is no `docker-registry`, or it does not answer; with what it said.
    pub async fn start(env: &Env, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string();
        let (configuration, log) = (directory.join("registry.yml"), directory.join("registry.log"));
        let storage = directory.join("images");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            storage.display()
        );
        fs::write(&configuration, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&configuration).stdout(Stdio::null()).stderr(File::create(&log)?);
        let missing =
            |error| io::Error::other(format!("these tests need `docker-registry`, Debian's package: {error}"));
        let mut registry = Self { child: command.spawn().map_err(missing)?, host };
        let begin = env.monotonic();
        while std::net::TcpStream::connect(&registry.host).is_err() {
            let is_over = registry.child.try_wait()?.is_some() || env.monotonic().saturating_sub(begin) > PATIENCE;
            if is_over {
                return Err(io::Error::other(format!("the registry does not answer: {}", fs::read_to_string(&log)?)));
            }
            env.sleep(PAUSE).await;
        }
        Ok(registry)
    }

    /// Address and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Pushes an archive of `docker save` under a name within this registry, such as `team/app:1`.
    ///
    /// # Errors
    ///
    /// When there is no `skopeo`, or it fails; with what it said.
    pub fn push(&self, archive: &Path, name: &str, options: &[&str]) -> io::Result<()> {
        let from = format!("docker-archive:{}", archive.display());
        let to = format!("docker://{}/{name}", self.host);
        skopeo(&[&["copy", "--dest-tls-verify=false"][..], options, &[&from, &to]].concat())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `skopeo`.
///
/// # Errors
///
/// When there is none, or it fails; with what it said.
pub fn skopeo(arguments: &[&str]) -> io::Result<()> {
    let missing = |error| io::Error::other(format!("these tests need `skopeo`: {error}"));
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output().map_err(missing)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("skopeo {arguments:?}: {message}")));
    }
    Ok(())
}
