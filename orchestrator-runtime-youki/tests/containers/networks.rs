//! Pods reach each other by their addresses, and nothing else.

use std::{collections::BTreeSet, fs};

use orchestrator_core::{
    env::Env,
    runtime::{ContainerRuntime, RuntimeError},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Place, builder, container, sandbox, shell};

crate::tests!(
    two_pods_reach_each_other,
    ports_are_forwarded,
    addresses_do_not_collide,
    a_small_network_is_used_up_and_given_back,
    the_machine_is_not_reached,
);

const SERVER: &str = "
import socket, sys
listener = socket.create_server(('', 8080))
print('ready', flush=True)
while True:
    connection, peer = listener.accept()
    connection.sendall(b'hello ' + peer[0].encode() + b' ' + connection.recv(100))
    connection.close()
";

fn server() -> orchestrator_core::runtime::ContainerConfig {
    container("server", &["/usr/bin/python3", "-u", "-c", SERVER])
}

async fn two_pods_reach_each_other() {
    let place = Place::new();
    let neighbour = place.neighbour("node-2");
    let interfaces = || fs::read_to_string("/proc/net/dev").unwrap().lines().count();
    let before = interfaces();
    let one = place.pod().await;
    let two = neighbour.run_sandbox(&sandbox()).await.unwrap();
    let id = place.run(&one, server()).await;
    crate::logs::wait_for(&place, &id, "ready").await;
    let line = format!("exec 3<>/dev/tcp/{}/8080; echo -n you >&3; cat <&3", one.addresses[0]);
    let client = neighbour.create_container(&two.id, &container("client", &["bash", "-c", &line])).await.unwrap();
    neighbour.start_container(&client).await.unwrap();
    let mut lines = neighbour
        .logs(&client, orchestrator_core::runtime::LogOptions { follow: true, ..Default::default() })
        .await
        .unwrap();
    let answer = futures::StreamExt::next(&mut lines).await.unwrap().unwrap();
    assert_eq!(answer.content, format!("hello {} you", two.addresses[0]));
    assert_eq!(interfaces(), before);
    neighbour.remove_sandbox(&two.id).await.unwrap();
    assert!(place.runtime.remove_network().await.is_err());
    // Goes on after the bridge's other user has left.
    let three = place.pod().await;
    let (_, output) = place.output(&three, container("client", &["bash", "-c", &line])).await;
    assert_eq!(output, format!("hello {} you\n", three.addresses[0]));
    place.clean().await;
}

async fn ports_are_forwarded() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, server()).await;
    crate::logs::wait_for(&place, &id, "ready").await;
    for _ in 0..3 {
        let mut connection = place.runtime.port_forward(&pod.id, 8080).await.unwrap();
        connection.write_all(b"there").await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "hello 127.0.0.1 there");
    }
    let refused = place.runtime.port_forward(&pod.id, 9).await;
    assert!(
        matches!(refused, Err(RuntimeError::WrongState(message)) if message.contains("IPv4: dial tcp4 127.0.0.1:9: connect: connection refused IPv6 "))
    );
    place.clean().await;
}

async fn addresses_do_not_collide() {
    let place = Place::new();
    let neighbour = place.neighbour("node-2");
    let (a, b, c, d) = (sandbox(), sandbox(), sandbox(), sandbox());
    let pods = futures::join!(
        place.runtime.run_sandbox(&a),
        neighbour.run_sandbox(&b),
        place.runtime.run_sandbox(&c),
        neighbour.run_sandbox(&d),
    );
    let pods = [pods.0.unwrap(), pods.1.unwrap(), pods.2.unwrap(), pods.3.unwrap()];
    let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| &pod.addresses).collect();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    for pod in neighbour.list_sandboxes().await.unwrap() {
        neighbour.remove_sandbox(&pod.id).await.unwrap();
    }
    place.clean().await;
}

async fn a_small_network_is_used_up_and_given_back() {
    let place = Place::new();
    let name = place.cgroup_parent().trim_start_matches("orchestrator-").to_owned();
    let small = builder(&place.directory.join("small"), &name)
        .network_directory(place.directory.join("network"))
        .pod_network("10.244.7.0/30".parse().unwrap())
        .build(Env::real())
        .unwrap();
    let one = small.run_sandbox(&sandbox()).await.unwrap();
    let two = small.run_sandbox(&sandbox()).await.unwrap();
    assert_eq!(one.addresses[0].to_string(), "10.244.7.1");
    assert_eq!(two.addresses[0].to_string(), "10.244.7.2");
    let third = sandbox();
    let error = small.run_sandbox(&third).await.unwrap_err();
    assert!(error.to_string().contains("pod helper") && format!("{error:?}").contains("in use"), "{error:?}");
    assert_eq!(small.list_sandboxes().await.unwrap().len(), 2);
    small.stop_sandbox(&one.id).await.unwrap();
    assert_eq!(small.run_sandbox(&third).await.unwrap().addresses, one.addresses);
    for pod in small.list_sandboxes().await.unwrap() {
        small.remove_sandbox(&pod.id).await.unwrap();
    }
    place.clean().await;
}

async fn the_machine_is_not_reached() {
    let place = Place::new();
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let pod = place.pod().await;
    // Its loopback is the pod's own, and the gateway is the bridge, which leads nowhere.
    let line = format!(
        "for a in 127.0.0.1 10.244.0.1; do (echo > /dev/tcp/$a/{port}) 2>/dev/null && echo reached $a; done; ls /sys/class/net | tr '\\n' ' '"
    );
    let (_, output) = place.output(&pod, container("main", &["bash", "-c", &line])).await;
    assert_eq!(output, "eth0 lo \n");
    let (_, output) = place.output(&pod, shell("route", "cat /proc/net/route | wc -l")).await;
    assert_eq!(output, "3\n");
    place.clean().await;
}
