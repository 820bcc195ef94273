//! `log`: lines in the gateway's log, under the plugin's name.

use std::time::Instant;

use crate::plugin::{
    bindings::imports::log::{Host, Level},
    instance::InstanceState,
};

const MAX_MESSAGE: usize = 4 * 1024;

impl Host for InstanceState {
    fn write(&mut self, level: Level, message: String) {
        let identity = &self.identity;
        if !identity.grants.log || !identity.log_limit.allows(Instant::now()) {
            return;
        }
        let plugin = &*identity.name;
        let message = &message[..message.floor_char_boundary(MAX_MESSAGE)];
        match level {
            Level::Debug => tracing::debug!(target: "plugin", plugin, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, "{message}"),
            Level::Error => tracing::error!(target: "plugin", plugin, "{message}"),
        }
    }
}
