//! The client in process and the pipeline behind it keep the contract of a client.

use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_apiserver::ApiServer;
use orchestrator_core::{client::Client, env::Env, store::Store};
use orchestrator_store_mem::MemStore;
use orchestrator_testkit::{client::Subject, client_contract};

struct InProcess {
    store: Arc<dyn Store>,
    client: Client,
}

#[async_trait]
impl Subject for InProcess {
    fn client(&self) -> &Client {
        &self.client
    }

    async fn forget_history(&self) -> bool {
        let now = self.store.status().await.unwrap().revision;
        self.store.compact(now).await.unwrap();
        true
    }
}

async fn in_process(env: &Env) -> InProcess {
    let store: Arc<dyn Store> = Arc::new(MemStore::new(env));
    let server = ApiServer::builder(env, store.clone()).build().await.unwrap();
    InProcess { store, client: server.client() }
}

client_contract!(simulated, simulated, in_process);
