//! Commands inside running containers, terminals, and joining a container's own streams.

use std::time::Duration;

use orchestrator_core::runtime::{AttachOptions, ContainerRuntime, ExecOptions, RuntimeError, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    subject::is_podman,
    support::{Place, container, shell, text, words},
};

crate::tests!(
    commands_run_inside,
    a_command_that_is_not_there,
    a_dropped_command_ends,
    a_command_that_outlives_its_time,
    a_child_that_keeps_the_output_open,
    many_at_once,
    commands_on_a_terminal,
    bytes_of_a_terminal_are_its_own,
    joining_a_container,
    a_container_on_a_terminal,
);

async fn commands_run_inside() {
    let place = Place::new().await;
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
    // What goes with its container has ended.
    let options = ExecOptions { command: words(&["sleep", "1001"]), ..ExecOptions::default() };
    let session = place.runtime.exec(&id, options).await.unwrap();
    place.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 137);
    place.clean().await;
}

async fn a_command_that_is_not_there() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    for (program, says) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        for (stdout, tty) in [(true, false), (true, true), (false, false)] {
            let options = ExecOptions { command: words(&[program]), stdout, tty, ..ExecOptions::default() };
            match place.runtime.exec(&id, options).await {
                // Podman begins a session and says in it what went wrong.
                Ok(session) if is_podman() => assert!([126, 127].contains(&session.exit.await.unwrap())),
                Err(RuntimeError::StartFailed(message)) => assert!(message.contains(says), "{message}"),
                other => panic!("{other:?}"),
            }
        }
    }
    let empty = place.runtime.exec(&id, ExecOptions::default()).await;
    assert!(matches!(empty, Err(RuntimeError::Invalid(_))), "{empty:?}");
    assert_eq!(place.exec(&id, &["sh", "-c", "echo still here"]).await, (0, "still here\n".to_owned()));
    place.clean().await;
}

async fn a_dropped_command_ends() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let options = ExecOptions {
        command: words(&["sh", "-c", "echo ready; exec sleep 1001"]),
        stdout: true,
        ..ExecOptions::default()
    };
    let mut session = place.runtime.exec(&id, options).await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 6]).await.unwrap();
    drop(session);
    // Its output ends when it does.
    stdout.read_to_end(&mut Vec::new()).await.unwrap();
    let (_, processes) = place.exec(&id, &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).await;
    assert!(!processes.contains("1001"), "{processes}");
    assert!(place.runtime.inspect_container(&id).await.unwrap().state.is_running());
    place.clean().await;
}

async fn a_command_that_outlives_its_time() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let options = ExecOptions { command: words(&["sleep", "1001"]), ..ExecOptions::default() };
    let session = place.runtime.exec(&id, options).await.unwrap();
    let env = orchestrator_core::env::Env::real();
    assert!(env.timeout(Duration::from_millis(200), session.exit).await.is_err());
    let gone = "while grep -l [1]001 /proc/[0-9]*/cmdline >/dev/null; do sleep 0.02; done; echo gone";
    assert_eq!(place.exec(&id, &["sh", "-c", gone]).await.1, "gone\n");
    place.clean().await;
}

async fn a_child_that_keeps_the_output_open() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let options = ExecOptions {
        command: words(&["sh", "-c", "sleep 1001 & echo done; exit 9"]),
        stdout: true,
        ..ExecOptions::default()
    };
    let session = place.runtime.exec(&id, options).await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 9);
    place.clean().await;
}

async fn many_at_once() {
    let place = Place::new().await;
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
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let line = "tty; trap 'stty size; exit 3' WINCH; echo ready; while true; do sleep 0.02; done";
    let options = ExecOptions {
        command: words(&["sh", "-c", line]),
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

/// Bytes that look like the engine's own headers, and the keys by which its command line leaves a terminal.
async fn bytes_of_a_terminal_are_its_own() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let line = "stty raw -echo; printf '\\001\\000\\000\\000\\000\\000\\000\\377x'; head -c 2 | cat -v; printf '\\002'";
    let options = ExecOptions {
        command: words(&["sh", "-c", line]),
        stdin: true,
        stdout: true,
        tty: true,
        ..ExecOptions::default()
    };
    let mut session = place.runtime.exec(&id, options).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let mut begun = [0; 9];
    stdout.read_exact(&mut begun).await.unwrap();
    assert_eq!(begun, [1, 0, 0, 0, 0, 0, 0, 255, b'x']);
    stdin.write_all(&[16, 17]).await.unwrap();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"^P^Q\x02");
    assert_eq!(session.exit.await.unwrap(), 0);
    place.clean().await;
}

async fn joining_a_container() {
    let place = Place::new().await;
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
    assert_eq!(text(&place.log(&id).await), output);
    let silent = place.run(&pod, container("silent", &["sleep", "1000"])).await;
    let refused = place.runtime.attach(&silent, options).await;
    assert!(matches!(refused, Err(RuntimeError::WrongState(_))), "{refused:?}");
    // Leaving is not ending.
    let watching = AttachOptions { stdin: false, ..options };
    drop(place.runtime.attach(&silent, watching).await.unwrap());
    assert!(place.runtime.inspect_container(&silent).await.unwrap().state.is_running());
    place.clean().await;
}

async fn a_container_on_a_terminal() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let mut config = shell("main", "tty; read line; stty size; echo got $line; exit 2");
    config.stdin = true;
    config.tty = true;
    let id = place.run(&pod, config).await;
    let options = AttachOptions { stdin: true, stdout: true, stderr: false, tty: true };
    let mut session = place.runtime.attach(&id, options).await.unwrap();
    let resize = session.resize.take().unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let talk = async {
        resize.send(TerminalSize { width: 99, height: 33 }).await.unwrap();
        // Taken when the next one is.
        resize.send(TerminalSize { width: 99, height: 33 }).await.unwrap();
        drop(resize.reserve().await.unwrap());
        stdin.write_all(b"hello\n").await.unwrap();
        let mut output = String::new();
        stdout.read_to_string(&mut output).await.unwrap();
        output
    };
    let (code, output) = futures::join!(session.exit, talk);
    assert!(output.contains("33 99") && output.contains("got hello"), "{output}");
    assert_eq!(code.unwrap(), 2);
    let log = text(&place.log(&id).await);
    assert!(log.contains("/dev/pts/") && log.contains("got hello"), "{log}");
    place.clean().await;
}
