//! Against Debian's `docker-registry`, with images that `skopeo` put there.

use std::{
    fs::{self, File},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use orchestrator_core::env::Env;
use orchestrator_images::{ImageSource, PackedImage, Registries, nameless_file};

use crate::support::{Place, layers, read, reference};

/// The registry's process.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    async fn start(place: &Place) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let storage = place.path("registry");
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            storage.display()
        );
        fs::write(place.path("registry.yml"), configuration).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(place.path("registry.yml"))
            .stdout(Stdio::null())
            .stderr(File::create(place.path("registry.log")).unwrap())
            .spawn()
            .expect("`docker-registry` (Debian's package of that name) is in the path");
        let registry = Self { child, host };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(&registry.host).await.is_ok() {
                return registry;
            }
            Env::real().sleep(Duration::from_millis(50)).await;
        }
        panic!("the registry does not answer: {}", read(&place.path("registry.log")));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo").args(arguments).output().expect("`skopeo` is in the path");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn what_others_pushed_is_pulled() {
    let place = Place::new();
    let registry = Registry::start(&place).await;
    let image =
        PackedImage::new().executable("/bin/sh").content("/etc/motd", "hello", 0o644).args(["/bin/sh"]).user("nobody");
    let name = reference("packed:1");
    let scratch = || nameless_file(&place.path("scratch"), 1);
    let mut parts = ImageSource::from(image).read(&name, std::env::consts::ARCH, scratch).unwrap();
    let archive = place.path("packed.tar");
    parts.write("packed:1", File::create(&archive).unwrap()).unwrap();
    let from = format!("docker-archive:{}", archive.display());
    let insecure = "--insecure-policy";
    for (tag, options) in [
        ("docker", &["--format", "v2s2"][..]),
        ("oci", &["--format", "oci"]),
        ("zstd", &["--format", "oci", "--dest-compress-format", "zstd"]),
    ] {
        let to = format!("docker://{}/team/{tag}:1", registry.host);
        let arguments = [&[insecure, "copy", "--dest-tls-verify=false"][..], options, &[&from, &to]].concat();
        skopeo(&arguments);
        let store = place.open(
            orchestrator_images::ImageStore::builder(place.path(&format!("store-{tag}")))
                .registries(Registries::new())
                .reserved_bytes(0),
        );
        let store = store.await;
        let name = format!("{}/team/{tag}:1", registry.host);
        let pulled = store.pull(&reference(&name), &[]).await.unwrap();
        assert!(pulled.id.starts_with(&format!("{}/team/{tag}@sha256:", registry.host)), "{pulled:?}");
        let root = layers(&store, &name).await.remove(0);
        assert_eq!(read(&root.join("etc/motd")), "hello");
        let held = store.hold(&reference(&name), "other").await.unwrap();
        assert_eq!(held.configuration.user.as_deref(), Some("nobody"));
        // By the digest that it was known by.
        store.pull(&reference(&pulled.id), &[]).await.unwrap();
    }
    // A layout that another program wrote.
    let layout = place.path("layout");
    skopeo(&[insecure, "copy", &from, &format!("oci:{}:packed:1", layout.display())]);
    let store = place.open(place.builder().source("packed:1", ImageSource::Layout(layout))).await;
    store.pull(&name, &[]).await.unwrap();
    assert_eq!(read(&layers(&store, "packed:1").await[0].join("etc/motd")), "hello");
}
