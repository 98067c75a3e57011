//! Which shared libraries an executable needs, as the dynamic linker would find them.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use goblin::elf::Elf;

use crate::{ImageError, limits::LIBRARIES};

/// Where the linker looks without being told; the first ones are those of the architecture.
const DIRECTORIES: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// What has to be in the image besides the executable.
#[derive(Debug, Default)]
pub(crate) struct Libraries {
    /// Files of the machine, by the path where they are looked for.
    pub(crate) files: BTreeMap<PathBuf, PathBuf>,
    /// Directories in which the linker of the image has to be told to look.
    pub(crate) search: Vec<PathBuf>,
    /// The architecture, as images name it.
    pub(crate) architecture: Option<&'static str>,
}

/// What of a file matters here.
struct Object {
    machine: u16,
    interpreter: Option<PathBuf>,
    needed: Vec<String>,
    /// Directories of `DT_RUNPATH`, or of `DT_RPATH` where there is none.
    paths: Vec<PathBuf>,
}

impl Libraries {
    /// Adds what an executable needs.
    pub(crate) fn add(&mut self, executable: &Path) -> Result<(), ImageError> {
        let program = read(executable)?;
        let architecture = match program.machine {
            62 => "amd64",
            183 => "arm64",
            other => {
                let what = format!("{}: an executable for the machine {other}", executable.display());
                return Err(ImageError::Unsupported(what));
            }
        };
        if self.architecture.is_some_and(|known| known != architecture) {
            return Err(ImageError::Unsupported(format!("{}: of another architecture", executable.display())));
        }
        self.architecture = Some(architecture);
        if let Some(interpreter) = &program.interpreter {
            self.files.insert(interpreter.clone(), interpreter.clone());
        }
        let machine = program.machine;
        let own_paths = program.paths.clone();
        let configured = configured_directories(Path::new("/etc/ld.so.conf"), 0);
        let mut queue = VecDeque::from([program]);
        while let Some(object) = queue.pop_front() {
            for name in &object.needed {
                let told = object.paths.iter().chain(&own_paths).map(|path| (path, false));
                let default: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).collect();
                let usual = default.iter().map(|path| (path, false));
                // The image has no cache of the linker's, so what only the configuration knows has to be told.
                let places = told.chain(usual).chain(configured.iter().map(|path| (path, true)));
                let found = places.into_iter().find_map(|(directory, tell)| {
                    let path = directory.join(name);
                    let library = read(&path).ok().filter(|library| library.machine == machine)?;
                    Some((path, library, directory.clone(), tell))
                });
                let Some((path, library, directory, tell)) = found else {
                    let what = format!("{}: the shared library {name} is not on this machine", executable.display());
                    return Err(ImageError::Missing(what));
                };
                if tell && !self.search.contains(&directory) {
                    self.search.push(directory);
                }
                if self.files.insert(path.clone(), path).is_none() {
                    queue.push_back(library);
                }
                if self.files.len() > LIBRARIES {
                    let what = format!("{}: more than {LIBRARIES} shared libraries", executable.display());
                    return Err(ImageError::Unsupported(what));
                }
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Object, ImageError> {
    let bytes = fs::read(path).map_err(|error| ImageError::io(path, error))?;
    let elf = Elf::parse(&bytes)
        .map_err(|error| ImageError::Unsupported(format!("{}: no executable: {error}", path.display())))?;
    let origin = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let lists = if elf.runpaths.is_empty() { &elf.rpaths } else { &elf.runpaths };
    let paths = lists.iter().flat_map(|list| list.split(':')).filter(|path| !path.is_empty()).map(|path| {
        let origin = origin.to_string_lossy();
        PathBuf::from(path.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
    });
    Ok(Object {
        machine: elf.header.e_machine,
        interpreter: elf.interpreter.map(PathBuf::from),
        needed: elf.libraries.iter().map(ToString::to_string).collect(),
        paths: paths.collect(),
    })
}

/// The directories of `ld.so.conf` and what it includes.
fn configured_directories(path: &Path, depth: usize) -> Vec<PathBuf> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let mut directories = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include ") {
            // The one pattern that is in use: all files of a directory with an ending.
            let pattern = Path::new(pattern.trim());
            let (Some(parent), Some(name)) = (pattern.parent(), pattern.file_name()) else { continue };
            let ending = name.to_string_lossy().trim_start_matches('*').to_owned();
            let mut included: Vec<PathBuf> =
                fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            included.sort();
            if depth < 4 {
                let matching = included.iter().filter(|path| path.to_string_lossy().ends_with(&ending));
                directories.extend(matching.flat_map(|path| configured_directories(path, depth + 1)));
            }
        } else if line.starts_with('/') {
            directories.push(PathBuf::from(line));
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_its_linker_and_a_library() {
        let mut libraries = Libraries::default();
        libraries.add(&std::env::current_exe().unwrap()).unwrap();
        let names: Vec<String> = libraries.files.keys().map(|path| path.to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|name| name.contains("/ld-")), "{names:?}");
        assert!(names.iter().any(|name| name.contains("libc.")), "{names:?}");
        assert!(matches!(libraries.add(Path::new("/etc/passwd")), Err(ImageError::Unsupported(_))));
        assert!(matches!(libraries.add(Path::new("/no/such")), Err(ImageError::Missing(_))));
    }
}
