//! Volumes in a directory of the machine: `<root>/pods/<uid>/…`, as upstream lays them out.

use std::{
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use nix::{
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, fchmod},
    unistd::{Gid, fchown, geteuid},
};
use orchestrator_core::env::Env;

use super::{
    EmptyDir, Payload, SubPath, VolumeError, VolumeHost, VolumeName, atomic,
    files::{BENEATH, Directory, STRICT},
};

/// Keeps volumes below a directory that belongs to the node alone.
#[derive(Clone, Debug)]
pub struct DirectoryVolumes {
    env: Env,
    root: PathBuf,
}

impl DirectoryVolumes {
    /// Volumes below this directory, which is made at first use.
    pub fn new(env: &Env, root: impl Into<PathBuf>) -> Self {
        Self { env: env.clone(), root: root.into() }
    }

    async fn work<T, F>(&self, function: F) -> Result<T, VolumeError>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> Result<T, VolumeError> + Send + 'static,
    {
        let root = self.root.clone();
        let done = self.env.blocking(move || function(&root)).await;
        done.unwrap_or_else(|| Err(VolumeError("file work panicked".to_owned())))
    }
}

fn pods_directory(root: &Path) -> Result<Directory, VolumeError> {
    std::fs::create_dir_all(root).map_err(|error| VolumeError::io(root.display(), error))?;
    Directory::root(root)?.make("pods", 0o750)
}

/// A pod's UID is one name, never a path.
fn checked(name: &str) -> Result<&str, VolumeError> {
    let fits = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    if fits { Ok(name) } else { Err(VolumeError(format!("invalid name {name:?}"))) }
}

fn volume_path(volume: &VolumeName) -> Result<String, VolumeError> {
    Ok(format!("{}/volumes/{}/{}", checked(&volume.pod)?, volume.plugin, checked(&volume.volume)?))
}

fn give_to_group(directory: &Directory, group: Option<i64>) -> Result<(), VolumeError> {
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fchmod(&directory.0, Mode::from_bits_truncate(mode)).map_err(|error| VolumeError::io("chmod", error))?;
    if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
        fchown(&directory.0, None, Some(Gid::from_raw(group))).map_err(|error| VolumeError::io("chown", error))?;
    }
    Ok(())
}

#[async_trait]
impl VolumeHost for DirectoryVolumes {
    async fn empty_dir(&self, volume: &VolumeName, options: EmptyDir) -> Result<PathBuf, VolumeError> {
        let relative = volume_path(volume)?;
        self.work(move |root| {
            let pods = pods_directory(root)?;
            let path = root.join("pods").join(&relative);
            let directory = pods.make(&relative, 0o755)?;
            if options.memory && !is_mount_point(&path) {
                mount_memory(&path, options.size_limit)?;
                give_to_group(&Directory::root(&path)?, options.group)?;
            } else if !options.memory {
                give_to_group(&directory, options.group)?;
            }
            Ok(path)
        })
        .await
    }

    async fn project(&self, volume: &VolumeName, files: Payload, group: Option<i64>) -> Result<PathBuf, VolumeError> {
        let relative = volume_path(volume)?;
        let (now, unique) = (self.env.now(), self.env.random_below(10_000_000_000));
        self.work(move |root| {
            let directory = pods_directory(root)?.make(&relative, 0o755)?;
            fchmod(&directory.0, Mode::from_bits_truncate(0o755)).map_err(|error| VolumeError::io("chmod", error))?;
            atomic::write(&directory, &files, group, now, unique)?;
            Ok(root.join("pods").join(&relative))
        })
        .await
    }

    async fn host_path(&self, path: &str, kind: &str) -> Result<PathBuf, VolumeError> {
        let (path, kind) = (PathBuf::from(path), kind.to_owned());
        self.work(move |_| check_host_path(&path, &kind).map(|()| path.clone())).await
    }

    async fn sub_path(&self, request: SubPath) -> Result<PathBuf, VolumeError> {
        self.work(move |root| sub_path(root, &request)).await
    }

    async fn write_file(
        &self,
        pod: &str,
        name: &str,
        text: &str,
        replace: bool,
    ) -> Result<Option<PathBuf>, VolumeError> {
        let (pod, name, text) = (checked(pod)?.to_owned(), checked(name)?.to_owned(), text.to_owned());
        self.work(move |root| {
            let directory = pods_directory(root)?.make(&pod, 0o750)?;
            if replace || !directory.exists(&name) {
                let file = directory.write(&name, text.as_bytes())?;
                // Any user of the container reads it; the termination log is also written by any.
                let mode = if replace { 0o644 } else { 0o666 };
                fchmod(&file, Mode::from_bits_truncate(mode)).map_err(|error| VolumeError::io(&name, error))?;
            }
            Ok(Some(root.join("pods").join(&pod).join(&name)))
        })
        .await
    }

