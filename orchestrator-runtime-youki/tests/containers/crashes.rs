//! Agents and helpers die; what they left is found, told truthfully, and can be cleaned up.

use std::{fs, time::Duration};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{ContainerId, ContainerRuntime, ContainerState, RuntimeError, RuntimeEvent, SandboxState},
};
use orchestrator_runtime_youki::Helper;

use crate::support::{Place, container, helper_of, processes_of, sandbox, shell, text};

crate::tests!(
    a_new_agent_carries_on,
    pods_survive_a_killed_agent,
    a_helper_leaves_the_agents_cgroup_and_session,
    a_killed_helper_is_noticed,
    a_killed_helper_leaves_nothing,
    a_start_cut_short_is_made_good,
    a_helper_of_its_own,
    a_helper_does_not_grow,
    many_pods_at_once,
);

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

async fn a_new_agent_carries_on() {
    let mut place = Place::new();
    let config = sandbox();
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let line = "echo before; until test -e /tmp/go; do sleep 0.02; done; echo after; exit 42";
    let id = place.run(&pod, shell("main", line)).await;
    let before = place.runtime.list_containers().await.unwrap();
    place.again();
    assert_eq!(place.runtime.list_sandboxes().await.unwrap(), std::slice::from_ref(&pod));
    assert_eq!(place.runtime.list_containers().await.unwrap(), before);
    // The container may end before the command has, and takes it along.
    place.exec(&id, &["touch", "/tmp/go"]).await;
    // It ends while there is no agent that looks.
    place.again();
    assert_eq!(place.ended(&id).await.exit_code(), Some(42));
    assert_eq!(text(&place.log(&id).await), "before\nafter\n");
    place.clean().await;
}

/// An agent in a process of its own: it starts a container, begins to stop it, and is never heard of again.
pub(crate) fn agent(directory: &str, name: &str) -> std::process::ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let youki = crate::support::builder(directory.as_ref(), name).build(Env::real()).unwrap();
        let pod = youki.run_sandbox(&sandbox()).await.unwrap();
        let line = "trap '' TERM; echo one; until test -e /tmp/go; do sleep 0.02; done; echo two; exit 11";
        let id = youki.create_container(&pod.id, &shell("main", line)).await.unwrap();
        youki.start_container(&id).await.unwrap();
        println!("{id}");
        // Ends with this process only.
        let stop = youki.stop_container(&id, Duration::from_secs(600));
        let _ = stop.await;
    });
    std::process::ExitCode::FAILURE
}

async fn pods_survive_a_killed_agent() {
    let place = Place::new();
    let name = place.cgroup_parent().trim_start_matches("orchestrator-").to_owned();
    let mut agent = std::process::Command::new("/proc/self/exe")
        .arg("--agent")
        .args([place.directory.to_str().unwrap(), &name])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(agent.stdout.take().unwrap()), &mut id).unwrap();
    let id = ContainerId(id.trim().to_owned());
    agent.kill().unwrap();
    agent.wait().unwrap();

    assert_eq!(place.runtime.list_sandboxes().await.unwrap()[0].state, SandboxState::Ready);
    assert!(place.runtime.inspect_container(&id).await.unwrap().state.is_running());
    crate::logs::wait_for(&place, &id, "one").await;
    place.exec(&id, &["touch", "/tmp/go"]).await;
    assert_eq!(place.ended(&id).await.exit_code(), Some(11));
    assert_eq!(text(&place.log(&id).await), "one\ntwo\n");
    place.clean().await;
}

