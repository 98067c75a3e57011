//! Pods with a user namespace: root inside is nobody outside.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use orchestrator_core::runtime::{
    ContainerRuntime, ExecOptions, RuntimeError, SandboxConfig, SandboxStatus, SeccompProfile,
};
use tokio::io::AsyncReadExt;

use crate::{
    isolation::mount,
    support::{Place, container, sandbox, shell, words},
};

crate::tests!(
    root_is_nobody_outside,
    every_pod_has_users_of_its_own,
    files_of_volumes_look_right,
    the_rest_works_as_ever,
    processes_may_be_shared,
    users_of_an_agent_that_comes_back,
    what_makes_no_sense_is_refused,
);

fn own_users() -> SandboxConfig {
    let mut config = sandbox();
    config.namespaces.user_namespace = true;
    config
}

impl Place {
    async fn pod_with_users(&self) -> SandboxStatus {
        self.runtime.run_sandbox(&own_users()).await.unwrap()
    }
}

/// The first user that the machine has for a pod, as a container of it sees the kernel's map.
async fn first_user(place: &Place, pod: &SandboxStatus, name: &str) -> u32 {
    let (code, map) =
        place.output(pod, shell(name, "cat /proc/self/uid_map; diff /proc/self/uid_map /proc/self/gid_map")).await;
    let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [0, first, 65_536] = numbers[..] else { panic!("{code} {map}") };
    assert!(first >= 65_536 && first % 65_536 == 0, "{first}");
    first
}

async fn root_is_nobody_outside() {
    let place = Place::new();
    let pod = place.pod_with_users().await;
    let first = first_user(&place, &pod, "map").await;
    // A file that only the machine's root reads, and one that only it writes.
    let canary = Path::new("/var").join(format!("youki-canary-{}", std::process::id()));
    fs::write(&canary, "secret").unwrap();
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o600)).unwrap();
    let main = place
        .run(
            &pod,
            shell("main", "id -u; id -g; grep CapEff /proc/self/status; echo x > /etc/passwd; echo ready; sleep 1000"),
        )
        .await;
    crate::logs::wait_for(&place, &main, "ready").await;
    let output = crate::support::text(&place.log(&main).await);
    assert!(output.starts_with("0\n0\n") && !output.contains("0000000000000000"), "{output}");
    let status = crate::support::processes_of(place.cgroup_parent().trim_start_matches("orchestrator-"))
        .into_iter()
        .find(|process| process.contains("sleep"))
        .map(|process| fs::read_to_string(format!("{}/status", process.split(' ').next().unwrap())).unwrap())
        .unwrap();
    assert!(status.contains(&format!("Uid:\t{first}\t{first}\t{first}\t{first}\n")), "{status}");
    assert!(status.contains(&format!("Gid:\t{first}\t{first}\t{first}\t{first}\n")), "{status}");

    // The machine's own files are root's inside, as the container's are; through the machine's own view they are not.
    let mut volume = shell("canary", "cat /canary && echo y > /canary && stat -c '%u %g' /canary");
    volume.mounts = vec![mount(&canary, "/canary", false)];
    assert_eq!(place.output(&pod, volume).await, (0, "secret0 0\n".to_owned()));
    assert_eq!(fs::metadata(&canary).unwrap().uid(), 0);
    // What needs root of the machine is refused whatever the container's capabilities are.
    let line = "mknod /dev/x b 254 0 || echo no-device; (echo 1 > /proc/sys/kernel/panic) || echo no-parameter; \
                mount -o remount,rw /sys || echo no-remount; hostname other && echo named";
    let mut strong = shell("strong", line);
    strong.security.add_capabilities = vec!["SYS_ADMIN".to_owned()];
    assert_eq!(place.output(&pod, strong).await, (0, "no-device\nno-parameter\nno-remount\nnamed\n".to_owned()));
    fs::remove_file(canary).unwrap();
    place.clean().await;
}

