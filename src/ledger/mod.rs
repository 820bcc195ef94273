//! Money around a request: set aside before it, settled exactly once after it,
//! however it ends, without the client waiting for the books.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::state::{Denial, Hold, HoldOutcome, HoldState, Settlement, Store, StoreError, UsageRow};
use crate::telemetry::Metrics;

mod backlog;
mod leases;
mod open_hold;
#[cfg(test)]
mod tests;

use backlog::{Backlog, Writer};
use leases::Leases;
pub use open_hold::OpenHold;

/// How often overdue holds are freed and leases looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// The one place that holds and settles.
pub struct Ledger {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    backlog: Backlog,
    leases: Leases,
    /// Until `start` takes it.
    queue: Mutex<Option<mpsc::UnboundedReceiver<Settlement>>>,
}

/// Why no money was set aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// `used` (spent and held) plus the amount is above `limit`, in nano-USD.
    #[error("no room: {used} of {limit} nano-USD are used")]
    Denied { what: Denial, limit: i64, used: i64 },
    /// A request of this id was settled, or given up, before.
    #[error("this hold is closed already")]
    Closed,
    /// Nothing is known to be held. A hold that the store made without being
    /// able to say so ends with its lease.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ledger {
    /// Spawns nothing; settlements wait until `start`.
    pub fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Arc<Self> {
        let (backlog, queue) = Backlog::new();
        Arc::new(Self { store, metrics, backlog, leases: Leases::default(), queue: Mutex::new(Some(queue)) })
    }

    /// Starts writing settlements, renewing leases and freeing overdue holds.
    /// Must be called in a runtime; a second call does nothing. The tasks end
    /// with the ledger and its open holds.
    pub fn start(self: &Arc<Self>) {
        let Some(queue) = self.queue.lock().take() else { return };
        let writer = Writer::new(self.store.clone(), self.metrics.clone(), &self.backlog, queue);
        tokio::spawn(writer.run());
        tokio::spawn(sweep(Arc::downgrade(self)));
    }

    /// Sets the money aside, or says why not. While more settlements wait than
    /// the backlog should have (the store is away or too slow), new holds are
    /// refused: that bounds the backlog, since a settlement is never refused.
    pub async fn hold(self: &Arc<Self>, hold: Hold) -> Result<OpenHold, HoldError> {
        if self.backlog.is_full() {
            return Err(StoreError::Unavailable("too many settlements wait".to_owned()).into());
        }
        match self.store.hold(&hold).await? {
            // A repeated id is a retry whose first answer was lost.
            HoldOutcome::Held | HoldOutcome::Exists(HoldState::Held) => {}
            HoldOutcome::Exists(HoldState::Settled | HoldState::Expired) => return Err(HoldError::Closed),
            HoldOutcome::Denied { what, limit, used } => return Err(HoldError::Denied { what, limit, used }),
        }
        self.leases.add(&hold, Instant::now());
        self.metrics.hold_opened();
        Ok(OpenHold::new(self.clone(), hold.id, hold.account, Some(hold.amount)))
    }

    /// For a request that costs its account nothing in advance: no money is set
    /// aside, but it is settled once like any other.
    pub fn unmetered(self: &Arc<Self>, request_id: &str, account: &str) -> OpenHold {
        OpenHold::new(self.clone(), request_id.to_owned(), account.to_owned(), None)
    }

    /// Returns when all settlements queued so far are written. Waits as long as
    /// the store is away: give it a deadline.
    pub async fn drain(&self) {
        self.backlog.drained().await;
    }

    /// Settlements not yet written.
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    fn close(&self, settlement: Settlement, held: bool) {
        if held {
            self.leases.remove(&settlement.account, &settlement.id);
            self.metrics.hold_closed();
        }
        self.backlog.push(settlement);
    }

    /// Extends what a third of its lease has passed of; long streams outlive it.
    async fn renew_due(&self, now: Instant) {
        let renewals = self.leases.due(now).into_iter().map(async |due| {
            match self.store.renew(&due.id, &due.account, due.lease).await {
                Ok(true) => self.leases.renewed(&due, now),
                // Settled meanwhile, or expired: the settlement books all the same.
                Ok(false) => tracing::debug!(id = due.id, "a hold to renew is not open any more"),
                Err(error) => tracing::warn!(%error, id = due.id, "a hold was not renewed"),
            }
        });
        futures_util::future::join_all(renewals).await;
    }

    async fn expire(&self) {
        match self.store.expire_holds().await {
            Ok(0) => {}
            Ok(freed) => tracing::warn!(holds = freed, "freed holds whose lease ended"),
            Err(error) => tracing::warn!(%error, "overdue holds were not freed"),
        }
    }
}

async fn sweep(ledger: Weak<Ledger>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        // First what is in use, so that it is not taken for abandoned.
        ledger.renew_due(Instant::now()).await;
        ledger.expire().await;
    }
}

fn failed_row(id: &str, account: &str) -> UsageRow {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UsageRow {
        request_id: id.to_owned(),
        unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        account: account.to_owned(),
        ending: "failed".to_owned(),
        ..UsageRow::default()
    }
}
