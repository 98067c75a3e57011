//! A server whose store fails on demand, and a client of it.

use std::{sync::Arc, time::Duration};

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
};
use orchestrator_store_mem::MemStore;
use orchestrator_testkit::wrap::{FaultRates, FaultyStore};
use tower_service::Service;

pub(crate) struct Api {
    pub(crate) env: Env,
    pub(crate) server: ApiServer,
    store: FaultyStore,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Api {
    async fn start(env: &Env) -> Self {
        let store = FaultyStore::new(Arc::new(MemStore::new(env)), env, FaultRates::default());
        let admission = Admission { service_account: false, ..Admission::default() };
        let config = Config { admission, ..Config::default() };
        let server = ApiServer::builder(env, Arc::new(store.clone())).config(config).build().await.unwrap();
        // Flow schemas are followed from here on.
        env.sleep(Duration::from_secs(1)).await;
        Self { env: env.clone(), server, store }
    }

    /// Whether the store refuses everything.
    pub(crate) fn set_ill(&self, is_ill: bool) {
        let refused_per_mille = if is_ill { 1000 } else { 0 };
        self.store.set_rates(FaultRates { refused_per_mille, ..FaultRates::default() });
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
