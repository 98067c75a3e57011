//! Connections that say nothing, half of something, or something else, by the thousand.

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use orchestrator::env::Env;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use crate::{Bystander, MEASURING, PATIENCE, Stage, TOKEN, resident_megabytes};

/// Connections that say nothing.
const SILENT: usize = 10_000;

/// Connections that get as far as a handshake, and say nothing or half of something then.
const HALF: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_cost_little_and_are_closed() {
    let _alone = MEASURING.lock().await;
    raise_open_files();
    let stage = Stage::new().await;
    let (before, memory) = (stage.revision().await, resident_megabytes());
    let bystander = Bystander::start(&stage.https);
    let mut silent = Crowd::start(stage.https.address.port());
    silent.says("open").await;
    let mut greeted = join_all((0..HALF).map(|_| stage.https.connect())).await;
    let mut begun = join_all((0..HALF).map(|_| stage.https.connect())).await;
    for stream in &mut begun {
        stream.write_all(b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nX-Half: ").await.unwrap();
    }
    let answer = stage.https.get("/api/v1/namespaces").await;
    assert_eq!(answer.code, 200, "others are served with {SILENT} connections open");
    let grown = resident_megabytes().saturating_sub(memory);
    assert!(grown < 200, "{SILENT} connections take {grown} MB");
    let all = async {
        silent.says("closed").await;
        join_all(greeted.iter_mut().map(closed)).await;
        join_all(begun.iter_mut().map(closed)).await;
    };
    Env::real().timeout(PATIENCE, all).await.expect("the server closes what says nothing");
    assert!(bystander.stop().await > 10);
    assert_eq!(stage.revision().await, before, "nothing is stored");
    stage.cluster.shutdown().await;
}

/// A process of its own that holds [`SILENT`] connections: here they would take as many file descriptors once more.
struct Crowd {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Opens the connections, says so, waits until the server has closed all of them, and says so.
const CROWD: &str = "
import resource, select, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
poll, streams = select.epoll(), {}
for _ in range(count):
    stream = socket.create_connection(('127.0.0.1', port))
    streams[stream.fileno()] = stream
    poll.register(stream, select.EPOLLIN)
print('open', flush=True)
while streams:
    for number, _ in poll.poll():
        try:
            ended = streams[number].recv(4096) == b''
        except ConnectionError:
            ended = True
        if ended:
            streams.pop(number).close()
print('closed', flush=True)
";

impl Crowd {
    fn start(port: u16) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", CROWD, &port.to_string(), &SILENT.to_string()]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("python3");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    async fn says(&mut self, what: &str) {
        let line = Env::real().timeout(PATIENCE, self.lines.next_line()).await.expect("the crowd is in time").unwrap();
        if line.as_deref() != Some(what) {
            panic!("{line:?} instead of {what}: {:?}", self.process.wait().await);
        }
    }
}

/// Lets this process have as many open files as it may.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let enough = limit.maximum.is_none_or(|files| files as usize > SILENT + 1_000);
    assert!(enough, "this test needs {SILENT} open files and some more: {limit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_bodies_store_nothing() {
    let stage = Stage::new().await;
    let before = stage.revision().await;
    let head = format!(
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    );
    let whole = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"half"}}"#;
    // Some hang up in the middle, some stay and say nothing more.
    for hangs_up in [true, false] {
        let mut streams = join_all((0..20).map(|_| stage.https.connect())).await;
        for stream in &mut streams {
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(whole.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        if hangs_up {
            drop(streams);
            continue;
        }
        assert_eq!(stage.https.get("/api/v1/namespaces/default").await.code, 200);
        assert_eq!(stage.revision().await, before, "what is not complete is not stored");
        // A server that ends does not wait for them.
        let ended = Env::real().timeout(Duration::from_secs(20), stage.cluster.shutdown()).await;
        ended.expect("the end does not wait for half requests");
        join_all(streams.iter_mut().map(closed)).await;
        return;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_bodies_and_odd_protocols_are_refused() {
    let stage = Stage::new().await;
    let (before, memory) = (stage.revision().await, resident_megabytes());
    let bystander = Bystander::start(&stage.https);
    // A body that says it is endless, and is.
    let mut stream = stage.https.connect().await;
    let head = format!(
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 256 << 20 && stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "{} MB were taken", sent >> 20);

    // Things that are no requests: an answer or the end, never a crash.
    let odd: [&[u8]; 6] = [
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"SSH-2.0-client\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nnonsense",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ];
    for bytes in odd {
        let mut stream = stage.https.connect().await;
        stream.write_all(bytes).await.unwrap();
        Env::real().timeout(PATIENCE, closed(&mut stream)).await.expect("an end");
    }
    let mut plain = TcpStream::connect(stage.https.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    Env::real().timeout(PATIENCE, closed(&mut plain)).await.expect("who does not speak TLS is sent away");

    let mut request = stage.https.request(Method::GET, "/api/v1/namespaces", "", Bytes::new());
    request.headers_mut().insert("x-long", "x".repeat(1 << 20).parse().unwrap());
    let answer = stage.https.connect().await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(answer)).await.unwrap();
    let (response, _) = futures::join!(sender.send_request(request), connection);
    if let Ok(response) = response {
        assert_eq!(response.status(), 431, "{:?}", response.into_body().collect().await);
    }
    assert!(bystander.stop().await > 0);
    assert_eq!(stage.revision().await, before, "nothing is stored");
    let grown = resident_megabytes().saturating_sub(memory);
    assert!(grown < 128, "memory has grown by {grown} MB");
    stage.cluster.shutdown().await;
}

/// Reads until the other side ends, in whatever way.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
}
