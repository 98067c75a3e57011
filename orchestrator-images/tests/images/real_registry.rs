//! Against Debian's `docker-registry`, with images that `skopeo` put there.

use std::fs::File;

use orchestrator_core::env::Env;
use orchestrator_images::{ImageSource, ImageStore, PackedImage, Registries, nameless_file};
use orchestrator_testkit::registry::{DockerRegistry, skopeo};

use crate::support::{Place, layers, read, reference};

#[tokio::test]
async fn what_others_pushed_is_pulled() {
    let place = Place::new();
    let registry = DockerRegistry::start(&Env::real(), &place.path("registry")).await.unwrap();
    let image =
        PackedImage::new().executable("/bin/sh").content("/etc/motd", "hello", 0o644).args(["/bin/sh"]).user("nobody");
    let name = reference("packed:1");
    let scratch = || nameless_file(&place.path("scratch"), 1);
    let mut parts = ImageSource::from(image).read(&name, std::env::consts::ARCH, scratch).unwrap();
    let archive = place.path("packed.tar");
    parts.write("packed:1", File::create(&archive).unwrap()).unwrap();
    for (tag, options) in [
        ("docker", &["--format", "v2s2"][..]),
        ("oci", &["--format", "oci"]),
        ("zstd", &["--format", "oci", "--dest-compress-format", "zstd"]),
    ] {
        registry.push(&archive, &format!("team/{tag}:1"), options).unwrap();
        let store = place.open(
            ImageStore::builder(place.path(&format!("store-{tag}"))).registries(Registries::new()).reserved_bytes(0),
        );
        let store = store.await;
        let name = format!("{}/team/{tag}:1", registry.host());
        let pulled = store.pull(&reference(&name), &[]).await.unwrap();
        assert!(pulled.id.starts_with(&format!("{}/team/{tag}@sha256:", registry.host())), "{pulled:?}");
        let root = layers(&store, &name).await.remove(0);
        assert_eq!(read(&root.join("etc/motd")), "hello");
        let held = store.hold(&reference(&name), "other").await.unwrap();
        assert_eq!(held.configuration.user.as_deref(), Some("nobody"));
        // By the digest that it was known by.
        store.pull(&reference(&pulled.id), &[]).await.unwrap();
    }
    // A layout that another program wrote.
    let layout = place.path("layout");
    let (from, to) = (format!("docker-archive:{}", archive.display()), format!("oci:{}:packed:1", layout.display()));
    skopeo(&["copy", &from, &to]).unwrap();
    let store = place.open(place.builder().source("packed:1", ImageSource::Layout(layout))).await;
    store.pull(&name, &[]).await.unwrap();
    assert_eq!(read(&layers(&store, "packed:1").await[0].join("etc/motd")), "hello");
}
