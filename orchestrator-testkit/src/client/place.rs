//! Where a case works: a namespace of its own, and requests in short.

use std::time::Duration;

use futures::StreamExt;
use orchestrator_core::{
    client::{
        Call, Client, DeleteOptions, ListOptions, PatchBody, Reply, Request, Resource, WatchEvent, WatchRequest,
        WatchStream, WriteOptions,
    },
    env::Env,
    object::Object,
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};

use super::Subject;

/// How long something may take that is bound to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// A namespace that nobody else uses.
pub(super) struct Place {
    pub(super) client: Client,
    pub(super) env: Env,
    pub(super) namespace: String,
}

/// The objects of a resource, in a namespace or in the cluster.
#[derive(Clone)]
pub(super) struct Collection {
    client: Client,
    env: Env,
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
}

/// One page of a collection.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) version: String,
    pub(super) next: Option<String>,
    pub(super) remaining: Option<u64>,
}

impl Place {
    pub(super) async fn new(subject: &dyn Subject, env: &Env) -> Self {
        let client = subject.client().clone();
        let namespace = format!("contract-{}", env.name_suffix(8));
        let place = Self { client, env: env.clone(), namespace };
        place.namespaces().create(&json!({"metadata": {"name": place.namespace}})).await.expect("a namespace is made");
        place
    }

    /// Asks for the end of all that the case made.
    pub(super) async fn leave(self) {
        self.namespaces().delete(&self.namespace).await.expect("the namespace goes");
    }

    pub(super) fn namespaces(&self) -> Collection {
        self.collection("", "v1", "namespaces", false)
    }

    pub(super) fn config_maps(&self) -> Collection {
        self.collection("", "v1", "configmaps", true)
    }

    pub(super) fn deployments(&self) -> Collection {
        self.collection("apps", "v1", "deployments", true)
    }

    pub(super) fn collection(
        &self,
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Collection {
        Collection {
            client: self.client.clone(),
            env: self.env.clone(),
            resource: Resource::new(group, version, plural),
            namespace: namespaced.then(|| self.namespace.clone()),
        }
    }
}

impl Collection {
    /// The same objects in all namespaces.
    pub(super) fn everywhere(&self) -> Self {
        Self { namespace: None, ..self.clone() }
    }

