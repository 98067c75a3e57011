//! Images: packed, stored in files, pulled from a registry, and brought by somebody else.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::TryStreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{ContainerRuntime, ImageService, ImageUser, PullRequest, RegistryCredentials, RuntimeError},
};
use orchestrator_runtime_docker::{DockerRuntime, ImageSource, PackedImage};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    registry::{Contents, Registry},
    support::{Place, SHELL, container, docker, sandbox, shell, shell_image, words},
};

crate::tests!(
    packed_images_are_what_their_files_are,
    archives_and_layouts,
    registries,
    images_that_others_brought,
    images_in_use_stay,
    images_that_cannot_be_made,
);

fn pull(image: &str) -> PullRequest {
    PullRequest { image: image.to_owned(), credentials: Vec::new() }
}

async fn packed_images_are_what_their_files_are() {
    let mut place = Place::new().await;
    let first = place.runtime.pull_image(&pull(SHELL)).await.unwrap();
    assert_eq!(place.runtime.image_status(SHELL).await.unwrap(), Some(first.clone()));
    assert!(first.size_bytes > 1_000_000 && first.user.is_none(), "{first:?}");
    // The same files for a new agent: there already.
    place.again();
    assert_eq!(place.runtime.image_status(SHELL).await.unwrap(), Some(first.clone()));
    let pod = place.runtime.run_sandbox(&sandbox()).await.unwrap();
    let old = place.run(&pod, container("old", &["sleep", "1000"])).await;
    // Other files under the same name: what the engine has is not it.
    let changed = shell_image(&place.cluster).variable("CHANGED", "yes").user("1000:1000").working_directory("/tmp");
    let newer = place.builder().image(SHELL, changed).build(Env::real()).unwrap();
    assert_eq!(newer.image_status(SHELL).await.unwrap(), None);
    let second = newer.pull_image(&pull(SHELL)).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.user, Some(ImageUser::Id(1000)));
    // The older one is there for as long as somebody needs it.
    let listed = newer.list_images().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|image| image.name.as_str()).collect();
    let superseded = format!("superseded.invalid/image:{}", first.id.trim_start_matches("sha256:"));
    assert_eq!(names, ["docker.io/library/shell:1", superseded.as_str()]);
    assert!(matches!(newer.remove_image(&superseded).await, Err(RuntimeError::WrongState(_))));
    newer.remove_container(&old).await.unwrap();
    newer.remove_image(&superseded).await.unwrap();
    assert_eq!(newer.list_images().await.unwrap().len(), 1);
    place.runtime = newer;
    let line = "echo $CHANGED; id -u; id -g; pwd";
    assert_eq!(place.output(&pod, shell("main", line)).await, (0, "yes\n1000\n1000\n/tmp\n".to_owned()));
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    place.runtime.remove_image(SHELL).await.unwrap();
    place.runtime.remove_image(SHELL).await.unwrap();
    assert_eq!(place.runtime.image_status(SHELL).await.unwrap(), None);
    assert!(place.runtime.list_images().await.unwrap().is_empty());
    place.clean().await;
}

/// An image as the engine saves it: its configuration and its only layer.
struct Saved {
    archive: Vec<u8>,
    configuration: Vec<u8>,
    layer: Vec<u8>,
}

impl Saved {
    /// Saves the image with the shell, and lets the runtime remove it.
    async fn shell(place: &Place) -> Self {
        let image = place.runtime.pull_image(&pull(SHELL)).await.unwrap();
        let chunks: Vec<Bytes> = docker().await.export_image(&image.id).try_collect().await.unwrap();
        let archive = chunks.concat();
        place.runtime.remove_image(SHELL).await.unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&file_of(&archive, "manifest.json")).unwrap();
        let file = |name: &serde_json::Value| file_of(&archive, name.as_str().unwrap());
        let (configuration, layer) = (file(&manifest[0]["Config"]), file(&manifest[0]["Layers"][0]));
        assert!(!configuration.is_empty() && !layer.is_empty());
        Self { archive, configuration, layer }
    }

    /// The blobs of an OCI image, the manifest last.
    fn blobs(&self) -> Vec<(&'static str, Vec<u8>)> {
        let layer = gzip(&self.layer);
        let descriptor =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &self.configuration),
            "layers": [descriptor(LAYER, &layer)],
        });
        vec![(CONFIG, self.configuration.clone()), (LAYER, layer), (MANIFEST, manifest.to_string().into_bytes())]
    }

    fn write_layout(&self, path: &Path) {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        let blobs = self.blobs();
        for (_, bytes) in &blobs {
            fs::write(path.join("blobs").join(digest(bytes).replace(':', "/")), bytes).unwrap();
        }
        let (kind, manifest) = blobs.last().unwrap();
        let descriptor = json!({ "mediaType": kind, "digest": digest(manifest), "size": manifest.len() });
        fs::write(path.join("index.json"), json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string())
            .unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}

