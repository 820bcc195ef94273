//! Does nothing: what a call costs.

use tollgate_sdk::{HttpFilter, Plugin};

struct Noop;

impl Plugin for Noop {
    fn configure(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }
}

impl HttpFilter for Noop {}

tollgate_sdk::export!(Noop: http_filter);
