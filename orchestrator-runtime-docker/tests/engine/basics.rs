//! The verbs on a real engine: what the contract does not ask because only real containers can show it.

use std::time::Duration;

use bollard::models::HostConfig;
use orchestrator_core::{
    env::Env,
    runtime::{ContainerRuntime, ContainerState, DnsConfig, NamespaceOptions, Resources, RuntimeError, SandboxState},
};
use orchestrator_runtime_docker::PodNetwork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    subject::is_podman,
    support::{Place, SHELL, builder, container, docker, holdings, sandbox, shell, words},
};

crate::tests!(
    exit_codes_and_signals,
    out_of_memory,
    stop_signal_of_ones_own,
    a_program_that_is_not_there,
    commands_and_environment,
    containers_of_a_pod_share_what_they_should,
    the_machines_namespaces,
    name_resolution_of_ones_own,
    kernel_parameters_of_the_pod,
    connections_into_a_pod,
    clusters_do_not_see_each_other,
    what_a_dead_agent_left_half_done,
    many_pods_at_once,
    networks_of_a_cluster,
);

async fn exit_codes_and_signals() {
    let place = Place::new().await;
    let pod = place.pod().await;
    // A first process ignores signals that it does not handle, so a second one is needed to die of one.
    let line = "(sh -c 'kill -TERM $$'; echo $?) 2>/dev/null; exit 7";
    assert_eq!(place.output(&pod, shell("seven", line)).await, (7, "143\n".to_owned()));
    let killed = place.run(&pod, container("killed", &["sleep", "1000"])).await;
    place.runtime.stop_container(&killed, Duration::ZERO).await.unwrap();
    let state = place.runtime.inspect_container(&killed).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, signal: Some(9), .. }), "{state:?}");
    place.clean().await;
}

async fn out_of_memory() {
    let place = Place::new().await;
    let pod = place.pod().await;
    // What has no line break is kept in memory whole.
    let mut config = container("eater", &["tail", "/dev/zero"]);
    config.resources = Resources { memory_limit_bytes: Some(32 << 20), ..Resources::default() };
    let id = place.run(&pod, config).await;
    let state = place.ended(&id).await;
    let ContainerState::Exited { exit_code, reason, .. } = &state else { panic!("{state:?}") };
    assert_eq!((*exit_code, reason.as_str()), (137, if is_podman() { "Error" } else { "OOMKilled" }));
    place.clean().await;
}

async fn stop_signal_of_ones_own() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let mut config = shell("main", "trap 'exit 9' USR1; echo ready; while true; do sleep 0.05; done");
    config.stop_signal = Some("SIGUSR1".to_owned());
    let id = place.run(&pod, config.clone()).await;
    place.said(&id, "ready").await;
    place.runtime.stop_container(&id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(place.runtime.inspect_container(&id).await.unwrap().state.exit_code(), Some(9));
    config.key.attempt = 1;
    config.stop_signal = Some("SIGNOTHING".to_owned());
    let refused = place.runtime.create_container(&pod.id, &config).await;
    assert!(matches!(&refused, Err(RuntimeError::Invalid(why)) if why.contains("SIGNOTHING")), "{refused:?}");
    place.clean().await;
}

async fn a_program_that_is_not_there() {
    let mut place = Place::new().await;
    let pod = place.pod().await;
    for (name, program, says) in [
        ("name", "no-such-program", "executable file not found in $PATH"),
        ("path", "/no/such/program", "no such file or directory"),
        ("mode", "/etc/passwd", "permission denied"),
    ] {
        let id = place.runtime.create_container(&pod.id, &container(name, &[program])).await.unwrap();
        let Err(RuntimeError::StartFailed(message)) = place.runtime.start_container(&id).await else {
            panic!("{name}")
        };
        assert!(message.contains(says), "{message}");
        // It has ended, for a new agent as well.
        place.again();
        place.runtime.start_container(&id).await.unwrap();
        let state = place.runtime.inspect_container(&id).await.unwrap().state;
        let ContainerState::Exited { started_at: None, exit_code: 128, reason, message, .. } = state else {
            panic!("{state:?}")
        };
        assert_eq!(reason, "StartError");
        assert!(message.contains(says), "{message}");
    }
    place.clean().await;
}

