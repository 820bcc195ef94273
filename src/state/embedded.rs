//! The store of a single node: memory decides, SQLite remembers.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, Row, params};

use super::{
    Balance, Hold, HoldOutcome, Result, SealedSecret, SettleOutcome, Settlement, Store, StoreError, UsageRow,
    check_credit,
    clock::{millis, unix_ms},
};

mod batch;
mod books;
mod journal;
mod schema;
#[cfg(test)]
mod tests;
mod values;

use books::Books;
use journal::{Change, Journal, committed};
use values::{Value, Values};

/// What becomes of the holds that the process before this one left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenHolds {
    /// Their requests ended with it.
    Freed,
    /// It handed them over; its requests go on.
    Kept,
}

pub(super) struct Embedded {
    books: Arc<Books>,
    values: Mutex<Values>,
    journal: Journal,
    reader: Arc<Mutex<Connection>>,
}

impl Embedded {
    /// Blocks while the database is read. A second process on the same
    /// directory is refused.
    pub(super) fn open(dir: &Path, holds: OpenHolds) -> Result<Self> {
        let lock = schema::lock(dir)?;
        let db = schema::writer(dir)?;
        let books = Arc::new(schema::load_books(&db, holds)?);
        let values = Mutex::new(schema::load_values(&db)?);
        let reader = Arc::new(Mutex::new(schema::reader(dir)?));
        let journal = Journal::start(db, books.clone(), lock)?;
        Ok(Self { books, values, journal, reader })
    }

    /// Runs a query beside the writer, off the async threads.
    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || query(&reader.lock()))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

fn expires(ttl: Option<Duration>) -> i64 {
    ttl.map_or(0, |ttl| unix_ms() + millis(ttl))
}

#[async_trait]
impl Store for Embedded {
    async fn kv_get(&self, ns: &str, key: &str) -> Result<Option<Bytes>> {
        Ok(self.values.lock().read(ns, key, unix_ms()))
    }

    // Writes of values are seen at once and answered when they are committed;
    // an error leaves open, as with any lost answer, whether they happened.
    async fn kv_set(&self, ns: &str, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let value = Value { bytes: Bytes::copy_from_slice(value), expires: expires(ttl) };
        let (reply, answer) = tokio::sync::oneshot::channel();
        let room = self.journal.room().await?;
        {
            let mut values = self.values.lock();
            values.set(ns, key, value.clone());
            room.put(set(ns, key, value, reply));
        }
        committed(answer).await
    }

