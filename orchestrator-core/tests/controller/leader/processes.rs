//! Processes that stand for a lease and work, and that can be cut off and frozen.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{self, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::{Api, Backend, Call, Client, Reply, Request, WatchRequest, WatchStream},
    controller::{
        Action, Caches, Context, Controller, Reconciler,
        leader::{LeadEnd, LeaderElection, Leadership, is_not_leading, lead},
    },
    env::{Env, Environment, TaskHandle},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use orchestrator_testkit::{fake_api::FakeApi, network::Network};
use tokio_util::sync::CancellationToken;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Leads(&'static str, i32),
    /// A write of the process's work arrived at the API server.
    Wrote(&'static str),
    Ends(&'static str),
}

/// Where processes live.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) env: Env,
    pub(crate) api: FakeApi,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    log: Vec<Entry>,
    /// Who works on a key, by term.
    busy: BTreeMap<ObjectKey, i32>,
    /// The highest term that a system of somebody else was given.
    highest_term: i32,
    refused_by_term: usize,
    refused_by_fence: usize,
}

pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) network: Network,
    freezer: Freezer,
    shutdown: CancellationToken,
    end: Arc<Mutex<Option<LeadEnd>>>,
    task: TaskHandle,
}

impl Place {
    pub(crate) fn new(env: &Env, api: FakeApi) -> Self {
        Self { env: env.clone(), api, seen: Arc::default() }
    }

    pub(crate) fn log(&self) -> Vec<Entry> {
        self.seen.lock().unwrap().log.clone()
    }

    /// Who began to lead last, and has not ended.
    pub(crate) fn leader(&self) -> Option<&'static str> {
        self.log().into_iter().fold(None, |leader, entry| match entry {
            Entry::Leads(name, _) => Some(name),
            Entry::Ends(name) if leader == Some(name) => None,
            _ => leader,
        })
    }

    pub(crate) fn refused_by_term(&self) -> usize {
        self.seen.lock().unwrap().refused_by_term
    }

    pub(crate) fn refused_by_fence(&self) -> usize {
        self.seen.lock().unwrap().refused_by_fence
    }

    pub(crate) fn start(&self, name: &'static str) -> Process {
        let freezer = Freezer { env: self.env.clone(), sleepers: Arc::default() };
        let env = Env::new(freezer.clone());
        let noting = Noting { client: self.api.client(), name, seen: self.seen.clone() };
        let network = Network::new(&Client::new(Arc::new(noting)), &self.env);
        let (shutdown, end) = (CancellationToken::new(), Arc::new(Mutex::new(None)));
        let task = env.spawn("process", {
            let (place, client, env) = (self.clone(), network.client(), env.clone());
            let (shutdown, end) = (shutdown.clone(), end.clone());
            async move {
                let election = LeaderElection::new("kube-system", "pods", name);
                let work = |leadership| place.clone().work(name, leadership);
                *end.lock().unwrap() = lead(&client, &env, election, shutdown, work).await.ok();
            }
        });
        Process { name, network, freezer, shutdown, end, task }
    }

    async fn work(self, name: &'static str, leadership: Leadership) {
        let term = leadership.term();
        self.seen.lock().unwrap().log.push(Entry::Leads(name, term));
        let _leads = Leads(name, self.seen.clone());
        let caches = Caches::new(leadership.client(), leadership.env());
        let controller = Controller::new("pods", &caches).reconciles::<ConfigMap>().reads::<Pod>().concurrency(3);
        controller.run(PodPerMap { term, seen: self.seen.clone() }, leadership.shutdown().clone()).await;
        caches.shutdown().await;
    }
}

impl Process {
    pub(crate) async fn shut_down(self) -> LeadEnd {
        self.shutdown.cancel();
        self.task.join().await;
        self.end.lock().unwrap().clone().unwrap()
    }

    /// Nothing of the process runs until it is thawed; time goes on.
    pub(crate) fn freeze(&self) {
        self.freezer.sleepers.lock().unwrap().get_or_insert_default();
    }

