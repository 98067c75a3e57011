//! The runtime's own profile: what programs need, without what changes the machine, as with other runtimes.
//!
//! The list: <https://github.com/containerd/containerd/blob/main/contrib/seccomp/seccomp_default.go>.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{Filters, Rules, number};

/// What every container may call.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
    close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
    get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents
    io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl
    msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
    openat2 pause pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
    sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
    socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4
    waitid waitpid write writev
    arch_prctl modify_ldt
";

/// What those may call in addition who have a capability.
const BY_CAPABILITY: [(&str, &str); 13] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
];

/// Execution domains that a program may ask for: the usual one, that of 32 bits, older kernels' numbers, and asking which it is.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Flags of `clone` that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

/// The profile for these capabilities, named with `CAP_`.
pub(super) fn filters(capabilities: &[String]) -> Result<Filters, String> {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut rules = Rules::new();
    let mut allow = |names: &str| {
        for number in names.split_whitespace().filter_map(number) {
            rules.insert(number, Vec::new());
        }
    };
    allow(ALLOWED);
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            allow(names);
        }
    }
    if has("CAP_PERFMON") {
        allow("perf_event_open");
    }
    let is = |operator, value| SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value);
    let mut restrict = |name: &str, conditions: Vec<(SeccompCmpOp, u64)>| -> Result<(), String> {
        let Some(number) = number(name) else { return Ok(()) };
        let rule = |(operator, value)| is(operator, value).and_then(|condition| SeccompRule::new(vec![condition]));
        let found = conditions.into_iter().map(rule).collect::<Result<Vec<_>, _>>();
        rules.entry(number).or_insert(found.map_err(|error| error.to_string())?);
        Ok(())
    };
    restrict("personality", PERSONALITIES.map(|value| (SeccompCmpOp::Eq, value)).to_vec())?;
    // Sockets between virtual machines know no namespaces.
    let virtual_machines = u64::try_from(libc::AF_VSOCK).unwrap_or_default();
    restrict("socket", vec![(SeccompCmpOp::Ne, virtual_machines)])?;
    restrict("clone", vec![(SeccompCmpOp::MaskedEq(NAMESPACES), 0)])?;
    let mut filters = Filters::default();
    if !has("CAP_SYS_ADMIN")
        && let Some(clone3) = number("clone3")
    {
        // Its flags are in memory, where no filter can look. Programs that hear it does not exist take the older call.
        rules.insert(clone3, Vec::new());
        let errno = u32::try_from(libc::ENOSYS).unwrap_or_default();
        filters.add(BTreeMap::from([(clone3, Vec::new())]), SeccompAction::Errno(errno), SeccompAction::Allow)?;
    }
    let errno = u32::try_from(libc::EPERM).unwrap_or_default();
    filters.add(rules, SeccompAction::Allow, SeccompAction::Errno(errno))?;
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_somewhere() {
        // What this machine does not have, another one may; most must be known, or the list is misread.
        let names: Vec<&str> = ALLOWED.split_whitespace().collect();
        let known = names.iter().filter(|name| number(name).is_some()).count();
        assert!(known > 280, "{known} of {}", names.len());
        assert!(BY_CAPABILITY.iter().all(|(_, names)| names.split_whitespace().any(|name| number(name).is_some())));
    }

    #[test]
    fn programs_are_as_short_as_the_kernel_wants() {
        for capabilities in [vec![], vec!["CAP_SYS_ADMIN".to_owned(), "CAP_SYS_TIME".to_owned()]] {
            let filters = filters(&capabilities).unwrap();
            assert_eq!(filters.0.len(), if capabilities.is_empty() { 2 } else { 1 });
            assert!(filters.0.iter().all(|program| program.len() < 4096));
        }
    }
}
