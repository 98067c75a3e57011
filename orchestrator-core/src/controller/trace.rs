//! The trace of a run: why it ran, what it read, what it wrote, and how it ended.

use std::{fmt, sync::Arc, time::Duration};

use super::limits;
use crate::{client::Resource, object::ObjectKey, store::Revision};

/// One run of a reconciler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTrace {
    /// Which key.
    pub key: ObjectKey,
    /// When it began, as [`Env::monotonic`](crate::env::Env::monotonic) has it.
    pub began: Duration,
    /// Why it ran.
    pub causes: Noted<Cause>,
    /// What it read through its [`Context`](super::Context).
    pub reads: Noted<Read>,
    /// What it wrote through its [`Context`](super::Context), as far as the API server accepted it.
    pub writes: Noted<Write>,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// As it should, and it wants to run again after this time.
    RequeueAfter(Duration),
    /// With this error; it runs again.
    Failed(String),
    /// With this panic; it runs again.
    Panicked(String),
}

/// Why a key is to be reconciled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An object came or changed.
    Changed {
        /// Of which kind.
        resource: Arc<Resource>,
        /// Which object.
        key: ObjectKey,
        /// As of when, on servers whose versions compare.
        revision: Option<Revision>,
    },
    /// An object went.
    Removed {
        /// Of which kind.
        resource: Arc<Resource>,
        /// Which object.
        key: ObjectKey,
        /// Its UID.
        uid: String,
    },
    /// The resync period has passed.
    Resync,
    /// A run failed.
    Retry,
    /// A run asked for it.
    Requeue,
    /// Something that the last run made is gone, and no watch told of it.
    Vanished,
    /// Nothing but what the last run wrote; delayed, because this goes on for a while now.
    OwnWrites,
    /// Somebody added the key.
    ByHand,
}

/// Something that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Of which kind.
    pub resource: Arc<Resource>,
    /// From the server, not from a cache.
    pub from_server: bool,
    /// How much of it.
    pub scope: Scope,
}

/// How much of a kind was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One object.
    Object(ObjectKey),
    /// A namespace.
    Namespace(String),
    /// What an index has under a value.
    Index(&'static str, String),
    /// Everything.
    All,
}

/// Something that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// As RBAC has it: `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'static str,
    /// Of which kind.
    pub resource: Arc<Resource>,
    /// Such as `status`.
    pub subresource: Option<String>,
    /// Which object; without a name for a collection.
    pub key: ObjectKey,
    /// The version that it became, on servers whose versions compare. Deletions may have none.
    pub revision: Option<Revision>,
}

/// The first few of many, and how many more there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted<T> {
    items: Vec<T>,
    more: u64,
}

impl<T> Default for Noted<T> {
    fn default() -> Self {
        Self { items: Vec::new(), more: 0 }
    }
}

impl<T> Noted<T> {
    /// The first few, in order.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// How many came after those.
    pub fn more(&self) -> u64 {
        self.more
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.items.len() as u64 + self.more
    }
}

impl<T: PartialEq> Noted<T> {
    /// Notes one more, unless there are so many already.
    pub(super) fn note(&mut self, item: T, limit: usize) {
        if self.items.len() < limit { self.items.push(item) } else { self.more += 1 }
    }

    /// As [`Self::note`], unless the same is noted already.
    pub(super) fn note_once(&mut self, item: T, limit: usize) {
        if !self.items.contains(&item) {
            self.note(item, limit);
        }
    }
}

impl Noted<Cause> {
    pub(super) fn add(&mut self, cause: Cause) {
        self.note_once(cause, limits::CAUSES_PER_RUN);
    }

    pub(super) fn add_all(&mut self, others: Self) {
        others.items.into_iter().for_each(|cause| self.add(cause));
        self.more += others.more;
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { resource, key, .. } => write!(f, "{resource} {key} changed"),
            Self::Removed { resource, key, .. } => write!(f, "{resource} {key} went"),
            Self::Resync => f.write_str("resync"),
            Self::Retry => f.write_str("a run failed"),
            Self::Requeue => f.write_str("a run asked for it"),
            Self::Vanished => f.write_str("what it made is gone"),
            Self::OwnWrites => f.write_str("its own writes, after a pause"),
            Self::ByHand => f.write_str("added by hand"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => key.fmt(f),
            Self::Namespace(namespace) => write!(f, "in {namespace}"),
            Self::Index(index, value) => write!(f, "by {index} {value}"),
            Self::All => f.write_str("everywhere"),
        }
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource, self.scope)?;
        if self.from_server { f.write_str(" from the server") } else { Ok(()) }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = self.subresource.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
        write!(f, "{} {} {}{part}", self.verb, self.resource, self.key)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::RequeueAfter(pause) => write!(f, "done, again in {} s", pause.as_secs_f64()),
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
        }
    }
}

/// With commas between them.
impl<T: fmt::Display> fmt::Display for Noted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{item}")?;
        }
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

/// `default/web because pods default/web-1 went; read pods in default; wrote create pods default/web-2; done`
impl fmt::Display for RunTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} because {}", self.key, self.causes)?;
        if self.reads.count() > 0 {
            write!(f, "; read {}", self.reads)?;
        }
        if self.writes.count() > 0 {
            write!(f, "; wrote {}", self.writes)?;
        }
        write!(f, "; {}", self.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_bounded_and_the_rest_is_counted() {
        let key = |index: usize| ObjectKey::new("n", index.to_string());
        let resource = Arc::new(Resource::new("", "v1", "pods"));
        let mut causes = Noted::default();
        for index in 0..limits::CAUSES_PER_RUN + 3 {
            let cause = Cause::Changed { resource: resource.clone(), key: key(index), revision: None };
            causes.add(cause.clone());
            causes.add(cause);
        }
        assert_eq!(causes.items().len(), limits::CAUSES_PER_RUN);
        assert!(causes.more() >= 3);
        assert_eq!(causes.items()[1].to_string(), "pods n/1 changed");
        let mut all = Noted::default();
        all.add(Cause::Resync);
        all.add_all(causes.clone());
        assert_eq!(all.count(), causes.count() + 1);
    }

    #[test]
    fn a_run_is_told_in_one_line() {
        let pods = Arc::new(Resource::new("", "v1", "pods"));
        let key = |name: &str| ObjectKey::new("default", name);
        let mut trace = RunTrace {
            key: key("web"),
            began: Duration::ZERO,
            causes: Noted::default(),
            reads: Noted::default(),
            writes: Noted::default(),
            outcome: Outcome::RequeueAfter(Duration::from_secs(3)),
            duration: Duration::ZERO,
        };
        trace.causes.add(Cause::Removed { resource: pods.clone(), key: key("a"), uid: String::new() });
        assert_eq!(trace.to_string(), "default/web because pods default/a went; done, again in 3 s");
        let read = Read { resource: pods.clone(), from_server: true, scope: Scope::Namespace("default".to_owned()) };
        trace.reads.note(read.clone(), 1);
        trace.reads.note(read, 1);
        let subresource = Some("status".to_owned());
        trace.writes.note(Write { verb: "patch", resource: pods, subresource, key: key("b"), revision: None }, 1);
        trace.outcome = Outcome::Failed("no".to_owned());
        assert_eq!(
            trace.to_string(),
            "default/web because pods default/a went; read pods in default from the server and 1 more; \
             wrote patch pods default/b/status; failed: no"
        );
    }
}
