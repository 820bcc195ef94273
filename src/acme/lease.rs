//! The right to order one certificate, held by one node at a time: a key in the
//! store that runs out unless its holder renews it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::vault::SPACE;
use crate::state::{Result, Store};

/// A node that dies while it orders is waited for this long.
const TTL: Duration = Duration::from_secs(60);
const RENEWAL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);
/// Given back: gone at once.
const GONE: Duration = Duration::from_millis(1);

pub(super) struct Lease {
    store: Arc<dyn Store>,
    key: String,
    /// Of this taking, so that a node never renews another one's.
    token: String,
}

impl Lease {
    /// `None` while somebody holds it.
    pub(super) async fn take(store: Arc<dyn Store>, id: &str) -> Result<Option<Self>> {
        let lease = Self { store, key: format!("lease/{id}"), token: ulid::Ulid::new().to_string() };
        let taken = lease.swap(None, TTL).await?;
        Ok(taken.then_some(lease))
    }

    /// Renews as long as it is polled; ends when the lease is lost, or may be
    /// because the store cannot be asked.
    pub(super) async fn lost(&self) {
        let mut until = Instant::now() + TTL;
        let mut pause = RENEWAL;
        loop {
            sleep(pause).await;
            // Counted from before the call: the store counts from later.
            let asked = Instant::now();
            match self.swap(Some(&self.token), TTL).await {
                Ok(true) => (until, pause) = (asked + TTL, RENEWAL),
                Ok(false) => return,
                Err(_) if Instant::now() + RETRY >= until => return,
                Err(_) => pause = RETRY,
            }
        }
    }

    /// If this fails, the lease runs out by itself.
    pub(super) async fn give_back(self) {
        let _ = self.swap(Some(&self.token), GONE).await;
    }

    async fn swap(&self, old: Option<&str>, ttl: Duration) -> Result<bool> {
        let old = old.map(str::as_bytes);
        self.store.kv_compare_and_swap(SPACE, &self.key, old, self.token.as_bytes(), Some(ttl)).await
    }
}
