//! Sessions: a command that does not read, sizes of its terminal, and the two ends.

use futures::{SinkExt, StreamExt};
use orchestrator_core::runtime::{RuntimeError, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, run, text};

const TERMINAL: &str = "p/exec?command=sh&stdin=true&stdout=true&stderr=true&tty=true";
const PIPES: &str = "p/exec?command=sh&command=-c&stdin=1&stdout=1";

const SIZE: TerminalSize = TerminalSize { width: 100, height: 40 };

#[test]
fn a_command_that_does_not_read_hinders_nothing_else_on_a_web_socket() {
    run(async |api| {
        let mut socket = api.socket(TERMINAL, "v5.channel.k8s.io").await;
        let mut command = api.command().await;
        socket.send(Message::binary([&[0][..], &[b'x'; 100_000]].concat())).await.unwrap();
        socket.send(Message::binary(&b"\x04{\"Width\":100,\"Height\":40}"[..])).await.unwrap();
        assert_eq!(command.sizes.recv().await, Some(SIZE));
        socket.send(Message::Close(None)).await.unwrap();
        // Nobody waits for its end any more: the runtime has been told to end it.
        command.exit.closed().await;
    });
}

#[test]
fn a_command_that_does_not_read_hinders_nothing_else_over_spdy() {
    run(async |api| {
        let mut client = api.spdy(TERMINAL, &["v4.channel.k8s.io"]).await;
        let mut command = api.command().await;
        let [_, stdin, _, resize] = session(&mut client, &["error", "stdin", "stdout", "resize"]).await;
        client.data(stdin, vec![b'x'; 100_000], false).await;
        // Sizes come in pieces of any kind.
        client.data(resize, "{\"Width\":100,\"Hei", false).await;
        client.data(resize, "ght\":40}\n{}{\"Width\":1,\"Height\":2}", false).await;
        assert_eq!(command.sizes.recv().await, Some(SIZE));
        assert_eq!(command.sizes.recv().await, Some(TerminalSize { width: 1, height: 2 }));
        drop(client);
        command.exit.closed().await;
    });
}

/// What programs in browsers speak.
#[test]
fn a_session_is_carried_as_text_to_who_asks_for_it() {
    for protocol in ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"] {
        run(async |api| {
            let mut socket = api.socket(PIPES, protocol).await;
            let mut command = api.command().await;
            // Of the command's input, then what is no base64: the end.
            socket.send(Message::text("0aW4=")).await.unwrap();
            let mut read = [0; 2];
            command.stdin.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"in");
            command.stdout.write_all(b"\xffout").await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1/291dA=="));
            socket.send(Message::text("0?")).await.unwrap();
            command.exit.closed().await;
        });
    }
}

#[test]
fn a_client_that_names_no_protocol_speaks_the_first_one() {
    run(async |api| {
        let mut socket = api.socket(PIPES, "").await;
        let mut command = api.command().await;
        command.stdout.write_all(b"out").await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"\x01out"[..]));
    });
}

/// A client that is not read from, and has gone, is noticed.
#[test]
fn who_has_gone_while_nobody_read_is_missed() {
    run(async |api| {
        let mut socket = api.socket(PIPES, "v5.channel.k8s.io").await;
        let mut command = api.command().await;
        let start = api.env.now();
        let flood = async { while socket.send(Message::binary([&[0][..], &[b'x'; 30_000]].concat())).await.is_ok() {} };
        assert!(api.env.timeout(std::time::Duration::from_secs(5), flood).await.is_err());
        drop(socket);
        command.exit.closed().await;
        assert!(api.env.now().duration_since(start).as_secs() < 60);
    });
}

/// Opens the streams of a session.
async fn session<const N: usize>(client: &mut Client, kinds: &[&str; N]) -> [u32; N] {
    let mut streams = [0; N];
    for (stream, kind) in streams.iter_mut().zip(kinds) {
        *stream = client.open(&[("streamtype", kind)]).await;
    }
    assert!(client.until(|client| client.streams.len() == N).await);
    streams
}

#[test]
fn a_session_over_spdy_ends_as_its_version_wants_it() {
    let failure = "command terminated with non-zero exit code: command terminated with exit code 3";
    let whole = format!(
        "{{\"metadata\":{{}},\"status\":\"Failure\",\"message\":\"{failure}\",\"reason\":\"NonZeroExitCode\",\"details\":\
         {{\"causes\":[{{\"reason\":\"ExitCode\",\"message\":\"3\"}}]}}}}"
    );
    let versions = [("v5.", whole.as_str()), ("v4.", &whole), ("v3.", failure), ("v2.", failure), ("", failure)];
    for (version, expected) in versions {
        run(async |api| {
            let mut client = api.spdy(PIPES, &["v9", &format!("{version}channel.k8s.io")]).await;
            let mut command = api.command().await;
            assert_eq!(command.options.command, ["sh", "-c"]);
            let [error, stdin, stdout] = session(&mut client, &["error", "stdin", "stdout"]).await;
            client.data(stdin, "in", true).await;
            let mut read = String::new();
            command.stdin.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, "in");
            command.stdout.write_all(b"out").await.unwrap();
            drop(command.stdout);
            command.exit.send(Ok(3)).unwrap();
            client.rest().await;
            assert_eq!(client.text(stdout), "out");
            let said: Result<serde_json::Value, _> = serde_json::from_str(client.text(error));
            let expected_value: Result<serde_json::Value, _> = serde_json::from_str(expected);
            match (said, expected_value) {
                (Ok(said), Ok(expected)) => assert_eq!(said, expected),
                _ => assert_eq!(client.text(error), expected),
            }
            assert!([error, stdin, stdout].iter().all(|stream| client.has_ended(*stream)));
        });
    }
}

#[test]
fn a_command_that_cannot_be_started_is_told_of() {
    run(async |api| {
        let mut client = api.spdy("p/attach?stdout=1", &["v4.channel.k8s.io"]).await;
        let command = api.command().await;
        let error = client.open(&[("streamtype", "error")]).await;
        // What is not one of a session's streams, or a second one of its kind, is refused; the session goes on.
        let [other, second] =
            [client.open(&[("streamtype", "x")]).await, client.open(&[("streamtype", "error")]).await];
        client.open(&[("streamtype", "stdout")]).await;
        command.exit.send(Err(RuntimeError::StartFailed("no such file".to_owned()))).unwrap();
        drop(command.stdout);
        client.rest().await;
        assert_eq!(client.resets.keys().copied().collect::<Vec<_>>(), [other, second]);
        assert!(client.text(error).contains("Internal error occurred: error executing command in container: "));
    });
}

#[test]
fn streams_that_do_not_come_are_not_waited_for_for_ever() {
    run(async |api| {
        let mut client = api.spdy(PIPES, &["v4.channel.k8s.io"]).await;
        let mut command = api.command().await;
        client.open(&[("streamtype", "error")]).await;
        client.rest().await;
        command.exit.closed().await;
        let plain = api.ask_for_socket(PIPES, "v7.channel.k8s.io").await;
        assert_eq!(plain.status(), 403);
        let spdy = api.ask_for_spdy(PIPES, &["v7.channel.k8s.io"]).await;
        assert_eq!(spdy.status(), 403);
        let accepted = spdy.headers().get_all("x-accepted-stream-protocol-versions").iter().count();
        assert_eq!(accepted, 5);
        assert!(text(spdy).await.starts_with("unable to upgrade: unable to negotiate protocol"));
    });
}
