//! The one writer of the database: takes queued changes, commits them in
//! groups, and only then tells the books and those who wait.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    batch::{Batch, YoungHolds},
    books::{Books, Held},
};
use crate::state::{Result, SealedSecret, SettleOutcome, StoreError};

/// Changes that wait for the writer. Beyond it callers wait.
const QUEUE: usize = 16_384;
const BATCH: usize = 4096;
/// How long the first change of a batch waits for company when nobody on a
/// request's path waits for it. A commit costs 20 to 50 us, whatever it holds.
const LINGER: Duration = Duration::from_millis(10);

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

pub(super) enum Change {
    Hold(Held),
    Settle {
        id: Arc<str>,
        account: Arc<str>,
        amount: i64,
        unix_ms: i64,
        row: String,
        reply: Reply<SettleOutcome>,
    },
    Credit {
        id: String,
        account: Arc<str>,
        nano_usd: i64,
        note: String,
        reply: Reply<bool>,
    },
    Set {
        ns: String,
        key: String,
        value: Bytes,
        expires: i64,
        reply: Reply<()>,
    },
    Delete {
        ns: String,
        key: String,
        reply: Reply<()>,
    },
    PutSecret {
        sealed: Box<SealedSecret>,
        reply: Reply<()>,
    },
    RemoveSecret {
        handle: String,
        reply: Reply<bool>,
    },
    /// Drops what expired.
    Purge,
    Flush {
        reply: Reply<()>,
    },
    Checkpoint {
        reply: Reply<()>,
    },
}

impl Change {
    /// Whether somebody waits for it with nothing else to do.
    fn is_urgent(&self) -> bool {
        !matches!(self, Self::Hold(_) | Self::Settle { .. } | Self::Purge)
    }
}

/// The queue's near end. Dropping it writes what is queued and ends the thread.
pub(super) struct Journal {
    sender: Option<mpsc::Sender<Change>>,
    hurry: Arc<AtomicBool>,
    writer: Thread,
    thread: Option<JoinHandle<()>>,
}

/// Room for one change, taken before the decision that the change records: from
/// then on nothing can wait or fail, so memory and journal cannot part.
pub(super) struct Room<'a> {
    permit: mpsc::Permit<'a, Change>,
    journal: &'a Journal,
}

impl Journal {
    pub(super) fn start(db: Connection, books: Arc<Books>, lock: File) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let hurry = Arc::new(AtomicBool::new(false));
        let writer =
            Writer { db, books, receiver, hurry: hurry.clone(), young: YoungHolds::new(), _lock: lock };
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { sender: Some(sender), hurry, writer: thread.thread().clone(), thread: Some(thread) })
    }

    pub(super) async fn room(&self) -> Result<Room<'_>> {
        let sender = self.sender.as_ref().ok_or_else(stopped)?;
        let permit = sender.reserve().await.map_err(|_| stopped())?;
        Ok(Room { permit, journal: self })
    }

    /// Queues the change and waits until it is committed.
    pub(super) async fn write<T>(&self, change: impl FnOnce(Reply<T>) -> Change) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.room().await?.put(change(reply));
        committed(answer).await
    }
}

impl Room<'_> {
    pub(super) fn put(self, change: Change) {
        let urgent = change.is_urgent();
        self.permit.send(change);
        if urgent {
            self.journal.hurry.store(true, Ordering::Release);
            self.journal.writer.unpark();
        }
    }
}

pub(super) async fn committed<T>(answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    // The sender is dropped with its batch when an earlier change of it failed.
    answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the write was not committed".to_owned())))
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the journal has stopped".to_owned())
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.sender = None;
        self.hurry.store(true, Ordering::Release);
        self.writer.unpark();
        // The data directory is locked until the thread ends.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    db: Connection,
    books: Arc<Books>,
    receiver: mpsc::Receiver<Change>,
    hurry: Arc<AtomicBool>,
    young: YoungHolds,
    _lock: File,
}

impl Writer {
    fn run(mut self) {
        let mut changes = Vec::with_capacity(BATCH);
        while let Some(first) = self.receiver.blocking_recv() {
            if !first.is_urgent() {
                self.linger();
            }
            self.hurry.store(false, Ordering::Release);
            changes.push(first);
            while changes.len() < BATCH
                && let Ok(change) = self.receiver.try_recv()
            {
                changes.push(change);
            }
            self.commit(&mut changes);
        }
        // Holds that are still open, for whoever opens the store next.
        let (reply, _) = oneshot::channel();
        self.commit(&mut vec![Change::Checkpoint { reply }]);
    }

    fn linger(&self) {
        let end = Instant::now() + LINGER;
        while !self.hurry.load(Ordering::Acquire) && self.receiver.len() < BATCH {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn commit(&mut self, changes: &mut Vec<Change>) {
        let mut batch = Batch::new(&self.books, &mut self.young);
        let mut checkpoints = Vec::new();
        let written = self.db.unchecked_transaction().map_err(StoreError::from).and_then(|transaction| {
            for change in changes.drain(..) {
                match change {
                    Change::Checkpoint { reply } => {
                        checkpoints.push(reply);
                        batch.write_holds();
                    }
                    change => batch.add(&transaction, change)?,
                }
            }
            batch.finish(&transaction)?;
            Ok(transaction.commit()?)
        });
        if let Err(error) = &written {
            tracing::error!(%error, changes = batch.len(), "the journal could not commit");
        }
        batch.announce(&written);
        if !checkpoints.is_empty() {
            checkpoint(&self.db);
        }
        for reply in checkpoints {
            let _ = reply.send(written.clone());
        }
    }
}

/// Folds the write-ahead log into the database file; only saves time at the next start.
fn checkpoint(db: &Connection) {
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the write-ahead log could not be folded in");
    }
}
