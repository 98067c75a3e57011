//! Containers of images: their own root, shared by all of them, and what the image says.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use orchestrator_core::runtime::{
    ContainerConfig, ContainerRuntime, ContainerState, ImageService, ImageUser, PullRequest, RuntimeError,
    SupplementalGroupsPolicy,
};
use orchestrator_images::{Parts, nameless_file};
use orchestrator_runtime_youki::{ImageSource, PackedImage, YoukiBuilder};
use serde_json::json;

use crate::support::{Place, container, sandbox, shell};

crate::tests!(
    an_image_is_all_that_is_seen,
    what_is_written_is_the_containers_own,
    users_by_name,
    layers_are_stacked,
    layers_of_a_pod_with_own_users,
    images_go_when_nobody_needs_them,
    what_cannot_be_had,
);

/// What containers of the test's image have.
const PROGRAMS: [&str; 8] = ["sh", "ls", "cat", "id", "sleep", "rm", "touch", "pwd"];

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/srv:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww:x:44:\nmedia:x:50:web\n";

fn tools() -> PackedImage {
    let image = PackedImage::new()
        .content("/etc/passwd", PASSWD, 0o644)
        .content("/etc/group", GROUP, 0o644)
        .content("/srv/greeting", "hello\n", 0o644)
        .args(["/bin/sh", "-c", "echo $MOOD; pwd; cat greeting"])
        .variable("MOOD", "fine")
        .working_directory("/srv");
    PROGRAMS.iter().fold(image, |image, name| {
        let places = ["/bin", "/usr/bin"].map(|directory| Path::new(directory).join(name));
        let place = places.into_iter().find(|path| path.exists()).expect("the machine has it");
        image.executable_at(place, Path::new("/bin").join(name))
    })
}

pub(crate) fn with_tools(builder: YoukiBuilder) -> YoukiBuilder {
    builder.source("kit:1", tools()).source("web:1", tools().user("web"))
}

fn of(image: &str, config: ContainerConfig) -> ContainerConfig {
    ContainerConfig { image: image.to_owned(), ..config }
}

async fn pull(place: &Place, image: &str) -> Result<orchestrator_core::runtime::Image, RuntimeError> {
    place.runtime.pull_image(&PullRequest { image: image.to_owned(), credentials: Vec::new() }).await
}

async fn clean(place: Place) {
    for image in place.runtime.list_images().await.unwrap() {
        if !image.id.starts_with("host:") {
            place.runtime.remove_image(&image.name).await.unwrap();
        }
    }
    place.clean().await;
}

async fn an_image_is_all_that_is_seen() {
    let place = Place::with(with_tools);
    assert_eq!(place.runtime.image_status("kit:1").await.unwrap(), None);
    let image = pull(&place, "kit:1").await.unwrap();
    assert!(image.id.starts_with("sha256:") && image.size_bytes > 100_000, "{image:?}");
    assert_eq!(place.runtime.image_status("kit:1").await.unwrap().as_ref(), Some(&image));
    let pod = place.pod().await;
    let own = place.output(&pod, of("kit:1", container("own", &[]))).await;
    assert_eq!(own, (0, "fine\n/srv\nhello\n".to_owned()));
    let (code, seen) = place.output(&pod, of("kit:1", shell("seen", "cd /; echo *; cat /etc/hostname"))).await;
    // Directories that the runtime mounts on are there, too; nothing else of the machine is.
    let (names, hostname) = seen.split_once('\n').unwrap();
    let mut expected = vec!["bin", "dev", "etc", "proc", "srv", "sys", "tmp"];
    expected.extend(["lib", "lib64", "usr"].iter().filter(|name| names.split(' ').any(|seen| seen == **name)));
    expected.sort_unstable();
    assert_eq!((code, names.split(' ').collect::<Vec<_>>()), (0, expected));
    assert!(hostname.starts_with("host-"), "{hostname}");
    let missing = of("kit:1", container("missing", &["/usr/bin/python3"]));
    let id = place.runtime.create_container(&pod.id, &missing).await.unwrap();
    let refused = place.runtime.start_container(&id).await;
    assert!(matches!(&refused, Err(RuntimeError::StartFailed(why)) if why.contains("no such file")), "{refused:?}");
    clean(place).await;
}

