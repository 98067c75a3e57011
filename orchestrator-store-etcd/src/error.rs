//! What can go wrong with etcd, and what follows from it: whether the call may have happened, and whether to ask again.

use std::{error::Error, time::Duration};

use orchestrator_core::store::StoreError;
use tonic::{Code, ConnectError, Status};

/// Why etcd could not be reached, or failed. It is the source of [`StoreError::Unavailable`], where it can be downcast to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// The configuration cannot be meant.
    #[error("the configuration is wrong: {0}")]
    Configuration(String),
    /// The member is older than what this crate relies on.
    #[error("{endpoint} is etcd {version:?}, at least 3.4 is needed")]
    TooOld {
        /// Which member.
        endpoint: String,
        /// What it says it is.
        version: String,
    },
    /// etcd does not know the user, or does not let it do this.
    #[error("{endpoint} denies it: {reason}")]
    Denied {
        /// Which member.
        endpoint: String,
        /// etcd's words.
        reason: String,
    },
    /// etcd's space is used up. Reads go on. Writes go on once it was compacted and defragmented, and its alarm was taken back.
    #[error("{endpoint} has no space left")]
    NoSpace {
        /// Which member.
        endpoint: String,
    },
    /// etcd found that its members do not hold the same.
    #[error("{endpoint} holds damaged data")]
    Damaged {
        /// Which member.
        endpoint: String,
    },
    /// The member did not answer in time.
    #[error("{endpoint} did not answer within {waited:?}")]
    NoAnswer {
        /// Which member.
        endpoint: String,
        /// How long it had.
        waited: Duration,
    },
    /// There is a key that this store cannot have written.
    #[error("a key that is no text, or not below the prefix: {0:?}")]
    ForeignKey(Vec<u8>),
    /// Any other failure, as the client tells it.
    #[error("{endpoint}: {reason}")]
    Failed {
        /// Which member.
        endpoint: String,
        /// The client's words.
        reason: String,
    },
}

impl From<EtcdError> for StoreError {
    fn from(error: EtcdError) -> Self {
        Self::Unavailable { context: "etcd".to_owned(), source: Box::new(error) }
    }
}

/// What a failure means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The revision is gone.
    Compacted,
    /// The revision lies ahead.
    Future,
    /// The commit's lease is gone; nothing happened.
    LeaseGone,
    /// The request breaks a bound of etcd's; nothing happened.
    Refused,
    /// The answer is larger than the client takes.
    AnswerTooLarge,
    /// The user may not; nothing happened.
    Denied,
    /// The user has to show who it is once more; nothing happened.
    TokenOld,
    /// This member cannot, another one may; nothing happened.
    Elsewhere,
    /// There is no space. The commit may have happened: etcd also says so to the one that took the last of it.
    NoSpace,
    /// The data are damaged.
    Damaged,
    /// The member is gone, slow or lost its leader: nobody knows whether it happened.
    Unknown,
}

impl Failure {
    /// What a failure of the client means.
    pub(crate) fn of(error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(status),
            etcd_client::Error::TransportError(_) | etcd_client::Error::EndpointError(_) => Self::Elsewhere,
            _ => Self::Unknown,
        }
    }

    fn of_status(status: &Status) -> Self {
        if never_connected(status) {
            return Self::Elsewhere;
        }
        let message = status.message();
        let words = message.strip_prefix("etcdserver: ").unwrap_or_default();
        match (status.code(), words) {
            (_, "mvcc: required revision has been compacted") => Self::Compacted,
            (_, "mvcc: required revision is a future revision") => Self::Future,
            (_, "requested lease not found") => Self::LeaseGone,
            (_, "mvcc: database space exceeded") => Self::NoSpace,
            (_, "no leader" | "too many requests" | "rpc not supported for learner") => Self::Elsewhere,
            (_, "request is too large" | "too many operations in txn request" | "too large lease TTL") => Self::Refused,
            (_, "revision of auth store is old" | "invalid auth token") | (Code::Unauthenticated, _) => Self::TokenOld,
            (Code::PermissionDenied, _)
            | (
                _,
                "permission denied"
                | "user name is empty"
                | "authentication is not enabled"
                | "authentication failed, invalid user ID or password",
            ) => Self::Denied,
            (Code::DataLoss, _) => Self::Damaged,
            (Code::ResourceExhausted, "") if message.contains("larger than max") => Self::Refused,
            (Code::OutOfRange, "") if message.contains("message length too large") => Self::AnswerTooLarge,
            _ => Self::Unknown,
        }
    }

    /// What the reason means that etcd gives for the end of a watch.
    pub(crate) fn of_watch(reason: &str) -> Self {
        // Up to 3.4 an invalid token is told as a lack of permission.
        let about_the_user = ["permission denied", "auth", "user name is empty"];
        if about_the_user.iter().any(|words| reason.contains(words)) { Self::TokenOld } else { Self::Unknown }
    }
}

