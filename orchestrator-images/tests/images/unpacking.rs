//! Layers become directories with all that they say.

use std::{
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use flate2::{Compression, write::GzEncoder};
use tar::EntryType;

use crate::support::{LayerWriter, Place, TestImage, digest, layers, read, reference};

#[tokio::test]
async fn files_have_owners_modes_and_times() {
    let place = Place::new();
    let owned = |header: &mut tar::Header| {
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mode(0o4750);
    };
    let layer = LayerWriter::new()
        .directory("./")
        .directory("bin/")
        .entry("bin/app", EntryType::Regular, b"program", owned)
        .link("bin/again", EntryType::Link, "bin/app")
        .link("bin/other", EntryType::Symlink, "/bin/app")
        .entry("dev/fifo", EntryType::Fifo, &[], |_| {})
        .entry("dev/null", EntryType::Char, &[], |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .attribute("user.note", b"kept")
        .file("etc/noted", b"x")
        .finish();
    let store = place.pull(&[layer]).await.unwrap();
    let root = layers(&store, "test").await.remove(0);
    let app = std::fs::metadata(root.join("bin/app")).unwrap();
    assert_eq!((app.uid(), app.gid(), app.mode() & 0o7777, app.mtime()), (1000, 1001, 0o4750, 1_000_000));
    assert_eq!(app.ino(), std::fs::metadata(root.join("bin/again")).unwrap().ino());
    assert_eq!(std::fs::read_link(root.join("bin/other")).unwrap().to_str(), Some("/bin/app"));
    assert_eq!(std::fs::metadata(root.join("bin")).unwrap().mtime(), 1_000_000);
    assert!(std::fs::metadata(root.join("dev/fifo")).unwrap().file_type().is_fifo());
    let null = std::fs::metadata(root.join("dev/null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(root.join("etc/noted"), "user.note", &mut value[..]);
    // Not every file system of a machine has attributes of users.
    if let Ok(length) = length {
        assert_eq!(&value[..length], b"kept");
    }
    let held = store.hold(&reference("test"), "other").await.unwrap();
    assert_eq!(held.configuration.user.as_deref(), Some("web:www"));
    assert_eq!(held.configuration.entrypoint, ["/bin/app"]);
}

#[tokio::test]
async fn what_a_layer_takes_away_is_marked() {
    let place = Place::new();
    let lower = LayerWriter::new().file("a", b"1").file("d/b", b"2").file("e/c", b"3").finish();
    let upper = LayerWriter::new()
        .file(".wh.a", b"")
        .file("d/.wh..wh..opq", b"")
        .file("d/n", b"4")
        .file("e/.wh.c", b"")
        .finish();
    let store = place.pull(&[lower, upper]).await.unwrap();
    let found = layers(&store, "test").await;
    for taken in ["a", "e/c"] {
        let mark = std::fs::metadata(found[1].join(taken)).unwrap();
        assert!(mark.file_type().is_char_device() && mark.rdev() == 0, "{taken}");
    }
    let mut value = [0; 4];
    let length = rustix::fs::getxattr(found[1].join("d"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
    assert_eq!(read(&found[1].join("d/n")), "4");
    assert!(!found[1].join(".wh.a").exists() && !found[1].join("d/.wh..wh..opq").exists());
    assert_eq!(read(&found[0].join("a")), "1");
}

#[tokio::test]
async fn later_entries_take_the_place_of_earlier_ones() {
    let place = Place::new();
    let layer = LayerWriter::new()
        .file("a", b"first")
        .file("a", b"second")
        .file("b/c", b"below")
        .file("b", b"a file now")
        .link("l", EntryType::Symlink, "a")
        .file("l", b"own")
        .finish();
    let store = place.pull(&[layer]).await.unwrap();
    let root = layers(&store, "test").await.remove(0);
    assert_eq!(
        (read(&root.join("a")), read(&root.join("b")), read(&root.join("l"))),
        ("second".into(), "a file now".into(), "own".into())
    );
}

#[tokio::test]
async fn compressed_layers() {
    let place = Place::new();
    let plain = LayerWriter::new().file("a", &[7; 300_000]).finish();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (front, back) = plain.split_at(100_000);
    let zstd = |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    // Some writers cut a layer into frames, and put what is theirs between them.
    let skipped = [&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let in_frames = [skipped.clone(), zstd(front), skipped.clone(), zstd(back), skipped].concat();
    for (number, packed) in
        [gzip(&plain), [gzip(front), gzip(back)].concat(), zstd(&plain), in_frames].into_iter().enumerate()
    {
        let image = TestImage::packed(vec![packed], &[format!("sha256:{}", digest(&plain))]);
        let name = format!("layout-{number}");
        let root = place.path(&name);
        std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        for blob in image.blobs() {
            std::fs::write(root.join("blobs/sha256").join(digest(&blob)), blob).unwrap();
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [image.manifest_descriptor()] });
        std::fs::write(root.join("index.json"), index.to_string()).unwrap();
        let builder = orchestrator_images::ImageStore::builder(place.path(&format!("store-{number}")));
        let builder = builder.registries(None).reserved_bytes(0);
        let store = place.open(builder.source("test", orchestrator_images::ImageSource::Layout(root))).await;
        store.pull(&reference("test"), &[]).await.unwrap();
        let layer = layers(&store, "test").await.remove(0);
        assert_eq!(std::fs::metadata(layer.join("a")).unwrap().len(), 300_000, "{number}");
    }
}
