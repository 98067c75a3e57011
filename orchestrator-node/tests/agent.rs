//! A node agent on a simulated machine, in virtual time.

mod fake;

use std::{sync::Arc, time::Duration};

use fake::{FakeServer, TakingTurns};
use futures::StreamExt;
use orchestrator_core::{
    env::{Env, Simulation},
    node_connector::{NodeRequest, PodLogOptions, Target},
    runtime::{ContainerRuntime, RuntimeError},
};
use orchestrator_node::{NodeAgent, NodeConfig};
use orchestrator_runtime_sim::{
    ExecAnswer, ImageScript, MachineConfig, Matcher, OnStop, PortAnswer, Script, SimMachine, Verb,
};
use serde_json::{Value, json};

const NODE: &str = "node-1";

struct World {
    env: Env,
    server: Arc<FakeServer>,
    machine: SimMachine,
}

impl World {
    fn start(&self) -> NodeAgent {
        self.start_with(Arc::new(self.machine.runtime()))
    }

    fn start_with(&self, runtime: Arc<dyn ContainerRuntime>) -> NodeAgent {
        let config = NodeConfig { addresses: vec!["192.0.2.1".parse().unwrap()], ..NodeConfig::default() };
        NodeAgent::builder(&self.server.client(), &self.env, runtime, NODE).config(config).start()
    }

    fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}")});
        self.server.put(
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
            "status": {"phase": "Pending", "qosClass": "BestEffort"}}),
        );
    }

    fn status(&self, pod: &str) -> Value {
        self.server.object("pods", "default", pod).map(|pod| pod["status"].clone()).unwrap_or_default()
    }

    async fn seconds(&self, seconds: u64) {
        self.env.sleep(Duration::from_secs(seconds)).await;
    }

    async fn until(&self, what: &str, done: impl Fn() -> bool) {
        for _ in 0..6000 {
            if done() {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!("not within ten minutes: {what}");
    }

    async fn until_phase(&self, pod: &str, phase: &str) {
        self.until(&format!("{pod} is {phase}"), || self.status(pod)["phase"] == phase).await;
    }

    async fn until_gone(&self, pod: &str) {
        self.until(&format!("{pod} is gone"), || self.server.object("pods", "default", pod).is_none()).await;
    }

    fn reasons(&self) -> Vec<String> {
        let events = self.server.list("events");
        events.iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn target(&self, pod: &str, container: &str) -> Target {
        Target {
            node: NODE.into(),
            namespace: "default".into(),
            pod: pod.into(),
            pod_uid: format!("uid-{pod}"),
            container: container.into(),
        }
    }
}

/// Runs a test in several worlds that differ in the order of things.
fn simulate<F: Future<Output = ()>>(test: impl Fn(World) -> F) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let server = FakeServer::new(&env);
        let machine = SimMachine::new(&env, MachineConfig::default());
        simulation.run(test(World { env, server, machine })).expect("the simulation goes on");
    }
}

fn one(name: &str) -> Value {
    json!({"containers": [{"name": name, "image": "img", "imagePullPolicy": "IfNotPresent"}]})
}

#[test]
fn a_node_registers_and_stays_alive() {
    simulate(|world| async move {
        let agent = world.start();
        world.until("registered", || world.server.object("leases", "kube-node-lease", NODE).is_some()).await;
        let node = world.server.object("nodes", "", NODE).unwrap();
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], NODE);
        assert_eq!(node["status"]["capacity"]["pods"], "110");
        let ready =
            node["status"]["conditions"].as_array().unwrap().iter().find(|it| it["type"] == "Ready").unwrap().clone();
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("KubeletReady")));
        let renewed = || world.server.object("leases", "kube-node-lease", NODE).unwrap()["spec"]["renewTime"].clone();
        let (before, version) = (renewed(), node["metadata"]["resourceVersion"].clone());
        world.seconds(30).await;
        assert_ne!(renewed(), before);
        let version_now = || world.server.object("nodes", "", NODE).unwrap()["metadata"]["resourceVersion"].clone();
        assert_eq!(version_now(), version, "nothing changed, nothing is written");
        world.seconds(300).await;
        assert_ne!(version_now(), version, "once in five minutes it is");
        world.server.remove(&("nodes".into(), String::new(), NODE.into()));
        world.until("registered again", || world.server.object("nodes", "", NODE).is_some()).await;
        world.machine.set_not_ready(Some("broken".into()));
        world
            .until("not ready", || {
                let node = world.server.object("nodes", "", NODE).unwrap();
                node["status"]["conditions"]
                    .as_array()
                    .is_some_and(|list| list.iter().any(|it| it["reason"] == "KubeletNotReady"))
            })
            .await;
        agent.detach().await;
    });
}

