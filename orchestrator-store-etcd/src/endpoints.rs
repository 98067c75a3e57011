//! Calls to a member of the cluster, and to the next one when that cannot answer.
//!
//! The client's own balancing is not used: it prefers the member that has the fewest calls under way, which is one that fails at
//! once. Here all calls go to one member for as long as it answers.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use etcd_client::{Client, ConnectOptions};
use futures::future::Either;
use orchestrator_core::env::Env;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    config::EtcdConfig,
    error::{EtcdError, Failed, Failure},
    limits::{Limits, RETRY_PAUSE},
};

pub(crate) struct Endpoints {
    env: Env,
    limits: Limits,
    options: ConnectOptions,
    members: Vec<Member>,
    /// The member that calls go to.
    preferred: AtomicUsize,
    closed: CancellationToken,
}

struct Member {
    url: String,
    /// Made when it is needed first, because that asks the member who we are.
    client: Mutex<Option<Client>>,
}

/// Whether a call may be made again when nobody knows whether it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same once more.
    Always,
    /// Only when it surely did not happen.
    IfNotDone,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Tell the caller.
    Fail,
    /// Tell the caller; others had better ask another member.
    FailAndLeave,
    /// Ask another member.
    Elsewhere,
    /// Show who we are, and ask the same member.
    Refresh,
}

/// What follows from a failure.
fn decide(failure: Failure, repeat: Repeat, refreshed: bool) -> Next {
    match failure {
        Failure::Elsewhere => Next::Elsewhere,
        Failure::Unknown if repeat == Repeat::Always => Next::Elsewhere,
        Failure::Unknown => Next::FailAndLeave,
        Failure::TokenOld if !refreshed => Next::Refresh,
        _ => Next::Fail,
    }
}

impl Endpoints {
    pub(crate) fn new(env: &Env, config: &EtcdConfig) -> Self {
        let member = |url: &String| Member { url: url.clone(), client: Mutex::new(None) };
        let members: Vec<Member> = config.endpoints.iter().map(member).collect();
        // Stores share the work among the members.
        let preferred = env.random_below(members.len() as u64) as usize;
        Self {
            env: env.clone(),
            limits: config.limits,
            options: config.connect_options(),
            members,
            preferred: AtomicUsize::new(preferred),
            closed: CancellationToken::new(),
        }
    }

    /// Ends all calls that are under way, and all that come.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until the store is closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The member that calls go to at present.
    pub(crate) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    pub(crate) fn url(&self, member: usize) -> &str {
        self.members.get(member).map_or("", |member| &member.url)
    }

    /// Makes a call, to one member after the other until one answers.
    pub(crate) async fn call<T, F>(&self, repeat: Repeat, call: impl Fn(Client) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let work = pin!(self.call_in_turn(repeat, call));
        match futures::future::select(pin!(self.closed.cancelled()), work).await {
            Either::Left(_) => Err(Failed::Closed),
            Either::Right((answer, _)) => answer,
        }
    }

    async fn call_in_turn<T, F>(&self, repeat: Repeat, call: impl Fn(Client) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let begin = self.env.monotonic();
        let (mut tried, mut refreshed) = (0, false);
        loop {
            let member = self.preferred();
            let failed = match self.call_member(member, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let Some(failure) = failed.failure() else { return Err(failed) };
            match decide(failure, repeat, refreshed) {
                Next::Fail => return Err(failed),
                Next::FailAndLeave => {
                    self.leave(member);
                    return Err(failed);
                }
                Next::Refresh => {
                    self.refresh(member).await?;
                    refreshed = true;
                }
                Next::Elsewhere => {
                    self.leave(member);
                    tried += 1;
                    if self.env.monotonic() - begin >= self.limits.call_time {
                        return Err(failed);
                    }
                    if tried % self.members.len() == 0 {
                        self.env.sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Makes a call to this member, within the time that it has to answer.
    pub(crate) async fn call_member<T, F>(&self, member: usize, call: impl Fn(Client) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let client = self.client(member).await?;
        match self.env.timeout(self.limits.answer_time, call(client)).await {
            Ok(answer) => answer.map_err(|error| Failed::at(self.url(member), &error)),
            Err(_) => Err(self.no_answer(member, Failure::Unknown)),
        }
    }

    /// The client of a member.
    async fn client(&self, member: usize) -> Result<Client, Failed> {
        let Some(Member { url, client }) = self.members.get(member) else {
            return Err(self.no_answer(member, Failure::Elsewhere));
        };
        let connect = async {
            let mut slot = client.lock().await;
            if let Some(client) = &*slot {
                return Ok(client.clone());
            }
            let made = Client::connect([url], Some(self.options.clone())).await;
            let made = made.map_err(|error| before_the_call(Failed::at(url, &error)))?;
            Ok(slot.insert(made).clone())
        };
        let connected = self.env.timeout(self.limits.answer_time, connect).await;
        connected.unwrap_or_else(|_| Err(self.no_answer(member, Failure::Elsewhere)))
    }

    /// Shows a member who we are once more.
    pub(crate) async fn refresh(&self, member: usize) -> Result<(), Failed> {
        let client = self.client(member).await?;
        match self.env.timeout(self.limits.answer_time, client.refresh_token()).await {
            Ok(answer) => answer.map_err(|error| before_the_call(Failed::at(self.url(member), &error))),
            Err(_) => Err(self.no_answer(member, Failure::Elsewhere)),
        }
    }

    /// Has calls go to another member, if they still go to this one.
    pub(crate) fn leave(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        // Somebody else was faster otherwise.
        let _ = self.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn no_answer(&self, member: usize, failure: Failure) -> Failed {
        let endpoint = self.url(member).to_owned();
        Failed::Etcd(failure, EtcdError::NoAnswer { endpoint, waited: self.limits.answer_time })
    }
}

/// A failure to connect or to show who we are: what was to be called was not.
fn before_the_call(failed: Failed) -> Failed {
    match failed {
        Failed::Etcd(Failure::Unknown, error) => Failed::Etcd(Failure::Elsewhere, error),
        Failed::Etcd(Failure::TokenOld, error) => Failed::Etcd(Failure::Denied, error),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_not_done_again() {
        assert_eq!(decide(Failure::Unknown, Repeat::IfNotDone, false), Next::FailAndLeave);
        assert_eq!(decide(Failure::Unknown, Repeat::Always, false), Next::Elsewhere);
        for repeat in [Repeat::Always, Repeat::IfNotDone] {
            assert_eq!(decide(Failure::Elsewhere, repeat, true), Next::Elsewhere);
            assert_eq!(decide(Failure::TokenOld, repeat, false), Next::Refresh);
            for failure in
                [Failure::NoSpace, Failure::Denied, Failure::Compacted, Failure::LeaseGone, Failure::TokenOld]
            {
                assert_eq!(decide(failure, repeat, true), Next::Fail, "{failure:?}");
            }
        }
    }
}