async fn commands_and_environment() {
    let place = Place::new().await;
    let pod = place.pod().await;
    // The image has a command and no entry point: arguments replace the command.
    let mut config = container("main", &[]);
    config.args = words(&["sh", "-c", "pwd; echo $FROM_IMAGE $OWN $HOME; hostname; id -u; id -g"]);
    config.working_directory = Some("/made/for/this".to_owned());
    config.environment = vec![("OWN".to_owned(), "a b".to_owned()), ("HOME".to_owned(), "/made".to_owned())];
    config.security.run_as_user = Some(1234);
    config.security.run_as_group = Some(4321);
    let (code, output) = place.output(&pod, config).await;
    let hostname = pod.name.replace("pod", "host");
    assert_eq!((code, output), (0, format!("/made/for/this\nyes a b /made\n{hostname}\n1234\n4321\n")));
    place.clean().await;
}

async fn containers_of_a_pod_share_what_they_should() {
    let place = Place::new().await;
    place.pull(SHELL).await;
    let mut config = sandbox();
    for shared in [false, true] {
        config.key.attempt += 1;
        config.namespaces.share_process_namespace = shared;
        let pod = place.runtime.run_sandbox(&config).await.unwrap();
        // Both at once: the number of a namespace that is gone may come again.
        let one = place.run(&pod, container("one", &["sleep", "1000"])).await;
        let other = place.run(&pod, container("other", &["sleep", "1000"])).await;
        let spaces = "for space in net ipc pid; do stat -Lc %i /proc/self/ns/$space; done; hostname";
        let (_, one) = place.exec(&one, &["sh", "-c", spaces]).await;
        let (_, other) = place.exec(&other, &["sh", "-c", spaces]).await;
        let (one, other): (Vec<&str>, Vec<&str>) = (one.lines().collect(), other.lines().collect());
        assert_eq!((one[0], one[1], one[3]), (other[0], other[1], other[3]));
        assert_eq!(one[2] == other[2], shared, "{one:?} {other:?}");
        // In a process namespace of the pod the sandbox reaps what nobody else does.
        if shared {
            let orphan = "(sh -c 'echo $$ > /tmp/number; exit 3' &); until test -s /tmp/number; do sleep 0.02; done; \
                          while test -e /proc/$(cat /tmp/number); do sleep 0.02; done; grep Name /proc/1/status";
            let (_, output) = place.output(&pod, shell("orphan", orphan)).await;
            assert_eq!(output, "Name:\tpause\n");
        }
        place.runtime.remove_sandbox(&pod.id).await.unwrap();
    }
    place.clean().await;
}

async fn the_machines_namespaces() {
    let place = Place::new().await;
    place.pull(SHELL).await;
    let mut config = sandbox();
    config.namespaces =
        NamespaceOptions { host_network: true, host_pid: true, host_ipc: true, ..NamespaceOptions::default() };
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    assert!(pod.addresses.is_empty());
    let line = "for space in net ipc pid uts; do stat -Lc %i /proc/self/ns/$space; done";
    let (_, output) = place.output(&pod, shell("main", line)).await;
    let own: String = ["net", "ipc", "pid", "uts"]
        .map(|space| {
            use std::os::unix::fs::MetadataExt;
            format!("{}\n", std::fs::metadata(format!("/proc/self/ns/{space}")).unwrap().ino())
        })
        .concat();
    assert_eq!(output, own);
    config.key.attempt = 1;
    config.namespaces.share_process_namespace = true;
    assert!(matches!(place.runtime.run_sandbox(&config).await, Err(RuntimeError::Invalid(_))));
    place.clean().await;
}

async fn name_resolution_of_ones_own() {
    let mut place = Place::new().await;
    place.pull(SHELL).await;
    let mut config = sandbox();
    config.dns = DnsConfig {
        servers: vec!["192.0.2.10".to_owned()],
        searches: words(&["default.svc.cluster.local", "cluster.local"]),
        options: vec!["ndots:5".to_owned()],
    };
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    place.again();
    let (_, output) = place.output(&pod, shell("main", "cat /etc/resolv.conf")).await;
    assert_eq!(output, "search default.svc.cluster.local cluster.local\nnameserver 192.0.2.10\noptions ndots:5\n");
    // The file goes with the sandbox, and what belongs to none goes when the next agent makes one.
    let files = place.directory.join("resolv");
    let stray = files.join("orchestrator_stray");
    std::fs::write(&stray, "").unwrap();
    place.again();
    let other = place.runtime.run_sandbox(&sandbox()).await.unwrap();
    assert!(!stray.exists() && files.join(&pod.id.0).exists() && !files.join(&other.id.0).exists());
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    assert!(!files.join(&pod.id.0).exists());
    let mut wrong = sandbox();
    wrong.dns.options = vec!["a\nnameserver 10.0.0.1".to_owned()];
    assert!(matches!(place.runtime.run_sandbox(&wrong).await, Err(RuntimeError::Invalid(_))));
    place.clean().await;
}

