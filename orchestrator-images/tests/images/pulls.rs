//! Pulls from a registry: who asks, where, how often, and what is believed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::StatusCode;
use orchestrator_core::{env::Env, runtime::RegistryCredentials};
use orchestrator_images::{ImageError, ImageStore, Registries};
use serde_json::json;

use crate::{
    registry::{Behaviour, Registry},
    support::{LayerWriter, Place, TestImage, descriptor, digest, layers, read, reference},
};

fn image() -> TestImage {
    let random: Vec<u8> = (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    TestImage::new(&[
        LayerWriter::new().file("lower", b"l").finish(),
        LayerWriter::new().file("upper", &random).finish(),
    ])
}

async fn store(place: &Place, registries: Registries) -> ImageStore {
    place.open(place.builder().registries(registries)).await
}

fn name(registry: &Registry, version: &str) -> String {
    format!("{}/team/app{version}", registry.host)
}

fn credentials(registry: &Registry) -> RegistryCredentials {
    RegistryCredentials { registry: registry.host.clone(), username: "u".to_owned(), password: "p:q".to_owned() }
}

#[tokio::test]
async fn by_tag_and_by_digest() {
    let (place, registry, image) = (Place::new(), Registry::new(Behaviour::default()).await, image());
    registry.put("1", &image);
    let progress: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let seen = Arc::clone(&progress);
    let builder = place.builder().registries(Registries::new()).on_progress(move |progress| {
        seen.lock().unwrap().push((progress.downloaded_bytes, progress.size_bytes));
    });
    let store = place.open(builder).await;
    let by_tag = name(&registry, ":1");
    let pulled = store.pull(&reference(&by_tag), &[]).await.unwrap();
    let id = format!("{}/team/app@sha256:{}", registry.host, digest(&image.manifest));
    assert_eq!((pulled.id, pulled.size_bytes), (id.clone(), 200_001));
    assert_eq!(read(&layers(&store, &by_tag).await[0].join("lower")), "l");
    let told = progress.lock().unwrap().clone();
    assert!(told.iter().all(|(part, size)| part <= size) && told.iter().any(|(part, size)| part == size), "{told:?}");
    // The name is asked for again; what is there is not downloaded again.
    let blobs = |requests: Vec<String>| requests.iter().filter(|path| path.contains("/blobs/")).count();
    assert_eq!(blobs(registry.requests()), 3);
    store.pull(&reference(&by_tag), &[]).await.unwrap();
    let by_digest = store.pull(&reference(&id), &[]).await.unwrap();
    assert_eq!(by_digest.id, id);
    assert_eq!(blobs(registry.requests()), 5);
    assert_eq!((place.files("downloads").len(), place.files("layers").len()), (0, 2));
    let error = store.pull(&reference(&name(&registry, ":2")), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Missing(_)) && error.to_string().ends_with("team/app:2: not found"), "{error}");
}

#[tokio::test]
async fn those_who_may() {
    let (place, registry) = (Place::new(), Registry::new(Behaviour::default()).await);
    registry.put("1", &image());
    registry.behave(|behaviour| {
        behaviour.authorization = Some(("Basic dTpwOnE=".to_owned(), "Basic realm=\"test\"".to_owned()));
    });
    let store = store(&place, Registries::new()).await;
    let name = reference(&name(&registry, ":1"));
    let error = store.pull(&name, &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized(_)), "{error}");
    let wrong = RegistryCredentials { password: "x".to_owned(), ..credentials(&registry) };
    let elsewhere = RegistryCredentials { registry: "example.com".to_owned(), ..credentials(&registry) };
    let error = store.pull(&name, &[wrong.clone(), elsewhere]).await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized(_)) && !error.to_string().contains("p:q"), "{error}");
    store.pull(&name, &[wrong, credentials(&registry)]).await.unwrap();
}

