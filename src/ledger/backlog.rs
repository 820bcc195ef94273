//! Settlements on their way to the store: queued without waiting, written with
//! patience.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc};

use crate::{
    state::{SettleOutcome, Settlement, Store, StoreError},
    telemetry::{Metrics, Settled},
};

/// With so many waiting, no more money is set aside; see `Ledger::hold`.
const FULL: usize = 65_536;
/// Settlements that wait for the store at the same time; they share its commits.
const AT_ONCE: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The near end. The channel itself has no bound, because dropping an unsettled
/// hold can neither wait nor lose it; the bound is kept where new work begins.
/// Unmetered requests are only bounded by the limits on requests.
pub(super) struct Backlog {
    sender: mpsc::UnboundedSender<Settlement>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    count: AtomicUsize,
    none: Notify,
}

impl Backlog {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Settlement>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, waiting: Arc::default() }, receiver)
    }

    pub(super) fn push(&self, settlement: Settlement) {
        self.waiting.count.fetch_add(1, Ordering::AcqRel);
        if let Err(mpsc::error::SendError(settlement)) = self.sender.send(settlement) {
            // The runtime is gone, and with it the writer.
            log_lost(&settlement, &"the process ends");
            self.waiting.one_less();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.count.load(Ordering::Acquire)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= FULL
    }

    pub(super) async fn drained(&self) {
        loop {
            let none = self.waiting.none.notified();
            if self.len() == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Waiting {
    fn one_less(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none.notify_waiters();
        }
    }
}

/// The far end: one task. It ends when the ledger and all open holds are gone.
pub(super) struct Writer {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    queue: mpsc::UnboundedReceiver<Settlement>,
    waiting: Arc<Waiting>,
}

impl Writer {
    pub(super) fn new(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        backlog: &Backlog,
        queue: mpsc::UnboundedReceiver<Settlement>,
    ) -> Self {
        Self { store, metrics, queue, waiting: backlog.waiting.clone() }
    }

    pub(super) async fn run(mut self) {
        let mut writing = FuturesUnordered::new();
        let mut queued = Vec::with_capacity(AT_ONCE);
        let mut is_open = true;
        while is_open || !writing.is_empty() {
            let room = AT_ONCE - writing.len();
            tokio::select! {
                count = self.queue.recv_many(&mut queued, room), if is_open && room > 0 => {
                    is_open = count > 0;
                    writing.extend(queued.drain(..).map(|settlement| write(&*self.store, &self.metrics, settlement)));
                }
                Some(()) = writing.next() => self.waiting.one_less(),
            }
        }
    }
}

/// Tries until the store has it, or says that it never will.
async fn write(store: &dyn Store, metrics: &Metrics, settlement: Settlement) {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match store.settle(&settlement).await {
            Ok(SettleOutcome::Booked) => return metrics.settled(Settled::Booked),
            Ok(SettleOutcome::Duplicate) => {
                tracing::debug!(id = settlement.id, "settled before");
                return metrics.settled(Settled::Duplicate);
            }
            Err(error) => error,
        };
        if matches!(error, StoreError::Invalid(_) | StoreError::NotANumber) {
            log_lost(&settlement, &error);
            return metrics.settled(Settled::Lost);
        }
        if pause == FIRST_PAUSE {
            tracing::warn!(%error, id = settlement.id, "a settlement waits for the store");
        }
        metrics.settled(Settled::Retried);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The last resort: what the books miss is in the log, whole.
fn log_lost(settlement: &Settlement, reason: &dyn std::fmt::Display) {
    let row = serde_json::to_string(&settlement.row).unwrap_or_default();
    tracing::error!(%reason, id = settlement.id, account = settlement.account, amount = settlement.amount, row,
        "a settlement was not booked");
}
