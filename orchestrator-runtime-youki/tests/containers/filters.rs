//! What a container's processes may ask of the kernel.

use std::fs;

use orchestrator_core::{
    env::Env,
    runtime::{ContainerConfig, ContainerRuntime, RuntimeError, SeccompProfile, SecurityContext},
};

use crate::support::{Place, builder, shell};

crate::tests!(the_profile_of_the_runtime, without_new_privileges, users_who_are_not_root, profiles_of_the_machine);

/// Prints how the shell itself is confined.
const STATUS: &str = "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status | tr -d '\\t'";

fn with(name: &str, line: &str, profile: SeccompProfile) -> ContainerConfig {
    let mut config = shell(name, line);
    config.security = SecurityContext { seccomp_profile: profile, ..SecurityContext::default() };
    config
}

async fn the_profile_of_the_runtime() {
    let place = Place::new();
    let pod = place.pod().await;
    let (_, output) = place.output(&pod, with("plain", STATUS, SeccompProfile::Unconfined)).await;
    let capabilities = output.lines().find(|line| line.starts_with("CapEff:")).unwrap().to_owned();
    assert!(output.contains("Seccomp:0"), "{output}");

    let line = format!("{STATUS}; unshare -U true || echo refused; mkdir /tmp/d && echo made");
    let (code, output) = place.output(&pod, with("confined", &line, SeccompProfile::RuntimeDefault)).await;
    assert!(code == 0 && output.contains("Seccomp:2") && output.contains("NoNewPrivs:0"), "{output}");
    assert!(output.contains(&capabilities), "{output} without {capabilities}");
    assert!(output.contains("refused\n") && output.contains("made\n"), "{output}");

    // Threads are made by a call whose arguments no filter can see.
    let threads = "python3 -c 'import threading; t = threading.Thread(target=print, args=[1]); t.start(); t.join()'";
    assert_eq!(
        place.output(&pod, with("threads", threads, SeccompProfile::RuntimeDefault)).await,
        (0, "1\n".to_owned())
    );

    // What runs inside later is confined in the same way.
    let id = place.run(&pod, with("long", "sleep 1000", SeccompProfile::RuntimeDefault)).await;
    let (_, output) = place.exec(&id, &["sh", "-c", STATUS]).await;
    assert!(output.contains("Seccomp:2") && output.contains(&capabilities), "{output}");
    let (code, _) = place.exec(&id, &["unshare", "-U", "true"]).await;
    assert_ne!(code, 0);
    place.runtime.stop_container(&id, std::time::Duration::ZERO).await.unwrap();

    // Who may do everything else may do that, too.
    let mut able = with("able", "unshare -m true && echo made", SeccompProfile::RuntimeDefault);
    able.security.add_capabilities = vec!["SYS_ADMIN".to_owned()];
    assert_eq!(place.output(&pod, able).await, (0, "made\n".to_owned()));
    place.clean().await;
}

async fn without_new_privileges() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = with("main", STATUS, SeccompProfile::RuntimeDefault);
    config.security.no_new_privileges = true;
    let (_, output) = place.output(&pod, config).await;
    assert!(output.contains("Seccomp:2") && output.contains("NoNewPrivs:1"), "{output}");
    place.clean().await;
}

async fn users_who_are_not_root() {
    let place = Place::new();
    let pod = place.pod().await;
    for no_new_privileges in [false, true] {
        let mut config = with(&format!("main-{no_new_privileges}"), STATUS, SeccompProfile::RuntimeDefault);
        config.security.run_as_user = Some(1234);
        config.security.no_new_privileges = no_new_privileges;
        let (_, output) = place.output(&pod, config).await;
        assert!(output.contains("Seccomp:2") && output.contains("CapEff:0000000000000000"), "{output}");
    }
    place.clean().await;
}

async fn profiles_of_the_machine() {
    let place = Place::new();
    let pod = place.pod().await;
    let profiles = place.directory.join("seccomp");
    fs::create_dir_all(profiles.join("team")).unwrap();
    let no_mkdir = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}"#;
    fs::write(profiles.join("team/no-mkdir.json"), no_mkdir).unwrap();
    fs::write(profiles.join("broken.json"), "{").unwrap();
    fs::write(place.directory.join("outside.json"), no_mkdir).unwrap();
    let file = |name: &str, file: &str| {
        let line = format!("mkdir /tmp/made 2>&1; {STATUS}");
        with(name, &line, SeccompProfile::Localhost(file.into()))
    };
    let refused = place.runtime.create_container(&pod.id, &file("none", "team/no-mkdir.json")).await;
    assert!(matches!(refused, Err(RuntimeError::Unsupported(_))), "{refused:?}");
    let name = place.cgroup_parent().trim_start_matches("orchestrator-").to_owned();
    let runtime = builder(&place.directory, &name).seccomp_profiles(&profiles).build(Env::real()).unwrap();
    for (name, path) in [("missing", "nothing.json"), ("outside", "../outside.json"), ("broken", "broken.json")] {
        let refused = runtime.create_container(&pod.id, &file(name, path)).await;
        assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
    }
    let id = runtime.create_container(&pod.id, &file("own", "team/no-mkdir.json")).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    place.ended(&id).await;
    let output = crate::support::text(&place.log(&id).await);
    assert!(output.contains("Input/output error") && output.contains("Seccomp:2"), "{output}");
    fs::remove_dir_all(&profiles).unwrap();
    fs::remove_file(place.directory.join("outside.json")).unwrap();
    place.clean().await;
}
