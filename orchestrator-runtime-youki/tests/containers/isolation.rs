//! What a container can see and change, and what not.

use std::{fs, path::Path};

use orchestrator_core::runtime::{ContainerRuntime, Mount, MountPropagation, Resources, RuntimeError, SecurityContext};

use crate::support::{Place, container, sandbox, shell};

crate::tests!(
    the_machine_does_not_change,
    volumes_anywhere,
    secrets_are_hidden,
    limits_are_set,
    process_limit_holds,
    own_processes_only,
    capabilities_and_devices,
    files_of_the_pod,
    links_lead_nowhere,
    the_machines_namespaces,
    containers_of_a_pod_share_memory,
    containers_of_a_pod_share_processes,
);

/// A mount.
pub(crate) fn mount(from: &Path, to: &str, read_only: bool) -> Mount {
    Mount { host_path: from.to_owned(), container_path: to.into(), read_only, propagation: MountPropagation::Private }
}

async fn the_machine_does_not_change() {
    let place = Place::new();
    let before = fs::read_to_string("/etc/passwd").unwrap();
    let pod = place.pod().await;
    let line = "echo gone > /etc/passwd; rm -f /etc/group; mkdir -p /usr/new /opt/new; echo x > /usr/new/file; \
                echo x > /tmp/from-container; echo x > /run/from-container; cat /etc/passwd /usr/new/file; \
                test ! -e /etc/group && echo removed";
    let (code, output) = place.output(&pod, shell("writer", line)).await;
    assert_eq!((code, output.as_str()), (0, "gone\nx\nremoved\n"));
    assert_eq!(fs::read_to_string("/etc/passwd").unwrap(), before);
    for path in ["/usr/new", "/opt/new", "/tmp/from-container", "/run/from-container"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    assert!(Path::new("/etc/group").exists());
    // Another container sees the machine, not the first one's changes.
    let (_, output) = place.output(&pod, shell("reader", "test -e /usr/new || head -1 /etc/passwd")).await;
    assert_eq!(output.trim(), before.lines().next().unwrap());

    let mut read_only =
        shell("read-only", "echo x > /usr/file || touch /etc/file || echo refused; echo x > /tmp/file && echo scratch");
    read_only.security = SecurityContext { read_only_root: true, ..SecurityContext::default() };
    assert_eq!(place.output(&pod, read_only).await, (0, "refused\nscratch\n".to_owned()));
    place.clean().await;
}

async fn volumes_anywhere() {
    let place = Place::new();
    let volume = place.directory.join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("index.html"), "hello").unwrap();
    let pod = place.pod().await;
    let mut config = shell(
        "main",
        "cat /usr/share/nginx/html/index.html /var/run/secrets/kubernetes.io/serviceaccount/index.html /data/one; \
         echo written > /data/two/file; echo x > /usr/share/nginx/html/x || echo ' refused'",
    );
    config.mounts = vec![
        mount(&volume, "/usr/share/nginx/html", true),
        mount(&volume, "/var/run/secrets/kubernetes.io/serviceaccount", true),
        mount(&volume.join("index.html"), "/data/one", true),
        mount(&volume, "/data/two", false),
    ];
    assert_eq!(place.output(&pod, config).await, (0, "hellohellohello refused\n".to_owned()));
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "written\n");
    for path in ["/usr/share/nginx/html", "/data", "/var/run/secrets"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    let mut missing = container("missing", &["true"]);
    missing.mounts = vec![mount(&place.directory.join("nothing"), "/data", true)];
    let id = place.runtime.create_container(&pod.id, &missing).await.unwrap();
    let error = place.runtime.start_container(&id).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::StartFailed(message) if message.contains("nothing")), "{error}");
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    // Removing a container leaves its volumes alone.
    assert_eq!(fs::read_to_string(volume.join("index.html")).unwrap(), "hello");
    fs::remove_dir_all(&volume).unwrap();
    place.clean().await;
}

async fn secrets_are_hidden() {
    let place = Place::new();
    let secret = place.directory.join("secret");
    fs::create_dir_all(&place.directory).unwrap();
    fs::write(&secret, "secret").unwrap();
    let pod = place.pod().await;
    let line = format!("ls -A {0} | wc -l; cat {0}/secret || echo hidden", place.directory.display());
    assert_eq!(place.output(&pod, shell("main", &line)).await, (0, "0\nhidden\n".to_owned()));
    fs::remove_file(&secret).unwrap();
    place.clean().await;
}

