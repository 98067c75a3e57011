//! Leader election over a Lease: of all processes that stand, one works at a time.
//!
//! Start at [`lead`]. It speaks the protocol of upstream's `client-go/tools/leaderelection`, so candidates of both may
//! stand for the same lease.
//!
//! # What holds, and what does not
//! A leader counts from when its last successful renewal was *begun*; [`LeaderElection::renew_deadline`] later it writes no
//! more, and all that runs in [`Leadership::env`] is dropped and joined. Others wait for the longer
//! [`LeaderElection::lease_duration`], counted from when they *saw* that renewal. So there are never two leaders, as long
//! as no clock runs faster than another by the ratio of the two times (1.5, unless told otherwise).
//!
//! [`Leadership::client`] checks this before each write, whatever the tasks of the leader do: after the process or the
//! machine slept, nothing is sent. What remains:
//!
//! - A request that was already on the wire may arrive later. Writes with a `resourceVersion` in them are then refused by
//!   the API server if anything changed.
//! - The check knows nothing of systems other than the API server. Give them [`Leadership::term`]: it rises with each
//!   leader (it is the lease's `leaseTransitions`), so that a system which remembers the highest number it was given can
//!   refuse all lower ones.
//! - A function under [`Env::blocking`] cannot be cancelled.
//! - Somebody who deletes the lease takes its record away: who never saw it leads at once, and the numbers start again.

mod decide;
#[cfg(test)]
mod decide_tests;
mod elector;
mod fence;
mod scope;

use std::{future::Future, time::Duration};

use futures::future::{Either, select};
use tokio_util::sync::CancellationToken;

pub use fence::is_not_leading;

use self::{elector::Elector, fence::Fence, scope::Scope};
use super::limits;
use crate::{
    client::Client,
    env::{Env, TaskEnd},
};

/// What is stood for, by whom, and how long things take. The times are upstream's unless changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease. All candidates for the same work name the same lease.
    pub name: String,
    /// Who stands, for people. The holder that the lease names is this and a random UID, so that nobody, not even the same
    /// process after a restart, is taken for another.
    pub identity: String,
    /// How long others wait after a renewal before they take over; whole seconds are written, rounded up.
    pub lease_duration: Duration,
    /// How long after a renewal the leader may still work.
    pub renew_deadline: Duration,
    /// How often the leader renews. Candidates look after this time and up to 1.2 times as much again, by chance.
    pub retry_period: Duration,
    /// Stand again after the lease was lost, instead of returning.
    pub stand_again: bool,
}

/// The times or names of an election do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidElection {
    /// The lease needs a name, a namespace and a holder.
    #[error("namespace, name and identity must not be empty")]
    Unnamed,
    /// Others would take over while the leader still works.
    #[error("the lease duration must be longer than the renew deadline")]
    LeaseTooShort,
    /// The leader would not get to renew in time.
    #[error("the renew deadline must be longer than 1.2 times the retry period, which must not be zero")]
    DeadlineTooShort,
}

/// Why [`lead`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeadEnd {
    /// It was asked to; the work, if it was under way, has ended and the lease is released.
    Shutdown,
    /// The work ended by itself, or panicked; the lease is released.
    Work(TaskEnd),
    /// The lease was lost; the work was dropped where it stood.
    Lost,
}

/// One term of leadership: what the work is done with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    client: Client,
    env: Env,
    shutdown: CancellationToken,
    fence: Fence,
    term: i32,
}

impl LeaderElection {
    /// An election for a lease, with upstream's times: 15 s, 10 s and 2 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: limits::LEASE_DURATION,
            renew_deadline: limits::RENEW_DEADLINE,
            retry_period: limits::ELECTION_RETRY_PERIOD,
            stand_again: true,
        }
    }

    /// Whether names and times fit together, as [`lead`] wants them to.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<(), InvalidElection> {
        if self.namespace.is_empty() || self.name.is_empty() || self.identity.is_empty() {
            return Err(InvalidElection::Unnamed);
        }
        if self.lease_duration <= self.renew_deadline {
            return Err(InvalidElection::LeaseTooShort);
        }
        if self.retry_period.is_zero() || self.renew_deadline <= self.retry_period.saturating_mul(6) / 5 {
            return Err(InvalidElection::DeadlineTooShort);
        }
        Ok(())
    }
}

impl Leadership {
    /// The client to work with. It refuses writes once the lease may be lost: see [`is_not_leading`].
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The environment to work in. Tasks that are spawned in it end with the term.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Cancelled when the work is to end. The lease is kept until it has.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The number of this term, higher than those of all terms before: a fencing token for systems other than the API
    /// server.
    pub fn term(&self) -> i32 {
        self.term
    }

    /// Whether writes are let through now.
    pub fn is_held(&self) -> bool {
        self.fence.is_open()
    }
}

/// Stands for a lease, and works while it is held.
///
/// ```text
/// lead(&client, &env, LeaderElection::new("kube-system", "sites", hostname), shutdown, |leadership| async move {
///     let caches = Caches::new(leadership.client(), leadership.env());
///     let controller = Controller::new("sites", &caches).reconciles::<Site>();
///     controller.run(Sites, leadership.shutdown().clone()).await;
/// })
/// ```
///
/// On shutdown the work is asked to end and the lease is renewed until it has; then it is released, and another candidate
/// takes it at once. When the lease is lost the work is dropped where it stands and joined, before the lease can be
/// anybody else's. The work must be safe to drop at any await, as every reconciler must.
///
/// # Errors
/// The times or names of the election do not fit together.
pub async fn lead<W, F>(
    client: &Client,
    env: &Env,
    election: LeaderElection,
    shutdown: CancellationToken,
    mut work: W,
) -> Result<LeadEnd, InvalidElection>
where
    W: FnMut(Leadership) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    election.check()?;
    let stand_again = election.stand_again;
    let mut elector = Elector::new(client, env, election);
    loop {
        let Some(term) = shutdown.run_until_cancelled(elector.stand()).await else {
            elector.release().await;
            return Ok(LeadEnd::Shutdown);
        };
        let (scope, stop) = (Scope::new(env), shutdown.child_token());
        let fence = elector.fence().clone();
        let leadership =
            Leadership { client: fence.around(client), env: scope.env(), shutdown: stop.clone(), fence, term };
        let task = scope.env().spawn("leader", work(leadership));
        let ended = {
            let (ended, lost) = (std::pin::pin!(task.join()), std::pin::pin!(elector.renew()));
            match select(ended, lost).await {
                Either::Left((end, _)) => Some(end),
                Either::Right(_) => None,
            }
        };
        elector.fence().close();
        stop.cancel();
        scope.stop().await;
        match ended {
            Some(end) => {
                elector.release().await;
                return Ok(if shutdown.is_cancelled() { LeadEnd::Shutdown } else { LeadEnd::Work(end) });
            }
            None if shutdown.is_cancelled() => return Ok(LeadEnd::Shutdown),
            None if stand_again => tracing::warn!("the lease is lost; standing again"),
            None => return Ok(LeadEnd::Lost),
        }
    }
}
