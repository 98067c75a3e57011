//! What objects use of the quotas of their namespace: the controller counts it, the API server's admission bounds it.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.

pub mod amounts;
pub mod scopes;
