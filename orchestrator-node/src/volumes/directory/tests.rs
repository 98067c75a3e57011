//! Files below a directory: symbolic links lead nowhere, what is written is whole.

use std::{fs, os::unix::fs::symlink};

use orchestrator_core::env::{Env, Simulation};

use super::*;
use crate::volumes::File;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("orchestrator-node-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Env, DirectoryVolumes, PathBuf) -> F) {
    let scratch = Scratch::new(name);
    let simulation = Simulation::new(5);
    let env = simulation.env();
    let volumes = DirectoryVolumes::new(&env, scratch.0.join("root"));
    simulation.run(test(env, volumes, scratch.0.clone())).unwrap();
}

fn volume(plugin: &'static str) -> VolumeName {
    VolumeName { pod: "uid".into(), plugin, volume: "v".into() }
}

fn payload(files: &[(&str, &str)]) -> Payload {
    let file = |content: &str| File { content: content.as_bytes().to_vec(), mode: 0o644 };
    files.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
}

#[test]
fn projected_files_change_at_once() {
    run("project", |env, volumes, _| async move {
        let name = volume("kubernetes.io~configmap");
        let path = volumes.project(&name, payload(&[("a", "1"), ("d/b", "2")]), None).await.unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(path.join("d/b")).unwrap(), "2");
        let before = fs::read_link(path.join("..data")).unwrap();
        volumes.project(&name, payload(&[("a", "1"), ("d/b", "2")]), None).await.unwrap();
        assert_eq!(fs::read_link(path.join("..data")).unwrap(), before, "nothing changed, nothing is written");
        env.sleep(std::time::Duration::from_secs(2)).await;
        volumes.project(&name, payload(&[("a", "3")]), None).await.unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "3");
        assert!(!path.join("d").exists());
        let versions = fs::read_dir(&path)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("..2"));
        assert_eq!(versions.count(), 1);
    });
}

#[test]
fn payloads_stay_inside() {
    run("inside", |_, volumes, _| async move {
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            let result = volumes.project(&volume("kubernetes.io~secret"), payload(&[(path, "1")]), None).await;
            assert!(result.is_err(), "{path}");
        }
    });
}

#[test]
fn removal_does_not_follow_links() {
    run("remove", |_, volumes, scratch| async move {
        fs::create_dir(scratch.join("precious")).unwrap();
        fs::write(scratch.join("precious/file"), "x").unwrap();
        let path = volumes.empty_dir(&volume("kubernetes.io~empty-dir"), EmptyDir::default()).await.unwrap();
        symlink(scratch.join("precious"), path.join("link")).unwrap();
        assert_eq!(volumes.pods().await.unwrap(), ["uid"]);
        volumes.remove_pod("uid").await.unwrap();
        assert!(!path.exists());
        assert!(scratch.join("precious/file").exists());
        assert!(volumes.remove_pod("../precious").await.is_err());
    });
}

#[test]
fn sub_paths_stay_inside() {
    run("sub", |_, volumes, scratch| async move {
        fs::write(scratch.join("secret"), "x").unwrap();
        let path = volumes.empty_dir(&volume("kubernetes.io~empty-dir"), EmptyDir::default()).await.unwrap();
        symlink(scratch.join("secret"), path.join("evil")).unwrap();
        let ask = |sub: &str, writable| SubPath {
            pod: "uid".into(),
            mount: "c-0".into(),
            volume: path.clone(),
            path: sub.into(),
            writable,
        };
        for sub in ["evil", "../x", "/etc"] {
            assert!(volumes.sub_path(ask(sub, true)).await.is_err(), "{sub}");
            assert!(volumes.sub_path(ask(sub, false)).await.is_err(), "{sub}");
        }
        assert!(volumes.sub_path(ask("new/place", false)).await.unwrap().is_dir());
    });
}

#[test]
fn host_path_types() {
    run("host", |_, volumes, scratch| async move {
        let at = |name: &str| scratch.join(name).display().to_string();
        assert!(volumes.host_path(&at("d"), "DirectoryOrCreate").await.is_ok());
        assert!(volumes.host_path(&at("f"), "FileOrCreate").await.is_ok());
        assert!(volumes.host_path(&at("d"), "Directory").await.is_ok());
        let error = volumes.host_path(&at("f"), "Directory").await.unwrap_err();
        assert!(error.0.starts_with("hostPath type check failed"));
        assert!(volumes.host_path("/dev/null", "CharDevice").await.is_ok());
        assert!(volumes.host_path(&at("none"), "File").await.is_err());
    });
}

#[test]
fn files_of_the_pod() {
    run("file", |_, volumes, _| async move {
        let path = volumes.write_file("uid", "log", "", false).await.unwrap().unwrap();
        fs::write(&path, "the end").unwrap();
        volumes.write_file("uid", "log", "", false).await.unwrap();
        assert_eq!(volumes.read_file("uid", "log", 3).await.unwrap(), "the");
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(volumes.read_file("uid", "log", 100).await.is_err());
    });
}
