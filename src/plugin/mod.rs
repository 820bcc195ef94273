//! Runs plugins: components that decide what the gateway does, within the
//! grants and limits that the operator gave them.

mod bindings;
mod call;
mod component;
mod endpoint;
mod engine;
mod host;
mod instance;
mod limits;
mod output;
mod pool;
mod registry;
mod standard;
mod version;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    state::{Secrets, Store},
    telemetry::Metrics,
};

pub use bindings::api;
pub use component::LoadError;
pub use endpoint::{Body, BodyError, body};
pub use registry::{Plugins, Slot, Staged};
pub use standard::embedded;
pub use version::{HookInfo, Hooks, PluginInfo, Subscription, Version, VersionInfo};

/// What host calls work on.
pub struct HostServices {
    pub store: Arc<dyn Store>,
    pub secrets: Arc<Secrets>,
    pub inspect: Arc<dyn Inspect>,
    pub metrics: Arc<Metrics>,
}

/// The gateway as the `control` interface shows it: JSON documents.
pub trait Inspect: Send + Sync + 'static {
    fn routes(&self) -> String;
    fn services(&self) -> String;
}

/// Why a call gave no answer. `Display` is safe to log; nothing in it comes
/// from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PluginFault {
    #[error("the plugin trapped")]
    Trapped,
    #[error("the plugin took too long")]
    TimedOut,
    #[error("the plugin ran out of memory")]
    OutOfMemory,
    #[error("all instances of the plugin are busy")]
    Exhausted,
    /// What was wrong with the output.
    #[error("the plugin returned something invalid: {0}")]
    Invalid(&'static str),
}
