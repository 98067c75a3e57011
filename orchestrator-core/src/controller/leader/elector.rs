//! A candidate that looks at the lease, writes it, and waits, as its state machine says.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube_core::params::{PostParams, WatchParams};

use super::{
    LeaderElection,
    decide::{Candidate, Record, Step, Timing},
    fence::{Fence, Moment},
};
use crate::{
    client::{Api, Client, WatchEvent},
    controller::cache::random_part,
    env::Env,
    meta,
    object::Object,
    status::{ApiError, ApiResult},
};

pub(super) struct Elector {
    api: Api<Lease>,
    env: Env,
    election: LeaderElection,
    state: Candidate,
    fence: Fence,
    /// As it was found or written last: whatever else stands in it is kept.
    lease: Option<Arc<Lease>>,
}

impl Elector {
    pub(super) fn new(client: &Client, env: &Env, election: LeaderElection) -> Self {
        let identity = format!("{}_{}", election.identity, env.uid());
        // Whole seconds are written, so that they are what this candidate goes by.
        let lease = Duration::from_secs(whole_seconds(election.lease_duration).unsigned_abs().into());
        let timing = Timing { lease, renew_deadline: election.renew_deadline };
        Self {
            api: Api::namespaced(client, &election.namespace),
            env: env.clone(),
            election,
            state: Candidate::new(identity, timing),
            fence: Fence::new(env),
            lease: None,
        }
    }

    /// Open while the lease is surely held.
    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Waits until the lease is held; gives the number of the term.
    pub(super) async fn stand(&mut self) -> i32 {
        self.state.resign();
        loop {
            let free = self.attempt(self.attempt_time()).await;
            if let Some((_, term)) = self.state.leads() {
                return term;
            }
            let retry = self.election.retry_period;
            let pause = retry + random_part(&self.env, retry.saturating_mul(6) / 5);
            let free = free.map_or(pause, |at| at.saturating_sub(self.env.monotonic()));
            let _ = self.env.timeout(pause.min(free), Box::pin(self.freed())).await;
        }
    }

    /// Renews the lease until it is lost.
    pub(super) async fn renew(&mut self) {
        while let Some((deadline, _)) = self.state.leads() {
            let left = deadline.saturating_sub(self.env.monotonic());
            self.env.sleep(self.election.retry_period.min(left)).await;
            let left = deadline.saturating_sub(self.env.monotonic());
            if left.is_zero() {
                return self.state.resign();
            }
            self.attempt(self.attempt_time().min(left)).await;
        }
    }

    /// Gives the lease back, if it is held. When that fails it ends by itself.
    pub(super) async fn release(&mut self) {
        self.state.resign();
        let release = async |this: &mut Self| {
            this.look().await?;
            if let Some((record, over)) = this.state.release(this.env.now()) {
                this.write(record, over).await?;
            }
            Ok(())
        };
        let env = self.env.clone();
        let (time, release) = (self.attempt_time(), Box::pin(release(self)));
        if let Err(error) = env.timeout(time, release).await.unwrap_or_else(|late| Err(ApiError::internal(late))) {
            tracing::debug!(lease = self.election.name, %error, "the lease cannot be released");
        }
    }

    /// Twice in a renew deadline: one request that hangs does not cost the lease.
    fn attempt_time(&self) -> Duration {
        self.election.renew_deadline / 2
    }

    /// One step, within a time. Gives when the lease will be free, if somebody else holds it.
    async fn attempt(&mut self, time: Duration) -> Option<Duration> {
        let env = self.env.clone();
        match env.timeout(time, Box::pin(self.step())).await.unwrap_or_else(|late| Err(ApiError::internal(late))) {
            Ok(free) => free,
            Err(error) => {
                tracing::debug!(lease = self.election.name, %error, "the lease cannot be written");
                self.state.doubt();
                None
            }
        }
    }

