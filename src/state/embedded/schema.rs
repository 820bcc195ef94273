//! The database file: its lock, its tables, and reading them back at start.

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, params};

use super::{
    OpenHolds,
    books::{Books, Charged, Held, LATE},
    values::{Value, Values},
};
use crate::state::{Result, StoreError, clock::unix_ms};

const FILE: &str = "tollgate.db";
const VERSION: i64 = 1;
/// Settled ids read back, so that a hold repeated across a restart is recognised.
const REMEMBERED: i64 = 16_384;

/// The lease of a hold that is kept, in milliseconds.
const KEPT: i64 = 60_000;

/// `usage` is the ledger; `accounts` and `caps` are its sums, written in the
/// same transaction. `holds` has the holds that nobody settled yet.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
  account TEXT PRIMARY KEY, credited INTEGER NOT NULL, spent INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS credits (
  account TEXT NOT NULL, id TEXT NOT NULL, nano_usd INTEGER NOT NULL, note TEXT NOT NULL,
  unix_ms INTEGER NOT NULL, PRIMARY KEY (account, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (
  id TEXT NOT NULL, account TEXT NOT NULL, amount INTEGER NOT NULL, deadline INTEGER NOT NULL,
  caps TEXT NOT NULL, PRIMARY KEY (id, account)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS caps (
  account TEXT NOT NULL, name TEXT NOT NULL, born INTEGER NOT NULL, expires INTEGER NOT NULL,
  spent INTEGER NOT NULL, PRIMARY KEY (account, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, account TEXT NOT NULL, unix_ms INTEGER NOT NULL,
  amount INTEGER NOT NULL, row TEXT NOT NULL, UNIQUE (id, account));
CREATE INDEX IF NOT EXISTS usage_by_account ON usage (account, seq);
CREATE TABLE IF NOT EXISTS kv (
  ns TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires INTEGER NOT NULL,
  PRIMARY KEY (ns, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kv_by_expiry ON kv (expires) WHERE expires <> 0;
CREATE INDEX IF NOT EXISTS caps_by_expiry ON caps (expires) WHERE expires <> 0;
CREATE TABLE IF NOT EXISTS secrets (
  handle TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, scope TEXT NOT NULL,
  hint TEXT NOT NULL, created_unix_ms INTEGER NOT NULL, key_id TEXT NOT NULL, sealed BLOB NOT NULL)
  WITHOUT ROWID;
";

/// Exclusive as long as the file is open; the system frees it when the process dies.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let unavailable = |text: String| StoreError::Unavailable(format!("{}: {text}", path.display()));
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|error| unavailable(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(unavailable("another process uses this data directory".to_owned()))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(unavailable(error.to_string())),
    }
}

pub(super) fn writer(dir: &Path) -> Result<Connection> {
    let db = Connection::open(dir.join(FILE))?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.set_prepared_statement_cache_capacity(64);
    // NORMAL: a commit survives the death of the process, not always that of
    // the machine. FULL would cost an fsync for each batch. Folding in the log
    // every 32 MiB writes a page that changes all the time only once.
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16000; \
         PRAGMA wal_autocheckpoint = 8192;",
    )?;
    let batch = db.unchecked_transaction()?;
    batch.execute_batch(TABLES)?;
    check_version(&batch)?;
    batch.commit()?;
    Ok(db)
}

fn check_version(db: &Connection) -> Result<()> {
    let found: Option<i64> = db.query_row("SELECT max(version) FROM schema", [], |row| row.get(0))?;
    match found {
        Some(VERSION) => Ok(()),
        None => {
            db.execute("INSERT INTO schema (version) VALUES (?1)", [VERSION])?;
            Ok(())
        }
        Some(other) => {
            Err(StoreError::Corrupt(format!("schema version {other}; this program knows {VERSION}")))
        }
    }
}

pub(super) fn reader(dir: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(dir.join(FILE), flags)?;
    db.busy_timeout(Duration::from_secs(5))?;
    Ok(db)
}

pub(super) fn load_books(db: &Connection, holds: OpenHolds) -> Result<Books> {
    let (books, now) = (Books::new(), unix_ms());
    let mut accounts = db.prepare("SELECT account, credited, spent FROM accounts")?;
    let mut rows = accounts.query([])?;
    while let Some(row) = rows.next()? {
        books.load_account(&row.get::<_, String>(0)?, row.get(1)?, row.get(2)?);
    }
    let mut caps =
        db.prepare("SELECT account, name, born, expires, spent FROM caps WHERE expires = 0 OR expires > ?1")?;
    let mut rows = caps.query([now])?;
    while let Some(row) = rows.next()? {
        let cap = Charged { name: row.get(1)?, born: row.get(2)?, expires: row.get(3)? };
        books.load_cap(&row.get::<_, String>(0)?, cap, row.get(4)?);
    }
    let mut settled = db.prepare("SELECT id, account FROM usage ORDER BY seq DESC LIMIT ?1")?;
    let mut rows = settled.query([REMEMBERED])?;
    while let Some(row) = rows.next()? {
        books.load_settled(row.get(0)?, &row.get::<_, String>(1)?);
    }
    load_holds(db, &books, holds, now)?;
    Ok(books)
}

/// Holds of the process before this one. Kept ones get a new lease, because
/// renewals are not written; who holds them goes on renewing.
fn load_holds(db: &Connection, books: &Books, open: OpenHolds, now: i64) -> Result<()> {
    db.execute("DELETE FROM holds WHERE deadline < ?1", [now.saturating_sub(LATE)])?;
    let mut holds = db.prepare("SELECT id, account, amount, deadline, caps FROM holds")?;
    let mut rows = holds.query([])?;
    let (mut count, mut sum) = (0_u64, 0_i64);
    while let Some(row) = rows.next()? {
        let caps = caps_from_text(&row.get::<_, String>(4)?)?;
        let mut held =
            Held { id: row.get(0)?, account: row.get(1)?, amount: row.get(2)?, deadline: row.get(3)?, caps };
        if open == OpenHolds::Kept {
            held.deadline = held.deadline.max(now + KEPT);
            books.load_held(held, now);
            continue;
        }
        sum = sum.saturating_add(held.amount);
        count += 1;
        books.load_expired(held);
    }
    if count > 0 {
        tracing::warn!(holds = count, nano_usd = sum, "freed holds that an earlier process left open");
    }
    Ok(())
}

pub(super) fn load_values(db: &Connection) -> Result<Values> {
    let mut values = Values::default();
    let mut kv = db.prepare("SELECT ns, key, value, expires FROM kv WHERE expires = 0 OR expires > ?1")?;
    let mut rows = kv.query(params![unix_ms()])?;
    while let Some(row) = rows.next()? {
        let value = Value { bytes: Bytes::from(row.get::<_, Vec<u8>>(2)?), expires: row.get(3)? };
        values.set(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?, value);
    }
    Ok(values)
}

pub(super) fn caps_to_text(caps: &[Charged]) -> String {
    if caps.is_empty() {
        return String::new();
    }
    let plain: Vec<_> = caps.iter().map(|cap| (&*cap.name, cap.born, cap.expires)).collect();
    serde_json::to_string(&plain).unwrap_or_default()
}

fn caps_from_text(text: &str) -> Result<Arc<[Charged]>> {
    if text.is_empty() {
        return Ok(Arc::default());
    }
    let plain: Vec<(String, i64, i64)> =
        serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(plain.into_iter().map(|(name, born, expires)| Charged { name: name.into(), born, expires }).collect())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
