//! A simulated machine under an agent's calls, in virtual time.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use orchestrator_core::{
    env::{Env, Simulation},
    runtime::{
        ContainerConfig, ContainerId, ContainerKey, ContainerRuntime, ContainerState, ImageService, LogOptions,
        NamespaceOptions, PullRequest, Resources, RuntimeError, SandboxConfig, SandboxKey, SandboxState,
        SecurityContext,
    },
};
use orchestrator_runtime_sim::{ImageScript, MachineConfig, Matcher, OnStop, Script, SimMachine, SimRuntime, Verb};

fn sandbox(uid: &str) -> SandboxConfig {
    SandboxConfig {
        key: SandboxKey { pod_uid: uid.to_owned(), attempt: 0 },
        namespace: "default".to_owned(),
        name: uid.to_owned(),
        hostname: uid.to_owned(),
        dns: Default::default(),
        namespaces: NamespaceOptions::default(),
        resources: Resources::default(),
        sysctls: BTreeMap::new(),
        labels: BTreeMap::new().into(),
        annotations: BTreeMap::new().into(),
    }
}

fn container(name: &str) -> ContainerConfig {
    ContainerConfig {
        key: ContainerKey { name: name.to_owned(), attempt: 0 },
        image: "image".to_owned(),
        command: vec![],
        args: vec![],
        working_directory: None,
        environment: vec![],
        mounts: vec![],
        resources: Resources::default(),
        security: SecurityContext::default(),
        tty: false,
        stdin: false,
        stdin_once: false,
        stop_signal: None,
        labels: BTreeMap::new().into(),
        annotations: BTreeMap::new().into(),
    }
}

fn simulate<F: Future<Output = ()>>(test: impl FnOnce(Env, SimMachine) -> F) {
    let simulation = Simulation::new(3);
    let env = simulation.env();
    let machine = SimMachine::new(&env, MachineConfig::default());
    simulation.run(test(env, machine)).expect("the simulation goes on");
}

async fn start(runtime: &SimRuntime, uid: &str, name: &str) -> ContainerId {
    let sandbox = runtime.run_sandbox(&sandbox(uid)).await.unwrap();
    let id = runtime.create_container(&sandbox.id, &container(name)).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    id
}

#[test]
fn a_new_runtime_finds_what_the_old_one_made() {
    simulate(|_, machine| async move {
        let id = start(&machine.runtime(), "a", "main").await;
        let runtime = machine.runtime();
        assert_eq!(start(&runtime, "a", "main").await, id);
        assert_eq!(runtime.list_containers().await.unwrap().len(), 1);
        assert!(runtime.inspect_container(&id).await.unwrap().state.is_running());
    });
}

#[test]
fn scripts_end_containers() {
    simulate(|env, machine| async move {
        machine.script(Matcher::Container("job".into()), Script::exits(Duration::from_secs(5), 3));
        let runtime = machine.runtime();
        let mut events = runtime.events();
        let id = start(&runtime, "a", "job").await;
        env.sleep(Duration::from_secs(6)).await;
        assert_eq!(runtime.inspect_container(&id).await.unwrap().state.exit_code(), Some(3));
        let mut count = 0;
        while env.timeout(Duration::from_millis(1), events.next()).await.is_ok() {
            count += 1;
        }
        assert_eq!(count, 4, "sandbox, created, started, ended");
    });
}

#[test]
fn a_container_that_ignores_the_signal_is_killed() {
    simulate(|env, machine| async move {
        machine.script(Matcher::Any, Script::forever().on_stop(OnStop::Ignore));
        let runtime = machine.runtime();
        let id = start(&runtime, "a", "main").await;
        let before = env.monotonic();
        runtime.stop_container(&id, Duration::from_secs(30)).await.unwrap();
        assert_eq!(env.monotonic() - before, Duration::from_secs(30));
        let ContainerState::Exited { exit_code, signal, .. } = runtime.inspect_container(&id).await.unwrap().state
        else {
            panic!("it still runs");
        };
        assert_eq!((exit_code, signal), (137, Some(9)));
    });
}

#[test]
fn start_failures_leave_an_ended_container() {
    simulate(|_, machine| async move {
        machine.script(Matcher::Any, Script::fails_to_start("no such file"));
        let runtime = machine.runtime();
        let sandbox = runtime.run_sandbox(&sandbox("a")).await.unwrap();
        let id = runtime.create_container(&sandbox.id, &container("main")).await.unwrap();
        assert!(matches!(runtime.start_container(&id).await, Err(RuntimeError::StartFailed(_))));
        assert_eq!(runtime.inspect_container(&id).await.unwrap().state.exit_code(), Some(128));
    });
}

