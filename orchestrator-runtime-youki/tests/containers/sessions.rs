//! Commands inside running containers, terminals, and joining a container's own streams.

use std::time::Duration;

use orchestrator_core::runtime::{AttachOptions, ContainerRuntime, ExecOptions, RuntimeError, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Place, container, shell, words};

crate::tests!(
    commands_run_inside,
    input_reaches_the_command,
    a_command_that_is_not_there,
    a_dropped_command_ends,
    many_at_once,
    commands_on_a_terminal,
    joining_a_container,
    a_container_on_a_terminal,
);

async fn commands_run_inside() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = container("main", &["sleep", "1000"]);
    config.environment = vec![("OWN".to_owned(), "value".to_owned())];
    config.working_directory = Some("/opt".to_owned());
    let id = place.run(&pod, config).await;
    let (code, output) = place.exec(&id, &["sh", "-c", "pwd; echo $OWN; cat /proc/1/comm; exit 12"]).await;
    assert_eq!((code, output.as_str()), (12, "/opt\nvalue\nsleep\n"));
    let options = ExecOptions {
        command: words(&["sh", "-c", "echo out; echo err >&2; kill -9 $$"]),
        stdout: true,
        stderr: true,
        ..ExecOptions::default()
    };
    let mut session = place.runtime.exec(&id, options).await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    session.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
    session.stderr.as_mut().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str(), session.exit.await.unwrap()), ("out\n", "err\n", 137));
    place.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let options = ExecOptions { command: words(&["true"]), ..ExecOptions::default() };
    assert!(matches!(place.runtime.exec(&id, options).await, Err(RuntimeError::WrongState(_))));
    place.clean().await;
}

async fn input_reaches_the_command() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let options = ExecOptions { command: words(&["wc", "-c"]), stdin: true, stdout: true, ..ExecOptions::default() };
    let mut session = place.runtime.exec(&id, options).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let mut output = String::new();
    session.stdout.as_mut().unwrap().read_to_string(&mut output).await.unwrap();
    assert_eq!((output.as_str(), session.exit.await.unwrap()), ("1000000\n", 0));
    place.clean().await;
}

async fn a_command_that_is_not_there() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    for (program, says) in [
        ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
        ("/no/such", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let options = ExecOptions { command: words(&[program]), stdout: true, ..ExecOptions::default() };
        match place.runtime.exec(&id, options).await {
            Err(RuntimeError::StartFailed(message)) => assert!(message.contains(says), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(place.exec(&id, &["echo", "still here"]).await, (0, "still here\n".to_owned()));
    place.clean().await;
}

async fn a_dropped_command_ends() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, shell("main", "until test -e /tmp/go; do sleep 0.02; done; sleep 1000")).await;
    let options = ExecOptions {
        command: words(&["sh", "-c", "echo ready; exec sleep 1001"]),
        stdout: true,
        ..ExecOptions::default()
    };
    let mut session = place.runtime.exec(&id, options).await.unwrap();
    let mut ready = [0; 6];
    session.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
    let stdout = session.stdout.take().unwrap();
    drop(session);
    // Its output ends when it does.
    let mut stdout = stdout;
    stdout.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(place.runtime.inspect_container(&id).await.unwrap().state.is_running());
    place.clean().await;
}

async fn many_at_once() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let runs = (0..10).map(|number| {
        let (place, id) = (&place, &id);
        async move {
            let line = format!("echo {number}; exit {number}");
            place.exec(id, &["sh", "-c", &line]).await
        }
    });
    for (number, result) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(result, (number as i32, format!("{number}\n")));
    }
    place.clean().await;
}

async fn commands_on_a_terminal() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let options = ExecOptions {
        command: words(&[
            "sh",
            "-c",
            "tty; trap 'stty size; exit 3' WINCH; echo ready; while true; do sleep 0.02; done",
        ]),
        stdin: true,
        stdout: true,
        tty: true,
        ..ExecOptions::default()
    };
    let mut session = place.runtime.exec(&id, options).await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    let mut output = String::new();
    while !output.contains("ready") {
        let mut chunk = [0; 100];
        let count = stdout.read(&mut chunk).await.unwrap();
        assert!(count > 0, "{output}");
        output.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    session.resize.as_ref().unwrap().send(TerminalSize { width: 123, height: 45 }).await.unwrap();
    let (code, rest) = futures::join!(session.exit, async {
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        rest
    });
    output.push_str(&rest);
    assert!(output.starts_with("/dev/pts/") && output.contains("45 123"), "{output}");
    assert_eq!(code.unwrap(), 3);
    place.clean().await;
}

async fn joining_a_container() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = container("main", &["sh", "-c", "while read line; do echo got $line; done; echo end; exit 8"]);
    config.stdin = true;
    config.stdin_once = true;
    let id = place.run(&pod, config).await;
    let options = AttachOptions { stdin: true, stdout: true, stderr: true, tty: false };
    let mut session = place.runtime.attach(&id, options).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    drop(stdin);
    let mut output = String::new();
    session.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "got one\ngot two\nend\n");
    assert_eq!(session.exit.await.unwrap(), 8);
    assert_eq!(crate::support::text(&place.log(&id).await), output);
    place.clean().await;
}

async fn a_container_on_a_terminal() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = container("main", &["sh", "-c", "tty; read line; echo got $line; exit 2"]);
    config.stdin = true;
    config.tty = true;
    let id = place.run(&pod, config).await;
    let options = AttachOptions { stdin: true, stdout: true, stderr: false, tty: true };
    let mut session = place.runtime.attach(&id, options).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let mut output = String::new();
    session.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
    assert!(output.contains("got hello"), "{output}");
    assert_eq!(session.exit.await.unwrap(), 2);
    assert!(crate::support::text(&place.log(&id).await).contains("/dev/pts/"));
    place.clean().await;
}