    async fn read_file(&self, pod: &str, name: &str, limit: usize) -> Result<String, VolumeError> {
        let path = format!("{}/{}", checked(pod)?, checked(name)?);
        self.work(move |root| {
            let content = pods_directory(root)?.read(&path, limit, STRICT)?;
            Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
        })
        .await
    }

    async fn remove_pod(&self, pod: &str) -> Result<(), VolumeError> {
        let pod = checked(pod)?.to_owned();
        self.work(move |root| {
            let pods = pods_directory(root)?;
            unmount_below(&root.join("pods").join(&pod))?;
            pods.remove(&pod)
        })
        .await
    }

    async fn pods(&self) -> Result<Vec<String>, VolumeError> {
        self.work(|root| pods_directory(root)?.names()).await
    }
}

fn mount_memory(path: &Path, size_limit: Option<i64>) -> Result<(), VolumeError> {
    if !geteuid().is_root() {
        return Err(VolumeError(
            "a volume in memory (emptyDir.medium: Memory) needs a node that runs as root".to_owned(),
        ));
    }
    let options = size_limit.map(|bytes| format!("size={bytes}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, options.as_deref())
        .map_err(|error| VolumeError::io("mounting tmpfs", error))
}

fn mount_points() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let unescape = |path: &str| path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path))).collect()
}

fn is_mount_point(path: &Path) -> bool {
    mount_points().iter().any(|point| point == path)
}

/// Takes away all mounts below a directory, the innermost first.
fn unmount_below(directory: &Path) -> Result<(), VolumeError> {
    let mut points: Vec<PathBuf> = mount_points().into_iter().filter(|point| point.starts_with(directory)).collect();
    points.sort();
    for point in points.iter().rev() {
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        umount2(point, flags).map_err(|error| VolumeError::io(point.display(), error))?;
    }
    Ok(())
}

/// Upstream: <https://kubernetes.io/docs/concepts/storage/volumes/#hostpath-volume-types>.
fn check_host_path(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let made = |result: std::io::Result<()>| result.map_err(|error| VolumeError::io(path.display(), error));
    let metadata = std::fs::metadata(path).ok();
    match (kind, &metadata) {
        ("DirectoryOrCreate", None) => {
            made(std::fs::create_dir_all(path))?;
            made(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))?;
            return Ok(());
        }
        ("FileOrCreate", None) => {
            made(std::fs::File::create_new(path).map(drop))?;
            made(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)))?;
            return Ok(());
        }
        ("", None) => return made(std::fs::create_dir_all(path)),
        _ => {}
    }
    let kind_of = metadata.map(|metadata| metadata.file_type());
    let is = |test: fn(&std::fs::FileType) -> bool| kind_of.as_ref().is_some_and(test);
    let (fits, name) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is(std::fs::FileType::is_dir), "directory"),
        "File" | "FileOrCreate" => (is(std::fs::FileType::is_file), "file"),
        "Socket" => (is(FileTypeExt::is_socket), "socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "block device"),
        _ => return Err(VolumeError(format!("{kind} is an invalid volume type"))),
    };
    let place = path.display();
    if fits { Ok(()) } else { Err(VolumeError(format!("hostPath type check failed: {place} is not a {name}"))) }
}

/// Opens the path without leaving the volume. Where containers can write, what was opened is mounted to a place of
/// its own, so that nobody can put something else there afterwards.
fn sub_path(root: &Path, request: &SubPath) -> Result<PathBuf, VolumeError> {
    let error =
        |error| VolumeError::io(format!("failed to prepare subPath for volumeMount \"{}\"", request.path), error);
    let volume = Directory::root(&request.volume)?;
    if request.path.split('/').any(|part| part == "..") || request.path.starts_with('/') {
        return Err(error("must be a relative path without \"..\"".to_owned()));
    }
    let resolve = if request.writable && !geteuid().is_root() { STRICT } else { BENEATH };
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let file = match volume.open(&request.path, flags, Mode::empty(), resolve) {
        Err(nix::errno::Errno::ENOENT) => volume.make(&request.path, 0o750)?.0,
        file => file.map_err(|errno| error(errno.to_string()))?,
    };
    let opened = PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()));
    let metadata = std::fs::metadata(&opened).map_err(|failure| error(failure.to_string()))?;
    if !request.writable || !geteuid().is_root() {
        return std::fs::read_link(&opened).map_err(|failure| error(failure.to_string()));
    }
    let pods = pods_directory(root)?;
    let parent = format!("{}/volume-subpaths", checked(&request.pod)?);
    let places = pods.make(&parent, 0o750)?;
    let name = checked(&request.mount)?;
    let place = root.join("pods").join(&parent).join(name);
    unmount_below(&place)?;
    if metadata.is_dir() {
        places.make(name, 0o750)?;
    } else {
        places.write(name, b"")?;
    }
    let nothing: Option<&str> = None;
    let bound = mount(Some(&opened), &place, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing);
    bound.map_err(|errno| error(errno.to_string()))?;
    Ok(place)
}

#[cfg(test)]
mod tests;
