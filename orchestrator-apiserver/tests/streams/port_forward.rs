//! Port-forward: data both ways, what goes wrong, and the end.

use futures::{SinkExt, StreamExt};
use orchestrator_apiserver::spdy::{Frame, status};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Api, Client, Connection, run, text};

#[test]
fn ports_are_carried_side_by_side() {
    run(async |api| {
        let mut socket = api.socket("p/portforward?ports=80,81", "v5.channel.k8s.io, v4.channel.k8s.io").await;
        let mut channels = [const { Vec::new() }; 4];
        let mut sent = false;
        while let Some(Ok(Message::Binary(message))) = socket.next().await {
            channels[usize::from(message[0])].extend_from_slice(&message[1..]);
            if !sent && channels[0].len() == 2 {
                sent = true;
                for data in [b"\x00ping", b"\x00stop", b"\x01none", b"\x09none"] {
                    socket.send(Message::binary(&data[..])).await.unwrap();
                }
            }
        }
        assert_eq!(channels[0], b"\x50\x00pingping");
        assert_eq!((&channels[1][..], &channels[2][..]), (&b"\x50\x00"[..], &b"\x51\x00"[..]));
        let error = String::from_utf8_lossy(&channels[3][2..]);
        assert!(error.starts_with("error forwarding port 81 to pod p, uid "), "{error}");
        assert!(error.ends_with(": connection refused"), "{error}");
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    run(async |api| {
        let refused = [
            ("p/portforward", "v4.channel.k8s.io", 400, "is required"),
            ("p/portforward?ports=0", "v4.channel.k8s.io", 400, "between 1 and 65535"),
            ("p/portforward?ports=80&ports=x", "v4.channel.k8s.io", 400, "between 1 and 65535"),
            ("p/portforward?ports=80", "v9", 403, ""),
            ("homeless/portforward?ports=80", "v4.channel.k8s.io", 400, "does not have a host"),
            ("nobody/portforward?ports=80", "v4.channel.k8s.io", 404, "not found"),
        ];
        for (path, protocol, code, words) in refused {
            let response = api.ask_for_socket(path, protocol).await;
            assert_eq!(response.status().as_u16(), code, "{path}");
            let text = text(response).await;
            assert!(text.contains(words), "{text}");
        }
        let none = api.ask_for_spdy("p/portforward", &[]).await;
        assert_eq!(none.status(), 400);
        assert!(text(none).await.contains("unable to upgrade: X-Stream-Protocol-Version is required"));
        let other = api.ask_for_spdy("p/portforward", &["a", "b"]).await;
        assert_eq!(other.status(), 403);
        assert_eq!(other.headers()["x-accepted-stream-protocol-versions"], "portforward.k8s.io");
        let words = "unable to negotiate protocol: client supports [a b], server accepts [portforward.k8s.io]";
        assert!(text(other).await.contains(words));
    });
}

async fn plain(api: &Api) -> Client {
    api.spdy("p/portforward", &["portforward.k8s.io"]).await
}

async fn tunnel(api: &Api) -> Client {
    let socket = api.socket("p/portforward", "SPDY/3.1+portforward.k8s.io").await;
    Client::new(Connection::Tunnel(Box::new(socket)))
}

/// Opens the two streams of a connection: for errors, and for data.
async fn connect(client: &mut Client, port: &str, request: &str) -> (u32, u32) {
    let mut streams = [0; 2];
    for (stream, kind) in streams.iter_mut().zip(["error", "data"]) {
        let mut headers = vec![("streamtype", kind), ("port", port)];
        headers.extend((!request.is_empty()).then_some(("requestid", request)));
        *stream = client.open(&headers).await;
    }
    client.data(streams[0], "", true).await;
    (streams[0], streams[1])
}

async fn connections(api: &Api, mut client: Client) {
    let (error, data) = connect(&mut client, "80", "7").await;
    // Of clients that do not number their requests.
    let (_, old) = connect(&mut client, "80", "").await;
    let (_, deaf) = connect(&mut client, "82", "8").await;
    let (refused, nothing) = connect(&mut client, "81", "9").await;
    client.data(deaf, vec![0; 100_000], false).await;
    client.data(data, "onetwo", false).await;
    client.data(old, "four", false).await;
    client.send(Frame::Ping(1)).await;
    let expected = |client: &Client| client.text(old) == "fourfour" && client.has_ended(refused);
    assert!(client.until(expected).await);
    let refusal = client.text(refused);
    assert!(
        refusal.starts_with("error forwarding port 81 to pod p, uid ") && refusal.ends_with(": connection refused")
    );
    assert!(client.has_ended(nothing));
    client.data(data, "six.", true).await;
    assert!(client.until(|client| client.has_ended(data) && client.has_ended(error)).await);
    // Only whole words are answered.
    assert_eq!((client.text(data), client.text(error)), ("onetonetwosiwosi", ""));
    // A connection that was given up is closed in the pod, and does not end the others.
    client.send(Frame::RstStream { stream: deaf, status: status::CANCEL }).await;
    let mut rest = Vec::new();
    api.deaf().await.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < 100_000);
    client.data(old, "stop", false).await;
    assert!(client.until(|client| client.has_ended(old)).await);
    assert_eq!(client.pings, [1]);
}

#[test]
fn connections_are_carried_side_by_side_over_spdy() {
    run(async |api| connections(&api, plain(&api).await).await);
    run(async |api| connections(&api, tunnel(&api).await).await);
}

#[test]
fn streams_that_make_no_sense_are_refused() {
    run(async |api| {
        let mut client = plain(&api).await;
        let no_sense = [
            [("streamtype", "data"), ("port", "0")],
            [("streamtype", "data"), ("port", "65536")],
            [("streamtype", "data"), ("port", "")],
            [("streamtype", "other"), ("port", "80")],
        ];
        for headers in &no_sense {
            client.open(headers).await;
        }
        assert!(client.until(|client| client.resets.len() == no_sense.len()).await);
        assert!(client.streams.is_empty());

        // The second of a kind is one too many, and the other stream may never come.
        let start = api.env.now();
        let headers = [("streamtype", "error"), ("port", "80"), ("requestid", "1")];
        let (first, second) = (client.open(&headers).await, client.open(&headers).await);
        assert!(client.until(|client| client.has_ended(first)).await);
        assert_eq!(client.resets.get(&second), Some(&status::CANCEL));
        assert_eq!(
            client.text(first),
            "error processing stream for request 1: error stream already assigned(request=1) timed out waiting for streams"
        );
        assert_eq!(api.env.now().duration_since(start).as_secs(), 30);
        // The number can be used again.
        let (_, data) = connect(&mut client, "80", "1").await;
        client.data(data, "word", false).await;
        assert!(client.until(|client| client.text(data) == "wordword").await);
    });
}

#[test]
fn who_speaks_no_spdy_is_hung_up_on() {
    run(async |api| {
        for nonsense in [&b"\x80\x02\0\x01\0\0\0\0"[..], b"\x80\x03\0\x01\0\xff\xff\xff", b"\x80\x03\0\x06\0\0\0\0"] {
            let mut client = plain(&api).await;
            client.send_bytes(nonsense).await;
            client.rest().await;
        }
    });
}