async fn every_pod_has_users_of_its_own() {
    let place = Place::new();
    let mut firsts = BTreeSet::new();
    for number in 0..3 {
        let pod = place.pod_with_users().await;
        // All containers of a pod have the same ones.
        let first = first_user(&place, &pod, "one").await;
        assert_eq!(first_user(&place, &pod, "two").await, first);
        assert!(firsts.insert(first), "{number}: {firsts:?}");
    }
    // Beside them, pods have the machine's.
    let pod = place.pod().await;
    let (_, map) = place.output(&pod, shell("main", "cat /proc/self/uid_map")).await;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"]);
    place.clean().await;

    // Another runtime, as that of another cluster, takes others.
    let (one, two) = (
        Place::with(|builder| builder.user_ranges(2000..=2001)),
        Place::with(|builder| builder.user_ranges(2000..=2001)),
    );
    let (first, second) = (one.pod_with_users().await, two.pod_with_users().await);
    assert_eq!(first_user(&one, &first, "main").await, 2000 * 65_536);
    assert_eq!(first_user(&two, &second, "main").await, 2001 * 65_536);
    let refused = one.runtime.run_sandbox(&own_users()).await.unwrap_err().to_string();
    assert!(refused.contains("2000 to 2001 are taken"), "{refused}");
    two.clean().await;
    // What was given back is given again.
    let third = one.pod_with_users().await;
    assert_eq!(first_user(&one, &third, "main").await, 2001 * 65_536);
    one.clean().await;
}

async fn files_of_volumes_look_right() {
    let place = Place::new();
    let volume = place.directory.join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("roots"), "r").unwrap();
    fs::write(volume.join("somebodys"), "s").unwrap();
    std::os::unix::fs::chown(volume.join("somebodys"), Some(1000), Some(2000)).unwrap();
    let pod = place.pod_with_users().await;
    let line = "stat -c '%u %g' /data/roots /data/somebodys /etc/hostname /usr /; echo mine > /data/mine; \
                touch /data/theirs; chown 33:44 /data/theirs; echo x > /read-only/x || echo refused; \
                cd /made/by/us && stat -c '%u' . && touch here && echo writable";
    let mut main = shell("main", line);
    main.working_directory = Some("/made/by/us".to_owned());
    main.mounts = vec![mount(&volume, "/data", false), mount(&volume, "/read-only", true)];
    let expected = "0 0\n1000 2000\n0 0\n0 0\n0 0\nrefused\n0\nwritable\n".to_owned();
    assert_eq!(place.output(&pod, main).await, (0, expected));
    let owner = |name: &str| fs::metadata(volume.join(name)).map(|file| (file.uid(), file.gid())).unwrap();
    assert_eq!((owner("mine"), owner("theirs")), ((0, 0), (33, 44)));
    // Somebody else in the container, with groups of the pod.
    let mut other = shell(
        "other",
        "id -u; id -G; cat /data/somebodys; echo x > /data/roots || echo refused; echo said > /dev/stdout",
    );
    other.security.run_as_user = Some(1000);
    other.security.run_as_group = Some(1000);
    other.security.supplemental_groups = vec![2000];
    other.mounts = vec![mount(&volume, "/data", false)];
    assert_eq!(place.output(&pod, other).await, (0, "1000\n1000 2000\nsrefused\nsaid\n".to_owned()));
    // A file system that maps no users.
    let mut unmapped = container("unmapped", &["true"]);
    unmapped.mounts = vec![mount(Path::new("/proc/sys/kernel"), "/data", true)];
    let id = place.runtime.create_container(&pod.id, &unmapped).await.unwrap();
    let refused = place.runtime.start_container(&id).await;
    assert!(matches!(&refused, Err(RuntimeError::Unsupported(why)) if why.contains("/proc/sys/kernel")), "{refused:?}");
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    fs::remove_dir_all(&volume).unwrap();
    place.clean().await;
}