async fn limits_are_set() {
    let place = Place::new();
    let mut config = sandbox();
    config.resources = Resources { memory_limit_bytes: Some(128 << 20), ..Resources::default() };
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let mut main = shell(
        "main",
        "cat /proc/self/oom_score_adj; ls /sys/fs/cgroup | wc -l; echo 1 > $(find /sys/fs/cgroup/ -name cgroup.procs | head -1) || echo read-only; sleep 1000",
    );
    main.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_microseconds: Some(50_000),
        cpu_period_microseconds: Some(100_000),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(50),
        oom_score_adjust: Some(900),
    };
    let id = place.run(&pod, main).await;
    crate::logs::wait_for(&place, &id, "read-only").await;
    assert!(crate::support::text(&place.log(&id).await).starts_with("900\n"));
    let cgroups = crate::support::cgroups_of(place.cgroup_parent().trim_start_matches("orchestrator-"));
    let read = |end: &str, version_1: &str, version_2: &str| {
        let directories = cgroups.iter().filter(|path| path.ends_with(end));
        let values: Vec<String> = directories
            .flat_map(|path| [version_1, version_2].map(|file| fs::read_to_string(path.join(file))))
            .filter_map(Result::ok)
            .collect();
        values.first().unwrap_or_else(|| panic!("{version_1} in {end} of {cgroups:?}")).trim().to_owned()
    };
    assert_eq!(read("main.0", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read(&pod.id.0, "memory.limit_in_bytes", "memory.max"), (128 << 20).to_string());
    assert_eq!(read("main.0", "pids.max", "pids.max"), "50");
    assert!(["50000", "50000 100000"].contains(&read("main.0", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert!(["512", "20"].contains(&read("main.0", "cpu.shares", "cpu.weight").as_str()));
    let stats = place.runtime.stats(&id).await.unwrap().unwrap();
    assert!(stats.pids >= 1 && stats.cpu_nanoseconds > 0 && stats.memory_working_set_bytes > 0, "{stats:?}");
    place.clean().await;
}

async fn process_limit_holds() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = container(
        "main",
        &[
            "/usr/bin/python3",
            "-c",
            "
import os
made = 0
try:
    for _ in range(40):
        if os.fork() == 0:
            os.execvp('sleep', ['sleep', '1000'])
        made += 1
except OSError:
    print('refused', made < 20)
",
        ],
    );
    config.resources.pids_limit = Some(20);
    assert_eq!(place.output(&pod, config).await, (0, "refused True\n".to_owned()));
    place.clean().await;
}

async fn own_processes_only() {
    let place = Place::new();
    let pod = place.pod().await;
    let line = "echo $$; ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm";
    let (_, output) = place.output(&pod, shell("main", line)).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines[0], lines[2]), ("1", "sh"), "{output}");
    assert!(lines[1].parse::<u32>().unwrap() < 5, "{output}");
    place.clean().await;
}

async fn capabilities_and_devices() {
    let place = Place::new();
    let pod = place.pod().await;
    let line = "grep CapEff /proc/self/status; mount -t tmpfs x /mnt 2>/dev/null || echo no-mount; \
                ls /dev | tr '\\n' ' '; echo; mknod /dev/disk b 254 0 2>/dev/null; head -c 1 /dev/disk 2>/dev/null || echo no-disk; \
                echo 1 > /proc/sys/kernel/panic || echo no-sysctl";
    let (_, output) = place.output(&pod, shell("main", line)).await;
    let bits = u64::from_str_radix(output.lines().next().unwrap().trim_start_matches("CapEff:").trim(), 16).unwrap();
    assert_eq!(bits & (1 << 21 | 1 << 12 | 1 << 24), 0, "{output}");
    for expected in ["no-mount", "no-disk", "no-sysctl", "null", "urandom"] {
        assert!(output.contains(expected), "{expected} in {output}");
    }
    assert!(!output.contains("vda"), "{output}");

    let mut none = shell("none", "grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\n'");
    none.security.drop_capabilities = vec!["ALL".to_owned()];
    none.security.add_capabilities = vec!["NET_BIND_SERVICE".to_owned()];
    none.security.no_new_privileges = true;
    let (_, output) = place.output(&pod, none).await;
    assert_eq!(output, "CapEff:\t0000000000000400NoNewPrivs:\t1\n");
    place.clean().await;
}

async fn files_of_the_pod() {
    let place = Place::new();
    let mut config = sandbox();
    config.dns.servers = vec!["10.96.0.10".to_owned()];
    config.dns.searches = vec!["default.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()];
    config.dns.options = vec!["ndots:5".to_owned()];
    config.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "99".to_owned());
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let line = "cat /etc/resolv.conf /etc/hostname; hostname; grep \"$(hostname)\" /etc/hosts; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let expected = format!(
        "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n{0}\n{0}\n{1}\t{0}\n99\n",
        config.hostname, pod.addresses[0]
    );
    assert_eq!(place.output(&pod, shell("main", line)).await, (0, expected));
    // What the agent mounts there wins.
    let hosts = place.directory.join("hosts");
    fs::write(&hosts, "127.0.0.9 mine\n").unwrap();
    let mut own = shell("own", "cat /etc/hosts");
    own.mounts.push(mount(&hosts, "/etc/hosts", false));
    assert_eq!(place.output(&pod, own).await, (0, "127.0.0.9 mine\n".to_owned()));
    fs::remove_file(hosts).unwrap();
    place.clean().await;
}

