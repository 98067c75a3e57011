//! The bounds of the controllers, with their units.

/// Pods that a replica set creates or deletes in one run. As upstream's `BurstReplicas`.
pub(crate) const PODS_PER_RUN: usize = 500;

/// Characters of `deployment.kubernetes.io/revision-history`; older revisions are forgotten. As upstream.
pub(crate) const REVISION_HISTORY_CHARACTERS: usize = 2000;

/// How often a new name is tried for a controller revision in one run when its name is taken by another.
pub(crate) const REVISION_NAME_TRIES: usize = 8;
