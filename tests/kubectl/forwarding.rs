//! `port-forward`, through a WebSocket and over the SPDY of older clients.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    process::Stdio,
};

use crate::{
    Test,
    reading::Ended,
    stage::Stage,
    support::{Kubectl, file},
};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("forwarding_through_web_sockets", through_web_sockets), ("forwarding_over_spdy", over_spdy)];

fn through_web_sockets(stage: &Stage) {
    forwarding(&stage.kubectl.with("KUBECTL_PORT_FORWARD_WEBSOCKETS", "true"));
}

fn over_spdy(stage: &Stage) {
    forwarding(&stage.kubectl.with("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false"));
}

/// A pod that says backwards what it was told, once it was told everything.
const BACKWARDS: &str = "apiVersion: v1
kind: Pod
metadata: {name: backwards}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command:
    - python3
    - -c
    - |
      import socketserver
      class Backwards(socketserver.StreamRequestHandler):
          def handle(self):
              self.wfile.write(self.rfile.read()[::-1])
      server = socketserver.ThreadingTCPServer(('', 9000), Backwards)
      open('/tmp/listens', 'w').close()
      server.serve_forever()
    readinessProbe: {exec: {command: [test, -e, /tmp/listens]}, periodSeconds: 1}
";

fn forwarding(kubectl: &Kubectl) {
    kubectl.ok(&format!("create -f {}", file("examples/manifests/services.yaml")));
    kubectl.ok(&format!("create -f {}", file("tests/seed/deployment-definition.yaml")));
    assert_eq!(kubectl.run_with("create -f -", BACKWARDS).stdout, "pod/backwards created\n");
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    kubectl.ok("wait --for=condition=Ready pod/backwards --timeout=60s");

    // By the name of a service, many connections at once.
    let (_forward, ports) = forward(kubectl, "svc/back-end :80", 1);
    let mut connections: Vec<TcpStream> = (0..12).map(|_| connect(ports[0])).collect();
    connections.iter_mut().for_each(|connection| connection.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap());
    for connection in &mut connections {
        let text = String::from_utf8(read(connection)).unwrap();
        assert!(text.ends_with("\r\n\r\nWelcome to nginx\n"), "{text}");
    }

    // An end in one direction only, and a lot of data beside a connection that waits.
    let (mut forward, ports) = forward(kubectl, "pod/backwards :9000 :81", 2);
    let mut waiting = connect(ports[0]);
    waiting.write_all(b"123").unwrap();
    let text: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut connection = connect(ports[0]);
    connection.write_all(&text).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    let answer = read(&mut connection);
    assert!(answer.iter().eq(text.iter().rev()), "{} bytes came back", answer.len());
    waiting.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(&mut waiting), b"321");

    // A port that nobody listens on.
    let uid = kubectl.ok("get pod backwards -o jsonpath={.metadata.uid}");
    assert_eq!(read(&mut connect(ports[1])), b"");
    let mut errors = String::new();
    forward.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(forward.0.wait().unwrap().code(), Some(1), "{errors}");
    let local = ports[1];
    let first =
        format!("an error occurred forwarding {local} -> 81: error forwarding port 81 to pod backwards, uid {uid}: ");
    assert!(
        errors.contains(&first) && errors.contains(" dial tcp4 127.0.0.1:81: connect: connection refused "),
        "{errors}"
    );
    assert!(errors.ends_with("error: lost connection to pod\n"), "{errors}");

    kubectl.fails("port-forward pod/nobody :80", "Error from server (NotFound): pods \"nobody\" not found");
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
}

/// All that comes until the end.
fn read(connection: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // That `kubectl` resets it is an end, too.
    let _ = connection.read_to_end(&mut bytes);
    bytes
}

/// Starts to forward, and returns the local ports once they are listened on.
fn forward(kubectl: &Kubectl, what: &str, count: usize) -> (Ended, Vec<u16>) {
    let mut command = kubectl.command(&format!("port-forward --address 127.0.0.1 {what}"));
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Ended(command.spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.as_mut().unwrap()).lines().take(count).map(Result::unwrap);
    let ports = lines.map(|line| {
        let port =
            line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next()?.parse().ok());
        port.unwrap_or_else(|| panic!("{line}"))
    });
    let ports: Vec<u16> = ports.collect();
    if ports.len() < count {
        let mut errors = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        panic!("kubectl port-forward {what}: {errors}");
    }
    (child, ports)
}
