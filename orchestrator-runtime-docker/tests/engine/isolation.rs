//! Limits, confinement and mounts, as programs in containers see them.

use std::{fs, path::Path};

use orchestrator_core::runtime::{
    AppArmorProfile, ContainerConfig, ContainerRuntime, Mount, MountPropagation, Resources, RuntimeError,
    SeccompProfile, SecurityContext,
};

use crate::{
    subject::is_podman,
    support::{Place, container, docker, shell},
};

crate::tests!(
    limits_are_set,
    a_score_that_the_engine_cannot_give,
    users_and_groups,
    capabilities,
    privileged_containers,
    read_only_roots,
    new_privileges,
    seccomp_profiles,
    volumes,
    mounts_that_travel,
    what_is_not_done_is_refused,
);

/// A mount.
fn mount(from: &Path, to: &str, read_only: bool) -> Mount {
    Mount { host_path: from.to_owned(), container_path: to.into(), read_only, propagation: MountPropagation::Private }
}

fn with(name: &str, line: &str, change: impl FnOnce(&mut SecurityContext)) -> ContainerConfig {
    let mut config = shell(name, line);
    change(&mut config.security);
    config
}

/// A line of `/proc/self/status`.
const STATUS: &str = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";

async fn limits_are_set() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let mut main = shell("main", "cat /proc/self/oom_score_adj; echo set; sleep 1000");
    main.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_microseconds: Some(50_000),
        cpu_period_microseconds: Some(100_000),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(50),
        oom_score_adjust: Some(900),
    };
    let id = place.run(&pod, main).await;
    place.said(&id, "set").await;
    assert!(crate::support::text(&place.log(&id).await).starts_with("900\n"));
    let process = docker().await.inspect_container(&id.0, None).await.unwrap().state.unwrap().pid.unwrap();
    let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let read = |controller: &str, version_1: &str, version_2: &str| {
        let line =
            cgroups.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|name| name == controller));
        let (root, line, file) = match line {
            Some(line) => (format!("/sys/fs/cgroup/{controller}"), line, version_1),
            None => ("/sys/fs/cgroup".to_owned(), cgroups.lines().last().unwrap(), version_2),
        };
        let path = format!("{root}{}/{file}", line.split(':').nth(2).unwrap());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read("pids", "pids.max", "pids.max"), "50");
    assert!(["50000", "50000 100000"].contains(&read("cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert!(["512", "20"].contains(&read("cpu", "cpu.shares", "cpu.weight").as_str()));
    let stats = place.runtime.stats(&id).await.unwrap().unwrap();
    assert!(stats.pids >= 1 && stats.cpu_nanoseconds > 0, "{stats:?}");
    assert!((1..64 << 20).contains(&stats.memory_working_set_bytes), "{stats:?}");
    place.clean().await;
}

/// An engine without the right to make a process harder to kill makes it as hard as it can.
async fn a_score_that_the_engine_cannot_give() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let mut config = shell("main", "cat /proc/self/oom_score_adj");
    config.resources.oom_score_adjust = Some(-997);
    let (code, output) = place.output(&pod, config).await;
    assert!(code == 0 && ["-997\n", "0\n"].contains(&output.as_str()), "{output}");
    place.clean().await;
}

async fn users_and_groups() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let config = with("numbers", "id -u; id -g; id -G", |security| {
        security.run_as_user = Some(1234);
        security.run_as_group = Some(4321);
        security.supplemental_groups = vec![7, 8];
    });
    assert_eq!(place.output(&pod, config).await, (0, "1234\n4321\n4321 7 8\n".to_owned()));
    let config = with("group", "id -u; id -g", |security| security.run_as_group = Some(99));
    assert_eq!(place.output(&pod, config).await, (0, "0\n99\n".to_owned()));
    let config = with("wrong", "true", |security| security.run_as_user = Some(-1));
    assert!(matches!(place.runtime.create_container(&pod.id, &config).await, Err(RuntimeError::Invalid(_))));
    place.clean().await;
}

