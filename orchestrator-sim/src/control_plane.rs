//! Controllers and scheduler, each a process of its own with its own link and caches.

use std::sync::Arc;

use orchestrator_controllers::{Controllers, Options};
use orchestrator_core::{
    controller::Caches,
    env::{Env, TaskHandle},
};
use orchestrator_scheduler::Scheduling;
use tokio_util::sync::CancellationToken;

use crate::link::{Delay, Link, Seat};

/// What controllers publish as the certificate of the cluster's authority. Nobody checks it.
const ROOT_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nc2ltdWxhdGVk\n-----END CERTIFICATE-----\n";

#[derive(Debug)]
pub(crate) struct ControlPlane {
    env: Env,
    options: Options,
    controllers_link: Link,
    scheduler_link: Link,
    controllers: Option<Controllers>,
    scheduler: Option<TaskHandle>,
}

impl ControlPlane {
    pub(crate) fn new(env: &Env, seat: &Arc<Seat>, delay: Delay, mut options: Options) -> Self {
        options.root_certificates.get_or_insert_with(|| ROOT_CERTIFICATE.to_owned());
        Self {
            env: env.clone(),
            options,
            controllers_link: seat.link(env, delay),
            scheduler_link: seat.link(env, delay),
            controllers: None,
            scheduler: None,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.controllers.is_some() && self.scheduler.is_some()
    }

    pub(crate) fn start_controllers(&mut self) {
        if self.controllers.is_none() {
            let link = &self.controllers_link;
            let caches = Caches::new(&link.client(), &self.env);
            let builder = Controllers::builder(&caches, Arc::new(link.clone()));
            self.controllers = Some(builder.options(self.options.clone()).start());
        }
    }

    pub(crate) fn kill_controllers(&mut self) {
        self.controllers = None;
    }

    pub(crate) fn start_scheduler(&mut self) {
        if self.scheduler.is_none() {
            let caches = Caches::new(&self.scheduler_link.client(), &self.env);
            let scheduling = Scheduling::builder(&caches, &self.env).build();
            self.scheduler = Some(self.env.spawn("scheduler", scheduling.run(CancellationToken::new())));
        }
    }

    pub(crate) fn kill_scheduler(&mut self) {
        self.scheduler = None;
    }
}
