//! Events: whoever listens learns of every change.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream::BoxStream};
use orchestrator_core::{
    env::Env,
    runtime::{ContainerId, RuntimeEvent, SandboxId},
};

use super::{Program, Workbench, stage::Stage};
use crate::harness::Outcome;

struct Listener<'a> {
    stage: &'a Stage<'a>,
    events: BoxStream<'static, RuntimeEvent>,
}

impl Listener<'_> {
    /// Waits for an event that names this sandbox, or that says that some were lost.
    async fn sandbox(&mut self, wanted: &SandboxId, what: &str) {
        self.until(what, |event| matches!(event, RuntimeEvent::Sandbox { id, .. } if id == wanted)).await;
    }

    async fn container(&mut self, wanted: &ContainerId, what: &str) {
        self.until(what, |event| matches!(event, RuntimeEvent::Container { id, .. } if id == wanted)).await;
    }

    async fn until(&mut self, what: &str, right: impl Fn(&RuntimeEvent) -> bool) {
        let events = &mut self.events;
        let told = async {
            loop {
                let event = events.next().await.expect("events do not end");
                if right(&event) || event == RuntimeEvent::Lagged {
                    return;
                }
            }
        };
        let told = self.stage.env.timeout(super::stage::PATIENCE, told).await;
        told.unwrap_or_else(|_| panic!("nobody was told that {what}"));
        // Events may come more than once: what is there now is of changes up to now.
        while self.events.next().now_or_never().is_some() {}
    }
}

/// Each change of a sandbox and of a container is told to those who listen, with the pod's UID.
pub async fn events_tell_of_every_change(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let runtime = stage.runtime.clone();
    let mut listener = Listener { stage: &stage, events: runtime.events() };
    let pod = stage.pod("a").await;
    let uid = pod.key.pod_uid.clone();
    listener
        .until(
            "the sandbox was made",
            |event| matches!(event, RuntimeEvent::Sandbox { id, pod_uid } if *id == pod.id && *pod_uid == uid),
        )
        .await;
    let id = stage.create(&pod, "main", &Program::Exit { after: workbench.moment(), code: 0 }).await;
    listener
        .until(
            "the container was made",
            |event| matches!(event, RuntimeEvent::Container { id: told, pod_uid } if *told == id && *pod_uid == uid),
        )
        .await;
    runtime.start_container(&id).await.unwrap();
    listener.container(&id, "the container was started").await;
    while stage.state(&id).await.is_running() {
        listener.container(&id, "the container has ended").await;
    }
    runtime.remove_container(&id).await.unwrap();
    listener.container(&id, "the container was removed").await;

    let other = stage.start(&pod, "other", &Program::Deaf).await;
    listener.container(&other, "the other container was started").await;
    runtime.stop_container(&other, Duration::ZERO).await.unwrap();
    listener.container(&other, "the other container was killed").await;
    runtime.stop_sandbox(&pod.id).await.unwrap();
    listener.sandbox(&pod.id, "the sandbox was stopped").await;
    runtime.remove_sandbox(&pod.id).await.unwrap();
    listener.sandbox(&pod.id, "the sandbox was removed").await;
    Outcome::Held
}