async fn capabilities() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let effective = async |name: &str, add: &[&str], drop: &[&str]| {
        let config = with(name, STATUS, |security| {
            security.add_capabilities = crate::support::words(add);
            security.drop_capabilities = crate::support::words(drop);
        });
        let (_, output) = place.output(&pod, config).await;
        let line = output.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    };
    const CHOWN: u64 = 1;
    const NET_ADMIN: u64 = 1 << 12;
    let usual = effective("usual", &[], &[]).await;
    assert!(usual & CHOWN != 0 && usual & NET_ADMIN == 0, "{usual:x}");
    assert_eq!(effective("none", &[], &["ALL"]).await, 0);
    assert_eq!(effective("one", &["NET_ADMIN"], &["ALL"]).await, NET_ADMIN);
    assert_eq!(effective("less", &[], &["CHOWN"]).await, usual & !CHOWN);
    assert_eq!(effective("more", &["NET_ADMIN"], &[]).await, usual | NET_ADMIN);
    let config = with("unknown", "true", |security| security.add_capabilities = vec!["NET_ADMIM".to_owned()]);
    let refused = place.runtime.create_container(&pod.id, &config).await;
    assert!(matches!(&refused, Err(RuntimeError::Invalid(why)) if why.contains("NET_ADMIM")), "{refused:?}");
    place.clean().await;
}

/// Whether the machine gives root all capabilities. If it does not, an engine on it cannot hand them on, and says so.
fn has_all_capabilities() -> bool {
    let status = fs::read_to_string("/proc/1/status").unwrap();
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    u64::from_str_radix(bounds.trim(), 16).unwrap() == (1 << (last + 1)) - 1
}

async fn privileged_containers() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let line = "test -e /dev/kmsg && echo devices; test -w /proc/sys/kernel/hostname && echo writable";
    let config = with("main", line, |security| security.privileged = true);
    // Podman gives what it has.
    if has_all_capabilities() || is_podman() {
        assert_eq!(place.output(&pod, config).await, (0, "devices\nwritable\n".to_owned()));
    } else {
        let id = place.runtime.create_container(&pod.id, &config).await.unwrap();
        let refused = place.runtime.start_container(&id).await;
        assert!(matches!(&refused, Err(RuntimeError::StartFailed(why)) if why.contains("caps")), "{refused:?}");
        let made = docker().await.inspect_container(&id.0, None).await.unwrap();
        assert_eq!(made.host_config.unwrap().privileged, Some(true));
    }
    let line = "test -e /dev/kmsg || echo no devices; (echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo refused";
    assert_eq!(place.output(&pod, shell("plain", line)).await, (0, "no devices\nrefused\n".to_owned()));
    let config = with("both", "true", |security| {
        security.privileged = true;
        security.no_new_privileges = true;
    });
    assert!(matches!(place.runtime.create_container(&pod.id, &config).await, Err(RuntimeError::Invalid(_))));
    place.clean().await;
}

async fn read_only_roots() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let config = with("main", "echo x > /file || echo refused", |security| security.read_only_root = true);
    assert_eq!(place.output(&pod, config).await, (0, "refused\n".to_owned()));
    place.clean().await;
}

async fn new_privileges() {
    let place = Place::new().await;
    let pod = place.pod().await;
    for (name, refused) in [("refused", true), ("allowed", false)] {
        let config = with(name, STATUS, |security| security.no_new_privileges = refused);
        let (_, output) = place.output(&pod, config).await;
        assert!(output.contains(&format!("NoNewPrivs:{}", u8::from(refused))), "{output}");
    }
    place.clean().await;
}

