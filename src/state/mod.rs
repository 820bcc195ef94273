//! What outlives a request: the books, small values, sealed secrets. One
//! contract, [`Store`], kept by an embedded database or by Redis.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

mod clock;
#[cfg(test)]
mod contract;
mod embedded;
mod redis;
mod secrets;
mod shared;

pub use secrets::{SecretInfo, Secrets};
pub use shared::{Handover, Successor};

use shared::SharedStore;
use tokio::net::UnixStream;

use crate::config::state::{Backend, State};

pub type Result<T> = std::result::Result<T, StoreError>;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Away, full or refusing; the operation may or may not have taken effect.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// No answer before the deadline; the operation may yet take effect.
    #[error("the store did not answer in time")]
    TimedOut,
    /// What is stored cannot be read. Asking again does not help.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
    /// `kv_add` on a value that is no number, or beyond 64 bits.
    #[error("the stored value is not a number")]
    NotANumber,
    /// The request itself is wrong; nothing was changed.
    #[error("invalid: {0}")]
    Invalid(&'static str),
}

/// The largest single amount, in nano-USD: about nine million dollars. Up to
/// here a double is exact, so that Redis' Lua decides like the embedded store.
pub const MAX_AMOUNT: i64 = 1 << 53;

/// The longest id, account or cap name, in bytes.
pub const MAX_ID: usize = 256;