#[tokio::test]
async fn tokens() {
    let (place, registry) = (Place::new(), Registry::new(Behaviour::default()).await);
    registry.put("1", &image());
    let challenge =
        format!("Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:team/app:pull\"", registry.host);
    registry.behave(|behaviour| {
        behaviour.authorization = Some(("Bearer t0ken".to_owned(), challenge.clone()));
        behaviour.token = Some((Some("Basic dTpwOnE=".to_owned()), "t0ken".to_owned()));
    });
    let store = store(&place, Registries::new()).await;
    let name = reference(&name(&registry, ":1"));
    assert!(matches!(store.pull(&name, &[]).await, Err(ImageError::Unauthorized(_))));
    store.pull(&name, &[credentials(&registry)]).await.unwrap();
    // One token serves the whole pull.
    let asked = registry.requests().iter().filter(|path| *path == "/token").count();
    assert_eq!(asked, 2);
    // A token that would be a header of its own is none.
    registry.behave(|behaviour| behaviour.token = Some((None, "a\\r\\nX: y".to_owned())));
    assert!(matches!(store.pull(&name, &[]).await, Err(ImageError::Registry(_))));
}

#[tokio::test]
async fn mirrors_come_first() {
    let (place, mirror, own) =
        (Place::new(), Registry::new(Behaviour::default()).await, Registry::new(Behaviour::default()).await);
    own.put("1", &image());
    mirror.put("2", &image());
    let store = store(&place, Registries::new().mirror(&own.host, &mirror.host)).await;
    let pulled = store.pull(&reference(&name(&own, ":2")), &[]).await.unwrap();
    assert!(pulled.name.starts_with(&own.host) && pulled.id.starts_with(&own.host), "{pulled:?}");
    assert_eq!(own.requests().len(), 0);
    store.pull(&reference(&name(&own, ":1")), &[]).await.unwrap();
    assert!(own.requests().len() > 1 && mirror.requests().iter().any(|path| path.ends_with("manifests/1")));
}

#[tokio::test]
async fn what_breaks_is_taken_up() {
    let (place, registry) = (Place::new(), Registry::new(Behaviour::default()).await);
    registry.put("1", &image());
    registry.behave(|behaviour| behaviour.break_after_bytes = Some(90_000));
    let store = store(&place, Registries::new()).await;
    let name = reference(&name(&registry, ":1"));
    store.pull(&name, &[]).await.unwrap();
    let resumed = registry.requests().iter().filter(|path| path.contains(" from ")).count();
    assert!(resumed >= 2, "{:?}", registry.requests());
    // Who sends everything again is read from the beginning.
    store.remove(&name).await.unwrap();
    let layer = &image().layers[1];
    std::fs::write(place.path("store").join("downloads").join(digest(layer)), &layer[..50_000]).unwrap();
    registry.behave(|behaviour| (behaviour.break_after_bytes, behaviour.ignores_ranges) = (None, true));
    store.pull(&name, &[]).await.unwrap();
    assert!(registry.requests().iter().any(|path| path.ends_with(" from 50000")));
}

#[tokio::test]
async fn who_gives_nothing_is_not_asked_for_ever() {
    let (place, registry) = (Place::new(), Registry::new(Behaviour::default()).await);
    registry.put("1", &image());
    registry.behave(|behaviour| behaviour.break_after_bytes = Some(0));
    let store = store(&place, Registries::new()).await;
    let error = store.pull(&reference(&name(&registry, ":1")), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry(_)) && error.is_transient(), "{error}");
    assert!(registry.requests().len() < 10, "{:?}", registry.requests());
}

#[tokio::test]
async fn what_is_not_what_it_says() {
    let (place, registry, image) = (Place::new(), Registry::new(Behaviour::default()).await, image());
    registry.put("1", &image);
    let store = store(&place, Registries::new()).await;
    let name = reference(&name(&registry, ":1"));
    let (layer, configuration) = (digest(&image.layers[1]), digest(&image.configuration));
    let mut changed = image.layers[1].clone();
    changed[1_000] ^= 1;
    let longer = [&image.layers[1][..], b"more"].concat();
    let big = vec![b' '; 5 << 20];
    for (path, answer) in [
        (format!("blobs/sha256:{layer}"), changed),
        (format!("blobs/sha256:{layer}"), longer),
        (format!("blobs/sha256:{configuration}"), b"{}".to_vec()),
        (format!("blobs/sha256:{configuration}"), big.clone()),
        ("manifests/1".to_owned(), big),
        ("manifests/1".to_owned(), b"{\"schemaVersion\": 2}".to_vec()),
        ("manifests/1".to_owned(), b"nothing".to_vec()),
    ] {
        registry.behave(|behaviour| behaviour.answers = [(path.clone(), (StatusCode::OK, answer))].into());
        let error = store.pull(&name, &[]).await.unwrap_err();
        assert!(matches!(error, ImageError::Invalid(_) | ImageError::TooLarge { .. }), "{path}: {error}");
        assert_eq!(place.files("names").len(), 0, "{path}");
        // Another layer of the image may be unpacked still when one has failed.
        while !place.files("making").is_empty() {
            Env::real().sleep(Duration::from_millis(2)).await;
        }
    }
    let by_digest = format!("{}/team/app@sha256:{}", registry.host, digest(b"other"));
    let lie = (StatusCode::OK, image.manifest.clone());
    registry.behave(|behaviour| behaviour.answers = [(format!("manifests/sha256:{}", digest(b"other")), lie)].into());
    assert!(matches!(store.pull(&reference(&by_digest), &[]).await, Err(ImageError::Invalid(_))));
    registry.behave(|behaviour| behaviour.answers.clear());
    store.pull(&name, &[]).await.unwrap();
}

