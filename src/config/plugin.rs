//! A plugin: where it comes from, what it may do, what happens when it fails.

use std::{fmt, path::PathBuf, time::Duration};

use super::{ByteSize, Name};

#[derive(Clone, PartialEq)]
pub struct Plugin {
    pub module: Module,
    /// Refuses any other bytes. Optional for embedded modules and for files
    /// that are meant to be swapped by writing them.
    pub sha256: Option<[u8; 32]>,
    pub on_error: OnError,
    pub grants: Grants,
    pub limits: Limits,
    /// The `config` section as JSON text, `null` if absent.
    pub config: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Module {
    /// One of the standard plugins, by name, from the binary.
    Embedded(Name),
    File(PathBuf),
}

/// What a trap, a timeout or nonsense means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// 502 with the request id. Default.
    Reject,
    /// As if the plugin were not in the chain.
    Continue,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    pub log: bool,
    /// Namespaces.
    pub key_value: Vec<String>,
    pub ledger: LedgerGrant,
    /// Scopes.
    pub secrets: Vec<String>,
    pub control: Vec<ControlVerb>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LedgerGrant {
    #[default]
    None,
    Read,
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlVerb {
    Read,
    LoadPlugin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance. Default 32 MiB.
    pub memory: ByteSize,
    /// One hook call. Default 50 ms; an endpoint call gets ten times as much.
    pub time_per_call: Duration,
    /// Instances at once. Default 64.
    pub instances: usize,
    /// Calls before an instance is replaced. Default 10,000.
    pub calls_per_instance: u64,
}

/// Leaves `config` out: operators may put secrets there.
impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { module, sha256, on_error, grants, limits, config: _ } = self;
        f.debug_struct("Plugin")
            .field("module", module)
            .field("sha256", &sha256.map(hex::encode))
            .field("on_error", on_error)
            .field("grants", grants)
            .field("limits", limits)
            .finish_non_exhaustive()
    }
}
