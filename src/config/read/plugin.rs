//! Readers of `plugins`.

use std::time::Duration;

use crate::config::{
    ByteSize, Name,
    plugin::{ControlVerb, Grants, LedgerGrant, Limits, Module, OnError, Plugin},
    reader::{Fields, Item},
    scalar::{self, Refusal},
    suggest::nearest,
};

/// Modules that the binary brings along.
const EMBEDDED: &[&str] = &["metering", "byok", "fallback", "admin"];

const LEDGER: &[(&str, LedgerGrant)] =
    &[("none", LedgerGrant::None), ("read", LedgerGrant::Read), ("write", LedgerGrant::Write)];

const CONTROL: &[(&str, ControlVerb)] =
    &[("read", ControlVerb::Read), ("load-plugin", ControlVerb::LoadPlugin)];

pub(super) fn plugin(name: &Name, item: &Item<'_>) -> Option<Plugin> {
    item.fields(|f| {
        let module = match f.take("module") {
            Some(item) => item.file().map(Module::File),
            None => embedded(name, item),
        };
        let sha256 = f.take("sha256").map(|item| item.parse(scalar::digest));
        let on_error = f.take("on_error").map_or(Some(OnError::Reject), |item| {
            item.choice("policy", &[("reject", OnError::Reject), ("continue", OnError::Continue)])
        });
        let grants = f.take_present("grants").and_then(|item| item.fields(|f| Some(grants(f))));
        let limits = f.take_present("limits").and_then(|item| item.fields(|f| Some(limits(f))));
        let config = f.take("config").map_or(Some(serde_json::Value::Null), |item| item.json());
        let sha256 = match sha256 {
            None => None,
            Some(digest) => Some(digest?),
        };
        Some(Plugin {
            module: module?,
            sha256,
            on_error: on_error?,
            grants: grants.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            config: config?.to_string(),
        })
    })
}

fn embedded(name: &Name, item: &Item<'_>) -> Option<Module> {
    if EMBEDDED.contains(&name.as_str()) {
        return Some(Module::Embedded(name.clone()));
    }
    let message = format!("\"module\" is missing; only {} are built in", EMBEDDED.join(", "));
    item.refuse_key(Refusal::new(message).suggesting(nearest(name.as_str(), EMBEDDED.iter().copied())))
}

fn grants(f: &mut Fields<'_>) -> Grants {
    Grants {
        log: f.or("log", false, scalar::boolean),
        key_value: f.take("key_value").map(|item| names(&item)).unwrap_or_default(),
        ledger: f.take("ledger").and_then(|item| item.choice("grant", LEDGER)).unwrap_or_default(),
        secrets: f.take("secrets").map(|item| names(&item)).unwrap_or_default(),
        control: f
            .take("control")
            .map(|item| item.list(|item| item.choice("verb", CONTROL)))
            .unwrap_or_default(),
    }
}

fn names(item: &Item<'_>) -> Vec<String> {
    item.list(|item| item.name().map(|name| name.to_string()))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize(32 << 20),
            time_per_call: Duration::from_millis(50),
            instances: 64,
            calls_per_instance: 10_000,
        }
    }
}

fn limits(f: &mut Fields<'_>) -> Limits {
    let default = Limits::default();
    let instances = f.number_or("instances", 64, 1..=10_000);
    Limits {
        // One page of WebAssembly at least, all that 32 bits address at most.
        memory: f.size_or("memory", default.memory.0, 64 << 10..=4 << 30),
        time_per_call: f.or("time_per_call", default.time_per_call, scalar::duration),
        instances: usize::try_from(instances).unwrap_or(default.instances),
        calls_per_instance: f.number_or("calls_per_instance", default.calls_per_instance, 1..=u64::MAX),
    }
}