/// A file in an archive.
fn file_of(archive: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(name)).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn digest(bytes: &[u8]) -> String {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digest}")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn archives_and_layouts() {
    let mut place = Place::new().await;
    let saved = Saved::shell(&place).await;
    let files = place.directory.join("files");
    saved.write_layout(&files.join("layout"));
    fs::write(files.join("saved.tar"), &saved.archive).unwrap();
    fs::write(files.join("saved.tar.gz"), gzip(&saved.archive)).unwrap();
    let mut layout = tar::Builder::new(Vec::new());
    layout.append_dir_all(".", files.join("layout")).unwrap();
    fs::write(files.join("layout.tar"), layout.into_inner().unwrap()).unwrap();
    let sources = [
        ("saved:1", ImageSource::Archive(files.join("saved.tar"))),
        ("compressed:1", ImageSource::Archive(files.join("saved.tar.gz"))),
        ("layout:1", ImageSource::Layout(files.join("layout"))),
        ("layout-in-archive:1", ImageSource::Archive(files.join("layout.tar"))),
    ];
    let builder = sources.iter().fold(place.builder(), |builder, (name, source)| builder.image(*name, source.clone()));
    place.runtime = builder.build(Env::real()).unwrap();
    let pod = place.runtime.run_sandbox(&sandbox()).await.unwrap();
    for (name, _) in &sources {
        assert_eq!(place.runtime.image_status(name).await.unwrap(), None);
        place.pull(name).await;
        let mut config = shell(&name.replace([':', '.'], "-"), "echo $FROM_IMAGE");
        config.image = (*name).to_owned();
        assert_eq!(place.output(&pod, config).await, (0, "yes\n".to_owned()), "{name}");
    }
    // One that is not whole is told, and not taken for one.
    fs::write(files.join("saved.tar"), &saved.archive[..saved.archive.len() / 2]).unwrap();
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    for (name, _) in &sources {
        place.runtime.remove_image(name).await.unwrap();
    }
    let refused = place.runtime.pull_image(&pull("saved:1")).await;
    assert!(matches!(refused, Err(RuntimeError::ImagePull(_))), "{refused:?}");
    assert_eq!(place.runtime.image_status("saved:1").await.unwrap(), None);
    fs::remove_dir_all(&files).unwrap();
    place.clean().await;
}

async fn registries() {
    let place = Place::new().await;
    let saved = Saved::shell(&place).await;
    let mut contents = Contents::new();
    for (kind, bytes) in saved.blobs() {
        contents.insert(digest(&bytes), (kind.to_owned(), bytes.clone().into()));
        if kind == MANIFEST {
            contents.insert("1".to_owned(), (kind.to_owned(), bytes.into()));
        }
    }
    let registry = Registry::new(contents.clone(), "user:secret").await;
    let host = format!("127.0.0.1:{}", registry.port);
    let credentials = |password: &str| RegistryCredentials {
        registry: host.clone(),
        username: "user".to_owned(),
        password: password.to_owned(),
    };
    let elsewhere = RegistryCredentials { registry: "example.com".to_owned(), ..credentials("secret") };
    let (_, manifest) = contents.get("1").unwrap();
    for name in [format!("{host}/team/app:1"), format!("{host}/team/app@{}", digest(manifest))] {
        for wrong in [vec![], vec![credentials("wrong")], vec![elsewhere.clone()]] {
            let refused = place.runtime.pull_image(&PullRequest { image: name.clone(), credentials: wrong }).await;
            assert!(matches!(&refused, Err(RuntimeError::ImagePull(why)) if why.contains("app")), "{refused:?}");
            assert_eq!(place.runtime.image_status(&name).await.unwrap(), None);
        }
        let right = vec![elsewhere.clone(), credentials("wrong"), credentials("secret")];
        let image = place.runtime.pull_image(&PullRequest { image: name.clone(), credentials: right }).await.unwrap();
        assert_eq!(image.name, name);
        // Here by now: nobody is asked again.
        assert_eq!(place.runtime.pull_image(&pull(&name)).await.unwrap(), image);
        let listed = place.runtime.list_images().await.unwrap();
        assert_eq!(listed.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), [name.as_str()]);
        // The engine's own names are left as they were.
        let holdings = crate::support::holdings(None).await;
        assert!(!holdings.images.iter().any(|known| known.starts_with(&host)), "{holdings:?}");
        let pod = place.runtime.run_sandbox(&sandbox()).await.unwrap();
        let mut config = shell("main", "echo $FROM_IMAGE");
        config.image = name.clone();
        assert_eq!(place.output(&pod, config).await, (0, "yes\n".to_owned()));
        place.runtime.remove_sandbox(&pod.id).await.unwrap();
        place.runtime.remove_image(&name).await.unwrap();
    }
    drop(registry);
    place.clean().await;
}

