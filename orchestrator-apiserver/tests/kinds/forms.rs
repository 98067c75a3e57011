//! A kind that is served in several forms, asked without HTTP and in virtual time.

use std::sync::Arc;

use orchestrator_apiserver::{Admission, ApiServer, Config};
use orchestrator_core::{
    client::{Backend, Call, PatchBody, Reply, Request, Resource, WriteOptions},
    env::Simulation,
    object::Object,
    status::ApiResult,
};
use orchestrator_store_mem::MemStore;
use serde_json::Value;

/// A server, and the kind that is asked for. A form is named by what tells it from the others: its version or its group.
pub(crate) struct Forms {
    pub(crate) server: ApiServer,
    resource: fn(&'static str) -> Resource,
    /// The object that most is about.
    name: &'static str,
}

impl Forms {
    /// Runs a test on a server of its own.
    pub(crate) fn run(resource: fn(&'static str) -> Resource, name: &'static str, test: impl AsyncFn(Self)) {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let admission = Admission { service_account: false, ..Admission::default() };
        let config = Config { admission, ..Config::default() };
        let run = async {
            let server = ApiServer::builder(&env, Arc::new(MemStore::new(&env))).config(config).build().await.unwrap();
            test(Self { server, resource, name }).await;
        };
        simulation.run(run).unwrap();
    }

    pub(crate) async fn call(&self, form: &'static str, name: Option<&str>, call: Call) -> ApiResult<Value> {
        let (namespace, name) = (Some("default".to_owned()), name.map(str::to_owned));
        let resource = (self.resource)(form);
        match self.server.request(Request { user: None, resource, namespace, name, subresource: None, call }).await? {
            Reply::Object { object, .. } => Ok(object.to_tree()?),
            Reply::List { items, .. } => Ok(items.iter().map(Object::to_tree).collect::<Result<Value, _>>()?),
        }
    }

    pub(crate) async fn create(&self, form: &'static str, object: Value) -> ApiResult<Value> {
        let call = Call::Create { object: Object::from_tree(object), options: options("creator") };
        self.call(form, None, call).await
    }

    pub(crate) async fn get(&self, form: &'static str) -> Value {
        self.call(form, Some(self.name), Call::Get { resource_version: None }).await.unwrap()
    }

    pub(crate) async fn patch(&self, form: &'static str, patch: PatchBody, manager: &str) -> ApiResult<Value> {
        self.call(form, Some(self.name), Call::Patch { patch, options: options(manager) }).await
    }
}

fn options(manager: &str) -> WriteOptions {
    WriteOptions { field_manager: Some(manager.to_owned()), ..WriteOptions::default() }
}
