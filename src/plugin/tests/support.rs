//! The probe component, a store that the test holds in its hand, defaults.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    config::{
        ByteSize, Name,
        plugin::{ControlVerb, Grants, LedgerGrant, Limits, Module, OnError, Plugin},
    },
    plugin::{HostServices, Inspect, Plugins, Version, api::RequestHead},
    state::{
        Balance, Hold, HoldOutcome, Result, SealedSecret, Secrets, SettleOutcome, Settlement, Store,
        StoreError, UsageRow,
    },
    telemetry::Metrics,
};

pub(super) fn probe() -> Bytes {
    std::fs::read(super::probe::file()).unwrap().into()
}

/// The probe with other bytes and the same behaviour.
pub(super) fn probe_variant(tag: u8) -> Bytes {
    // A custom section: id, length, name length, name.
    let section = [0, 2, 1, tag];
    [&probe()[..], &section].concat().into()
}

/// One running plugin and the store behind it.
pub(super) struct Bench {
    pub(super) plugins: Arc<Plugins>,
    pub(super) store: Arc<ScriptedStore>,
    pub(super) metrics: Arc<Metrics>,
    _data: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn empty() -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(ScriptedStore::default());
        let secrets = Secrets::open(store.clone(), data.path()).await.unwrap();
        let metrics = Metrics::new();
        let services = HostServices {
            store: store.clone(),
            secrets,
            inspect: Arc::new(Nothing),
            metrics: metrics.clone(),
        };
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-guests/cache");
        Self { plugins: Plugins::new(services, Some(&cache)).unwrap(), store, metrics, _data: data }
    }

    pub(super) async fn with(plugin: Plugin) -> Self {
        let bench = Self::empty().await;
        bench.plugins.apply(&configured(plugin)).await.unwrap();
        bench
    }

    pub(super) fn version(&self) -> Arc<Version> {
        self.plugins.slot("probe").unwrap().current()
    }
}

pub(super) fn configured(plugin: Plugin) -> BTreeMap<Name, Plugin> {
    BTreeMap::from([("probe".parse().unwrap(), plugin)])
}

/// The probe with everything granted.
pub(super) fn plugin() -> Plugin {
    Plugin {
        module: Module::File(super::probe::file().to_owned()),
        sha256: None,
        on_error: OnError::Reject,
        grants: Grants {
            log: true,
            key_value: vec!["gate".to_owned()],
            ledger: LedgerGrant::Read,
            secrets: vec!["byok".to_owned()],
            control: vec![ControlVerb::Read],
        },
        limits: Limits {
            memory: ByteSize(32 << 20),
            time_per_call: Duration::from_millis(200),
            instances: 4,
            calls_per_instance: 10_000,
        },
        config: "\"a\"".to_owned(),
    }
}

pub(super) fn request(path: &str) -> RequestHead {
    RequestHead {
        request_id: "r1".to_owned(),
        method: "GET".to_owned(),
        scheme: "http".to_owned(),
        authority: "example.test".to_owned(),
        path: path.to_owned(),
        client_address: "192.0.2.1".to_owned(),
        route: "main".to_owned(),
        headers: vec![("x-one".to_owned(), "1".to_owned()), ("x-two".to_owned(), "2".to_owned())],
    }
}

pub(super) struct Nothing;

impl Inspect for Nothing {
    fn routes(&self) -> String {
        "[\"routes\"]".to_owned()
    }

    fn services(&self) -> String {
        "[]".to_owned()
    }
}

/// `kv_get` waits until the test lets it pass; the rest answers at once.
pub(super) struct ScriptedStore {
    /// One permit for each `kv_get` that has arrived.
    pub(super) arrived: Semaphore,
    /// One permit lets one `kv_get` pass.
    pub(super) gate: Semaphore,
}

impl Default for ScriptedStore {
    fn default() -> Self {
        Self { arrived: Semaphore::new(0), gate: Semaphore::new(0) }
    }
}

fn unscripted<T>() -> Result<T> {
    Err(StoreError::Unavailable("not scripted".to_owned()))
}

#[async_trait]
impl Store for ScriptedStore {
    async fn kv_get(&self, _ns: &str, _key: &str) -> Result<Option<Bytes>> {
        self.arrived.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        Ok(Some(Bytes::from_static(b"open")))
    }

    async fn kv_set(&self, _ns: &str, _key: &str, _value: &[u8], _ttl: Option<Duration>) -> Result<()> {
        unscripted()
    }

    async fn kv_delete(&self, _ns: &str, _key: &str) -> Result<()> {
        unscripted()
    }

    async fn kv_add(&self, ns: &str, _key: &str, delta: i64, _ttl: Option<Duration>) -> Result<i64> {
        assert_eq!(ns, "plugin/gate");
        Ok(delta)
    }

    async fn kv_compare_and_swap(
        &self,
        _ns: &str,
        _key: &str,
        _old: Option<&[u8]>,
        _new: &[u8],
        _ttl: Option<Duration>,
    ) -> Result<bool> {
        unscripted()
    }

    async fn kv_keys(&self, _ns: &str, _prefix: &str, _limit: usize) -> Result<Vec<String>> {
        unscripted()
    }

    async fn credit(&self, _id: &str, _account: &str, _nano_usd: i64, _note: &str) -> Result<bool> {
        Ok(true)
    }

    async fn hold(&self, _hold: &Hold) -> Result<HoldOutcome> {
        unscripted()
    }

    async fn renew(&self, _id: &str, _account: &str, _lease: Duration) -> Result<bool> {
        unscripted()
    }

    async fn settle(&self, _settlement: &Settlement) -> Result<SettleOutcome> {
        unscripted()
    }

    async fn expire_holds(&self) -> Result<u64> {
        unscripted()
    }

    async fn balance(&self, account: &str) -> Result<Balance> {
        Ok(Balance { account: account.to_owned(), credited: 5, spent: 2, held: 1 })
    }

    async fn accounts(&self) -> Result<Vec<Balance>> {
        unscripted()
    }

    async fn usage(&self, _account: Option<&str>, _limit: usize) -> Result<Vec<UsageRow>> {
        unscripted()
    }

    async fn secret_put(&self, _sealed: &SealedSecret) -> Result<()> {
        unscripted()
    }

    async fn secret_remove(&self, _handle: &str) -> Result<bool> {
        unscripted()
    }

    async fn secret_list(&self) -> Result<Vec<SealedSecret>> {
        Ok(Vec::new())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {}
}