async fn a_helper_leaves_the_agents_cgroup_and_session() {
    let place = Place::new();
    let pod = place.pod().await;
    let helper = helper_of(&place, &pod.id);
    let cgroups = fs::read_to_string(format!("/proc/{helper}/cgroup")).unwrap();
    assert!(cgroups.lines().all(|line| line.ends_with(&format!("/{}/helpers", place.cgroup_parent()))), "{cgroups}");
    let stat = fs::read_to_string(format!("/proc/{helper}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let (parent, group, session) = (fields[1], fields[2], fields[3]);
    assert_ne!(parent, std::process::id().to_string());
    assert_eq!((group, session), (helper.to_string().as_str(), helper.to_string().as_str()));
    assert_eq!(fs::read_dir(format!("/proc/{helper}/task")).unwrap().count(), 1);
    // Nobody can write to the program through the helper.
    let mount = rustix::fs::statvfs(format!("/proc/{helper}/exe")).unwrap();
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    place.clean().await;
}

async fn a_killed_helper_is_noticed() {
    let mut place = Place::new();
    let config = sandbox();
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let main = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let done = place.run(&pod, shell("done", "exit 6")).await;
    place.ended(&done).await;
    let waiting = place.runtime.create_container(&pod.id, &container("waiting", &["true"])).await.unwrap();
    let mut events = place.runtime.events();
    let subscribed = events.next().await.unwrap();
    let gone = RuntimeEvent::Sandbox { id: pod.id.clone(), pod_uid: config.key.pod_uid.clone() };
    assert_eq!(subscribed, gone);
    kill(helper_of(&place, &pod.id));
    assert_eq!(events.next().await.unwrap(), gone);
    drop(events);

    assert_eq!(place.runtime.list_sandboxes().await.unwrap()[0].state, SandboxState::NotReady);
    let state = place.runtime.inspect_container(&main).await.unwrap().state;
    let ContainerState::Exited { exit_code: 137, started_at: Some(_), message, .. } = state else {
        panic!("{state:?}")
    };
    assert!(message.contains("helper"), "{message}");
    assert_eq!(place.runtime.inspect_container(&done).await.unwrap().state.exit_code(), Some(6));
    assert_eq!(place.runtime.inspect_container(&waiting).await.unwrap().state, ContainerState::Created);
    assert_eq!(processes_of(place.cgroup_parent().trim_start_matches("orchestrator-")), Vec::<String>::new());

    place.again();
    assert!(matches!(place.runtime.run_sandbox(&config).await, Err(RuntimeError::WrongState(_))));
    place.runtime.stop_container(&main, Duration::from_secs(1)).await.unwrap();
    place.runtime.start_container(&main).await.unwrap();
    assert!(matches!(place.runtime.start_container(&waiting).await, Err(RuntimeError::WrongState(_))));
    place.runtime.remove_container(&done).await.unwrap();
    assert_eq!(place.runtime.list_containers().await.unwrap().len(), 2);
    place.runtime.stop_sandbox(&pod.id).await.unwrap();
    // The pod goes on in its next sandbox.
    let mut next = config.clone();
    next.key.attempt = 1;
    let next = place.runtime.run_sandbox(&next).await.unwrap();
    assert_eq!(next.state, SandboxState::Ready);
    place.clean().await;
}

async fn a_killed_helper_leaves_nothing() {
    let place = Place::new();
    let pod = place.pod().await;
    for number in 0..3 {
        place.run(&pod, container(&format!("c{number}"), &["sleep", "1000"])).await;
    }
    kill(helper_of(&place, &pod.id));
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    assert!(place.runtime.list_containers().await.unwrap().is_empty());
    place.clean().await;
}

async fn a_helper_does_not_grow() {
    let place = Place::new();
    let pod = place.pod().await;
    let helper = helper_of(&place, &pod.id);
    let children = || {
        let list = fs::read_to_string(format!("/proc/{helper}/task/{helper}/children")).unwrap();
        list.split_whitespace().count()
    };
    let descriptors = || fs::read_dir(format!("/proc/{helper}/fd")).unwrap().count();
    let main = place.run(&pod, container("main", &["sleep", "1000"])).await;
    place.exec(&main, &["true"]).await;
    // What was just asked for may still be on its way out, so the least of some looks counts.
    let settled = || async {
        let mut least = (usize::MAX, usize::MAX);
        for _ in 0..20 {
            least = least.min((children(), descriptors()));
            Env::real().sleep(Duration::from_millis(5)).await;
        }
        least
    };
    let before = settled().await;
    assert_eq!(before.0, 1);
    for number in 0..10 {
        place.exec(&main, &["true"]).await;
        let id = place.run(&pod, container(&format!("c{number}"), &["true"])).await;
        place.ended(&id).await;
        place.runtime.remove_container(&id).await.unwrap();
        assert!(place.runtime.port_forward(&pod.id, 1).await.is_err());
    }
    assert_eq!(settled().await, before);
    let status = fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kilobytes: u64 = anonymous.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kilobytes < 4096, "{kilobytes} kB");
    place.clean().await;
}

async fn many_pods_at_once() {
    let place = Place::new();
    let runs = (0..16).map(|number| {
        let place = &place;
        async move {
            let pod = place.pod().await;
            let line = format!("echo {number}; exit {number}");
            let result = place.output(&pod, shell("main", &line)).await;
            assert_eq!(result, (number, format!("{number}\n")));
            if number % 2 == 0 {
                place.runtime.remove_sandbox(&pod.id).await.unwrap();
            }
        }
    });
    futures::future::join_all(runs).await;
    assert_eq!(place.runtime.list_sandboxes().await.unwrap().len(), 8);
    place.clean().await;
}

async fn a_helper_of_its_own() {
    let mut place = Place::new();
    let name = place.cgroup_parent().trim_start_matches("orchestrator-").to_owned();
    let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_orchestrator-pod-helper"));
    let builder = crate::support::builder(&place.directory, &name);
    place.runtime = builder.clone().helper(Helper::Program(program)).build(Env::real()).unwrap();
    let pod = place.pod().await;
    assert_eq!(place.output(&pod, shell("main", "echo hello")).await, (0, "hello\n".to_owned()));
    // A program that is no helper is found out, and nothing is left of the attempt.
    let wrong = builder.helper(Helper::Program("/bin/true".into())).build(Env::real()).unwrap();
    let error = wrong.run_sandbox(&sandbox()).await.unwrap_err();
    assert!(format!("{error:?}").contains("no pod helper"), "{error:?}");
    place.clean().await;
}

async fn a_start_cut_short_is_made_good() {
    let place = Place::new();
    let config = sandbox();
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    kill(helper_of(&place, &pod.id));
    // As if the helper had died before the sandbox was ready.
    let directory = place.directory.join("sandboxes").join(&pod.id.0);
    fs::remove_file(directory.join("state.json")).unwrap();
    let again = place.runtime.run_sandbox(&config).await.unwrap();
    assert_eq!((again.id, again.state), (pod.id.clone(), SandboxState::Ready));
    // And before it had written down anything at all.
    kill(helper_of(&place, &pod.id));
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    fs::create_dir_all(&directory).unwrap();
    assert!(place.runtime.list_sandboxes().await.unwrap().is_empty());
    assert_eq!(place.runtime.run_sandbox(&config).await.unwrap().state, SandboxState::Ready);
    place.clean().await;
}