async fn seccomp_profiles() {
    let mut place = Place::new().await;
    let pod = place.pod().await;
    let profiles = place.directory.join("seccomp");
    fs::create_dir_all(profiles.join("team")).unwrap();
    let no_mkdir =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(profiles.join("team/no-mkdir.json"), no_mkdir).unwrap();
    fs::write(place.directory.join("outside.json"), no_mkdir).unwrap();
    let with_profile = |name: &str, profile: SeccompProfile| {
        let line = format!("mkdir /made && echo made; {STATUS}");
        with(name, &line, |security| security.seccomp_profile = profile)
    };
    let profile = |name: &str, file: &str| with_profile(name, SeccompProfile::Localhost(file.into()));
    let refused = place.runtime.create_container(&pod.id, &profile("none", "team/no-mkdir.json")).await;
    assert!(matches!(refused, Err(RuntimeError::Unsupported(_))), "{refused:?}");
    place.runtime = place.builder().seccomp_profiles(&profiles).build(orchestrator_core::env::Env::real()).unwrap();
    if is_podman() {
        let refused = place.runtime.create_container(&pod.id, &profile("own", "team/no-mkdir.json")).await;
        assert!(matches!(&refused, Err(RuntimeError::Unsupported(why)) if why.contains("seccomp")), "{refused:?}");
    } else {
        let (_, output) = place.output(&pod, profile("own", "team/no-mkdir.json")).await;
        assert!(!output.contains("made") && output.contains("Seccomp:2"), "{output}");
    }
    let (_, output) = place.output(&pod, with_profile("unconfined", SeccompProfile::Unconfined)).await;
    assert!(output.contains("made") && output.contains("Seccomp:0"), "{output}");
    let (_, output) = place.output(&pod, with_profile("default", SeccompProfile::RuntimeDefault)).await;
    assert!(output.contains("Seccomp:2"), "{output}");
    for (name, file) in [("missing", "nothing.json"), ("outside", "../outside.json")] {
        let refused = place.runtime.create_container(&pod.id, &profile(name, file)).await;
        assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
    }
    fs::remove_dir_all(&profiles).unwrap();
    fs::remove_file(place.directory.join("outside.json")).unwrap();
    place.clean().await;
}

async fn volumes() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let volume = place.directory.join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("index.html"), "hello\n").unwrap();
    let mut config = shell(
        "main",
        "cat /usr/share/html/index.html /data/one; echo written > /data/two/file; \
         echo x > /usr/share/html/x || echo ' refused'; cat /etc/resolv.conf",
    );
    config.mounts = vec![
        mount(&volume, "/usr/share/html", true),
        mount(&volume.join("index.html"), "/data/one", true),
        mount(&volume, "/data/two", false),
        // What is mounted by name comes instead of the engine's own.
        mount(&volume.join("index.html"), "/etc/resolv.conf", true),
    ];
    assert_eq!(place.output(&pod, config).await, (0, "hello\nhello\n refused\nhello\n".to_owned()));
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "written\n");
    let mut missing = container("missing", &["true"]);
    missing.mounts = vec![mount(&place.directory.join("nothing"), "/data", true)];
    let refused = place.runtime.create_container(&pod.id, &missing).await;
    assert!(matches!(&refused, Err(RuntimeError::Invalid(why)) if why.contains("nothing")), "{refused:?}");
    for path in ["relative", "/", "/a/../.."] {
        missing.mounts = vec![mount(&volume, path, true)];
        let refused = place.runtime.create_container(&pod.id, &missing).await;
        assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{path}: {refused:?}");
    }
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    // Removing a container leaves its volumes alone.
    assert_eq!(fs::read_to_string(volume.join("index.html")).unwrap(), "hello\n");
    fs::remove_dir_all(&volume).unwrap();
    place.clean().await;
}

/// A shared mount of the test's own, removed when it is dropped.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let shared = Self(path.to_owned());
        run("mount", &["-t", "tmpfs", "tmpfs", path.to_str().unwrap()]);
        run("mount", &["--make-shared", path.to_str().unwrap()]);
        fs::create_dir_all(path.join("inner")).unwrap();
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-R").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