#[test]
fn a_pod_lives_and_dies() {
    simulate(|world| async move {
        world.machine.script(Matcher::Any, Script::forever().prints("hello").prints("world"));
        let agent = world.start();
        world.pod("p", one("c"));
        world.until_phase("p", "Running").await;
        let status = world.status("p");
        assert_eq!(status["podIP"], "10.244.0.2");
        assert_eq!(status["hostIP"], "192.0.2.1");
        assert_eq!(status["containerStatuses"][0]["ready"], true);
        assert_eq!(status["qosClass"], "BestEffort");
        let options = PodLogOptions { timestamps: true, limit_bytes: Some(40), ..Default::default() };
        let log = agent.connector().logs(&world.target("p", "c"), options).await.unwrap();
        let log: Vec<u8> = log.map(|piece| piece.unwrap().to_vec()).concat().await;
        let log = String::from_utf8(log).unwrap();
        assert!(log.starts_with("2026-01-01T00:00:00.") && log.contains("Z hello\n") && log.len() == 40, "{log}");
        world.server.delete_pod("p", 30);
        world.until_gone("p").await;
        world.until("the machine is clean", || world.machine.sandboxes().is_empty()).await;
        world.seconds(5).await;
        for reason in ["Pulled", "Created", "Started", "Killing"] {
            assert!(world.reasons().contains(&reason.to_owned()), "{reason}: {:?}", world.reasons());
        }
        agent.shutdown().await;
    });
}

#[test]
fn operations_go_on_while_the_agent_looks() {
    simulate(|world| async move {
        let agent = world.start_with(Arc::new(TakingTurns::new(&world.env, world.machine.runtime())));
        for name in ["p", "q", "r"] {
            world.pod(name, one("c"));
        }
        for name in ["p", "q", "r"] {
            world.until_phase(name, "Running").await;
        }
        world.server.delete_pod("p", 5);
        world.until_gone("p").await;
        world.env.timeout(Duration::from_secs(60), agent.shutdown()).await.expect("the agent ends");
        assert!(world.machine.sandboxes().is_empty());
    });
}

#[test]
fn a_node_tells_what_it_runs() {
    simulate(|world| async move {
        world.machine.script(Matcher::Any, Script::forever().prints("hello").prints("world"));
        let agent = world.start();
        world.pod("p", one("c"));
        world.until_phase("p", "Running").await;
        let connector = agent.connector();
        let ask = async |method: &str, path: &str, query: &[(&str, &str)]| {
            let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let request = NodeRequest { method: method.to_owned(), path: path.to_owned(), query };
            let answer = connector.ask(NODE, request).await.unwrap();
            let body: Vec<u8> = answer.body.map(|piece| piece.unwrap().to_vec()).concat().await;
            (answer.code, String::from_utf8(body).unwrap())
        };
        let page = async |path: &str| {
            let (code, body) = ask("GET", path, &[]).await;
            assert_eq!(code, 200, "{path} {body}");
            serde_json::from_str::<serde_json::Value>(&body).unwrap()
        };
        assert_eq!(ask("GET", "/healthz", &[]).await, (200, "ok".to_owned()));
        let pods = page("/pods").await;
        let pod = &pods["items"][0];
        assert_eq!((&pods["kind"], &pod["metadata"]["name"]), (&json!("PodList"), &json!("p")));
        assert_eq!((&pod["status"]["phase"], &pod["kind"]), (&json!("Running"), &json!(null)));
        let running = page("/runningpods/").await;
        assert_eq!(running["items"][0]["spec"]["containers"][0]["name"], "c");
        assert_eq!(page("/configz").await["kubeletconfig"]["clusterDomain"], "cluster.local");
        let summary = page("/stats/summary").await;
        assert_eq!((&summary["node"]["nodeName"], &summary["pods"][0]["podRef"]["name"]), (&json!(NODE), &json!("p")));
        let (_, metrics) = ask("GET", "/metrics", &[]).await;
        assert!(metrics.contains("\nkubelet_running_containers{container_state=\"running\"} 1\n"), "{metrics}");
        let (code, _) = ask("GET", "/metrics/resource", &[]).await;
        assert_eq!(code, 200);
        let log = ask("GET", "/containerLogs/default/p/c", &[("tailLines", "1")]).await;
        assert_eq!(log, (200, "world\n".to_owned()));
        for (method, path, code) in [
            ("GET", "/containerLogs/default/p/d", 404),
            ("GET", "/containerLogs/default/q/c", 404),
            ("GET", "/run", 404),
            ("POST", "/pods", 405),
        ] {
            assert_eq!(ask(method, path, &[]).await.0, code, "{path}");
        }
        agent.shutdown().await;
    });
}