async fn links_lead_nowhere() {
    let place = Place::new();
    let volume = place.directory.join("volume");
    fs::create_dir_all(&volume).unwrap();
    let pod = place.pod().await;
    let mut writer = shell("writer", "ln -s /opt /data/link; ln -s ../../../../../../../../opt /data/up");
    writer.mounts.push(mount(&volume, "/data", false));
    let id = place.run(&pod, writer).await;
    place.ended(&id).await;
    // A mount below a link that a container made stays in the container.
    let mut through = shell("through", "echo x > /data/link/inner/file; echo $?");
    through.mounts = ["/data", "/data/link/inner", "/data/up/deeper"].map(|path| mount(&volume, path, false)).to_vec();
    assert_eq!(place.output(&pod, through).await, (0, "0\n".to_owned()));
    assert!(!Path::new("/opt/inner").exists() && !Path::new("/opt/deeper").exists());
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    fs::remove_dir_all(volume).unwrap();
    place.clean().await;
}

async fn containers_of_a_pod_share_memory() {
    let place = Place::new();
    let (pod, other) = (place.pod().await, place.pod().await);
    let writer = place.run(&pod, shell("writer", "echo hello > /dev/shm/note; echo ready; sleep 1000")).await;
    crate::logs::wait_for(&place, &writer, "ready").await;
    let line = "cat /dev/shm/note || echo none; df /dev/shm | tail -1 | awk '{ print $2 }'";
    assert_eq!(place.output(&pod, shell("reader", line)).await, (0, "hello\n65536\n".to_owned()));
    // It outlives the container that wrote, and stays in the pod.
    place.runtime.remove_container(&writer).await.unwrap();
    assert_eq!(place.output(&pod, shell("later", "cat /dev/shm/note")).await.1, "hello\n");
    assert_eq!(place.output(&other, shell("reader", line)).await.1, "none\n65536\n");
    assert!(!Path::new("/dev/shm/note").exists());
    place.clean().await;
}

async fn containers_of_a_pod_share_processes() {
    let place = Place::new();
    let mut config = sandbox();
    config.namespaces.share_process_namespace = true;
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let one = place.run(&pod, shell("one", "sleep 1001 & sleep 1002 & echo ready; wait")).await;
    crate::logs::wait_for(&place, &one, "ready").await;
    let two = place
        .run(&pod, shell("two", "cat /proc/1/comm; cat /proc/[0-9]*/cmdline | tr '\\0' ' '; kill -9 1; echo alive"))
        .await;
    assert_eq!(place.ended(&two).await.exit_code(), Some(0));
    let seen = crate::support::text(&place.log(&two).await);
    assert!(seen.starts_with("pause\n") && seen.contains("sleep 1001") && seen.ends_with("alive\n"), "{seen}");
    assert_eq!(place.exec(&one, &["sh", "-c", "pgrep -c sleep"]).await.1, "2\n");
    // All processes of a container end with it, and no others.
    place.runtime.stop_container(&one, std::time::Duration::ZERO).await.unwrap();
    let three = place.output(&pod, shell("three", "pgrep -c sleep; pgrep -c pause")).await.1;
    assert_eq!(three, "0\n1\n");
    place.clean().await;
}

async fn the_machines_namespaces() {
    let place = Place::new();
    let mut config = sandbox();
    config.namespaces.host_network = true;
    config.namespaces.host_pid = true;
    config.namespaces.host_ipc = true;
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    assert!(pod.addresses.is_empty());
    let line = "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc; sleep 1000 & sleep 1000 & exit 4";
    let id = place.run(&pod, shell("main", line)).await;
    assert_eq!(place.ended(&id).await.exit_code(), Some(4));
    let own: String = ["net", "pid", "ipc"]
        .map(|name| format!("{}\n", fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display()))
        .concat();
    assert_eq!(crate::support::text(&place.log(&id).await), own);
    // Its other processes ended with the first, although no process namespace ended them.
    let left = crate::support::processes_of(place.cgroup_parent().trim_start_matches("orchestrator-"));
    assert!(left.iter().all(|process| !process.contains("sleep")), "{left:?}");
    place.clean().await;
}
