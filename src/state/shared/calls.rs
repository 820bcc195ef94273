//! The operations of a store as messages.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{Hold, Result, SealedSecret, Settlement, Store, StoreError};

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    KvGet { ns: String, key: String },
    KvSet { ns: String, key: String, value: Vec<u8>, ttl: Option<Duration> },
    KvDelete { ns: String, key: String },
    KvAdd { ns: String, key: String, delta: i64, ttl: Option<Duration> },
    KvCompareAndSwap { ns: String, key: String, old: Option<Vec<u8>>, new: Vec<u8>, ttl: Option<Duration> },
    KvKeys { ns: String, prefix: String, limit: usize },
    Credit { id: String, account: String, nano_usd: i64, note: String },
    Hold(Hold),
    Renew { id: String, account: String, lease: Duration },
    Settle(Box<Settlement>),
    ExpireHolds,
    Balance { account: String },
    Accounts,
    Usage { account: Option<String>, limit: usize },
    SecretPut(Box<SealedSecret>),
    SecretRemove { handle: String },
    SecretList,
    Ping,
}

/// A [`StoreError`] as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    Unavailable(String),
    TimedOut,
    Corrupt(String),
    NotANumber,
    Invalid(String),
}

impl Call {
    pub(super) async fn answer(self, store: &impl Store) -> std::result::Result<Value, Failure> {
        let answer = match self {
            Self::KvGet { ns, key } => {
                value(store.kv_get(&ns, &key).await.map(|found| found.map(|bytes| bytes.to_vec())))
            }
            Self::KvSet { ns, key, value: v, ttl } => value(store.kv_set(&ns, &key, &v, ttl).await),
            Self::KvDelete { ns, key } => value(store.kv_delete(&ns, &key).await),
            Self::KvAdd { ns, key, delta, ttl } => value(store.kv_add(&ns, &key, delta, ttl).await),
            Self::KvCompareAndSwap { ns, key, old, new, ttl } => {
                value(store.kv_compare_and_swap(&ns, &key, old.as_deref(), &new, ttl).await)
            }
            Self::KvKeys { ns, prefix, limit } => value(store.kv_keys(&ns, &prefix, limit).await),
            Self::Credit { id, account, nano_usd, note } => {
                value(store.credit(&id, &account, nano_usd, &note).await)
            }
            Self::Hold(hold) => value(store.hold(&hold).await),
            Self::Renew { id, account, lease } => value(store.renew(&id, &account, lease).await),
            Self::Settle(settlement) => value(store.settle(&settlement).await),
            Self::ExpireHolds => value(store.expire_holds().await),
            Self::Balance { account } => value(store.balance(&account).await),
            Self::Accounts => value(store.accounts().await),
            Self::Usage { account, limit } => value(store.usage(account.as_deref(), limit).await),
            Self::SecretPut(sealed) => value(store.secret_put(&sealed).await),
            Self::SecretRemove { handle } => value(store.secret_remove(&handle).await),
            Self::SecretList => value(store.secret_list().await),
            Self::Ping => value(store.ping().await),
        };
        answer.map_err(Failure::from)
    }
}

fn value<T: Serialize>(answer: Result<T>) -> Result<Value> {
    serde_json::to_value(answer?).map_err(|error| StoreError::Corrupt(error.to_string()))
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::TimedOut => Self::TimedOut,
            StoreError::Corrupt(why) => Self::Corrupt(why),
            StoreError::NotANumber => Self::NotANumber,
            StoreError::Invalid(why) => Self::Invalid(why.to_owned()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(why) => Self::Unavailable(why),
            Failure::TimedOut => Self::TimedOut,
            Failure::Corrupt(why) => Self::Corrupt(why),
            Failure::NotANumber => Self::NotANumber,
            Failure::Invalid(why) => {
                tracing::warn!(why, "the process that has the store refuses an operation");
                Self::Invalid("refused by the process that has the store")
            }
        }
    }
}