#[test]
fn jobs_end_and_crashes_back_off() {
    simulate(|world| async move {
        world.machine.script(Matcher::Container("good".into()), Script::exits(Duration::from_secs(3), 0));
        world.machine.script(Matcher::Container("bad".into()), Script::exits(Duration::from_secs(1), 7));
        let agent = world.start();
        let never = |name: &str| json!({"restartPolicy": "Never", "containers": [{"name": name, "image": "img"}]});
        world.pod("done", never("good"));
        world.pod("failed", never("bad"));
        world.pod("loop", one("bad"));
        world.until_phase("done", "Succeeded").await;
        world.until_phase("failed", "Failed").await;
        let state = world.status("failed")["containerStatuses"][0]["state"]["terminated"].clone();
        assert_eq!((&state["exitCode"], &state["reason"]), (&json!(7), &json!("Error")));
        let waiting = || world.status("loop")["containerStatuses"][0]["state"]["waiting"].clone();
        world.until("crash loop", || waiting()["reason"] == "CrashLoopBackOff").await;
        assert!(waiting()["message"].as_str().unwrap().starts_with("back-off 10s restarting failed container=bad"));
        // Runs start at 0, 1, 12, 33, 74 and 155 seconds or so: 10, 20, 40 and 80 seconds after the ends.
        world.seconds(130).await;
        let restarts = world.status("loop")["containerStatuses"][0]["restartCount"].as_i64().unwrap();
        assert!((4..=5).contains(&restarts), "{restarts}");
        assert!(world.machine.containers().iter().filter(|it| it.key.name == "bad").count() <= 4);
        agent.shutdown().await;
        assert!(world.machine.sandboxes().is_empty());
    });
}

#[test]
fn an_agent_that_was_killed_carries_on() {
    simulate(|world| async move {
        let agent = world.start();
        world.pod("p", one("c"));
        world.until_phase("p", "Running").await;
        let starts = world.machine.calls(Verb::StartContainer);
        let before = world.machine.containers();
        drop(agent);
        world.seconds(3).await;
        let agent = world.start();
        world.seconds(100).await;
        assert_eq!(world.machine.containers(), before);
        assert_eq!(world.machine.calls(Verb::StartContainer), starts, "nothing is started twice");
        drop(agent);
        world.machine.kill_container(&before[0].id, 9);
        world.server.remove(&("pods".into(), "default".into(), "p".into()));
        world.pod("q", one("c"));
        let agent = world.start();
        world.until_phase("q", "Running").await;
        world.until("the orphan is gone", || world.machine.sandboxes().len() == 1).await;
        drop(agent);
        world.machine.crash_machine();
        let agent = world.start();
        world.until("running again", || world.machine.find_running("q", "c").is_some()).await;
        world.until("counted", || world.status("q")["containerStatuses"][0]["restartCount"] == 1).await;
        agent.shutdown().await;
    });
}

