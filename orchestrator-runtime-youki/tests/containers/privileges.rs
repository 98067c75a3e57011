//! Containers that may do whatever the machine's root may do.

use std::{collections::BTreeSet, fs, path::Path};

use orchestrator_core::runtime::{ContainerConfig, ContainerRuntime, RuntimeError, SeccompProfile, SecurityContext};

use crate::support::{Place, shell};

crate::tests!(privileged_containers_have_everything, others_have_it_not, privileged_containers_end_like_others);

fn privileged(name: &str, line: &str) -> ContainerConfig {
    let mut config = shell(name, line);
    // As upstream, a profile of a privileged container is not in force.
    let seccomp_profile = SeccompProfile::RuntimeDefault;
    config.security = SecurityContext { privileged: true, seccomp_profile, ..SecurityContext::default() };
    config
}

/// A field of a status in `/proc`.
fn field(text: &str, name: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim().to_owned()
}

/// Paths of the machine's devices.
fn devices(directory: &Path) -> BTreeSet<String> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && entry.file_name() != "pts" {
            found.extend(devices(&entry.path()));
        } else if kind.is_block_device() || kind.is_char_device() {
            found.insert(entry.path().display().to_string());
        }
    }
    found
}

async fn privileged_containers_have_everything() {
    let place = Place::new();
    let pod = place.pod().await;
    let line = "cat /proc/self/status; head -c 1 /dev/kmsg > /dev/null; \
                mknod /dev/own c 1 3 && echo x > /dev/own && echo devices; \
                mount -t tmpfs tmpfs /mnt && echo mounted; cat /proc/kcore | head -c 0 && echo unmasked; \
                cat /proc/sys/net/ipv4/ip_forward > /tmp/kept; \
                cat /tmp/kept > /proc/sys/net/ipv4/ip_forward && echo parameters; \
                grep -E '^[^ ]+ /sys sysfs rw' /proc/mounts > /dev/null && echo writable";
    let (code, output) = place.output(&pod, privileged("main", line)).await;
    assert_eq!(code, 0, "{output}");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&output, "CapEff"), field(&own, "CapPrm"));
    assert_eq!(field(&output, "Seccomp"), "0");
    for expected in ["devices\n", "mounted\n", "unmasked\n", "parameters\n", "writable\n"] {
        assert!(output.contains(expected), "{expected} in {output}");
    }

    let line = "find /dev -path /dev/pts -prune -o '(' -type b -o -type c ')' -print";
    let (_, output) = place.output(&pod, privileged("devices", line)).await;
    let mut expected = devices(Path::new("/dev"));
    // The pod's terminals are its own.
    expected.retain(|path| !["/dev/console", "/dev/ptmx"].contains(&path.as_str()));
    assert_eq!(output.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    // What was made in the container was made there alone.
    assert!(!Path::new("/dev/own").exists());

    // It sets limits of its own cgroup's children.
    let line = "d=$(dirname $(find /sys/fs/cgroup/ -name cgroup.procs | grep -E 'pids|cgroup/cgroup' | head -1)); \
                mkdir $d/inner && echo 7 > $d/inner/pids.max && cat $d/inner/pids.max && rmdir $d/inner";
    assert_eq!(place.output(&pod, privileged("cgroups", line)).await, (0, "7\n".to_owned()));
    place.clean().await;
}

async fn others_have_it_not() {
    let place = Place::new();
    let pod = place.pod().await;
    // Neighbours in the same pod.
    let strong = place.run(&pod, privileged("strong", "sleep 1000")).await;
    let (code, status) = place.exec(&strong, &["cat", "/proc/self/status"]).await;
    assert_eq!((code, field(&status, "Seccomp").as_str()), (0, "0"));
    let line = "test -e /dev/kmsg || echo no devices; (echo 1 > /proc/sys/net/ipv4/ip_forward) || echo refused; \
                mount -t tmpfs tmpfs /mnt || echo no mounts; grep -cE '^[^ ]+ /sys sysfs ro' /proc/mounts";
    let expected = "no devices\nrefused\nno mounts\n1\n".to_owned();
    assert_eq!(place.output(&pod, shell("plain", line)).await, (0, expected));
    let mut both = privileged("both", "true");
    both.security.no_new_privileges = true;
    assert!(matches!(place.runtime.create_container(&pod.id, &both).await, Err(RuntimeError::Invalid(_))));
    place.clean().await;
}

async fn privileged_containers_end_like_others() {
    let place = Place::new();
    let pod = place.pod().await;
    // What it leaves in its cgroup and in its mounts goes with it.
    let line = "for d in $(find /sys/fs/cgroup/ -mindepth 1 -maxdepth 1 -type d); do mkdir -p $d/left/behind; done; \
                mount -t tmpfs tmpfs /mnt; sleep 1000 & sleep 1000 & exit 3";
    let id = place.run(&pod, privileged("main", line)).await;
    assert_eq!(place.ended(&id).await.exit_code(), Some(3));
    place.runtime.remove_container(&id).await.unwrap();
    place.clean().await;
}