async fn kernel_parameters_of_the_pod() {
    let place = Place::new().await;
    place.pull(SHELL).await;
    let mut config = sandbox();
    config.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "81".to_owned());
    config.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let line = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    assert_eq!(place.output(&pod, shell("main", line)).await, (0, "81\n1\n".to_owned()));
    // What the engine cannot set leaves nothing, and can be asked for anew.
    let mut wrong = sandbox();
    wrong.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "nonsense".to_owned());
    for _ in 0..2 {
        let refused = place.runtime.run_sandbox(&wrong).await;
        assert!(matches!(refused, Err(RuntimeError::StartFailed(_))), "{refused:?}");
    }
    assert_eq!(place.runtime.list_sandboxes().await.unwrap().len(), 1);
    let mut machine = sandbox();
    machine.sysctls.insert("kernel.panic".to_owned(), "1".to_owned());
    assert!(matches!(place.runtime.run_sandbox(&machine).await, Err(RuntimeError::Unsupported(_))));
    let mut limited = sandbox();
    limited.resources.memory_limit_bytes = Some(1 << 30);
    assert!(matches!(place.runtime.run_sandbox(&limited).await, Err(RuntimeError::Unsupported(_))));
    place.clean().await;
}

/// A server inside of the pod's network namespace: its socket is made there, as those of port-forward are.
async fn connections_into_a_pod() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let inspected = docker().await.inspect_container(&pod.id.0, None).await.unwrap();
    let key = inspected.network_settings.unwrap().sandbox_key.unwrap();
    let listener = std::thread::spawn(move || {
        let namespace = std::fs::File::open(key).unwrap();
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind)).unwrap();
        std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap()
    })
    .join()
    .unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (connection, accepted) = futures::join!(place.runtime.port_forward(&pod.id, port), listener.accept());
    let (mut connection, mut accepted) = (connection.unwrap(), accepted.unwrap().0);
    connection.write_all(b"ping").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut got = String::new();
    accepted.read_to_string(&mut got).await.unwrap();
    accepted.write_all(b"pong").await.unwrap();
    drop(accepted);
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert_eq!((got.as_str(), answer.as_str()), ("ping", "pong"));
    assert!(place.runtime.port_forward(&pod.id, 1).await.is_err());
    place.runtime.stop_sandbox(&pod.id).await.unwrap();
    assert!(matches!(place.runtime.port_forward(&pod.id, port).await, Err(RuntimeError::WrongState(_))));
    drop(listener);
    place.clean().await;
}

async fn clusters_do_not_see_each_other() {
    let place = Place::new().await;
    place.pull(SHELL).await;
    let config = sandbox();
    let other_cluster = builder(&place.directory, &format!("{}-b", place.cluster)).build(Env::real()).unwrap();
    let other_node = place.builder().node("node-2").build(Env::real()).unwrap();
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    for stranger in [&other_cluster, &other_node] {
        assert!(
            stranger.list_sandboxes().await.unwrap().is_empty() && stranger.list_containers().await.unwrap().is_empty()
        );
        assert!(matches!(stranger.inspect_container(&id).await, Err(RuntimeError::NotFound { .. })));
        assert!(matches!(stranger.stop_container(&id, Duration::ZERO).await, Err(RuntimeError::NotFound { .. })));
        stranger.remove_container(&id).await.unwrap();
        stranger.remove_sandbox(&pod.id).await.unwrap();
        assert!(place.runtime.inspect_container(&id).await.unwrap().state.is_running());
        // The very same pod is another one there.
        let twin = stranger.run_sandbox(&config).await.unwrap();
        assert_ne!(twin.id, pod.id);
        stranger.remove_sandbox(&twin.id).await.unwrap();
        stranger.remove_leftovers().await.unwrap();
        assert!(place.runtime.inspect_sandbox(&pod.id).await.unwrap().state == SandboxState::Ready);
    }
    assert!(matches!(place.runtime.remove_leftovers().await, Err(RuntimeError::WrongState(_))));
    place.clean().await;
}