#[test]
fn killed_at_any_moment() {
    for millis in [1, 2, 5, 10, 50, 100, 1000, 1500, 2500, 4000] {
        simulate(|world| async move {
            let slow = Script { start_delay: Duration::from_secs(1), ..Script::forever() };
            world.machine.script(Matcher::Any, slow);
            let image = ImageScript { absent: true, pull_delay: Duration::from_secs(1), ..Default::default() };
            world.machine.image("img", image);
            let agent = world.start();
            world.pod(
                "p",
                json!({"initContainers": [{"name": "s", "image": "img", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "img"}]}),
            );
            world.env.sleep(Duration::from_millis(millis)).await;
            drop(agent);
            let agent = world.start();
            world
                .until("both run", || {
                    let status = world.status("p");
                    status["phase"] == "Running" && status["containerStatuses"][0]["ready"] == true
                })
                .await;
            let running = world.machine.containers().iter().filter(|it| it.state.is_running()).count();
            assert_eq!(running, 2);
            assert_eq!(world.machine.sandboxes().len(), 1);
            world.server.delete_pod("p", 30);
            world.env.sleep(Duration::from_millis(millis)).await;
            drop(agent);
            let agent = world.start();
            world.until_gone("p").await;
            world.until("the machine is clean", || world.machine.sandboxes().is_empty()).await;
            agent.detach().await;
        });
    }
}

#[test]
fn containers_that_hang_are_killed() {
    simulate(|world| async move {
        world.machine.script(Matcher::Any, Script::forever().on_stop(OnStop::Ignore));
        let agent = world.start();
        world.pod("p", json!({"terminationGracePeriodSeconds": 20, "containers": [{"name": "c", "image": "img"}]}));
        world.until_phase("p", "Running").await;
        let before = world.env.monotonic();
        world.server.delete_pod("p", 20);
        world.seconds(10).await;
        assert!(world.machine.find_running("p", "c").is_some());
        world.until_gone("p").await;
        let took = (world.env.monotonic() - before).as_secs();
        // A deletion timestamp has whole seconds.
        assert!((19..22).contains(&took), "{took}");
        world.pod("q", one("c"));
        world.until_phase("q", "Running").await;
        world.server.delete_pod("q", 30);
        world.seconds(2).await;
        world.server.delete_pod("q", 0);
        world.seconds(3).await;
        assert!(world.server.object("pods", "default", "q").is_none(), "a shorter grace holds at once");
        agent.shutdown().await;
    });
}

#[test]
fn images_are_tried_again() {
    simulate(|world| async move {
        let image = ImageScript { absent: true, pull_failure: Some("denied".into()), ..Default::default() };
        world.machine.image("img", image);
        let agent = world.start();
        world.pod("p", one("c"));
        let waiting = || world.status("p")["containerStatuses"][0]["state"]["waiting"].clone();
        world.until("an error", || waiting()["reason"] == "ErrImagePull").await;
        world.until("a back-off", || waiting()["reason"] == "ImagePullBackOff").await;
        let error = agent.connector().logs(&world.target("p", "c"), PodLogOptions::default()).await.err().unwrap();
        assert_eq!(error.code(), 400);
        let message = "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image";
        assert_eq!(error.message(), message);
        world.machine.image("img", ImageScript { absent: true, ..Default::default() });
        world.until_phase("p", "Running").await;
        agent.shutdown().await;
    });
}

#[test]
fn probes_and_hooks() {
    simulate(|world| async move {
        let no = ExecAnswer { exit_code: 1, stderr: "not yet".into(), ..Default::default() };
        let script = Script::forever()
            .answers(&["ready"], no.clone())
            .listens(80, PortAnswer::Http { status: 200, body: "ok".into() });
        world.machine.script(Matcher::Any, script.clone());
        let agent = world.start();
        let container = json!({"name": "c", "image": "img",
            "lifecycle": {"postStart": {"exec": {"command": ["hello"]}}, "preStop": {"sleep": {"seconds": 5}}},
            "startupProbe": {"httpGet": {"port": 80, "path": "/"}, "periodSeconds": 1},
            "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 2, "failureThreshold": 1},
            "livenessProbe": {"exec": {"command": ["live"]}, "periodSeconds": 1, "failureThreshold": 2}});
        world.pod("p", json!({"containers": [container]}));
        let container = || world.status("p")["containerStatuses"][0].clone();
        world.until("started", || container()["started"] == true).await;
        world.seconds(10).await;
        assert_eq!(container()["ready"], false);
        world.machine.script(Matcher::Any, Script { exec: vec![], ..script.clone() });
        world.until("ready", || container()["ready"] == true).await;
        world.machine.script(Matcher::Any, script.answers(&["live"], no));
        world.until("restarted", || container()["restartCount"].as_i64() > Some(0)).await;
        world.seconds(2).await;
        assert!(world.reasons().contains(&"Unhealthy".to_owned()));
        agent.shutdown().await;
    });
}

