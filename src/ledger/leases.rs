//! Which holds of this process are open, and when their lease wants renewing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::state::Hold;

#[derive(Default)]
pub(super) struct Leases {
    /// By account and id.
    open: Mutex<HashMap<(String, String), Lease>>,
}

struct Lease {
    lease: Duration,
    since: Instant,
}

pub(super) struct Due {
    pub(super) account: String,
    pub(super) id: String,
    pub(super) lease: Duration,
}

impl Leases {
    pub(super) fn add(&self, hold: &Hold, now: Instant) {
        let lease = Lease { lease: hold.lease, since: now };
        self.open.lock().insert((hold.account.clone(), hold.id.clone()), lease);
    }

    pub(super) fn remove(&self, account: &str, id: &str) {
        self.open.lock().remove(&(account.to_owned(), id.to_owned()));
    }

    /// Those of which a third has passed.
    pub(super) fn due(&self, now: Instant) -> Vec<Due> {
        let open = self.open.lock();
        let due =
            open.iter().filter(|(_, lease)| now.saturating_duration_since(lease.since) >= lease.lease / 3);
        due.map(|((account, id), lease)| Due { account: account.clone(), id: id.clone(), lease: lease.lease })
            .collect()
    }

    pub(super) fn renewed(&self, due: &Due, now: Instant) {
        if let Some(lease) = self.open.lock().get_mut(&(due.account.clone(), due.id.clone())) {
            lease.since = now;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }
}