/// As if an agent had died between two words with the engine.
async fn what_a_dead_agent_left_half_done() {
    let mut place = Place::new().await;
    let pod = place.pod().await;
    let engine = docker().await;
    // Made, and not started: the next call makes it good.
    let config = sandbox();
    let made = place.runtime.run_sandbox(&config).await.unwrap();
    let inspected = engine.inspect_container(&made.id.0, None).await.unwrap();
    engine.remove_container(&made.id.0, Some(force())).await.unwrap();
    let again = bollard::models::ContainerCreateBody {
        image: inspected.config.as_ref().unwrap().image.clone(),
        labels: inspected.config.as_ref().unwrap().labels.clone(),
        hostname: inspected.config.as_ref().unwrap().hostname.clone(),
        // Podman cannot read its own limits.
        host_config: inspected.host_config.map(|config| HostConfig { ulimits: None, ..config }),
        ..bollard::models::ContainerCreateBody::default()
    };
    let options = bollard::query_parameters::CreateContainerOptions {
        name: Some(made.id.0.clone()),
        ..bollard::query_parameters::CreateContainerOptions::default()
    };
    engine.create_container(Some(options), again).await.unwrap();
    place.again();
    assert_eq!(place.runtime.inspect_sandbox(&made.id).await.unwrap().state, SandboxState::NotReady);
    let ready = place.runtime.run_sandbox(&config).await.unwrap();
    assert_eq!((&ready.id, ready.state), (&made.id, SandboxState::Ready));
    // The sandbox died by itself: its containers can be seen and removed, and nothing starts there.
    let main = place.run(&ready, container("main", &["sleep", "1000"])).await;
    let waiting = place.runtime.create_container(&ready.id, &container("waiting", &["true"])).await.unwrap();
    engine.kill_container(&ready.id.0, None).await.unwrap();
    while place.runtime.inspect_sandbox(&ready.id).await.unwrap().state == SandboxState::Ready {}
    assert!(matches!(place.runtime.start_container(&waiting).await, Err(RuntimeError::WrongState(_))));
    assert!(matches!(place.runtime.run_sandbox(&config).await, Err(RuntimeError::WrongState(_))));
    place.runtime.stop_sandbox(&ready.id).await.unwrap();
    assert_eq!(place.runtime.inspect_container(&main).await.unwrap().state.exit_code(), Some(137));
    // Cut short while it was removed: its own container is gone, one of the others is not. Podman does not let that happen.
    let removed = engine.remove_container(&ready.id.0, Some(force())).await;
    assert_eq!(removed.is_err(), is_podman(), "{removed:?}");
    assert_eq!(place.runtime.list_containers().await.unwrap().len(), 2);
    place.runtime.remove_sandbox(&ready.id).await.unwrap();
    assert!(place.runtime.list_containers().await.unwrap().is_empty());
    assert_eq!(place.runtime.list_sandboxes().await.unwrap(), [pod]);
    place.clean().await;
}

fn force() -> bollard::query_parameters::RemoveContainerOptions {
    bollard::query_parameters::RemoveContainerOptions { force: true, v: true, link: false }
}

async fn many_pods_at_once() {
    let place = Place::new().await;
    place.pull(SHELL).await;
    let runs = (0..6).map(|number| {
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
    assert_eq!(place.runtime.list_sandboxes().await.unwrap().len(), 3);
    place.clean().await;
}

async fn networks_of_a_cluster() {
    let place = Place::new().await;
    let subnet = PodNetwork::Cluster { subnet: Some("10.99.7.0/24".to_owned()) };
    let own = place.builder().network(subnet.clone()).build(Env::real()).unwrap();
    let neighbour = place.builder().node("node-2").network(subnet).build(Env::real()).unwrap();
    let networks = || async { holdings(Some(&place.cluster)).await.networks.len() };
    let configs = [sandbox(), sandbox()];
    let (one, other) = futures::join!(own.run_sandbox(&configs[0]), neighbour.run_sandbox(&configs[1]));
    let (one, other) = (one.unwrap(), other.unwrap());
    let in_subnet =
        |pod: &orchestrator_core::runtime::SandboxStatus| pod.addresses[0].to_string().starts_with("10.99.7.");
    assert!(in_subnet(&one) && in_subnet(&other) && one.addresses != other.addresses, "{one:?} {other:?}");
    assert_eq!(networks().await, 1, "nodes of a cluster share one network");
    // What another node has pods on stays.
    own.remove_sandbox(&one.id).await.unwrap();
    own.remove_leftovers().await.unwrap();
    assert_eq!(networks().await, 1);
    neighbour.remove_sandbox(&other.id).await.unwrap();
    neighbour.remove_leftovers().await.unwrap();
    assert_eq!(networks().await, 0);
    for nonsense in ["nonsense", "10.0.0.0", "10.0.0.0/33", "x/8"] {
        let network = PodNetwork::Cluster { subnet: Some(nonsense.to_owned()) };
        let refused = place.builder().network(network).build(Env::real());
        assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
    }
    let engines = place.builder().network(PodNetwork::Existing("bridge".to_owned())).build(Env::real()).unwrap();
    let pod = engines.run_sandbox(&sandbox()).await.unwrap();
    assert_eq!(pod.addresses.len(), 1);
    assert_eq!(networks().await, 0);
    engines.remove_sandbox(&pod.id).await.unwrap();
    place.clean().await;
}