    pub(crate) fn thaw(&self) {
        let sleepers = self.freezer.sleepers.lock().unwrap().take();
        sleepers.into_iter().flatten().for_each(Waker::wake);
    }
}

struct Leads(&'static str, Arc<Mutex<Seen>>);

impl Drop for Leads {
    fn drop(&mut self) {
        self.1.lock().unwrap().log.push(Entry::Ends(self.0));
    }
}

/// Makes a pod for each config map, takes its time, and tells a system that only knows terms.
struct PodPerMap {
    term: i32,
    seen: Arc<Mutex<Seen>>,
}

struct Busy<'a>(&'a PodPerMap, &'a ObjectKey);

impl<'a> Busy<'a> {
    /// Nobody else works on the key, but for an earlier leader that is frozen.
    fn new(worker: &'a PodPerMap, key: &'a ObjectKey) -> Self {
        let before = worker.seen.lock().unwrap().busy.insert(key.clone(), worker.term);
        assert!(before.is_none_or(|term| term < worker.term), "{key} is worked on twice");
        Self(worker, key)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let busy = &mut self.0.seen.lock().unwrap().busy;
        if busy.get(self.1) == Some(&self.0.term) {
            busy.remove(self.1);
        }
    }
}

#[async_trait]
impl Reconciler for PodPerMap {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        if context.caches().cache::<Pod>().get(key).is_some() {
            return Ok(Action::Done);
        }
        let _busy = Busy::new(self, key);
        context.env().sleep(Duration::from_millis(context.env().random_below(3000))).await;
        self.tell_others();
        let metadata = ObjectMeta { name: Some(key.name.clone()), ..Default::default() };
        let pods = Api::<Pod>::namespaced(context.client(), &key.namespace);
        let made = pods.create(&PostParams::default(), &Pod { metadata, ..Default::default() }).await;
        if made.as_ref().is_err_and(is_not_leading) {
            self.seen.lock().unwrap().refused_by_fence += 1;
        }
        made.map(|_| Action::Done)
    }
}

impl PodPerMap {
    fn tell_others(&self) {
        let mut seen = self.seen.lock().unwrap();
        if self.term < seen.highest_term {
            seen.refused_by_term += 1;
        }
        seen.highest_term = self.term.max(seen.highest_term);
    }
}

/// Notes the writes of a process as they arrive, those of the election excepted.
#[derive(Clone)]
struct Noting {
    client: Client,
    name: &'static str,
    seen: Arc<Mutex<Seen>>,
}

impl std::fmt::Debug for Noting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Noting").field(&self.name).finish()
    }
}

#[async_trait]
impl Backend for Noting {
    async fn request(&self, request: Request) -> ApiResult<Reply> {
        let reads = matches!(request.call, Call::Get { .. } | Call::List(_));
        if !reads && request.resource.plural != "leases" {
            self.seen.lock().unwrap().log.push(Entry::Wrote(self.name));
        }
        self.client.request(request).await
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        self.client.watch(request).await
    }
}

/// An environment whose tasks do not run while it is frozen.
#[derive(Clone)]
struct Freezer {
    env: Env,
    /// Who has to be woken when it is thawed; `None` when it is not frozen.
    sleepers: Arc<Mutex<Option<Vec<Waker>>>>,
}

struct Freezing(BoxFuture<'static, ()>, Freezer);

impl Future for Freezing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<()> {
        if let Some(sleepers) = &mut *self.1.sleepers.lock().unwrap() {
            sleepers.push(context.waker().clone());
            return Poll::Pending;
        }
        self.0.as_mut().poll(context)
    }
}

impl Environment for Freezer {
    fn now(&self) -> Timestamp {
        self.env.now()
    }

    fn monotonic(&self) -> Duration {
        self.env.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.env.sleep(duration)
    }

    fn run(&self, name: &'static str, future: BoxFuture<'static, ()>) {
        Environment::run(&self.env, name, Box::pin(Freezing(future, self.clone())));
    }

    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
        self.env.run_blocking(function);
    }

    fn random(&self) -> u64 {
        self.env.random()
    }
}