async fn mounts_that_travel() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let shared = Shared::new(&place.directory.join("shared"));
    let line = "echo ready; until test -e /tmp/go; do sleep 0.02; done; test -e /data/inner/late && echo arrived";
    for (name, propagation, expected) in [
        ("private", MountPropagation::Private, "ready\n"),
        ("from-host", MountPropagation::HostToContainer, "ready\narrived\n"),
    ] {
        let mut config = shell(name, line);
        config.mounts = vec![Mount { propagation, ..mount(&shared.0, "/data", false) }];
        let id = place.run(&pod, config).await;
        place.said(&id, "ready").await;
        // Mounted after the start.
        let inner = shared.0.join("inner");
        run("mount", &["-t", "tmpfs", "tmpfs", inner.to_str().unwrap()]);
        fs::write(inner.join("late"), "").unwrap();
        place.exec(&id, &["touch", "/tmp/go"]).await;
        place.ended(&id).await;
        run("umount", &[inner.to_str().unwrap()]);
        assert_eq!(crate::support::text(&place.log(&id).await), expected, "{name}");
    }
    let mut both =
        with("both", "mount -t tmpfs tmpfs /data/inner && echo mounted", |security| security.privileged = true);
    both.mounts = vec![Mount { propagation: MountPropagation::Bidirectional, ..mount(&shared.0, "/data", false) }];
    if has_all_capabilities() || is_podman() {
        assert_eq!(place.output(&pod, both.clone()).await, (0, "mounted\n".to_owned()));
        run("umount", &[shared.0.join("inner").to_str().unwrap()]);
    } else {
        let id = place.runtime.create_container(&pod.id, &both).await.unwrap();
        let made = docker().await.inspect_container(&id.0, None).await.unwrap();
        let mounts = made.host_config.unwrap().mounts.unwrap();
        let propagation = mounts[0].bind_options.as_ref().unwrap().propagation.unwrap();
        assert_eq!(propagation.to_string(), "rshared");
    }
    both.key.attempt = 1;
    both.security.privileged = false;
    assert!(matches!(place.runtime.create_container(&pod.id, &both).await, Err(RuntimeError::Invalid(_))));
    drop(shared);
    place.clean().await;
}

async fn what_is_not_done_is_refused() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let apparmor = with("apparmor", "true", |security| {
        security.apparmor_profile = Some(AppArmorProfile::Localhost("no-such".to_owned()))
    });
    let id = place.runtime.create_container(&pod.id, &apparmor).await;
    match id {
        // Where there is AppArmor, a profile that is not loaded fails the start.
        Ok(id) => assert!(matches!(place.runtime.start_container(&id).await, Err(RuntimeError::StartFailed(_)))),
        Err(error) => assert!(matches!(error, RuntimeError::Unsupported(_)), "{error:?}"),
    }
    let unconfined =
        with("unconfined", "true", |security| security.apparmor_profile = Some(AppArmorProfile::Unconfined));
    assert_eq!(place.output(&pod, unconfined).await.0, 0);
    let mut tiny = container("tiny", &["true"]);
    tiny.resources.memory_limit_bytes = Some(1 << 20);
    match place.runtime.create_container(&pod.id, &tiny).await {
        // Podman leaves it to the kernel.
        Ok(id) if is_podman() => {
            let refused = place.runtime.start_container(&id).await;
            assert!(matches!(&refused, Err(RuntimeError::StartFailed(why)) if why.contains("memory")), "{refused:?}");
        }
        refused => assert!(matches!(&refused, Err(RuntimeError::Invalid(why)) if why.contains("emory")), "{refused:?}"),
    }
    let mut once = container("once", &["true"]);
    once.stdin_once = true;
    assert!(matches!(place.runtime.create_container(&pod.id, &once).await, Err(RuntimeError::Invalid(_))));
    let mut name = container("under_score", &["true"]);
    name.key.name = "a_b".to_owned();
    assert!(matches!(place.runtime.create_container(&pod.id, &name).await, Err(RuntimeError::Invalid(_))));
    place.clean().await;
}