/// Money is in nano-USD. Ids (of credits, holds, settlements) are scoped by account.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn kv_get(&self, ns: &str, key: &str) -> Result<Option<Bytes>>;
    /// Without a `ttl` the value stays until it is deleted; the same in the next calls.
    async fn kv_set(&self, ns: &str, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()>;
    async fn kv_delete(&self, ns: &str, key: &str) -> Result<()>;
    /// Adds and returns the new value; an absent key counts as 0. The `ttl` is
    /// set only when this call creates the key, so that a window keeps its end.
    async fn kv_add(&self, ns: &str, key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64>;
    /// Stores `new` only if the value is `old` (`None`: absent).
    async fn kv_compare_and_swap(
        &self,
        ns: &str,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool>;
    /// Keys that start with `prefix`, in byte order, at most `limit`.
    async fn kv_keys(&self, ns: &str, prefix: &str, limit: usize) -> Result<Vec<String>>;

    /// Adds credit (negative: a refund or chargeback) once per id; false if it was done before.
    async fn credit(&self, id: &str, account: &str, nano_usd: i64, note: &str) -> Result<bool>;
    /// Sets money aside, atomically over the balance (if prepaid) and all caps:
    /// either all have room, or nothing changes. Repeating an id tells its state.
    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome>;
    /// Extends an open hold to `lease` from now; false if it is not open.
    async fn renew(&self, id: &str, account: &str, lease: Duration) -> Result<bool>;
    /// Moves held to spent and appends the usage row, both once per id and in
    /// one transaction. More than was held is booked all the same, since the
    /// provider has billed it. Without a known hold the amount is simply spent.
    /// Caps are charged in the windows in which the hold was made, if these still run.
    async fn settle(&self, settlement: &Settlement) -> Result<SettleOutcome>;
    /// Frees holds past their lease and returns how many. A later settlement still books.
    async fn expire_holds(&self) -> Result<u64>;
    /// An account that nobody credited or charged has zeroes.
    async fn balance(&self, account: &str) -> Result<Balance>;
    /// Every account with bookings, sorted by name.
    async fn accounts(&self) -> Result<Vec<Balance>>;
    /// Newest first, at most `limit`; of all accounts if none is named.
    async fn usage(&self, account: Option<&str>, limit: usize) -> Result<Vec<UsageRow>>;

    /// Adds or replaces.
    async fn secret_put(&self, sealed: &SealedSecret) -> Result<()>;
    async fn secret_remove(&self, handle: &str) -> Result<bool>;
    async fn secret_list(&self) -> Result<Vec<SealedSecret>>;

    async fn ping(&self) -> Result<()>;
    /// Writes what is queued. The store stays usable.
    async fn close(&self);
}

/// Money to set aside for one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub id: String,
    pub account: String,
    pub amount: i64,
    /// The account's balance must cover it: credited - spent - held >= amount.
    pub prepaid: bool,
    pub caps: Vec<Cap>,
    /// Freed after this time unless renewed or settled.
    pub lease: Duration,
}

/// A limit on what an account spends under one name. The name carries the
/// window (`key-7:2026-11`): windows end by `ttl`, never by a reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    pub name: String,
    pub limit: i64,
    /// Of the counter, from its first hold on. Zero: it never ends.
    pub ttl: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldOutcome {
    Held,
    /// This id was held before; nothing changed.
    Exists(HoldState),
    /// No room: `used` (spent and held) plus the amount is above `limit`.
    Denied {
        what: Denial,
        limit: i64,
        used: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// The limit is what was credited.
    Balance,
    Cap(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldState {
    Held,
    Settled,
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The hold's id, or the request id if there was no hold.
    pub id: String,
    pub account: String,
    pub amount: i64,
    pub row: UsageRow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleOutcome {
    Booked,
    /// Booked before; nothing changed.
    Duplicate,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    pub account: String,
    pub credited: i64,
    pub spent: i64,
    /// Set aside by open holds.
    pub held: i64,
}

/// One line of the ledger: what a request used and what it cost whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageRow {
    pub request_id: String,
    pub unix_ms: u64,
    pub account: String,
    pub caller: String,
    pub route: String,
    pub model: String,
    pub provider: String,
    /// The token counts are disjoint but for `reasoning_tokens`, a part of `output_tokens`.
    pub input_tokens: u64,
    pub input_cache_read_tokens: u64,
    pub input_cache_write_tokens: u64,
    pub output_tokens: u64,
    pub reasoning_tokens: u64,
    /// What the provider bills; unknown without a price.
    pub cost: Option<i64>,
    /// What the account pays.
    pub amount: i64,
    /// `complete`, `cancelled`, `broken` or `failed`.
    pub ending: String,
    pub attempts: u32,
    pub tags: Vec<(String, String)>,
}

/// A secret as it is kept: only [`Secrets`] can open it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    pub handle: String,
    pub owner: String,
    pub name: String,
    pub scope: String,
    pub hint: String,
    pub created_unix_ms: u64,
    pub key_id: String,
    pub nonce_and_ciphertext: Vec<u8>,
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSecret")
            .field("handle", &self.handle)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// An open store. The embedded one can move to another process.
pub struct Opened {
    pub store: Arc<dyn Store>,
    pub handover: Option<Arc<dyn Handover>>,
}

/// Opens the configured store. Creates `data_dir` (for its owner only) if needed.
/// Redis may be away at this moment: operations fail until it is there.
///
/// `elsewhere` leads to the process that has the embedded store: that one is
/// asked until [`Handover::take`].
pub async fn open(config: &State, elsewhere: Option<UnixStream>) -> Result<Opened> {
    create_private_dir(&config.data_dir)
        .map_err(|error| StoreError::Unavailable(format!("{}: {error}", config.data_dir.display())))?;
    match &config.backend {
        Backend::Embedded => {
            let dir = config.data_dir.clone();
            let store = match elsewhere {
                Some(stream) => SharedStore::elsewhere(&dir, stream),
                None => tokio::task::spawn_blocking(move || SharedStore::open(&dir))
                    .await
                    .map_err(|error| StoreError::Unavailable(error.to_string()))??,
            };
            Ok(Opened { store: store.clone(), handover: Some(store) })
        }
        Backend::Redis { url, timeout } => {
            Ok(Opened { store: Arc::new(redis::RedisStore::open(url, *timeout)?), handover: None })
        }
    }
}

fn create_private_dir(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

impl Hold {
    fn check(&self) -> Result<()> {
        check_id(&self.id)?;
        check_id(&self.account)?;
        if !(0..=MAX_AMOUNT).contains(&self.amount) {
            return Err(StoreError::Invalid("a hold is 0 to 2^53 nano-USD"));
        }
        for (index, cap) in self.caps.iter().enumerate() {
            check_id(&cap.name)?;
            if self.caps[..index].iter().any(|other| other.name == cap.name) {
                return Err(StoreError::Invalid("two caps of one name"));
            }
        }
        Ok(())
    }
}

impl Settlement {
    fn check(&self) -> Result<()> {
        check_id(&self.id)?;
        check_id(&self.account)?;
        if !(0..=MAX_AMOUNT).contains(&self.amount) {
            return Err(StoreError::Invalid("a settlement is 0 to 2^53 nano-USD"));
        }
        Ok(())
    }

    /// The row as booked: its account and amount are those of the settlement,
    /// so that the sum over the rows is what was spent.
    fn row_json(&self) -> Result<String> {
        let text = if self.row.amount == self.amount && self.row.account == self.account {
            serde_json::to_string(&self.row)
        } else {
            let row = UsageRow { amount: self.amount, account: self.account.clone(), ..self.row.clone() };
            serde_json::to_string(&row)
        };
        text.map_err(|error| StoreError::Corrupt(error.to_string()))
    }
}

impl UsageRow {
    fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| StoreError::Corrupt(format!("usage row: {error}")))
    }
}

fn check_credit(id: &str, account: &str, nano_usd: i64) -> Result<()> {
    check_id(id)?;
    check_id(account)?;
    if !(-MAX_AMOUNT..=MAX_AMOUNT).contains(&nano_usd) {
        return Err(StoreError::Invalid("a credit is at most 2^53 nano-USD"));
    }
    Ok(())
}

fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err(StoreError::Invalid("an id, account or cap name is 1 to 256 bytes"));
    }
    Ok(())
}
