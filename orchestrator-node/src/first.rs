//! The first of two futures to end; the left one when both have.

use futures::{FutureExt, future::select};

/// Both come pinned: a future that took them by value would hold room for each twice, and be one of a nest of them.
pub(crate) fn first<T>(
    left: impl Future<Output = T> + Unpin,
    right: impl Future<Output = T> + Unpin,
) -> impl Future<Output = T> + Unpin {
    select(left, right).map(|ended| ended.factor_first().0)
}
