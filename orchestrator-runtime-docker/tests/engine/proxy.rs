//! A socket between the runtime and the engine that can be slow, refuse, break off and be gone.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use orchestrator_core::env::{Env, TaskHandle};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::subject::subject;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They reach the engine.
    Pass,
    /// Each is closed as soon as it is there.
    Refuse,
    /// Nothing is passed on, and nothing is said.
    Silent,
    /// The engine gets everything, and takes this long to be heard.
    Delay(Duration),
    /// The request goes through, and the answer breaks off after so many bytes.
    Cut(usize),
}

/// The socket. Connections go when it is dropped.
pub(crate) struct Proxy {
    pub(crate) path: PathBuf,
    env: Env,
    shared: Arc<Shared>,
    accepting: Option<TaskHandle>,
}

struct Shared {
    mode: Mutex<Mode>,
    connections: Mutex<Vec<TaskHandle>>,
    accepted: AtomicUsize,
}

impl Proxy {
    pub(crate) fn new(path: &Path) -> Self {
        let shared =
            Shared { mode: Mutex::new(Mode::Pass), connections: Mutex::default(), accepted: AtomicUsize::new(0) };
        let mut proxy = Self { path: path.to_owned(), env: Env::real(), shared: Arc::new(shared), accepting: None };
        proxy.back();
        proxy
    }

    /// How connections fare that come from now on.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Ends all connections that there are.
    pub(crate) fn cut_all(&self) {
        self.shared.connections.lock().unwrap().clear();
    }

    /// As if the engine had ended: no connections, and no socket.
    pub(crate) fn gone(&mut self) {
        self.accepting = None;
        self.cut_all();
        std::fs::remove_file(&self.path).unwrap();
    }

    /// The engine is back.
    pub(crate) fn back(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        let (env, shared) = (self.env.clone(), Arc::clone(&self.shared));
        self.accepting = Some(self.env.spawn("proxy", async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                let mode = *shared.mode.lock().unwrap();
                let task = env.spawn("proxied", serve(env.clone(), stream, mode));
                let mut connections = shared.connections.lock().unwrap();
                connections.retain(|task| !task.is_finished());
                connections.push(task);
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(env: Env, stream: UnixStream, mode: Mode) {
    let (delay, limit) = match mode {
        Mode::Refuse => return,
        Mode::Silent => return std::future::pending().await,
        Mode::Pass => (Duration::ZERO, usize::MAX),
        Mode::Delay(delay) => (delay, usize::MAX),
        Mode::Cut(bytes) => (Duration::ZERO, bytes),
    };
    let Ok(engine) = UnixStream::connect(&subject().socket).await else { return };
    let (near_read, near_write) = stream.into_split();
    let (far_read, far_write) = engine.into_split();
    let up = copy(&env, near_read, far_write, Duration::ZERO, usize::MAX);
    let down = copy(&env, far_read, near_write, delay, limit);
    // The answer's end is the connection's; a request may end before.
    let up = std::pin::pin!(async move {
        up.await;
        std::future::pending::<()>().await;
    });
    futures::future::select(std::pin::pin!(down), up).await;
}

async fn copy(env: &Env, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, limit: usize) {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = limit;
    while left > 0 {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { break };
        if !delay.is_zero() {
            env.sleep(delay).await;
        }
        let count = count.min(left);
        left -= count;
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
