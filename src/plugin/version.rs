//! One loaded version of a plugin: what it offers and how it has fared.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderName;
use serde::Serialize;

use crate::{
    config::plugin::{Limits, OnError},
    telemetry::{Hook, HookOutcome, PluginMetrics},
};

use super::{
    bindings::WantedSubscription,
    instance::{Blueprint, Instance},
    pool::Pool,
};

/// Which hook interfaces a component exports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks {
    pub filter: bool,
    pub admission: bool,
    pub planner: bool,
    pub credentials: bool,
    pub settlement: bool,
    pub endpoint: bool,
}

/// What a plugin asked to be given when it was configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Request headers to put into `RequestHead`.
    pub request_headers: Vec<HeaderName>,
    /// Response headers to put into `ResponseHead`.
    pub response_headers: Vec<HeaderName>,
    /// Whether `on_response` is to be called at all.
    pub on_response: bool,
    /// Whether `on_end` is to be called at all.
    pub on_end: bool,
}

/// All hook functions, as counters and logs name them.
const HOOKS: [Hook; 9] = [
    Hook::OnRequest,
    Hook::OnResponse,
    Hook::OnEnd,
    Hook::Admit,
    Hook::Plan,
    Hook::AfterFailure,
    Hook::CredentialFor,
    Hook::Settle,
    Hook::Serve,
];

/// Kept by a request from the moment it is chosen to the request's end, so
/// that a newer version never takes over half way.
pub struct Version {
    pub(super) name: Arc<str>,
    pub(super) number: u64,
    pub(super) sha256: [u8; 32],
    pub(super) source: String,
    pub(super) hooks: Hooks,
    pub(super) subscription: Subscription,
    pub(super) on_error: OnError,
    pub(super) limits: Limits,
    pub(super) pool: Pool,
    /// By hook; `configure` has a place too but is not counted.
    counters: [HookCounters; HOOKS.len() + 1],
    metrics: Arc<PluginMetrics>,
    loaded_unix_ms: u64,
}

#[derive(Default)]
pub(super) struct HookCounters {
    calls: AtomicU64,
    faults: AtomicU64,
    nanoseconds: AtomicU64,
}

/// A version as the admin API shows it right after loading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    pub name: String,
    pub version: u64,
    pub sha256: String,
    pub hooks: Vec<&'static str>,
}

/// A plugin in service as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginInfo {
    pub name: String,
    /// 1, 2, … per name.
    pub version: u64,
    pub sha256: String,
    pub state: &'static str,
    pub hooks: Vec<&'static str>,
    /// Of this version, over all hooks.
    pub calls: u64,
    /// Calls that ended in any `PluginFault`.
    pub traps: u64,
    /// Living instances of this version, idle ones included.
    pub instances: usize,
    pub source: String,
    pub loaded_unix_ms: u64,
    pub by_hook: Vec<HookInfo>,
}

/// The calls of one hook function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookInfo {
    pub hook: &'static str,
    pub calls: u64,
    pub traps: u64,
    /// Computing time of all calls.
    pub microseconds: u64,
}

/// What the loader found out about a component.
pub(super) struct Findings {
    pub(super) number: u64,
    pub(super) sha256: [u8; 32],
    pub(super) source: String,
    pub(super) hooks: Hooks,
    pub(super) subscription: Subscription,
    pub(super) on_error: OnError,
}

impl Hooks {
    /// Names of the exported interfaces.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.filter, "http-filter"),
            (self.admission, "admission"),
            (self.planner, "planner"),
            (self.credentials, "credentials"),
            (self.settlement, "settlement"),
            (self.endpoint, "incoming-handler"),
        ];
        all.into_iter().filter_map(|(exported, name)| exported.then_some(name)).collect()
    }
}

impl Hooks {
    /// Names of the interfaces that are exported here but not by `other`.
    pub(super) fn not_in(self, other: Self) -> Vec<&'static str> {
        let there = other.names();
        self.names().into_iter().filter(|name| !there.contains(name)).collect()
    }
}

impl Subscription {
    /// The error is the header name that is none.
    pub(super) fn parse(wanted: WantedSubscription) -> Result<Self, String> {
        let names = |names: Vec<String>| -> Result<Vec<HeaderName>, String> {
            names.into_iter().map(|name| HeaderName::try_from(&name).map_err(|_| name)).collect()
        };
        Ok(Self {
            request_headers: names(wanted.request_headers)?,
            response_headers: names(wanted.response_headers)?,
            on_response: wanted.on_response,
            on_end: wanted.on_end,
        })
    }
}

impl Version {
    /// Of the plugin, as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    pub(super) fn new(blueprint: Blueprint, first: Instance, findings: Findings) -> Self {
        let loaded = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            name: blueprint.identity.name.clone(),
            metrics: blueprint.host.services.metrics.plugin(&blueprint.identity.name),
            limits: blueprint.limits,
            pool: Pool::new(blueprint, first),
            number: findings.number,
            sha256: findings.sha256,
            source: findings.source,
            hooks: findings.hooks,
            subscription: findings.subscription,
            on_error: findings.on_error,
            counters: Default::default(),
            loaded_unix_ms: u64::try_from(loaded.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub fn hooks(&self) -> Hooks {
        self.hooks
    }

    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// 1, 2, … per plugin name.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn info(&self) -> VersionInfo {
        VersionInfo {
            name: self.name.to_string(),
            version: self.number,
            sha256: hex::encode(self.sha256),
            hooks: self.hooks.names(),
        }
    }

    /// Counts a call that computed for so long.
    pub(super) fn count(&self, hook: Hook, computed: Duration, failed: bool) {
        let counters = &self.counters[hook as usize];
        let nanoseconds = u64::try_from(computed.as_nanos()).unwrap_or(u64::MAX);
        counters.calls.fetch_add(1, Ordering::Relaxed);
        counters.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        counters.faults.fetch_add(u64::from(failed), Ordering::Relaxed);
        let outcome = if failed { HookOutcome::Trapped } else { HookOutcome::Returned };
        self.metrics.called(hook, computed, outcome);
    }

    /// Tells the metrics that this version is the one in service.
    pub(super) fn enters_service(&self) {
        self.metrics.serving(self.number);
    }

    pub(super) fn plugin_info(&self) -> PluginInfo {
        let by_hook: Vec<HookInfo> = HOOKS
            .into_iter()
            .map(|hook| self.counters[hook as usize].info(hook))
            .filter(|info| info.calls > 0)
            .collect();
        PluginInfo {
            name: self.name.to_string(),
            version: self.number,
            sha256: hex::encode(self.sha256),
            state: "serving",
            hooks: self.hooks.names(),
            calls: by_hook.iter().map(|info| info.calls).sum(),
            traps: by_hook.iter().map(|info| info.traps).sum(),
            instances: self.pool.blueprint().alive.load(Ordering::Relaxed),
            source: self.source.clone(),
            loaded_unix_ms: self.loaded_unix_ms,
            by_hook,
        }
    }
}

impl HookCounters {
    fn info(&self, hook: Hook) -> HookInfo {
        HookInfo {
            hook: hook.label(),
            calls: self.calls.load(Ordering::Relaxed),
            traps: self.faults.load(Ordering::Relaxed),
            microseconds: self.nanoseconds.load(Ordering::Relaxed) / 1_000,
        }
    }
}
