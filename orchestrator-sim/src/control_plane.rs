//! Controllers and scheduler, each a process of its own with its own link and caches.

use std::sync::{Arc, Mutex};

use orchestrator_controllers::{Controllers, Options};
use orchestrator_core::{
    controller::{
        Caches,
        leader::{LeaderElection, Leadership, lead},
    },
    env::{Env, TaskHandle},
};
use orchestrator_scheduler::Scheduling;
use tokio_util::sync::CancellationToken;

use crate::{
    diary::Diary,
    host::Host,
    link::{Delay, Link, Seat},
    lock::lock,
    process::ROOT_CERTIFICATE,
};

/// The lease that processes of controllers stand for; upstream's.
const LEASE: (&str, &str) = ("kube-system", "kube-controller-manager");

#[derive(Debug)]
pub(crate) struct ControlPlane {
    managers: Vec<Manager>,
    scheduler_link: Link,
    scheduler_host: Host,
    scheduler: Option<TaskHandle>,
    leader: Arc<Mutex<Option<usize>>>,
}

/// A process of controllers. One alone works at once; of several the one works that leads.
#[derive(Debug)]
struct Manager {
    link: Link,
    host: Host,
    work: Work,
    process: Option<Process>,
}

/// Either is killed by dropping it.
#[derive(Debug)]
enum Process {
    Working { _controllers: Controllers },
    Standing { _task: TaskHandle },
}

/// What a process of controllers does once it may work.
#[derive(Clone, Debug)]
struct Work {
    index: usize,
    discovery: Link,
    options: Options,
    leader: Arc<Mutex<Option<usize>>>,
    diary: Diary,
}

impl ControlPlane {
    pub(crate) fn new(
        env: &Env,
        seat: &Arc<Seat>,
        delay: Delay,
        mut options: Options,
        managers: usize,
        diary: &Diary,
    ) -> Self {
        options.root_certificates.get_or_insert_with(|| ROOT_CERTIFICATE.to_owned());
        let leader = Arc::default();
        let manager = |index| {
            let link = seat.link(env, delay);
            let work = Work {
                index,
                discovery: link.clone(),
                options: options.clone(),
                leader: Arc::clone(&leader),
                diary: diary.clone(),
            };
            Manager { link, host: Host::new(env), work, process: None }
        };
        Self {
            managers: (0..managers).map(manager).collect(),
            scheduler_link: seat.link(env, delay),
            scheduler_host: Host::new(env),
            scheduler: None,
            leader,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.managers.iter().all(|manager| manager.process.is_some()) && self.scheduler.is_some()
    }

    pub(crate) fn start_controllers(&mut self) {
        let alone = self.managers.len() == 1;
        for manager in self.managers.iter_mut().filter(|manager| manager.process.is_none()) {
            manager.process = Some(if alone { manager.begin() } else { manager.stand() });
        }
    }

    /// Kills the process that works.
    pub(crate) fn kill_controllers(&mut self) {
        let index = self.leader();
        self.managers[index].process = None;
    }

    /// Cuts the link of the process that works, or mends those of all.
    pub(crate) fn set_controllers_reachable(&mut self, reachable: bool) {
        if reachable {
            self.managers.iter().for_each(|manager| manager.link.mend());
        } else {
            self.managers[self.leader()].link.cut();
        }
    }

    /// What the controllers run on that work.
    pub(crate) fn controllers_host(&self) -> &Host {
        &self.managers[self.leader()].host
    }

    /// The clocks of all processes of controllers are right again.
    pub(crate) fn set_clocks(&self) {
        self.managers.iter().for_each(|manager| manager.host.set_clock());
    }

    pub(crate) fn scheduler_host(&self) -> &Host {
        &self.scheduler_host
    }

    pub(crate) fn start_scheduler(&mut self) {
        if self.scheduler.is_none() {
            let env = self.scheduler_host.env();
            let caches = Caches::new(&self.scheduler_link.client(), &env);
            let scheduling = Scheduling::builder(&caches, &env).build();
            self.scheduler = Some(env.spawn("scheduler", scheduling.run(CancellationToken::new())));
        }
    }

    pub(crate) fn kill_scheduler(&mut self) {
        self.scheduler = None;
    }

    /// Who works; while nobody does, the first.
    fn leader(&self) -> usize {
        lock(&self.leader).unwrap_or_default()
    }
}

impl Manager {
    fn begin(&self) -> Process {
        Process::Working { _controllers: self.work.start(&Caches::new(&self.link.client(), &self.host.env())) }
    }

    fn stand(&self) -> Process {
        let election = LeaderElection::new(LEASE.0, LEASE.1, format!("manager-{}", self.work.index));
        let (client, env, work) = (self.link.client(), self.host.env(), self.work.clone());
        let own_env = env.clone();
        let stand = async move {
            let work = |leadership| work.clone().lead(leadership);
            let end = lead(&client, &own_env, election, CancellationToken::new(), work).await;
            unreachable!("nobody asks it to end, and it stands again: {end:?}")
        };
        Process::Standing { _task: env.spawn("controller manager", stand) }
    }
}

impl Work {
    fn start(&self, caches: &Caches) -> Controllers {
        let builder = Controllers::builder(caches, Arc::new(self.discovery.clone()));
        builder.options(self.options.clone()).start()
    }

    async fn lead(self, leadership: Leadership) {
        let _term = Term::begin(&self);
        let caches = Caches::new(leadership.client(), leadership.env());
        let controllers = self.start(&caches);
        leadership.shutdown().cancelled().await;
        controllers.shutdown().await;
    }
}

/// As long as a process works; its beginning and its end are in the diary.
struct Term(Work);

impl Term {
    fn begin(work: &Work) -> Self {
        *lock(&work.leader) = Some(work.index);
        work.diary.note(format_args!("manager {} leads", work.index));
        Self(work.clone())
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        // Who stood still may hear late that another leads.
        lock(&self.0.leader).take_if(|leader| *leader == self.0.index);
        self.0.diary.note(format_args!("manager {} leads no more", self.0.index));
    }
}