/// Whether a failure lies before the request was sent.
fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A call that failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The store was closed.
    Closed,
    /// etcd or the way to it.
    Etcd(Failure, EtcdError),
}

impl Failed {
    /// What a client's failure at an endpoint is.
    pub(crate) fn at(endpoint: &str, error: &etcd_client::Error) -> Self {
        let failure = Failure::of(error);
        let (endpoint, reason) = (endpoint.to_owned(), described(error));
        let error = match failure {
            Failure::Denied | Failure::TokenOld => EtcdError::Denied { endpoint, reason },
            Failure::NoSpace => EtcdError::NoSpace { endpoint },
            Failure::Damaged => EtcdError::Damaged { endpoint },
            _ => EtcdError::Failed { endpoint, reason },
        };
        Self::Etcd(failure, error)
    }

    /// The same for who asks etcd alone.
    pub(crate) fn into_error(self) -> EtcdError {
        match self {
            Self::Closed => EtcdError::Failed { endpoint: "etcd".to_owned(), reason: "the store is closed".to_owned() },
            Self::Etcd(_, error) => error,
        }
    }

    /// What it means; `None` when the store was closed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Closed => None,
            Self::Etcd(failure, _) => Some(*failure),
        }
    }
}

/// What is wrong, with its causes: the client shows the outermost only.
fn described(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.ends_with(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Closed => Self::Closed,
            Failed::Etcd(Failure::Refused, error) => Self::Refused(error.to_string()),
            Failed::Etcd(_, error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_s_words_are_understood() {
        for (code, message, expected) in [
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Failure::Compacted),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", Failure::Future),
            (Code::NotFound, "etcdserver: requested lease not found", Failure::LeaseGone),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Failure::NoSpace),
            (Code::ResourceExhausted, "etcdserver: too many requests", Failure::Elsewhere),
            (Code::Unavailable, "etcdserver: no leader", Failure::Elsewhere),
            (Code::Unavailable, "etcdserver: leader changed", Failure::Unknown),
            (Code::Unavailable, "etcdserver: request timed out", Failure::Unknown),
            (Code::Unavailable, "etcdserver: server stopped", Failure::Unknown),
            (Code::InvalidArgument, "etcdserver: request is too large", Failure::Refused),
            (Code::ResourceExhausted, "grpc: received message larger than max (5 vs. 4)", Failure::Refused),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request", Failure::Refused),
            (Code::OutOfRange, "Error, decoded message length too large: found 5 bytes", Failure::AnswerTooLarge),
            (Code::PermissionDenied, "etcdserver: permission denied", Failure::Denied),
            (Code::InvalidArgument, "etcdserver: user name is empty", Failure::Denied),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Failure::TokenOld),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Failure::TokenOld),
            (Code::DataLoss, "etcdserver: corrupt cluster", Failure::Damaged),
            (Code::Unknown, "transport error", Failure::Unknown),
        ] {
            assert_eq!(Failure::of_status(&Status::new(code, message)), expected, "{message}");
        }
    }

    #[test]
    fn a_connection_that_was_never_made_changed_nothing() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        assert_eq!(Failure::of_status(&status), Failure::Elsewhere);
        let error = etcd_client::Error::GRpcStatus(status);
        assert!(described(&error).contains("connection refused"), "{}", described(&error));
    }

    #[test]
    fn reasons_of_watches_are_understood() {
        let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(Failure::of_watch(denied), Failure::TokenOld);
        assert_eq!(Failure::of_watch("etcdserver: no leader"), Failure::Unknown);
    }
}
