//! `key-value`: small values in granted namespaces.

use std::time::Duration;

use crate::{
    plugin::{
        bindings::imports::key_value::{Error, Host},
        instance::InstanceState,
    },
    state::StoreError,
};

use super::bounded;

const MAX_KEY: usize = 512;
const MAX_VALUE: usize = 64 * 1024;
const MAX_KEYS: u32 = 1_000;

impl InstanceState {
    /// The store's namespace: plugins never share one with the gateway itself.
    fn namespace(&self, namespace: &str, key: &str) -> Result<String, Error> {
        if !self.identity.grants.key_value.iter().any(|granted| granted == namespace) {
            return Err(Error::Denied);
        }
        if key.len() > MAX_KEY {
            return Err(Error::TooLarge);
        }
        Ok(format!("plugin/{namespace}"))
    }
}

impl Host for InstanceState {
    async fn get(&mut self, namespace: String, key: String) -> Result<Option<Vec<u8>>, Error> {
        let namespace = self.namespace(&namespace, &key)?;
        let value = bounded(self.host.services.store.kv_get(&namespace, &key)).await?;
        Ok(value.map(|value| value.to_vec()))
    }

    async fn set(
        &mut self,
        namespace: String,
        key: String,
        value: Vec<u8>,
        ttl_seconds: u64,
    ) -> Result<(), Error> {
        let namespace = self.namespace(&namespace, &key)?;
        check_value(&value)?;
        Ok(bounded(self.host.services.store.kv_set(&namespace, &key, &value, ttl(ttl_seconds))).await?)
    }

    async fn delete(&mut self, namespace: String, key: String) -> Result<(), Error> {
        let namespace = self.namespace(&namespace, &key)?;
        Ok(bounded(self.host.services.store.kv_delete(&namespace, &key)).await?)
    }

    async fn add(
        &mut self,
        namespace: String,
        key: String,
        delta: i64,
        ttl_seconds: u64,
    ) -> Result<i64, Error> {
        let namespace = self.namespace(&namespace, &key)?;
        Ok(bounded(self.host.services.store.kv_add(&namespace, &key, delta, ttl(ttl_seconds))).await?)
    }

    async fn compare_and_swap(
        &mut self,
        namespace: String,
        key: String,
        old: Option<Vec<u8>>,
        new: Vec<u8>,
        ttl_seconds: u64,
    ) -> Result<bool, Error> {
        let namespace = self.namespace(&namespace, &key)?;
        check_value(&new)?;
        let store = &self.host.services.store;
        let swap = store.kv_compare_and_swap(&namespace, &key, old.as_deref(), &new, ttl(ttl_seconds));
        Ok(bounded(swap).await?)
    }

    async fn keys(&mut self, namespace: String, prefix: String, limit: u32) -> Result<Vec<String>, Error> {
        let namespace = self.namespace(&namespace, &prefix)?;
        let limit = limit.clamp(1, MAX_KEYS) as usize;
        Ok(bounded(self.host.services.store.kv_keys(&namespace, &prefix, limit)).await?)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotANumber => Self::NotANumber,
            _ => Self::Unavailable,
        }
    }
}

fn check_value(value: &[u8]) -> Result<(), Error> {
    if value.len() > MAX_VALUE { Err(Error::TooLarge) } else { Ok(()) }
}

fn ttl(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