    async fn step(&mut self) -> ApiResult<Option<Duration>> {
        if self.state.must_look() {
            self.look().await?;
        }
        let begun = Moment::now(&self.env);
        match self.state.decide(begun.monotonic, begun.wall) {
            Step::Wait(free) => return Ok(Some(free)),
            Step::Resign => self.state.resign(),
            Step::Write(record, over) => {
                let version = self.write(record.clone(), over).await?;
                self.state.wrote(record, version, begun.monotonic, self.env.monotonic());
                if self.state.leads().is_some() {
                    self.fence.open(begun, self.election.renew_deadline);
                }
            }
        }
        Ok(None)
    }

    async fn look(&mut self) -> ApiResult<()> {
        self.lease = self.api.get_opt(&self.election.name).await?;
        let found = self.lease.as_deref().map(|lease| (self.record_of(lease), version(&lease.metadata)));
        self.state.look(found, self.env.monotonic());
        Ok(())
    }

    /// Writes a record over a version of the lease, or as a new lease; gives the version that it became.
    async fn write(&mut self, record: Record, over: Option<String>) -> ApiResult<String> {
        let (name, params) = (self.election.name.clone(), PostParams::default());
        let known = self.lease.as_deref().filter(|_| over.is_some()).cloned().unwrap_or_default();
        let metadata = ObjectMeta { name: Some(name.clone()), resource_version: over.clone(), ..known.metadata };
        let lease = Lease { metadata, spec: Some(spec_of(record, known.spec.unwrap_or_default())) };
        let written = match over {
            Some(_) => self.api.replace(&name, &params, &lease).await?,
            None => self.api.create(&params, &lease).await?,
        };
        let version = version(&written.metadata);
        self.lease = Some(written);
        Ok(version)
    }

    /// Resolves when a watch says that nobody holds the lease. A hint only: without it the next look comes soon enough.
    async fn freed(&self) {
        let name = &self.election.name;
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let from = self.lease.as_ref().map(|lease| version(&lease.metadata)).filter(|_| self.state.leads().is_none());
        if let Some(from) = from
            && let Ok(mut changes) = self.api.watch(&params, &from).await
        {
            while let Some(Ok(change)) = changes.next().await {
                if frees(&change, name) {
                    return;
                }
            }
        }
        std::future::pending().await
    }

    fn record_of(&self, lease: &Lease) -> Record {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds =
            spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
        Record {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: seconds.map_or(self.election.lease_duration, Duration::from_secs),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default().max(0),
        }
    }
}

fn frees(change: &WatchEvent, name: &str) -> bool {
    let of_lease = |object: &Object| object.metadata().is_ok_and(|metadata| meta::name(metadata) == name);
    match change {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let holder = |lease: &Lease| lease.spec.clone().and_then(|spec| spec.holder_identity).unwrap_or_default();
            of_lease(object) && object.typed::<Lease>().is_ok_and(|lease| holder(&lease).is_empty())
        }
        WatchEvent::Deleted(object) => of_lease(object),
        WatchEvent::Bookmark { .. } => false,
    }
}

fn spec_of(record: Record, known: LeaseSpec) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(record.holder).filter(|holder| !holder.is_empty()),
        lease_duration_seconds: Some(whole_seconds(record.duration)),
        acquire_time: record.acquired.map(micro_time),
        renew_time: record.renewed.map(micro_time),
        lease_transitions: Some(record.transitions),
        ..known
    }
}

/// Rounded up; at least one, as the API demands.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds.max(1)).unwrap_or(i32::MAX)
}

/// A time as leases carry it: whole microseconds.
fn micro_time(time: Timestamp) -> MicroTime {
    let nanoseconds = SignedDuration::from_nanos(i64::from(time.subsec_nanosecond() % 1000));
    MicroTime(time.checked_sub(nanoseconds).unwrap_or(time))
}

fn version(metadata: &ObjectMeta) -> String {
    metadata.resource_version.clone().unwrap_or_default()
}