#[test]
fn images_are_pulled_once() {
    simulate(|_, machine| async move {
        machine.image("image", ImageScript { absent: true, pull_delay: Duration::from_secs(9), ..Default::default() });
        let runtime = machine.runtime();
        assert_eq!(runtime.image_status("image").await.unwrap(), None);
        let request = PullRequest { image: "image".into(), credentials: vec![] };
        runtime.pull_image(&request).await.unwrap();
        assert!(runtime.image_status("image").await.unwrap().is_some());
        machine.image("broken", ImageScript { pull_failure: Some("denied".into()), ..Default::default() });
        let request = PullRequest { image: "broken".into(), credentials: vec![] };
        assert_eq!(runtime.pull_image(&request).await.unwrap_err().to_string(), "denied");
    });
}

#[test]
fn faults() {
    simulate(|_, machine| async move {
        let runtime = machine.runtime();
        machine.fail_next(Verb::RunSandbox, RuntimeError::Missing("memory".into()));
        assert!(runtime.run_sandbox(&sandbox("a")).await.is_err());
        let id = start(&runtime, "a", "main").await;
        assert!(machine.kill_container(&id, 7));
        assert!(!machine.kill_container(&id, 7));
        let status = machine.sandboxes().remove(0);
        assert!(machine.kill_sandbox(&status.id));
        assert_eq!(machine.sandboxes()[0].state, SandboxState::NotReady);
        machine.crash_machine();
        assert!(machine.sandboxes().is_empty() && machine.containers().is_empty());
    });
}

#[test]
fn addresses_are_reused() {
    simulate(|_, machine| async move {
        let runtime = machine.runtime();
        let first = runtime.run_sandbox(&sandbox("a")).await.unwrap();
        let second = runtime.run_sandbox(&sandbox("b")).await.unwrap();
        assert_eq!(first.addresses[0].to_string(), "10.244.0.2");
        assert_eq!(second.addresses[0].to_string(), "10.244.0.3");
        runtime.stop_sandbox(&first.id).await.unwrap();
        assert_eq!(runtime.run_sandbox(&sandbox("c")).await.unwrap().addresses, first.addresses);
    });
}

#[test]
fn logs_follow_until_the_end() {
    simulate(|env, machine| async move {
        let second = Duration::from_secs(1);
        let mut script = Script::exits(second * 3, 0).prints("first");
        script.log_every = Some((second * 2, "tick".into()));
        machine.script(Matcher::Any, script);
        let runtime = machine.runtime();
        let id = start(&runtime, "a", "main").await;
        let options = LogOptions { follow: true, ..Default::default() };
        let lines: Vec<_> = runtime.logs(&id, options).await.unwrap().map(|line| line.unwrap().content).collect().await;
        assert_eq!(lines, ["first", "tick"]);
        env.sleep(second * 5).await;
        let lines: Vec<_> = runtime.logs(&id, LogOptions::default()).await.unwrap().collect().await;
        assert_eq!(lines.len(), 2);
    });
}

#[test]
fn an_idle_container_has_no_task() {
    let simulation = Simulation::new(1);
    let machine = SimMachine::new(&simulation.env(), MachineConfig::default());
    simulation.run(async { start(&machine.runtime(), "a", "main").await }).unwrap();
    assert_eq!(simulation.tasks(), 0);
}

#[test]
fn a_fork_carries_on_and_the_two_do_not_meet() {
    let simulation = Simulation::new(3);
    let machine = SimMachine::new(&simulation.env(), MachineConfig::default());
    machine.script(Matcher::Container("short".to_owned()), Script::exits(Duration::from_secs(60), 7));
    let (env, original) = (simulation.env(), machine.clone());
    let started = simulation.run(async move {
        let runtime = original.runtime();
        let ids = [start(&runtime, "a", "short").await, start(&runtime, "b", "long").await];
        env.sleep(Duration::from_secs(20)).await;
        ids
    });
    let [short, long] = started.unwrap();

    let later = Simulation::starting_at(4, Duration::from_secs(20));
    let fork = machine.fork(&later.env());
    assert_eq!((fork.containers(), fork.sandboxes()), (machine.containers(), machine.sandboxes()));
    assert!(fork.kill_container(&long, 1));
    assert!(machine.find_running("b", "long").is_some(), "the original goes its own way");
    let env = later.env();
    later.run(async move { env.sleep(Duration::from_secs(39)).await }).unwrap();
    assert!(fork.find_running("a", "short").is_some());
    let env = later.env();
    later.run(async move { env.sleep(Duration::from_secs(2)).await }).unwrap();
    let ended = fork.containers().into_iter().find(|container| container.id == short).unwrap();
    assert_eq!(ended.state.exit_code(), Some(7), "it ends at its time, not anew");
    assert!(machine.find_running("a", "short").is_some(), "no time has passed for the original");
}
