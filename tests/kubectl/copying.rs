//! Files into a container and out of it, and joining what runs there: `cp`, `attach`, `run` with a terminal's streams.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use crate::{Test, stage::Stage};

pub(crate) const TESTS: &[(&str, Test)] = &[("copying", copying), ("attaching", attaching)];

/// A pod that repeats the lines that it reads.
const PARROT: &str = "apiVersion: v1
kind: Pod
metadata: {name: parrot}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    stdin: true
    command: [sh, -c, 'while read line; do echo heard $line; done']
";

fn parrot(stage: &Stage) {
    assert_eq!(stage.kubectl.run_with("create -f -", PARROT).stdout, "pod/parrot created\n");
    stage.kubectl.ok("wait --for=condition=Ready pod/parrot --timeout=60s");
}

fn copying(stage: &Stage) {
    let kubectl = &stage.kubectl;
    parrot(stage);
    let directory = stage.directory.join("files");
    fs::create_dir_all(directory.join("deep")).unwrap();
    // More than any pipe or message holds at once, and of no regular content.
    let large: Vec<u8> = (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(directory.join("large"), &large).unwrap();
    fs::write(directory.join("deep/small"), "small\n").unwrap();
    let (here, back) = (directory.display(), stage.directory.join("back"));
    assert_eq!(kubectl.ok(&format!("cp {here} parrot:/tmp/files")), "");
    kubectl.says("exec parrot -- cat /tmp/files/deep/small", "small");
    kubectl.says("exec parrot -- sh -c 'wc -c < /tmp/files/large'", "3000000");
    kubectl.ok(&format!("cp default/parrot:/tmp/files {} -c main", back.display()));
    assert_eq!(fs::read(back.join("large")).unwrap(), large);
    assert_eq!(fs::read_to_string(back.join("deep/small")).unwrap(), "small\n");
    kubectl.ok(&format!("cp {here}/deep/small parrot:/tmp/other-name"));
    kubectl.says("exec parrot -- cat /tmp/other-name", "small");
    let refused = kubectl.run(&format!("cp {here}/deep/small parrot:/proc/none/file"));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.ends_with("command terminated with exit code 2\n"), "{refused:#?}");
    let nobody = kubectl.run(&format!("cp {here}/deep/small nobody:/tmp/file"));
    assert_eq!((nobody.code, nobody.stderr.as_str()), (1, "Error from server (NotFound): pods \"nobody\" not found\n"));
}

fn attaching(stage: &Stage) {
    let kubectl = &stage.kubectl;
    parrot(stage);
    // The container outlives whoever talks to it: two of them do, one after the other.
    for word in ["hello", "goodbye"] {
        let mut command = kubectl.command("attach -i parrot");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{word}").unwrap();
        assert_eq!(said.next().unwrap().unwrap(), format!("heard {word}"));
        // `timeout` hands this signal on.
        kill(child.id());
        child.wait().unwrap();
    }
    kubectl.says("logs parrot", "heard hello\nheard goodbye");
    let other = kubectl.run("attach parrot -c other");
    assert_eq!(other.stderr, "error: cannot attach to the container: container other not found in pod parrot\n");
    kubectl.fails("attach nobody", "Error from server (NotFound): pods \"nobody\" not found");
    // A pod for one command, with its streams, its exit code, and its end.
    let run = "run once --rm -i --restart=Never --image=busybox -- sh -c 'cat; echo done; exit 3'";
    let answer = kubectl.run_with(run, "given\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (3, "given\ndone\npod \"once\" deleted\n"), "{answer:#?}");
    kubectl.fails("get pod once", "Error from server (NotFound): pods \"once\" not found");
}

fn kill(process: u32) {
    assert!(std::process::Command::new("kill").arg(process.to_string()).status().unwrap().success());
}
