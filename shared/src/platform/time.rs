//! How long things may take.

use futures::future::{Either, select};
use spin_sdk::time::sleep;
use std::{pin::pin, time::Duration};

/// `future`'s output, or `None` when `limit` has passed before; then the future is dropped, and with it what it waited
/// for.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(sleep(limit))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