#[tokio::test]
async fn indices_are_followed_to_this_machine() {
    let (place, registry, image) = (Place::new(), Registry::new(Behaviour::default()).await, image());
    registry.put("plain", &image);
    let kind = "application/vnd.oci.image.index.v1+json";
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let for_machine = |descriptor: &serde_json::Value, architecture: &str| {
        let mut descriptor = descriptor.clone();
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    };
    let manifest = image.manifest_descriptor();
    let mut inner =
        json!({ "schemaVersion": 2, "manifests": [for_machine(&manifest, "s390x"), for_machine(&manifest, own)] })
            .to_string();
    for depth in 0..6 {
        registry.put_bytes(&format!("manifests/depth-{depth}"), kind, inner.as_bytes());
        registry.put_bytes(&format!("manifests/sha256:{}", digest(inner.as_bytes())), kind, inner.as_bytes());
        inner = json!({ "schemaVersion": 2, "manifests": [descriptor(kind, inner.as_bytes())] }).to_string();
    }
    let foreign = json!({ "schemaVersion": 2, "manifests": [for_machine(&manifest, "s390x")] }).to_string();
    registry.put_bytes("manifests/foreign", kind, foreign.as_bytes());
    let store = store(&place, Registries::new()).await;
    store.pull(&reference(&name(&registry, ":depth-0")), &[]).await.unwrap();
    store.pull(&reference(&name(&registry, ":depth-1")), &[]).await.unwrap();
    let deep = store.pull(&reference(&name(&registry, ":depth-5")), &[]).await.unwrap_err();
    assert!(matches!(deep, ImageError::TooLarge { .. }), "{deep}");
    let foreign = store.pull(&reference(&name(&registry, ":foreign")), &[]).await.unwrap_err();
    assert!(foreign.to_string().contains("no match for platform in manifest"), "{foreign}");
}

#[tokio::test]
async fn what_is_too_long_is_not_downloaded() {
    let (place, registry, image) = (Place::new(), Registry::new(Behaviour::default()).await, image());
    registry.put("1", &image);
    let store = place.open(place.builder().registries(Registries::new()).unpacked_bytes(100_000)).await;
    let error = store.pull(&reference(&name(&registry, ":1")), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    assert!(!registry.requests().iter().any(|path| path.ends_with(&digest(&image.layers[1]))));
}

#[tokio::test]
async fn a_layer_is_downloaded_once_at_a_time() {
    let (place, registry, image) = (Place::new(), Registry::new(Behaviour::default()).await, image());
    let tags: Vec<String> = (0..6).map(|number| number.to_string()).collect();
    tags.iter().for_each(|tag| registry.put(tag, &image));
    // Two stores on one directory, as of two nodes on one machine.
    let stores = [store(&place, Registries::new()).await, store(&place, Registries::new()).await];
    let names: Vec<_> = tags.iter().map(|tag| reference(&name(&registry, &format!(":{tag}")))).collect();
    let pulls = stores.iter().flat_map(|store| names.iter().map(move |name| store.pull(name, &[])));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let downloads = registry.requests().iter().filter(|path| path.ends_with(&digest(&image.layers[1]))).count();
    assert_eq!((downloads, place.files("downloads").len(), place.files("layers").len()), (1, 0, 2));
}

#[tokio::test]
async fn nobody_is_there() {
    let place = Place::new();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let host = listener.local_addr().unwrap();
    drop(listener);
    let store = store(&place, Registries::new()).await;
    let error = store.pull(&reference(&format!("{host}/team/app:1")), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry(_)), "{error}");
}
