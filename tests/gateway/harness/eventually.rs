//! Waits for a condition instead of for a time.

use std::time::{Duration, Instant};

/// Generous, because a loaded machine is slow; a passing test never waits it out.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until `look` finds something; panics with `what` when patience ends.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    let until = Instant::now() + PATIENCE;
    async move {
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < until, "{caller}: never happened: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The same where looking takes a request of its own.
pub(crate) async fn eventually_asking<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
