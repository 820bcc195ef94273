//! From bytes to a version: digest, compile, grants, first instance.

use std::sync::{Arc, atomic::AtomicUsize};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task;
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};

use crate::config::plugin::{Grants, LedgerGrant, Plugin};

use super::{
    bindings::Indices,
    host::Host,
    instance::{Blueprint, Identity, InstanceState, StartError},
    limits::LogLimit,
    version::{Findings, Hooks, Subscription, Version},
};

/// Why a component does not become a version. All of it may be shown to operators.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("there is no plugin {0}")]
    UnknownPlugin(String),
    #[error("plugin {plugin}: cannot read {path}: {reason}")]
    Unreadable { plugin: String, path: String, reason: String },
    #[error("plugin {plugin}: there is no standard plugin {module}")]
    NoSuchModule { plugin: String, module: String },
    #[error("plugin {plugin}: the configuration pins sha256 {pinned}, the component has {found}")]
    Digest { plugin: String, pinned: String, found: String },
    #[error("plugin {plugin}: not a usable component: {reason}")]
    NotAComponent { plugin: String, reason: String },
    /// One item for each import that is missing or not granted.
    #[error("plugin {plugin}: {}", .imports.join("; "))]
    Imports { plugin: String, imports: Vec<String> },
    #[error("plugin {plugin}: refused by itself: {reason}")]
    Refused { plugin: String, reason: String },
    /// The version in service exports hooks that this one does not.
    #[error("plugin {plugin}: no longer exports {}, which routes may rely on", .hooks.join(", "))]
    HooksLost { plugin: String, hooks: Vec<&'static str> },
    #[error("the plugin engine cannot start: {0}")]
    Engine(String),
}

/// Turns bytes into versions.
pub(super) struct Loader {
    engine: Engine,
    linker: Linker<InstanceState>,
    host: Arc<Host>,
}

impl Loader {
    pub(super) fn new(engine: Engine, linker: Linker<InstanceState>, host: Arc<Host>) -> Self {
        Self { engine, linker, host }
    }

    /// Does everything that can fail: a version that comes out can serve.
    pub(super) async fn load(
        &self,
        name: &str,
        plugin: &Plugin,
        component: Bytes,
        source: String,
        number: u64,
    ) -> Result<Version, LoadError> {
        let sha256 = digest(&component);
        check_digest(name, plugin, sha256)?;
        let pre = self.link(name, plugin, component).await?;
        let hooks = exported_hooks(name, &pre)?;
        let unusable = |error: wasmtime::Error| LoadError::NotAComponent {
            plugin: name.to_owned(),
            reason: reason(&error),
        };
        let blueprint = Blueprint {
            indices: Indices::find(&pre, hooks).map_err(unusable)?,
            pre,
            identity: Arc::new(Identity {
                name: name.into(),
                grants: plugin.grants.clone(),
                log_limit: LogLimit::new(),
            }),
            host: self.host.clone(),
            limits: plugin.limits,
            config: plugin.config.clone(),
            alive: Arc::new(AtomicUsize::new(0)),
        };
        let refused = |reason| LoadError::Refused { plugin: name.to_owned(), reason };
        let (first, wanted) = blueprint.start().await.map_err(|error| match error {
            StartError::Refused(message) => refused(message),
            StartError::OutOfMemory => refused("it needs more than limits.memory to start".to_owned()),
            StartError::TimedOut => refused("its configure waited for too long".to_owned()),
            StartError::Engine(error) => unusable(error),
        })?;
        let subscription = Subscription::parse(wanted)
            .map_err(|header| refused(format!("it subscribed to {header:?}, which is no header name")))?;
        let on_error = plugin.on_error;
        let findings = Findings { number, sha256, source, hooks, subscription, on_error };
        Ok(Version::new(blueprint, first, findings))
    }

    async fn link(
        &self,
        name: &str,
        plugin: &Plugin,
        bytes: Bytes,
    ) -> Result<InstancePre<InstanceState>, LoadError> {
        let unusable = |reason| LoadError::NotAComponent { plugin: name.to_owned(), reason };
        let engine = self.engine.clone();
        // Cold code takes a tenth of a second or more.
        let compiled = task::spawn_blocking(move || Component::new(&engine, &bytes)).await;
        let component = compiled
            .map_err(|error| unusable(error.to_string()))?
            .map_err(|error| unusable(reason(&error)))?;
        let component_type = component.component_type();
        let imports = component_type.imports(&self.engine).map(|(import, _)| import);
        let problems = refused_imports(name, imports, &plugin.grants);
        if !problems.is_empty() {
            return Err(LoadError::Imports { plugin: name.to_owned(), imports: problems });
        }
        self.linker.instantiate_pre(&component).map_err(|error| unusable(reason(&error)))
    }
}

pub(super) fn digest(component: &[u8]) -> [u8; 32] {
    Sha256::digest(component).into()
}

