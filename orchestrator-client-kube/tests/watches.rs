//! Watches over a connection that a test has in hand: pieces, ends and failures of a stream.

use std::{
    future::{Ready, ready},
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::client::Body;
use orchestrator_client_kube::KubeBackend;
use orchestrator_core::{
    client::{Resource, WatchEvent, WatchRequest},
    status::{ApiError, Reason},
};

type Pieces = Vec<io::Result<Bytes>>;
type Stream = stream::Iter<std::vec::IntoIter<io::Result<Frame<Bytes>>>>;

/// A server that answers once.
#[derive(Clone)]
struct Once(Arc<Mutex<Option<Pieces>>>);

impl tower_service::Service<Request<Body>> for Once {
    type Response = Response<StreamBody<Stream>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let pieces = self.0.lock().unwrap().take().ok_or_else(|| io::Error::other("gone"));
        ready(pieces.map(|pieces| {
            let frames: Vec<_> = pieces.into_iter().map(|piece| piece.map(Frame::data)).collect();
            Response::new(StreamBody::new(stream::iter(frames)))
        }))
    }
}

/// What a watch of these pieces gives.
async fn watched(pieces: Pieces) -> Vec<Result<String, ApiError>> {
    let service = Once(Arc::new(Mutex::new(Some(pieces))));
    let client = KubeBackend::new(kube::Client::new(service, "default")).into_client();
    let request = WatchRequest::new(Resource::new("", "v1", "pods"), None);
    let events = client.watch(request).await.unwrap();
    events.map(|event| event.map(|event| told(&event))).collect().await
}

fn told(event: &WatchEvent) -> String {
    let (kind, object) = match event {
        WatchEvent::Added(object) => ("added", object),
        WatchEvent::Modified(object) => ("modified", object),
        WatchEvent::Deleted(object) => ("deleted", object),
        WatchEvent::Bookmark { resource_version, initial_events_end } => {
            return format!("bookmark {resource_version} {initial_events_end}");
        }
    };
    format!("{kind} {}", object.metadata().unwrap().name.as_deref().unwrap_or_default())
}

fn piece(text: &str) -> io::Result<Bytes> {
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

const ADDED: &str = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n";

#[tokio::test(flavor = "current_thread")]
async fn events_come_whole_however_they_are_cut() {
    let text = format!(
        "{ADDED}\n{}{}{}{}",
        "{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":\"b\"}}}\n",
        "{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"c\"}}}\r\n",
        "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\"}}}\n",
        "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"8\",\"annotations\":\
         {\"k8s.io/initial-events-end\":\"true\"}}}}\n",
    );
    let expected = ["added a", "modified b", "deleted c", "bookmark 7 false", "bookmark 8 true"];
    for size in [1, 2, 7, 64, text.len()] {
        let pieces = text.as_bytes().chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let found: Vec<String> = watched(pieces).await.into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(found, expected, "in pieces of {size} bytes");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_stream_that_is_cut_off_ends_after_its_last_whole_event() {
    for end in [piece("{\"type\":\"ADDED\",\"obj"), Err(io::Error::from(io::ErrorKind::UnexpectedEof))] {
        assert_eq!(watched(vec![piece(ADDED), end]).await, [Ok("added a".to_owned())]);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_comes_after_an_error() {
    let expired = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\
                   \"status\":\"Failure\",\"message\":\"too old\",\"reason\":\"Expired\",\"code\":410}}\n";
    let found = watched(vec![piece(expired), piece(ADDED)]).await;
    assert_eq!(found.len(), 1);
    let error = found[0].as_ref().unwrap_err();
    assert!(error.is_expired() && error.code() == 410, "{error}");

    let broken = vec![Err(io::Error::from(io::ErrorKind::ConnectionReset)), piece(ADDED)];
    let found = watched(broken).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].as_ref().unwrap_err().reason(), Reason::ServiceUnavailable);

    for nonsense in ["no json\n", "{\"type\":\"NEW\",\"object\":{}}\n", "{\"object\":{}}\n"] {
        let found = watched(vec![piece(nonsense), piece(ADDED)]).await;
        assert_eq!(found.len(), 1, "{nonsense}");
        assert_eq!(found[0].as_ref().unwrap_err().reason(), Reason::InternalError, "{nonsense}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_event_without_an_end_is_not_kept_for_ever() {
    let filler = Bytes::from(vec![b'x'; 1 << 20]);
    let pieces = (0..64).map(|_| Ok(filler.clone())).collect();
    let found = watched(pieces).await;
    assert_eq!(found.len(), 1);
    assert!(found[0].as_ref().unwrap_err().message().contains("longer than"), "{found:?}");
}
