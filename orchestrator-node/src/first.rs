//! The first of two futures to end; the left one when both have.

use std::pin::pin;

use futures::future::select;

/// Drops the other one.
pub(crate) async fn first<T>(left: impl Future<Output = T>, right: impl Future<Output = T>) -> T {
    select(pin!(left), pin!(right)).await.factor_first().0
}