fn check_digest(name: &str, plugin: &Plugin, found: [u8; 32]) -> Result<(), LoadError> {
    match plugin.sha256 {
        Some(pinned) if pinned != found => Err(LoadError::Digest {
            plugin: name.to_owned(),
            pinned: hex::encode(pinned),
            found: hex::encode(found),
        }),
        _ => Ok(()),
    }
}

/// One line for each import that cannot be had, with what to do about it.
fn refused_imports<'a>(plugin: &str, imports: impl Iterator<Item = &'a str>, grants: &Grants) -> Vec<String> {
    imports.filter_map(|import| refused_import(plugin, import, grants)).collect()
}

fn refused_import(plugin: &str, import: &str, grants: &Grants) -> Option<String> {
    let (path, version) = import.split_once('@').unwrap_or((import, ""));
    let Some((package, interface)) = path.split_once('/') else {
        return Some(format!("imports {import}, which is not offered"));
    };
    match package {
        "tollgate:plugin" if !version.starts_with("0.1.") => {
            Some(format!("imports {import}, but 0.1 is what this gateway offers"))
        }
        "tollgate:plugin" => {
            let (granted, example) = match interface {
                "types" | "llm-types" => return None,
                "log" => (grants.log, "log: true"),
                "key-value" => (!grants.key_value.is_empty(), "key_value: [NAMESPACE]"),
                "ledger" => (grants.ledger != LedgerGrant::None, "ledger: read"),
                "secrets" => (!grants.secrets.is_empty(), "secrets: [SCOPE]"),
                "control" => (!grants.control.is_empty(), "control: [read]"),
                _ => return Some(format!("imports {import}, which is not offered")),
            };
            let advice =
                || format!("imports {import}, not granted: add \"{example}\" to plugins.{plugin}.grants");
            (!granted).then(advice)
        }
        "wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:filesystem" | "wasi:sockets"
            if version.starts_with("0.2.") =>
        {
            None
        }
        "wasi:http" if interface == "types" && version.starts_with("0.2.") => None,
        _ => Some(format!("imports {import}, which is not offered")),
    }
}

fn exported_hooks(name: &str, pre: &InstancePre<InstanceState>) -> Result<Hooks, LoadError> {
    let unusable = |reason: String| LoadError::NotAComponent { plugin: name.to_owned(), reason };
    let mut hooks = Hooks::default();
    let mut lifecycle = false;
    let component_type = pre.component().component_type();
    for (export, _) in component_type.exports(pre.engine()) {
        let (path, version) = export.split_once('@').unwrap_or((export, ""));
        if path.starts_with("tollgate:plugin/") && !version.starts_with("0.1.") {
            return Err(unusable(format!("it exports {export}, but 0.1 is what this gateway calls")));
        }
        match path {
            "tollgate:plugin/lifecycle" => lifecycle = true,
            "tollgate:plugin/http-filter" => hooks.filter = true,
            "tollgate:plugin/admission" => hooks.admission = true,
            "tollgate:plugin/planner" => hooks.planner = true,
            "tollgate:plugin/credentials" => hooks.credentials = true,
            "tollgate:plugin/settlement" => hooks.settlement = true,
            "wasi:http/incoming-handler" if version.starts_with("0.2.") => hooks.endpoint = true,
            _ => {}
        }
    }
    if !lifecycle {
        return Err(unusable("it does not export tollgate:plugin/lifecycle@0.1.0".to_owned()));
    }
    if hooks == Hooks::default() {
        return Err(unusable("it exports no hook".to_owned()));
    }
    Ok(hooks)
}

/// The engine's words without its backtraces.
fn reason(error: &wasmtime::Error) -> String {
    let reason = format!("{} ({})", error.to_string().lines().next().unwrap_or_default(), error.root_cause());
    reason.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ungranted_import_is_named_with_its_grant() {
        let imports = ["tollgate:plugin/log@0.1.0", "tollgate:plugin/ledger@0.1.0", "wasi:io/poll@0.2.6"];
        let grants = Grants { log: true, ..Grants::default() };
        let refused = refused_imports("mine", imports.into_iter(), &grants);
        let expected =
            "imports tollgate:plugin/ledger@0.1.0, not granted: add \"ledger: read\" to plugins.mine.grants";
        assert_eq!(refused, [expected]);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        let imports = [
            "wasi:http/outgoing-handler@0.2.12",
            "wasi:io/poll@0.3.0",
            "tollgate:plugin/teleport@0.1.0",
            "tollgate:plugin/log@0.2.0",
            "odd",
        ];
        let grants = Grants { log: true, ..Grants::default() };
        assert_eq!(refused_imports("mine", imports.into_iter(), &grants).len(), imports.len());
        let types = ["wasi:http/types@0.2.3"];
        assert!(refused_imports("mine", types.into_iter(), &grants).is_empty());
    }
}
