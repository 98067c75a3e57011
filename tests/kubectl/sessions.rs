//! `exec` and `attach`, over WebSockets and over the SPDY of older clients.

use std::process::Stdio;

use crate::{
    Test,
    stage::Stage,
    support::{Kubectl, file},
};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("sessions_over_web_sockets", over_web_sockets), ("sessions_over_spdy", over_spdy)];

fn over_web_sockets(stage: &Stage) {
    sessions(&stage.kubectl.with("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true"));
}

fn over_spdy(stage: &Stage) {
    sessions(&stage.kubectl.with("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"));
}

fn sessions(kubectl: &Kubectl) {
    kubectl.ok(&format!("create -f {}", file("tests/seed/pod-busybox.yaml")));
    kubectl.ok("wait --for=condition=Ready pod/my-first-pod --timeout=60s");
    exec(kubectl);
    input_that_nobody_reads(kubectl);
    terminal(kubectl);
    attach(kubectl);
}

fn exec(kubectl: &Kubectl) {
    kubectl.says("exec my-first-pod -- hostname", "my-first-pod");
    let answer = kubectl.run("exec my-first-pod -- sh -c 'echo out; echo err >&2; exit 3'");
    assert_eq!(answer.code, 3);
    assert_eq!(answer.stdout, "out\n");
    assert_eq!(answer.stderr, "err\ncommand terminated with exit code 3\n");
    let answer = kubectl.run_with("exec -i my-first-pod -- cat", "one\ntwo\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "one\ntwo\n"));
    let large = "0123456789abcdef".repeat(20_000);
    let answer = kubectl.run_with("exec -i my-first-pod -- sh -c 'cat | wc -c'", &large);
    assert_eq!((answer.code, answer.stdout.trim()), (0, "320000"));
    let answer = kubectl.run("exec my-first-pod -c other -- true");
    assert_eq!(
        (answer.code, answer.stderr.as_str()),
        (1, "Error from server (BadRequest): container other is not valid for pod my-first-pod\n")
    );
    let answer = kubectl.run("exec my-first-pod -- no-such-program");
    assert_ne!(answer.code, 0);
    assert!(answer.stderr.contains("no-such-program"), "{answer:#?}");
    kubectl.fails("exec nobody -- true", "Error from server (NotFound): pods \"nobody\" not found");
}

/// More than fits into all buffers on the way: it hinders neither what the command says nor its end.
fn input_that_nobody_reads(kubectl: &Kubectl) {
    let answer = kubectl.run_with("exec -i my-first-pod -- sh -c 'echo deaf; sleep 0.5; exit 5'", &"x".repeat(8 << 20));
    assert_eq!((answer.code, answer.stdout.as_str()), (5, "deaf\n"), "{}", answer.stderr);
}

/// Runs a command in a terminal of 40 lines and 100 columns, and types a line.
const TERMINAL: &str = "
import fcntl, os, pty, struct, sys, termios
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 100, 0, 0))
os.write(terminal, b'typed\\n')
try:
    while piece := os.read(terminal, 4096):
        sys.stdout.buffer.write(piece)
except OSError:
    pass
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";

fn terminal(kubectl: &Kubectl) {
    let script = "n=0; until [ \"$(stty size)\" = \"40 100\" ] || [ $n = 100 ]; do n=$((n+1)); sleep 0.1; done; stty size; read line; echo got $line; exit 6";
    let inner = kubectl.command(&format!("exec -it my-first-pod -- sh -c '{script}'"));
    let mut command = std::process::Command::new("python3");
    command.args(["-c", TERMINAL]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("40 100\r\n") && text.contains("got typed\r\n"), "{text}");
    assert_eq!(output.status.code(), Some(6), "{text}");
}

fn attach(kubectl: &Kubectl) {
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: listener}\nspec: {restartPolicy: Never, containers: \
                    [{name: main, image: busybox, stdin: true, stdinOnce: true, command: [sh, -c, 'cat; echo end']}]}\n";
    assert_eq!(kubectl.run_with("create -f -", manifest).stdout, "pod/listener created\n");
    kubectl.ok("wait --for=condition=Ready pod/listener --timeout=60s");
    let answer = kubectl.run_with("attach -i listener", "said\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "said\nend\n"), "{}", answer.stderr);
}
