//! What the running scheduler makes of the answers of extenders.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube_core::params::{ListParams, PostParams};
use orchestrator_core::{
    client::{Api, Backend, Call, Client, PatchBody, Reply, Request, WatchRequest, WatchStream, WriteOptions},
    controller::Caches,
    env::{Env, Simulation, TaskHandle},
    scheduler::PodInfo,
    status::ApiResult,
};
use orchestrator_scheduler::{
    Scheduling,
    extender::{Counter, Duties, Extender, ExtenderError, Filtered, Offer},
    framework::Profile,
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Says what it was told to say, and remembers what it was asked.
#[derive(Debug, Default)]
struct Told {
    duties: Duties,
    ignorable: bool,
    only: Option<&'static str>,
    delay: Option<(Env, Duration)>,
    filtered: Option<Result<Filtered, ExtenderError>>,
    scores: Option<Result<BTreeMap<String, i64>, ExtenderError>>,
    counters: Option<Result<Vec<Counter>, ExtenderError>>,
    bound: Option<Result<(), ExtenderError>>,
    asked: Mutex<Vec<String>>,
}

impl Told {
    async fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
        if let Some((env, delay)) = &self.delay {
            env.sleep(*delay).await;
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn names(nodes: &[Arc<Node>]) -> String {
    nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect::<Vec<_>>().join(",")
}

#[async_trait]
impl Extender for Told {
    fn name(&self) -> &str {
        "http://told"
    }

    fn duties(&self) -> Duties {
        self.duties
    }

    fn is_interested(&self, pod: &PodInfo) -> bool {
        self.only.is_none_or(|only| pod.key().name == only)
    }

    fn is_ignorable(&self) -> bool {
        self.ignorable
    }

    async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<Filtered, ExtenderError> {
        self.note(format!("filter {} {}", pod.key().name, names(nodes))).await;
        self.filtered.clone().unwrap()
    }

    async fn prioritize(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<BTreeMap<String, i64>, ExtenderError> {
        self.note(format!("prioritize {} {}", pod.key().name, names(nodes))).await;
        self.scores.clone().unwrap()
    }

    async fn preempt(&self, pod: &PodInfo, offers: &[Offer]) -> Result<Vec<Counter>, ExtenderError> {
        let nodes: Vec<&str> = offers.iter().map(|offer| offer.preemption.node.as_str()).collect();
        self.note(format!("preempt {} {}", pod.key().name, nodes.join(","))).await;
        self.counters.clone().unwrap()
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), ExtenderError> {
        self.note(format!("bind {} {node}", pod.key().name)).await;
        self.bound.clone().unwrap()
    }
}

/// Binds pods, as the API server does.
#[derive(Debug)]
struct Binder(FakeApi);

#[async_trait]
impl Backend for Binder {
    async fn request(&self, mut request: Request) -> ApiResult<Reply> {
        if request.subresource.as_deref() == Some("binding")
            && let Call::Create { object, .. } = &request.call
        {
            let node = object.to_tree()?["target"]["name"].clone();
            request.subresource = None;
            let patch = PatchBody::Merge(json!({"spec": {"nodeName": node}}));
            request.call = Call::Patch { patch, options: WriteOptions::default() };
        }
        self.0.request(request).await
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        self.0.watch(request).await
    }
}

struct World {
    client: Client,
    env: Env,
    running: (CancellationToken, TaskHandle, Caches),
}

impl World {
    /// Nodes `a`, `b` and `c`, with room for one pod each.
    async fn start(env: &Env, extenders: &[Arc<Told>]) -> Self {
        let client = Client::new(Arc::new(Binder(FakeApi::new(env))));
        for name in ["a", "b", "c"] {
            let allocatable = json!({"cpu": "2", "memory": "4Gi", "pods": "9"});
            let node: Node = read(json!({"metadata": {"name": name}, "status": {"allocatable": allocatable}}));
            Api::all(&client).create(&PostParams::default(), &node).await.unwrap();
        }
        let caches = Caches::new(&client, env);
        let shutdown = CancellationToken::new();
        let extenders = extenders.iter().map(|told| Arc::clone(told) as Arc<dyn Extender>).collect();
        let profile = Profile { extenders, ..Profile::default() };
        let scheduling = Scheduling::builder(&caches, env).profile(profile).build();
        let handle = env.spawn("scheduler", scheduling.run(shutdown.clone()));
        Self { client, env: env.clone(), running: (shutdown, handle, caches) }
    }

    async fn pod(&self, name: &str, priority: i32) {
        let resources = json!({"requests": {"cpu": "2"}});
        let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]});
        self.pods()
            .create(&PostParams::default(), &read(json!({"metadata": {"name": name}, "spec": spec})))
            .await
            .unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(&self.client, "x")
    }

    async fn place(&self, name: &str) -> Option<String> {
        self.pods().get_opt(name).await.unwrap()?.spec.as_ref()?.node_name.clone()
    }

    async fn placed(&self, name: &str) -> String {
        self.eventually(&format!("{name} is placed"), async || self.place(name).await.is_some()).await;
        self.place(name).await.unwrap()
    }

    /// Reason and message of the pod's condition, once there is one.
    async fn told(&self, name: &str) -> (String, String) {
        let condition = async || {
            let pod = self.pods().get(name).await.unwrap();
            let condition = pod.status.as_ref()?.conditions.as_ref()?.first().cloned()?;
            condition.reason.zip(condition.message)
        };
        self.eventually("it is told", async || condition().await.is_some()).await;
        condition().await.unwrap()
    }

    async fn preempted(&self) -> Vec<String> {
        let events = Api::<Event>::namespaced(&self.client, "x").list(&ListParams::default()).await.unwrap().items;
        let events = events.iter().filter(|event| event.reason.as_deref() == Some("Preempted"));
        events.filter_map(|event| event.regarding_name()).collect()
    }

    async fn eventually<F: Future<Output = bool>>(&self, what: &str, check: impl Fn() -> F) {
        for _ in 0..10_000 {
            if check().await {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!("not in a thousand seconds: {what}");
    }

    async fn stop(self) {
        let (shutdown, handle, caches) = self.running;
        shutdown.cancel();
        handle.join().await;
        caches.shutdown().await;
    }
}

trait Regarding {
    fn regarding_name(&self) -> Option<String>;
}

impl Regarding for Event {
    fn regarding_name(&self) -> Option<String> {
        self.involved_object.name.clone()
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn simulate<F: Future<Output = ()>>(seed: u64, run: impl FnOnce(Env) -> F) {
    let simulation = Simulation::new(seed);
    let env = simulation.env();
    simulation.run(run(env)).unwrap();
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(node, why)| ((*node).to_owned(), (*why).to_owned())).collect()
}

fn right(nodes: &[&str]) -> Option<Result<Filtered, ExtenderError>> {
    Some(Ok(Filtered { right: nodes.iter().map(|node| (*node).to_owned()).collect(), ..Filtered::default() }))
}

#[test]
fn extenders_look_at_nodes_one_after_another_and_their_scores_count() {
    simulate(1, async |env| {
        let filters = Duties { filters: true, ..Duties::default() };
        let first = Arc::new(Told { duties: filters, filtered: right(&["a", "b"]), ..Told::default() });
        let scores = [("a".to_owned(), 1), ("b".to_owned(), 10)].into();
        let duties = Duties { prioritizes: Some(3), ..filters };
        let second =
            Arc::new(Told { duties, filtered: right(&["a", "b"]), scores: Some(Ok(scores)), ..Told::default() });
        let world = World::start(&env, &[first.clone(), second.clone()]).await;
        world.pod("p", 0).await;
        assert_eq!(world.placed("p").await, "b");
        assert_eq!(first.asked(), ["filter p a,b,c"]);
        assert_eq!(second.asked(), ["filter p a,b", "prioritize p a,b"]);
        world.stop().await;
    });
}

#[test]
fn what_extenders_refuse_is_told_in_their_words() {
    simulate(2, async |env| {
        let filtered = Filtered {
            right: Vec::new(),
            failed: texts(&[("a", "too warm"), ("b", "too warm")]),
            failed_and_unresolvable: texts(&[("b", "too old")]),
        };
        let duties = Duties { filters: true, ..Duties::default() };
        let told = Arc::new(Told { duties, filtered: Some(Ok(filtered)), only: Some("p"), ..Told::default() });
        let world = World::start(&env, std::slice::from_ref(&told)).await;
        world.pod("p", 0).await;
        let (reason, message) = world.told("p").await;
        world.pod("other", 0).await;
        world.placed("other").await;
        assert_eq!(reason, "Unschedulable");
        assert!(message.starts_with("0/3 nodes are available: 1 too old, 1 too warm. "), "{message}");
        assert!(told.asked().iter().all(|asked| asked.starts_with("filter p ")), "{:?}", told.asked());
        world.stop().await;
    });
}

#[test]
fn extenders_that_fail_end_the_attempt_unless_they_may() {
    simulate(3, async |env| {
        let filters = Duties { filters: true, ..Duties::default() };
        let failing = |ignorable: bool, only: &'static str| {
            let filtered = Some(Err(ExtenderError::new("it rains")));
            Arc::new(Told { duties: filters, ignorable, filtered, only: Some(only), ..Told::default() })
        };
        let unknown = Told { duties: filters, filtered: right(&["z"]), only: Some("r"), ..Told::default() };
        // Slower than it may be.
        let delay = Some((env.clone(), Duration::from_secs(60)));
        let late = Told { duties: filters, filtered: right(&["a"]), delay, only: Some("s"), ..Told::default() };
        let scores = Some(Err(ExtenderError::new("it rains")));
        let duties = Duties { prioritizes: Some(1), ..Duties::default() };
        let blind = Told { duties, scores, ..Told::default() };
        let extenders = [failing(false, "p"), failing(true, "q"), Arc::new(unknown), Arc::new(late), Arc::new(blind)];
        let world = World::start(&env, &extenders).await;
        world.pod("q", 0).await;
        world.placed("q").await;
        for (pod, message) in [
            ("p", "it rains"),
            ("r", "extender \"http://told\" claims a filtered node \"z\" which is not found in the input node list"),
            ("s", "Post \"http://told\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        ] {
            world.pod(pod, 0).await;
            assert_eq!(world.told(pod).await, ("SchedulerError".to_owned(), message.to_owned()), "{pod}");
        }
        let before = extenders[0].asked().len();
        world.eventually("it is tried again", async || extenders[0].asked().len() > before).await;
        world.stop().await;
    });
}

#[test]
fn an_extender_binds_the_pods_that_it_is_interested_in() {
    simulate(4, async |env| {
        let duties = Duties { binds: true, ..Duties::default() };
        let bound = Some(Err(ExtenderError::new("no binding today")));
        let told = Arc::new(Told { duties, only: Some("p"), bound, ..Told::default() });
        let world = World::start(&env, std::slice::from_ref(&told)).await;
        world.pod("p", 0).await;
        assert_eq!(world.told("p").await, ("SchedulerError".to_owned(), "no binding today".to_owned()));
        assert!(told.asked()[0].starts_with("bind p "), "{:?}", told.asked());
        assert_eq!(world.place("p").await, None);
        world.pod("other", 0).await;
        world.placed("other").await;
        world.stop().await;
        let ignorable = Told {
            duties,
            ignorable: true,
            bound: Some(Err(ExtenderError::new("no binding today"))),
            ..Told::default()
        };
        let world = World::start(&env, &[Arc::new(ignorable)]).await;
        world.pod("p", 0).await;
        world.placed("p").await;
        world.stop().await;
    });
}

#[test]
fn extenders_have_a_say_in_who_is_removed() {
    for (seed, answer, expected) in [
        (5, Ok("b"), Ok("b")),
        (6, Err("it rains"), Err("preemption: it rains")),
        (7, Ok(""), Err("preemption: no candidate node for preemption")),
    ] {
        simulate(seed, async move |env| {
            let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap();
            let duties = Duties { preempts: true, ..Duties::default() };
            let counters = Mutex::new(None);
            let world = World::start(&env, &[]).await;
            for name in ["1", "2", "3"] {
                world.pod(name, 0).await;
                let node = world.placed(name).await;
                if answer == Ok(&*node) {
                    let victims = vec![uid(&world.pods().get(name).await.unwrap())];
                    *counters.lock().unwrap() = Some((name, Counter { node, victims, violations: 0 }));
                }
            }
            let client = world.client.clone();
            world.stop().await;
            let wanted = counters.lock().unwrap().take();
            let counters = answer.map(|_| wanted.iter().map(|(_, counter)| counter.clone()).collect());
            let counters = Some(counters.map_err(ExtenderError::new));
            let told = Arc::new(Told { duties, counters, ..Told::default() });
            let caches = Caches::new(&client, &env);
            let shutdown = CancellationToken::new();
            let profile = Profile { extenders: vec![told.clone()], ..Profile::default() };
            let scheduling = Scheduling::builder(&caches, &env).profile(profile).build();
            let handle = env.spawn("scheduler", scheduling.run(shutdown.clone()));
            let world = World { client, env: env.clone(), running: (shutdown, handle, caches) };
            world.pod("important", 9).await;
            match expected {
                Ok(node) => {
                    world.eventually("one is removed", async || !world.preempted().await.is_empty()).await;
                    assert_eq!(world.preempted().await, [wanted.unwrap().0]);
                    assert_eq!(world.placed("important").await, node);
                }
                Err(message) => {
                    let told = world.told("important").await.1;
                    assert!(told.ends_with(message), "{told}");
                }
            }
            assert_eq!(told.asked()[0].split_once(' ').unwrap().0, "preempt");
            world.stop().await;
        });
    }
}
