//! Waiting for what happens in its own time.

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer; fails the test after `limit`.
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < limit, "within {limit:?} not seen: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