#[test]
fn configuration_errors_wait() {
    simulate(|world| async move {
        let agent = world.start();
        world.pod(
            "p",
            json!({"containers": [{"name": "c", "image": "img", "env": [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}]}),
        );
        let waiting = || world.status("p")["containerStatuses"][0]["state"]["waiting"].clone();
        world.until("an error", || waiting()["reason"] == "CreateContainerConfigError").await;
        assert_eq!(waiting()["message"], "configmap \"m\" not found");
        world.server.put(
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "m", "namespace": "default"}, "data": {"k": "v"}}),
        );
        world.until_phase("p", "Running").await;
        let running = world.machine.find_running("p", "c").unwrap();
        let config = world.machine.container_config(&running.id).unwrap();
        assert!(config.environment.contains(&("A".into(), "v".into())));
        assert!(config.environment.contains(&("HOSTNAME".into(), "p".into())));
        agent.shutdown().await;
    });
}

#[test]
fn volumes_are_waited_for() {
    simulate(|world| async move {
        let agent = world.start();
        world.pod(
            "p",
            json!({"containers": [{"name": "c", "image": "img", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]}),
        );
        world.seconds(15).await;
        assert_eq!(world.status("p")["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
        assert!(world.reasons().contains(&"FailedMount".to_owned()));
        world.server.put(
            "persistentvolumeclaims",
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "claim", "namespace": "default", "uid": "cu"},
            "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
        );
        world.server.put(
            "persistentvolumes",
            json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "pv"}, "spec": {"hostPath": {"path": "/data"}, "claimRef": {"uid": "cu"}}}),
        );
        world.until_phase("p", "Running").await;
        let running = world.machine.find_running("p", "c").unwrap();
        let mounts = world.machine.container_config(&running.id).unwrap().mounts;
        assert_eq!(mounts[0].host_path.to_str(), Some("/data"));
        agent.shutdown().await;
    });
}

#[test]
fn pods_that_do_not_fit_are_rejected() {
    simulate(|world| async move {
        let agent = world.start();
        let big =
            |cpu: &str| json!({"containers": [{"name": "c", "image": "img", "resources": {"requests": {"cpu": cpu}}}]});
        world.pod("a", big("3"));
        world.until_phase("a", "Running").await;
        world.pod("b", big("2"));
        world.until_phase("b", "Failed").await;
        let status = world.status("b");
        assert_eq!(status["reason"], "OutOfcpu");
        let message =
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000";
        assert_eq!(status["message"], message);
        world.server.delete_pod("b", 0);
        world.until_gone("b").await;
        agent.shutdown().await;
    });
}

#[test]
fn a_runtime_that_fails_is_asked_again() {
    simulate(|world| async move {
        let verbs = [
            Verb::ListContainers,
            Verb::RunSandbox,
            Verb::CreateContainer,
            Verb::InspectContainer,
            Verb::StopContainer,
            Verb::StopSandbox,
            Verb::RemoveSandbox,
            Verb::ImageStatus,
        ];
        for verb in verbs {
            world.machine.fail_next(verb, RuntimeError::Missing("luck".into()));
        }
        let agent = world.start();
        world.pod("p", one("c"));
        world.until_phase("p", "Running").await;
        world.server.delete_pod("p", 5);
        world.until_gone("p").await;
        world.until("the machine is clean", || world.machine.sandboxes().is_empty()).await;
        agent.shutdown().await;
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let server = FakeServer::new(&env);
        let machine = SimMachine::new(&env, MachineConfig::default());
        let world = World { env, server, machine };
        let run = async {
            world.machine.script(Matcher::Any, Script::exits(Duration::from_secs(7), 1));
            let agent = world.start();
            for number in 0..5 {
                world.pod(&format!("p{number}"), one("c"));
            }
            world.seconds(60).await;
            agent.shutdown().await;
            world.server.list("pods")
        };
        simulation.run(run).unwrap()
    };
    assert_eq!(history(11), history(11));
}