async fn the_rest_works_as_ever() {
    let place = Place::new();
    let pod = place.pod_with_users().await;
    // Filters, limits and streams that are opened once more.
    let mut main =
        shell("main", "echo out > /dev/stdout; echo err > /dev/stderr; ip -o link | wc -l; echo ready; sleep 1000");
    main.security.seccomp_profile = SeccompProfile::RuntimeDefault;
    main.resources.pids_limit = Some(20);
    let id = place.run(&pod, main).await;
    crate::logs::wait_for(&place, &id, "ready").await;
    let log = crate::support::text(&place.log(&id).await);
    assert!(log.contains("out\n") && log.contains("err\n") && log.contains("2\nready\n"), "{log}");
    let (code, output) =
        place.exec(&id, &["sh", "-c", "id -u; echo also > /dev/stdout; grep Seccomp: /proc/self/status; exit 4"]).await;
    assert_eq!((code, output.as_str()), (4, "0\nalso\nSeccomp:\t2\n"));
    let options = ExecOptions { command: words(&["tty"]), stdout: true, tty: true, ..ExecOptions::default() };
    let mut session = place.runtime.exec(&id, options).await.unwrap();
    let mut terminal = String::new();
    session.stdout.as_mut().unwrap().read_to_string(&mut terminal).await.unwrap();
    assert!(terminal.starts_with("/dev/pts/"), "{terminal}");
    let stats = place.runtime.stats(&id).await.unwrap().unwrap();
    assert!(stats.pids >= 1, "{stats:?}");
    let mut terminal = shell("terminal", "tty; stat -c %u $(tty)");
    terminal.tty = true;
    let (_, output) = place.output(&pod, terminal).await;
    assert!(output.contains("/dev/pts/0") && output.contains("\n0"), "{output}");
    // The memory that containers of a pod share, and a root that refuses writes.
    let mut reader = shell("reader", "echo note > /dev/shm/note; cat /dev/shm/note; touch /x || echo refused");
    reader.security.read_only_root = true;
    assert_eq!(place.output(&pod, reader).await, (0, "note\nrefused\n".to_owned()));
    place.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(place.ended(&id).await.exit_code(), Some(137));
    place.clean().await;
}

async fn processes_may_be_shared() {
    let place = Place::new();
    let mut config = own_users();
    config.namespaces.share_process_namespace = true;
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let one = place.run(&pod, shell("one", "sleep 1001 & echo ready; wait")).await;
    crate::logs::wait_for(&place, &one, "ready").await;
    let line = "cat /proc/1/comm; stat -c %u /proc/1; pgrep -c sleep; kill -9 $(pgrep sleep) && echo killed";
    assert_eq!(place.output(&pod, shell("two", line)).await, (0, "pause\n0\n1\nkilled\n".to_owned()));
    assert_eq!(place.ended(&one).await.exit_code(), Some(0));
    place.clean().await;
}

async fn users_of_an_agent_that_comes_back() {
    let mut place = Place::new();
    let pod = place.pod_with_users().await;
    let first = first_user(&place, &pod, "before").await;
    place.again();
    assert_eq!(first_user(&place, &pod, "after").await, first);
    let other = place.pod_with_users().await;
    assert_ne!(first_user(&place, &other, "main").await, first);
    place.clean().await;
}

async fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    let mut both = own_users();
    both.namespaces.host_network = true;
    assert!(matches!(place.runtime.run_sandbox(&both).await, Err(RuntimeError::Invalid(_))));
    let pod = place.pod_with_users().await;
    let mut far = container("far", &["true"]);
    far.security.run_as_user = Some(65_536);
    let refused = place.runtime.create_container(&pod.id, &far).await;
    assert!(matches!(&refused, Err(RuntimeError::Invalid(why)) if why.contains("65536")), "{refused:?}");
    place.clean().await;
}