    /// The same objects for another client.
    pub(super) fn through(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    pub(super) async fn reply(&self, name: Option<&str>, subresource: Option<&str>, call: Call) -> ApiResult<Reply> {
        let request = Request {
            user: None,
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
            call,
        };
        let reply = self.env.timeout(PATIENCE, self.client.request(request)).await;
        reply.expect("every request is answered")
    }

    pub(super) async fn call(&self, name: Option<&str>, subresource: Option<&str>, call: Call) -> ApiResult<Value> {
        match self.reply(name, subresource, call).await? {
            Reply::Object { object, .. } => Ok(object.to_tree().expect("an object that can be read")),
            Reply::List { .. } => panic!("an object was asked for, a list came"),
        }
    }

    pub(super) async fn get(&self, name: &str) -> ApiResult<Value> {
        self.call(Some(name), None, Call::Get { resource_version: None }).await
    }

    /// What the object is now, or that it is not.
    pub(super) async fn find(&self, name: &str) -> Option<Value> {
        match self.get(name).await {
            Ok(tree) => Some(tree),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn create(&self, tree: &Value) -> ApiResult<Value> {
        self.create_with(tree, WriteOptions::default()).await
    }

    pub(super) async fn create_with(&self, tree: &Value, options: WriteOptions) -> ApiResult<Value> {
        let object = Object::from_tree(tree.clone());
        self.call(None, None, Call::Create { object, options }).await
    }

    /// Makes an object of this name with these labels.
    pub(super) async fn add(&self, name: &str, labels: Value) -> Value {
        self.create(&json!({"metadata": {"name": name, "labels": labels}})).await.expect("the object is made")
    }

    pub(super) async fn replace(&self, tree: &Value) -> ApiResult<Value> {
        self.replace_part(None, tree).await
    }

    pub(super) async fn replace_part(&self, subresource: Option<&str>, tree: &Value) -> ApiResult<Value> {
        let name = tree["metadata"]["name"].as_str().expect("a name").to_owned();
        let call = Call::Replace { object: Object::from_tree(tree.clone()), options: WriteOptions::default() };
        self.call(Some(&name), subresource, call).await
    }

    pub(super) async fn patch(&self, name: &str, patch: PatchBody) -> ApiResult<Value> {
        self.call(Some(name), None, Call::Patch { patch, options: WriteOptions::default() }).await
    }

    pub(super) async fn delete(&self, name: &str) -> ApiResult<Value> {
        self.delete_with(name, DeleteOptions::default()).await
    }

    pub(super) async fn delete_with(&self, name: &str, options: DeleteOptions) -> ApiResult<Value> {
        self.call(Some(name), None, Call::Delete(options)).await
    }

    pub(super) async fn page(&self, options: ListOptions) -> ApiResult<Page> {
        match self.reply(None, None, Call::List(options)).await? {
            Reply::List { items, resource_version, continue_token, remaining } => Ok(Page {
                items: items.iter().map(|item| item.to_tree().expect("an object that can be read")).collect(),
                version: resource_version,
                next: continue_token,
                remaining,
            }),
            Reply::Object { .. } => panic!("a list was asked for, an object came"),
        }
    }

    /// The names of the objects that labels and fields select, in their order.
    pub(super) async fn names(&self, labels: &str, fields: &str) -> ApiResult<Vec<String>> {
        let options = ListOptions {
            label_selector: labels.to_owned(),
            field_selector: fields.to_owned(),
            ..ListOptions::default()
        };
        Ok(self.page(options).await?.items.iter().map(name_of).collect())
    }

    /// The version that a list is of.
    pub(super) async fn version(&self) -> String {
        self.page(ListOptions::default()).await.expect("a list").version
    }

    /// A request for what follows a version, without bookmarks.
    pub(super) fn watching(&self, version: &str) -> WatchRequest {
        WatchRequest {
            namespace: self.namespace.clone(),
            bookmarks: false,
            ..WatchRequest::new(self.resource.clone(), Some(version.to_owned()))
        }
    }

    pub(super) async fn watch(&self, request: WatchRequest) -> ApiResult<Watched> {
        let stream =
            self.env.timeout(PATIENCE, self.client.watch(request)).await.expect("every request is answered")?;
        Ok(Watched { stream, env: self.env.clone() })
    }
}

/// A watch, event by event.
pub(super) struct Watched {
    stream: WatchStream,
    env: Env,
}

impl Watched {
    /// What comes next; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        self.env.timeout(PATIENCE, self.stream.next()).await.expect("a watch that has something to say says it")
    }

    /// The next event that is no bookmark, as `added name`, and its version.
    pub(super) async fn told(&mut self) -> (String, String) {
        loop {
            let event = self.next().await.expect("the watch goes on").expect("the watch has not failed");
            let (what, object) = match &event {
                WatchEvent::Added(object) => ("added", object),
                WatchEvent::Modified(object) => ("modified", object),
                WatchEvent::Deleted(object) => ("deleted", object),
                WatchEvent::Bookmark { .. } => continue,
            };
            let tree = object.to_tree().expect("an object that can be read");
            return (format!("{what} {}", name_of(&tree)), version_of(&tree));
        }
    }

    /// The next events that are no bookmarks.
    pub(super) async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.told().await.0);
        }
        events
    }
}

pub(super) fn name_of(tree: &Value) -> String {
    tree["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn version_of(tree: &Value) -> String {
    tree["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

/// A deployment that runs nothing.
pub(super) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "paused": true,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "one"}, {"name": "side", "image": "two"}]},
            },
        },
    })
}