async fn what_is_written_is_the_containers_own() {
    let place = Place::with(with_tools);
    pull(&place, "kit:1").await.unwrap();
    let pod = place.pod().await;
    let line = "echo changed > greeting; rm /etc/group; touch /bin/new; cat greeting";
    assert_eq!(place.output(&pod, of("kit:1", shell("one", line))).await, (0, "changed\n".to_owned()));
    let line = "cat greeting; cat /etc/group; ls /bin/new";
    let (code, output) = place.output(&pod, of("kit:1", shell("two", line))).await;
    assert!(code != 0 && output == format!("hello\n{GROUP}"), "{output}");
    let mut read_only = of("kit:1", shell("three", "touch /new"));
    read_only.security.read_only_root = true;
    assert_ne!(place.output(&pod, read_only).await.0, 0);
    clean(place).await;
}

async fn users_by_name() {
    let place = Place::with(with_tools);
    let image = pull(&place, "web:1").await.unwrap();
    assert_eq!(image.user, Some(ImageUser::Name("web".to_owned())));
    let pod = place.pod().await;
    let who = |name: &str| of("web:1", shell(name, "id -u; id -g; id -G"));
    assert_eq!(place.output(&pod, who("own")).await.1, "33\n44\n44 50\n");
    let mut strict = who("strict");
    strict.security.supplemental_groups = vec![7];
    strict.security.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
    assert_eq!(place.output(&pod, strict).await.1, "33\n44\n44 7\n");
    let mut told = who("told");
    told.security.run_as_user = Some(5);
    assert_eq!(place.output(&pod, told).await.1, "5\n0\n0\n");
    // A command that is run in it is run by the same user.
    let id = place.run(&pod, of("web:1", shell("long", "sleep 1000"))).await;
    assert_eq!(place.exec(&id, &["id", "-u"]).await, (0, "33\n".to_owned()));
    place.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    clean(place).await;
}

/// An archive of the tools with a second layer.
fn two_layers(directory: &Path) -> PathBuf {
    let name = "kit:1".parse().unwrap();
    let scratch = || nameless_file(directory, 1);
    let mut parts: Parts = ImageSource::from(tools()).read(&name, std::env::consts::ARCH, scratch).unwrap();
    let mut saved = Vec::new();
    parts.write("kit:1", &mut saved).unwrap();
    let mut files = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(&saved[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(path, content);
    }
    let mut upper = tar::Builder::new(Vec::new());
    for (path, content) in [("srv/.wh.greeting", ""), ("srv/second", "two\n"), ("opt/.wh..wh..opq", "")] {
        append(&mut upper, path, content.as_bytes());
    }
    let upper = upper.into_inner().unwrap();
    let mut configuration: serde_json::Value = serde_json::from_slice(&parts.configuration).unwrap();
    let id = format!("sha256:{}", digest(&upper));
    configuration["rootfs"]["diff_ids"].as_array_mut().unwrap().push(id.into());
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": ["two:1"], "Layers": ["0/layer.tar", "1/layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    append(&mut archive, "config.json", configuration.to_string().as_bytes());
    append(&mut archive, "0/layer.tar", &files["0/layer.tar"]);
    append(&mut archive, "1/layer.tar", &upper);
    let path = directory.join("two.tar");
    fs::write(&path, archive.into_inner().unwrap()).unwrap();
    path
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, content).unwrap();
}

fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn layers_are_stacked() {
    let files = std::env::temp_dir().join(format!("youki-layers-{}", std::process::id()));
    fs::create_dir_all(&files).unwrap();
    let archive = two_layers(&files);
    let place = Place::with(|builder| with_tools(builder).source("two:1", ImageSource::Archive(archive)));
    pull(&place, "two:1").await.unwrap();
    let layers = || fs::read_dir(place.directory.join("images/layers")).unwrap().count();
    assert_eq!(layers(), 2);
    pull(&place, "kit:1").await.unwrap();
    assert_eq!(layers(), 2, "the lower layer is shared");
    let pod = place.pod().await;
    assert_eq!(place.output(&pod, of("two:1", shell("two", "echo *"))).await, (0, "second\n".to_owned()));
    assert_eq!(place.output(&pod, of("kit:1", shell("one", "echo *"))).await, (0, "greeting\n".to_owned()));
    fs::remove_dir_all(files).unwrap();
    clean(place).await;
}

async fn layers_of_a_pod_with_own_users() {
    let place = Place::with(with_tools);
    pull(&place, "web:1").await.unwrap();
    let mut config = sandbox();
    config.namespaces.user_namespace = true;
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    // The image's root is the pod's, and so is what it writes; its user is found by name.
    let line = "id -u; ls -n / | cat; cat /srv/greeting; touch /bin/x";
    let (_, seen) = place.output(&pod, of("web:1", shell("web", line))).await;
    assert!(seen.starts_with("33\n") && seen.ends_with("hello\n"), "{seen}");
    let owners = seen.lines().filter(|line| line.ends_with(" bin") || line.ends_with(" srv"));
    assert!(
        owners.map(|line| line.split_whitespace().skip(2).take(2).collect::<Vec<_>>()).all(|ids| ids == ["0", "0"]),
        "{seen}"
    );
    let mut root = of("web:1", shell("root", "touch /bin/x && ls -n /bin/x | cat"));
    root.security.run_as_user = Some(0);
    let (_, made) = place.output(&pod, root).await;
    assert_eq!(made.split_whitespace().skip(2).take(2).collect::<Vec<_>>(), ["0", "0"], "{made}");
    // Beside it runs a pod that shares the layers and has the machine's users.
    let plain = place.pod().await;
    assert_eq!(
        place.output(&plain, of("web:1", shell("web", "id -u; cat /srv/greeting"))).await,
        (0, "33\nhello\n".to_owned())
    );
    clean(place).await;
}

async fn images_go_when_nobody_needs_them() {
    let mut place = Place::with(with_tools);
    pull(&place, "kit:1").await.unwrap();
    let layers = |place: &Place| fs::read_dir(place.directory.join("images/layers")).unwrap().count();
    let pod = place.pod().await;
    let id = place.run(&pod, of("kit:1", shell("long", "sleep 1000"))).await;
    place.runtime.remove_image("kit:1").await.unwrap();
    assert_eq!(place.runtime.image_status("kit:1").await.unwrap(), None);
    assert_eq!(layers(&place), 1, "a container needs it");
    // The agent is another one by now; what runs goes on, and can be looked into.
    place.again();
    assert_eq!(place.exec(&id, &["cat", "/srv/greeting"]).await, (0, "hello\n".to_owned()));
    place.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert!(matches!(place.ended(&id).await, ContainerState::Exited { .. }));
    assert_eq!(layers(&place), 1);
    place.runtime.remove_container(&id).await.unwrap();
    assert_eq!(layers(&place), 0);
    clean(place).await;
}

async fn what_cannot_be_had() {
    let place = Place::with(|builder| builder.source("none:1", PackedImage::new().executable("/no/such/program")));
    for name in ["none:1", "unknown:1", "Not A Name"] {
        let refused = pull(&place, name).await;
        assert!(matches!(refused, Err(RuntimeError::ImagePull(_))), "{name}: {refused:?}");
        assert_eq!(place.runtime.image_status(name).await.unwrap(), None);
    }
    let pod = place.pod().await;
    let refused = place.runtime.create_container(&pod.id, &of("none:1", container("main", &["x"]))).await;
    assert!(matches!(refused, Err(RuntimeError::NotFound { kind: "image", .. })), "{refused:?}");
    clean(place).await;
}
