//! Layers that mean harm: refused by a typed error, nothing of them is kept, and the machine is as it was.

use std::{fs, io::Write};

use flate2::{Compression, write::GzEncoder};
use orchestrator_images::{ImageError, ImageSource};
use tar::EntryType;

use crate::support::{LayerWriter, Place, TestImage, digest, layers, reference};

/// Pulls a layer, and checks that nothing of it is left and the file beside the store is as it was.
async fn refused(layer: Vec<u8>) -> ImageError {
    let place = Place::new();
    let canary = place.path("canary");
    fs::write(&canary, "alive").unwrap();
    let error = place.pull(&[layer]).await.expect_err("it was taken");
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    assert_eq!((place.files("layers").len(), place.files("making").len(), place.files("names").len()), (0, 0, 0));
    error
}

#[tokio::test]
async fn paths_that_lead_out() {
    let up = "../".repeat(12);
    for path in [format!("{up}canary"), "/etc/canary".to_owned(), "a/../../canary".to_owned(), "..".to_owned()] {
        let error = refused(LayerWriter::new().file(&path, b"dead").finish()).await;
        assert!(matches!(error, ImageError::Invalid(_)), "{path}: {error}");
    }
}

#[tokio::test]
async fn links_that_lead_out() {
    for target in ["/", "..", "../../..", "/proc/self/root", "/proc/self/cwd"] {
        let layer = LayerWriter::new().link("x", EntryType::Symlink, target).file("x/canary", b"dead").finish();
        let error = refused(layer).await;
        assert!(matches!(error, ImageError::Invalid(_)), "{target}: {error}");
    }
    for target in ["../../canary", "/etc/passwd", "x/passwd"] {
        let layer =
            LayerWriter::new().link("x", EntryType::Symlink, "/etc").link("y", EntryType::Link, target).finish();
        let error = refused(layer).await;
        assert!(matches!(error, ImageError::Invalid(_)), "{target}: {error}");
    }
    let cycle = LayerWriter::new()
        .link("a", EntryType::Symlink, "b")
        .link("b", EntryType::Symlink, "a")
        .file("a/c", b"")
        .finish();
    assert!(matches!(refused(cycle).await, ImageError::Invalid(_)));
}

#[tokio::test]
async fn links_within_the_layer_are_followed() {
    let place = Place::new();
    let layer = LayerWriter::new()
        .directory("usr/bin")
        .link("bin", EntryType::Symlink, "usr/bin")
        .file("bin/app", b"here")
        .finish();
    let store = place.pull(&[layer]).await.unwrap();
    let root = layers(&store, "test").await.remove(0);
    assert_eq!(fs::read_to_string(root.join("usr/bin/app")).unwrap(), "here");
}

#[tokio::test]
async fn marks_of_the_file_system_are_not_taken_from_strangers() {
    let place = Place::new();
    let layer = LayerWriter::new()
        .attribute("trusted.overlay.redirect", b"/etc")
        .entry("d", EntryType::Directory, &[], |header| header.set_mode(0o755))
        .finish();
    let store = place.pull(&[layer]).await.unwrap();
    let root = layers(&store, "test").await.remove(0);
    let found = rustix::fs::getxattr(root.join("d"), "trusted.overlay.redirect", &mut [0; 16][..]);
    assert_eq!(found, Err(rustix::io::Errno::NODATA));
}

#[tokio::test]
async fn whiteouts_that_lead_out() {
    for path in [".wh...", ".wh.", "d/.wh..."] {
        let error = refused(LayerWriter::new().directory("d").file(path, b"").finish()).await;
        assert!(matches!(error, ImageError::Invalid(_)), "{path}: {error}");
    }
}

#[tokio::test]
async fn what_is_too_much() {
    // 64 MiB of zeros in some kilobytes.
    let place = Place::new();
    let big = LayerWriter::new().file("zeros", &vec![0; 64 << 20]).finish();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&big).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < 128 << 10);
    let image = TestImage::packed(vec![packed], &[format!("sha256:{}", digest(&big))]);
    let root = place.path("bomb");
    fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    for blob in image.blobs() {
        fs::write(root.join("blobs/sha256").join(digest(&blob)), blob).unwrap();
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [image.manifest_descriptor()] });
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    let many = (0..2_000).fold(LayerWriter::new(), |layer, number| layer.file(&format!("f{number}"), b""));
    let store = place
        .open(
            place
                .builder()
                .source("bomb", ImageSource::Layout(root))
                .source("many", place.layout("many", &[many.finish()]))
                .source("deep", place.layout("deep", &[LayerWriter::new().file(&"d/".repeat(45), b"").finish()]))
                .unpacked_bytes(16 << 20)
                .entries(1_000),
        )
        .await;
    for name in ["bomb", "many"] {
        let error = store.pull(&reference(name), &[]).await.expect_err(name);
        assert!(matches!(error, ImageError::TooLarge { .. }), "{name}: {error}");
    }
    assert!(store.pull(&reference("deep"), &[]).await.is_ok());
    assert_eq!((place.files("layers").len(), place.files("making").len()), (1, 0));
}

#[tokio::test]
async fn a_disk_that_would_be_full() {
    let place = Place::new();
    let layer = LayerWriter::new().file("a", b"b").finish();
    let builder = place.builder().reserved_bytes(u64::MAX).source("test", place.layout("layout", &[layer]));
    let store = place.open(builder).await;
    let error = store.pull(&reference("test"), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::NoSpace { .. }) && error.is_transient(), "{error}");
    assert_eq!((place.files("layers").len(), place.files("making").len()), (0, 0));
}

#[tokio::test]
async fn what_is_not_what_it_says() {
    let place = Place::new();
    let layer = LayerWriter::new().file("a", b"b").finish();
    let wrong = TestImage::packed(vec![layer.clone()], &[format!("sha256:{}", digest(b"another"))]);
    let short = TestImage::packed(vec![layer.clone()], &[]);
    let broken = TestImage::new(&[b"no archive at all, though long enough to be read as one".repeat(20)]);
    for (name, image) in [("wrong", wrong), ("short", short), ("broken", broken)] {
        let root = place.path(name);
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        for blob in image.blobs() {
            fs::write(root.join("blobs/sha256").join(digest(&blob)), blob).unwrap();
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [image.manifest_descriptor()] });
        fs::write(root.join("index.json"), index.to_string()).unwrap();
        let store = place.open(place.builder().source(name, ImageSource::Layout(root))).await;
        let error = store.pull(&reference(name), &[]).await.expect_err(name);
        assert!(matches!(error, ImageError::Invalid(_)), "{name}: {error}");
        assert_eq!((place.files("layers").len(), place.files("making").len()), (0, 0), "{name}");
    }
}

#[tokio::test]
async fn nobody_owns_nothing() {
    let layer =
        LayerWriter::new().entry("a", EntryType::Regular, b"", |header| header.set_uid(u64::from(u32::MAX))).finish();
    assert!(matches!(refused(layer).await, ImageError::Invalid(_)));
    let sparse = LayerWriter::new().entry("a", EntryType::GNUSparse, b"", |_| {}).finish();
    assert!(matches!(refused(sparse).await, ImageError::Unsupported(_)));
}
