//! What nodes share of certificates: records in the store, private keys sealed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{AcmeError, certificate::Facts};
use crate::{
    config::Secret,
    state::{Secrets, Store, StoreError},
};

/// The namespace of everything here. Plugins never reach it.
pub(super) const SPACE: &str = "acme";
const VERSION: &str = "version";
const FRESH_START: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Vault {
    pub(super) store: Arc<dyn Store>,
    secrets: Arc<Secrets>,
}

/// A chain, leaf first, and its private key.
pub(super) struct Issued {
    pub(super) chain_pem: String,
    pub(super) key_pem: Secret,
}

/// A certificate as it is in the store.
pub(super) struct Kept {
    /// The whole record, which a new one must replace.
    bytes: Bytes,
    pub(super) chain_pem: String,
    pub(super) key_pem: Secret,
    pub(super) facts: Facts,
    /// Whether this authority issued it to us; if not, it knows nothing of it.
    pub(super) ordered: bool,
}

/// Why there is no newer certificate, and when that is tried again. Nodes share
/// it, so that a failure is not repeated by each of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// In a row.
    pub(super) count: u32,
    pub(super) reason: String,
    at_unix_ms: u64,
    again_unix_ms: u64,
    /// Whether the authority itself asks for the pause.
    asked: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    names: Vec<String>,
    chain: String,
    /// Sealed, base64.
    key: String,
    ordered: bool,
}

impl Failure {
    pub(super) fn new(count: u32, reason: String, wait: Duration, asked: bool) -> Self {
        let now = SystemTime::now();
        Self { count, reason, at_unix_ms: unix_ms(now), again_unix_ms: unix_ms(now + wait), asked }
    }

    /// When to try again, for somebody who looks after the certificate since
    /// `since`. A start and a changed configuration may have mended the cause,
    /// so they do not wait out the pauses of before, but for those that the
    /// authority asked for; not at once, lest a crash loop becomes one of orders.
    pub(super) fn again(&self, since: SystemTime) -> SystemTime {
        let again = UNIX_EPOCH + Duration::from_millis(self.again_unix_ms);
        let of_before = self.at_unix_ms < unix_ms(since);
        if of_before && !self.asked { again.min(since + FRESH_START) } else { again }
    }
}

impl Kept {
    pub(super) fn is(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Vault {
    pub(super) fn new(store: Arc<dyn Store>, secrets: Arc<Secrets>) -> Self {
        Self { store, secrets }
    }

    pub(super) async fn certificate(&self, id: &str) -> Result<Option<Kept>, AcmeError> {
        let key = certificate_key(id);
        let Some(bytes) = self.store.kv_get(SPACE, &key).await? else { return Ok(None) };
        let record: Record = parsed(&key, &bytes)?;
        Ok(Some(Kept {
            key_pem: self.open(&key, &record.key)?,
            facts: Facts::read(&record.chain)?,
            chain_pem: record.chain,
            ordered: record.ordered,
            bytes,
        }))
    }

    /// Puts a certificate in place of `previous`; `false`, and nothing is
    /// changed, if that is no longer what is there. This fences off a node that
    /// lost its lease unawares: what another node published since stays.
    pub(super) async fn publish(
        &self,
        id: &str,
        names: &[String],
        issued: &Issued,
        ordered: bool,
        previous: Option<&Kept>,
    ) -> Result<bool, AcmeError> {
        let key = certificate_key(id);
        let record = Record {
            names: names.to_vec(),
            chain: issued.chain_pem.clone(),
            key: self.seal(&key, &issued.key_pem)?,
            ordered,
        };
        let bytes = json(&record)?;
        let old = previous.map(|kept| &*kept.bytes);
        let swapped = self.store.kv_compare_and_swap(SPACE, &key, old, &bytes, None).await?;
        if swapped {
            self.store.kv_add(SPACE, VERSION, 1, None).await?;
        }
        Ok(swapped)
    }

    /// Changes with every certificate and every failure, of whatever name.
    pub(super) async fn version(&self) -> Result<Option<Bytes>, StoreError> {
        self.store.kv_get(SPACE, VERSION).await
    }

    pub(super) async fn failure(&self, id: &str) -> Result<Option<Failure>, AcmeError> {
        let key = failure_key(id);
        self.store.kv_get(SPACE, &key).await?.map(|bytes| parsed(&key, &bytes)).transpose()
    }

    pub(super) async fn failed(&self, id: &str, failure: &Failure) -> Result<(), AcmeError> {
        self.store.kv_set(SPACE, &failure_key(id), &json(failure)?, None).await?;
        self.store.kv_add(SPACE, VERSION, 1, None).await?;
        Ok(())
    }

    pub(super) async fn forget_failure(&self, id: &str) -> Result<(), AcmeError> {
        Ok(self.store.kv_delete(SPACE, &failure_key(id)).await?)
    }

    /// The credentials of an account, as JSON.
    pub(super) async fn account(&self, id: &str) -> Result<Option<Secret>, AcmeError> {
        let key = account_key(id);
        let Some(bytes) = self.store.kv_get(SPACE, &key).await? else { return Ok(None) };
        Ok(Some(self.secrets.open_value(&key, &bytes)?))
    }

    /// Keeps an account unless there is one.
    pub(super) async fn keep_account(&self, id: &str, credentials: &Secret) -> Result<bool, AcmeError> {
        let key = account_key(id);
        let sealed = self.secrets.seal_value(&key, credentials)?;
        Ok(self.store.kv_compare_and_swap(SPACE, &key, None, &sealed, None).await?)
    }

    pub(super) async fn forget_account(&self, id: &str) -> Result<(), AcmeError> {
        Ok(self.store.kv_delete(SPACE, &account_key(id)).await?)
    }

    fn seal(&self, context: &str, value: &Secret) -> Result<String, AcmeError> {
        Ok(BASE64_STANDARD.encode(self.secrets.seal_value(context, value)?))
    }

    fn open(&self, context: &str, sealed: &str) -> Result<Secret, AcmeError> {
        let bytes = BASE64_STANDARD.decode(sealed).map_err(|_| corrupt(context))?;
        Ok(self.secrets.open_value(context, &bytes)?)
    }
}

fn certificate_key(id: &str) -> String {
    format!("certificate/{id}")
}

fn failure_key(id: &str) -> String {
    format!("failure/{id}")
}

fn account_key(id: &str) -> String {
    format!("account/{id}")
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, AcmeError> {
    serde_json::to_vec(value).map_err(|_| corrupt("a record"))
}

fn parsed<'a, T: Deserialize<'a>>(key: &str, bytes: &'a [u8]) -> Result<T, AcmeError> {
    serde_json::from_slice(bytes).map_err(|_| corrupt(key))
}

fn corrupt(what: &str) -> AcmeError {
    AcmeError::Store(StoreError::Corrupt(format!("acme/{what}")))
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