async fn images_that_others_brought() {
    let place = Place::new().await;
    let image = place.runtime.pull_image(&pull(SHELL)).await.unwrap();
    let engine = docker().await;
    let foreign = format!("{}-foreign", place.cluster);
    let options = bollard::query_parameters::TagImageOptions { repo: Some(foreign.clone()), tag: Some("1".to_owned()) };
    engine.tag_image(&image.id, Some(options)).await.unwrap();
    let name = format!("{foreign}:1");
    // Used as it is, whether it was pulled or not.
    let pod = place.runtime.run_sandbox(&sandbox()).await.unwrap();
    let mut config = shell("main", "echo $FROM_IMAGE");
    config.image = name.clone();
    assert_eq!(place.runtime.image_status(&name).await.unwrap().unwrap().id, image.id);
    assert_eq!(place.output(&pod, config).await, (0, "yes\n".to_owned()));
    assert_eq!(place.runtime.pull_image(&pull(&name)).await.unwrap().id, image.id);
    assert_eq!(place.runtime.list_images().await.unwrap().len(), 2);
    place.runtime.remove_image(&name).await.unwrap();
    assert_eq!(place.runtime.list_images().await.unwrap().len(), 1);
    assert!(engine.inspect_image(&name).await.is_ok(), "it is somebody else's");
    let options = None::<bollard::query_parameters::RemoveImageOptions>;
    engine.remove_image(&name, options, None).await.unwrap();
    assert_eq!(place.runtime.image_status(&name).await.unwrap(), None);
    place.clean().await;
}

async fn images_in_use_stay() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let refused = place.runtime.remove_image(SHELL).await;
    assert!(matches!(refused, Err(RuntimeError::WrongState(_))), "{refused:?}");
    assert!(place.runtime.image_status(SHELL).await.unwrap().is_some());
    place.runtime.remove_container(&id).await.unwrap();
    place.runtime.remove_image(SHELL).await.unwrap();
    place.clean().await;
}

async fn images_that_cannot_be_made() {
    let mut place = Place::new().await;
    let builder = place
        .builder()
        .image("missing", PackedImage::new().executable("/no/such/program"))
        .image("script", PackedImage::new().executable("/etc/passwd"))
        .image("no-archive", ImageSource::Archive(PathBuf::from("/etc/passwd")))
        .image("no-layout", ImageSource::Layout(PathBuf::from("/etc")));
    place.runtime = builder.build(Env::real()).unwrap();
    for name in ["missing", "script", "no-archive", "no-layout", "not a name"] {
        let refused = place.runtime.pull_image(&pull(name)).await;
        assert!(matches!(&refused, Err(RuntimeError::ImagePull(why)) if !why.is_empty()), "{name}: {refused:?}");
        assert_eq!(place.runtime.image_status(name).await.unwrap(), None);
    }
    // No command, neither in the image nor in the container.
    let pod = place.pod().await;
    let bare = place.builder().image("bare", shell_image(&place.cluster).args([""; 0])).build(Env::real()).unwrap();
    bare.pull_image(&pull("bare")).await.unwrap();
    let mut config = container("main", &[]);
    config.image = "bare".to_owned();
    let refused = bare.create_container(&pod.id, &config).await;
    assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
    config.args = words(&["sh", "-c", "exit 5"]);
    let id = bare.create_container(&pod.id, &config).await.unwrap();
    bare.start_container(&id).await.unwrap();
    assert_eq!(place.ended(&id).await.exit_code(), Some(5));
    for (cluster, node) in [("Upper", "n"), ("c", "a_b"), ("", "n")] {
        let refused = DockerRuntime::builder("/var/lib/x").cluster(cluster).node(node).build(Env::real());
        assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
    }
    place.clean().await;
}
