//! Waiting for what happens in its own time.

use std::time::{Duration, Instant};

/// How long a test waits for something before it takes it for something that never happens: much longer than it takes,
/// so that a machine with much else to do passes too.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until there is an answer; fails the test when there is none after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "within {PATIENCE:?} not seen: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
