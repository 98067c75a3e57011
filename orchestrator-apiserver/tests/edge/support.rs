//! A server whose store fails on demand, and a client of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use orchestrator_apiserver::{
    Admission, ApiServer, Config,
    http::{Body, HttpService},
};
use orchestrator_core::{
    client::UserInfo,
    env::{Env, Simulation},
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Revision, Store, StoreError, StoreStatus,
        WatchOptions, WatchStream,
    },
};
use orchestrator_store_mem::MemStore;
use tower_service::Service;

/// The store in memory, which does not know how it is while it is ill.
#[derive(Debug)]
struct Frail {
    store: MemStore,
    is_ill: Arc<AtomicBool>,
}

#[async_trait]
impl Store for Frail {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.store.list(range, options).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.store.commit(batch).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        self.store.watch(range, options).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        if self.is_ill.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        self.store.status().await
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

pub(crate) struct Api {
    pub(crate) env: Env,
    pub(crate) server: ApiServer,
    is_ill: Arc<AtomicBool>,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Api {
    async fn start(env: &Env) -> Self {
        let is_ill = Arc::new(AtomicBool::new(false));
        let store = Arc::new(Frail { store: MemStore::new(env), is_ill: is_ill.clone() });
        let admission = Admission { service_account: false, ..Admission::default() };
        let config = Config { admission, ..Config::default() };
        let server = ApiServer::builder(env, store).config(config).build().await.unwrap();
        env.sleep(std::time::Duration::from_secs(1)).await;
        Self { env: env.clone(), server, is_ill }
    }

    /// Whether the store answers when it is asked how it is.
    pub(crate) fn set_ill(&self, is_ill: bool) {
        self.is_ill.store(is_ill, Ordering::Relaxed);
    }

    pub(crate) async fn open(&self, user: UserInfo, method: &str, path: &str, body: &str) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        HttpService::new(&self.server, user).call(request).await.unwrap()
    }

    pub(crate) async fn send(&self, user: UserInfo, method: &str, path: &str, body: &str) -> Answer {
        let (parts, body) = self.open(user, method, path, body).await.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(UserInfo::admin(), "GET", path, "").await
    }
}

pub(crate) fn run(test: impl AsyncFn(Api)) {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    simulation.run(async { test(Api::start(&env).await).await }).unwrap();
}
