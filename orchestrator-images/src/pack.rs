//! Makes the image of executables and their shared libraries: one layer, the same for the same files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    ImageError, PackedImage,
    libraries::Libraries,
    parts::{Layer, Parts, hexadecimal},
};

/// Where programs are looked for unless the image says otherwise, as with the engine's own images.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Users and groups by name.
const ACCOUNTS: [(&str, &str); 2] = [
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
];

/// Packs an image; the layer is written into the file. The architecture is that of the machine.
pub(crate) fn pack(image: &PackedImage, architecture: &str, file: File) -> Result<Parts, ImageError> {
    let mut libraries = Libraries::default();
    // By path in the image, so that the order is always the same.
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for executable in &image.executables {
        libraries.add(&executable.host_path)?;
        files.insert(relative(&executable.image_path)?, executable.host_path.clone());
    }
    for (path, host_path) in &libraries.files {
        files.entry(relative(path)?).or_insert_with(|| host_path.clone());
    }
    for named in &image.files {
        files.insert(relative(&named.image_path)?, named.host_path.clone());
    }
    let mut layer = LayerWriter::new(file);
    layer.directory(Path::new("tmp"), 0o1777)?;
    let mut contents = BTreeMap::new();
    for named in &image.contents {
        contents.insert(relative(&named.image_path)?, (named.content.as_slice(), named.mode & 0o7777));
    }
    for (path, content) in ACCOUNTS {
        contents.entry(PathBuf::from(path)).or_insert((content.as_bytes(), 0o644));
    }
    for (path, (content, mode)) in contents.iter().filter(|(path, _)| !files.contains_key(*path)) {
        layer.bytes(path, content, *mode)?;
    }
    for (path, host_path) in &files {
        layer.copy(path, host_path)?;
    }
    let mut environment = vec![PATH.to_owned()];
    if !libraries.search.is_empty() {
        let paths: Vec<String> = libraries.search.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        environment.push(format!("LD_LIBRARY_PATH={}", paths.join(":")));
    }
    environment.extend(image.environment.iter().map(|(name, value)| format!("{name}={value}")));
    let config = json!({
        "Entrypoint": image.entrypoint,
        "Cmd": image.args,
        "Env": environment,
        "WorkingDir": image.working_directory.clone().unwrap_or_default(),
        "User": image.user.clone().unwrap_or_default(),
        "StopSignal": image.stop_signal.clone().unwrap_or_default(),
    });
    let architecture = libraries.architecture.or(image.architecture.as_deref()).unwrap_or(architecture);
    layer.finish(architecture, &config)
}

/// A path below the root; there is no way out of it.
fn relative(path: &Path) -> Result<PathBuf, ImageError> {
    let relative = path.strip_prefix("/").ok().filter(|path| {
        path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
    });
    relative
        .map(Path::to_owned)
        .ok_or_else(|| ImageError::Unsupported(format!("the path {} in an image", path.display())))
}

/// Writes a layer and takes its digest on the way.
struct LayerWriter {
    archive: tar::Builder<Digesting>,
    directories: BTreeSet<PathBuf>,
}

struct Digesting {
    file: BufWriter<File>,
    digest: Sha256,
    size_bytes: u64,
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.digest.update(&bytes[..count]);
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl LayerWriter {
    fn new(file: File) -> Self {
        let writer = Digesting { file: BufWriter::new(file), digest: Sha256::new(), size_bytes: 0 };
        Self { archive: tar::Builder::new(writer), directories: BTreeSet::new() }
    }

    fn directory(&mut self, path: &Path, mode: u32) -> Result<(), ImageError> {
        if path.as_os_str().is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755)?;
        }
        let mut header = header(tar::EntryType::Directory, 0, mode);
        self.archive.append_data(&mut header, path, io::empty()).map_err(|error| ImageError::io(path, error))
    }

    fn bytes(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<(), ImageError> {
        self.directory(path.parent().unwrap_or(Path::new("")), 0o755)?;
        let mut header = header(tar::EntryType::Regular, content.len() as u64, mode);
        self.archive.append_data(&mut header, path, content).map_err(|error| ImageError::io(path, error))
    }

    fn copy(&mut self, path: &Path, host_path: &Path) -> Result<(), ImageError> {
        // Read whole: a file that grows meanwhile would spoil the archive.
        let content = fs::read(host_path).map_err(|error| ImageError::io(host_path, error))?;
        let mode = fs::metadata(host_path).map_err(|error| ImageError::io(host_path, error))?.permissions().mode();
        // Read and execute are for all; what is special is not packed.
        self.bytes(path, &content, if mode & 0o111 == 0 { 0o644 } else { 0o755 })
    }

    fn finish(self, architecture: &str, config: &serde_json::Value) -> Result<Parts, ImageError> {
        let failed = |error: io::Error| ImageError::io(Path::new("the image's layer"), error);
        let Digesting { file, digest, size_bytes } = self.archive.into_inner().map_err(failed)?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        let configuration = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hexadecimal(&digest.finalize()))] },
        });
        Ok(Parts {
            configuration: configuration.to_string().into_bytes(),
            layers: vec![Layer { file, offset: 0, size_bytes }],
        })
    }
}

fn header(kind: tar::EntryType, size_bytes: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size_bytes);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::nameless_file;

    fn packed(image: &PackedImage, unique: u64) -> Result<Parts, ImageError> {
        pack(image, "amd64", nameless_file(&std::env::temp_dir(), unique + u64::from(std::process::id())).unwrap())
    }

    #[test]
    fn the_same_files_make_the_same_image() {
        let program = std::env::current_exe().unwrap();
        let image = PackedImage::new().executable_at(&program, "/bin/program").args(["/bin/program"]).user("65534");
        let (one, other) = (packed(&image, 1 << 40).unwrap(), packed(&image, 2 << 40).unwrap());
        assert_eq!(one.id(), other.id());
        assert_ne!(one.id(), packed(&image.variable("A", "b"), 3 << 40).unwrap().id());
        let text = String::from_utf8(one.configuration).unwrap();
        assert!(text.contains(r#""User":"65534""#) && text.contains(r#""Cmd":["/bin/program"]"#), "{text}");
    }

    #[test]
    fn paths_stay_inside() {
        let program = std::env::current_exe().unwrap();
        for path in ["relative", "/", "/../up", "/a/../../b"] {
            let image = PackedImage::new().executable_at(&program, path);
            assert!(matches!(packed(&image, 4 << 40), Err(ImageError::Unsupported(_))), "{path}");
        }
    }
}
