//! A store shares layers, keeps what is held, and removes the rest.

use std::{collections::BTreeSet, fs};

use orchestrator_core::env::Env;
use orchestrator_images::{ImageError, PackedImage};

use crate::support::{LayerWriter, Place, layers, reference};

fn layer(content: &str) -> Vec<u8> {
    LayerWriter::new().file("content", content.as_bytes()).finish()
}

#[tokio::test]
async fn images_share_layers() {
    let place = Place::new();
    let base = layer("base");
    let builder = place
        .builder()
        .source("one", place.layout("one", &[base.clone(), layer("one")]))
        .source("two", place.layout("two", &[base, layer("two")]));
    let store = place.open(builder).await;
    let one = store.pull(&reference("one"), &[]).await.unwrap();
    store.pull(&reference("two"), &[]).await.unwrap();
    assert_eq!(place.files("layers").len(), 3);
    assert_eq!(layers(&store, "one").await[0], layers(&store, "two").await[0]);
    assert_eq!(one.size_bytes, "baseone".len() as u64);
    let listed: Vec<String> = store.list().await.unwrap().into_iter().map(|image| image.name).collect();
    assert_eq!(listed, ["docker.io/library/one:latest", "docker.io/library/two:latest"]);

    // The last holder of `test` is that of `two`.
    store.release("test").await.unwrap();
    store.remove(&reference("one")).await.unwrap();
    assert_eq!(place.files("layers").len(), 2);
    assert_eq!(store.find(&reference("one")).await.unwrap(), None);
    store.remove(&reference("two")).await.unwrap();
    store.remove(&reference("two")).await.unwrap();
    assert_eq!((place.files("layers").len(), place.files("configurations").len()), (0, 0));
}

#[tokio::test]
async fn what_is_held_stays() {
    let place = Place::new();
    let source = place.layout("one", &[layer("one")]);
    let store = place.open(place.builder().source("one", source.clone())).await;
    store.pull(&reference("one"), &[]).await.unwrap();
    let held = store.hold(&reference("one"), "a.pod.1").await.unwrap();
    store.hold(&reference("one"), "a.pod.2").await.unwrap();
    store.remove(&reference("one")).await.unwrap();
    assert!(held.layers[0].join("content").exists());
    assert!(matches!(store.hold(&reference("one"), "b").await, Err(ImageError::Missing(_))));
    // Another store on the same directory, as after a crash, knows one holder and not the other.
    let again = place.open(place.builder()).await;
    assert!(held.layers[0].join("content").exists());
    again.release_others("a.", BTreeSet::from(["a.pod.2".to_owned()])).await.unwrap();
    assert_eq!(place.files("uses"), ["a.pod.2"]);
    assert!(held.layers[0].join("content").exists());
    again.release("a.pod.2").await.unwrap();
    assert_eq!(place.files("layers").len(), 0);
    for wrong in ["", ".a", "a/b", "..", "a b"] {
        assert!(matches!(again.release(wrong).await, Err(ImageError::Invalid(_))), "{wrong}");
    }
}

#[tokio::test]
async fn a_crash_leaves_work_and_no_half_of_anything() {
    let place = Place::new();
    let source = place.layout("one", &[layer("one")]);
    let store = place.open(place.builder().source("one", source.clone())).await;
    store.pull(&reference("one"), &[]).await.unwrap();
    drop(store);
    // What the next store may find: half a layer, the use of a pull that died, half a file.
    let half = place.path("store").join("making").join("0123.4567");
    fs::create_dir_all(half.join("fs/deep")).unwrap();
    fs::write(half.join("fs/deep/file"), "half").unwrap();
    fs::write(place.path("store").join("uses/pull-0123"), "[\"ff\"]").unwrap();
    fs::create_dir_all(place.path("store").join("layers/orphan/fs")).unwrap();
    fs::write(place.path("store").join("names/broken"), "{").unwrap();
    let store = place.open(place.builder().source("one", source)).await;
    assert_eq!((place.files("making").len(), place.files("uses").len(), place.files("layers").len()), (0, 0, 1));
    // A source's image counts once it is known to be what the source makes now.
    assert_eq!(store.find(&reference("one")).await.unwrap(), None);
    let first = store.pull(&reference("one"), &[]).await.unwrap();
    assert_eq!(store.find(&reference("one")).await.unwrap(), Some(first));
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_damaged_is_not_used() {
    let place = Place::new();
    let store = place.pull(&[layer("one")]).await.unwrap();
    let name = place.files("configurations").remove(0);
    fs::write(place.path("store").join("configurations").join(name), "{}").unwrap();
    let error = store.hold(&reference("test"), "a").await.unwrap_err();
    assert!(matches!(error, ImageError::Invalid(_)), "{error}");
    // Pulling again mends it.
    store.pull(&reference("test"), &[]).await.unwrap();
    store.hold(&reference("test"), "a").await.unwrap();
}

#[tokio::test]
async fn a_changed_source_is_another_image() {
    let place = Place::new();
    let first = place.layout("one", &[layer("first")]);
    let store = place.open(place.builder().source("one", first)).await;
    let first = store.pull(&reference("one"), &[]).await.unwrap();
    let second = place.layout("one", &[layer("second")]);
    let again = place.open(place.builder().source("one", second)).await;
    let second = again.pull(&reference("one"), &[]).await.unwrap();
    assert_ne!(first.id, second.id);
    let root = layers(&again, "one").await.remove(0);
    assert_eq!(fs::read_to_string(root.join("content")).unwrap(), "second");
}

#[tokio::test]
async fn pulls_at_the_same_time() {
    let place = Place::new();
    let base = layer("base");
    let names: Vec<String> = (0..8).map(|number| format!("image-{number}")).collect();
    let builder = names
        .iter()
        .fold(place.builder(), |builder, name| builder.source(name, place.layout(name, &[base.clone(), layer(name)])));
    // Two stores, as of two nodes on one machine.
    let stores = [place.open(builder.clone()).await, place.open(builder).await];
    let pulls = stores.iter().flat_map(|store| {
        names.iter().map(move |name| async move {
            store.pull(&reference(name), &[]).await.unwrap();
            store.hold(&reference(name), "someone").await.unwrap();
        })
    });
    futures::future::join_all(pulls).await;
    assert_eq!((place.files("layers").len(), place.files("making").len()), (9, 0));
    assert_eq!(stores[0].list().await.unwrap().len(), 8);
}

#[tokio::test]
async fn an_executable_becomes_an_image() {
    let place = Place::new();
    let image = PackedImage::new().executable("/bin/sh").content("/etc/motd", "hello", 0o600).args(["/bin/sh"]);
    let store = place.open(place.builder().source("shell", image)).await;
    store.pull(&reference("shell"), &[]).await.unwrap();
    let held = store.hold(&reference("shell"), "a").await.unwrap();
    assert_eq!(held.configuration.args, ["/bin/sh"]);
    assert_eq!(fs::read_to_string(held.layers[0].join("etc/motd")).unwrap(), "hello");
    assert!(fs::metadata(held.layers[0].join("bin/sh")).unwrap().len() > 10_000);
}

#[tokio::test]
async fn names_that_are_nowhere() {
    let place = Place::new();
    let store = place.open(place.builder()).await;
    let error = store.pull(&reference("nowhere:1"), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Missing(_)) && error.to_string().contains("nowhere"), "{error}");
    let broken = place.builder().source("Not A Name", PackedImage::new()).open(Env::real()).await;
    assert!(matches!(broken, Err(ImageError::Invalid(_))));
}