    async fn kv_delete(&self, ns: &str, key: &str) -> Result<()> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let room = self.journal.room().await?;
        {
            let mut values = self.values.lock();
            if !values.delete(ns, key) {
                return Ok(());
            }
            room.put(Change::Delete { ns: ns.to_owned(), key: key.to_owned(), reply });
        }
        committed(answer).await
    }

    async fn kv_add(&self, ns: &str, key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let room = self.journal.room().await?;
        let sum = {
            let mut values = self.values.lock();
            let (sum, value) = values.add(ns, key, delta, expires(ttl), unix_ms())?;
            room.put(set(ns, key, value, reply));
            sum
        };
        committed(answer).await?;
        Ok(sum)
    }

    async fn kv_compare_and_swap(
        &self,
        ns: &str,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let value = Value { bytes: Bytes::copy_from_slice(new), expires: expires(ttl) };
        let (reply, answer) = tokio::sync::oneshot::channel();
        let room = self.journal.room().await?;
        {
            let mut values = self.values.lock();
            if !values.is(ns, key, old, unix_ms()) {
                return Ok(false);
            }
            values.set(ns, key, value.clone());
            room.put(set(ns, key, value, reply));
        }
        committed(answer).await?;
        Ok(true)
    }

    async fn kv_keys(&self, ns: &str, prefix: &str, limit: usize) -> Result<Vec<String>> {
        Ok(self.values.lock().keys(ns, prefix, limit, unix_ms()))
    }

    async fn credit(&self, id: &str, account: &str, nano_usd: i64, note: &str) -> Result<bool> {
        check_credit(id, account, nano_usd)?;
        let (id, account, note) = (id.to_owned(), account.into(), note.to_owned());
        self.journal.write(|reply| Change::Credit { id, account, nano_usd, note, reply }).await
    }

    /// Returns when memory has decided and the journal has the hold, not when
    /// it is written, which happens with the next sweep if it is still open.
    /// That is safe: the written hold only serves to report what a dead process
    /// left open. Money is held in memory alone, so a crash frees it in any
    /// case, and ends the request with it.
    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome> {
        hold.check()?;
        let room = self.journal.room().await?;
        let (outcome, held) = self.books.hold(hold, unix_ms());
        if let Some(held) = held {
            room.put(Change::Hold(held));
        }
        Ok(outcome)
    }

    async fn renew(&self, id: &str, account: &str, lease: Duration) -> Result<bool> {
        Ok(self.books.renew(id, account, unix_ms() + millis(lease)))
    }

    async fn settle(&self, settlement: &Settlement) -> Result<SettleOutcome> {
        settlement.check()?;
        let row = settlement.row_json()?;
        let (id, account) = (settlement.id.as_str().into(), settlement.account.as_str().into());
        let (amount, unix_ms) = (settlement.amount, settlement.row.unix_ms.cast_signed());
        self.journal.write(|reply| Change::Settle { id, account, amount, unix_ms, row, reply }).await
    }

    async fn expire_holds(&self) -> Result<u64> {
        let now = unix_ms();
        let freed = self.books.expire(now);
        self.values.lock().expire(now);
        self.journal.room().await?.put(Change::Purge);
        Ok(freed)
    }

    async fn balance(&self, account: &str) -> Result<Balance> {
        Ok(self.books.balance(account))
    }

    async fn accounts(&self) -> Result<Vec<Balance>> {
        Ok(self.books.accounts())
    }

    async fn usage(&self, account: Option<&str>, limit: usize) -> Result<Vec<UsageRow>> {
        let account = account.map(str::to_owned);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.query(move |db| {
            let json = |row: &Row<'_>| row.get::<_, String>(0);
            let rows: Vec<String> = match account {
                Some(account) => db
                    .prepare_cached("SELECT row FROM usage WHERE account = ?1 ORDER BY seq DESC LIMIT ?2")?
                    .query_map(params![account, limit], json)?
                    .collect::<rusqlite::Result<_>>()?,
                None => db
                    .prepare_cached("SELECT row FROM usage ORDER BY seq DESC LIMIT ?1")?
                    .query_map(params![limit], json)?
                    .collect::<rusqlite::Result<_>>()?,
            };
            rows.iter().map(|row| UsageRow::from_json(row.as_bytes())).collect()
        })
        .await
    }

    async fn secret_put(&self, sealed: &SealedSecret) -> Result<()> {
        let sealed = Box::new(sealed.clone());
        self.journal.write(|reply| Change::PutSecret { sealed, reply }).await
    }

    async fn secret_remove(&self, handle: &str) -> Result<bool> {
        let handle = handle.to_owned();
        self.journal.write(|reply| Change::RemoveSecret { handle, reply }).await
    }

    async fn secret_list(&self) -> Result<Vec<SealedSecret>> {
        self.query(|db| {
            let mut secrets = db.prepare_cached(
                "SELECT handle, owner, name, scope, hint, created_unix_ms, key_id, sealed \
                 FROM secrets ORDER BY handle",
            )?;
            let all = secrets.query_map([], sealed_secret)?.collect::<rusqlite::Result<_>>()?;
            Ok(all)
        })
        .await
    }

    /// Goes through the writer, so that it fails when writing does.
    async fn ping(&self) -> Result<()> {
        self.journal.write(|reply| Change::Flush { reply }).await
    }

    async fn close(&self) {
        if let Err(error) = self.journal.write(|reply| Change::Checkpoint { reply }).await {
            tracing::error!(%error, "the store could not write what was queued");
        }
    }
}

fn set(ns: &str, key: &str, value: Value, reply: journal::Reply<()>) -> Change {
    Change::Set { ns: ns.to_owned(), key: key.to_owned(), value: value.bytes, expires: value.expires, reply }
}

fn sealed_secret(row: &Row<'_>) -> rusqlite::Result<SealedSecret> {
    Ok(SealedSecret {
        handle: row.get(0)?,
        owner: row.get(1)?,
        name: row.get(2)?,
        scope: row.get(3)?,
        hint: row.get(4)?,
        created_unix_ms: row.get::<_, i64>(5)?.cast_unsigned(),
        key_id: row.get(6)?,
        nonce_and_ciphertext: row.get(7)?,
    })
}
