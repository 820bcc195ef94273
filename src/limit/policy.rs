//! A rate limit as configured, with all header text that is known at load.

use std::{hash::Hasher, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::config::{
    Name,
    middleware::{LimitHeaders, RateLimit},
};

/// Steps that one counter remembers, see [`super::window`].
const STEPS: u32 = 100;

pub struct Policy {
    pub(super) name: Name,
    pub(super) limit: u64,
    pub(super) window: Duration,
    pub(super) step: Duration,
    pub(super) headers: LimitHeaders,
    /// `"name";q=5;w=60`
    pub(super) description: HeaderValue,
    /// `x-ratelimit-limit-minute` and `x-ratelimit-remaining-minute`, for
    /// windows that have such a name.
    pub(super) unit_headers: Option<(HeaderName, HeaderName)>,
}

impl Policy {
    pub fn new(name: &Name, config: &RateLimit) -> Self {
        let moment = Duration::from_nanos(1);
        let step =
            if config.limit <= u64::from(STEPS) { moment } else { (config.window / STEPS).max(moment) };
        Self {
            name: name.clone(),
            limit: config.limit,
            window: config.window,
            step,
            headers: config.headers,
            description: description(name, config),
            unit_headers: unit_headers(config.window),
        }
    }

    pub(super) fn write_key(&self, hasher: &mut impl Hasher) {
        hasher.write(self.name.as_str().as_bytes());
        // No name holds this byte, so a name cannot run into what follows it.
        hasher.write_u8(0xff);
        hasher.write_u64(self.limit);
        hasher.write_u128(self.window.as_nanos());
    }
}

fn description(name: &Name, config: &RateLimit) -> HeaderValue {
    let seconds = whole_seconds(config.window);
    let text = format!("\"{name}\";q={};w={seconds}", config.limit);
    // Invariant: a `Name` is of visible ASCII and has no quote.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"limit\""))
}

fn unit_headers(window: Duration) -> Option<(HeaderName, HeaderName)> {
    let names = match window.as_secs() {
        _ if window.subsec_nanos() != 0 => return None,
        1 => ("x-ratelimit-limit-second", "x-ratelimit-remaining-second"),
        60 => ("x-ratelimit-limit-minute", "x-ratelimit-remaining-minute"),
        3_600 => ("x-ratelimit-limit-hour", "x-ratelimit-remaining-hour"),
        86_400 => ("x-ratelimit-limit-day", "x-ratelimit-remaining-day"),
        2_592_000 => ("x-ratelimit-limit-month", "x-ratelimit-remaining-month"),
        31_536_000 => ("x-ratelimit-limit-year", "x-ratelimit-remaining-year"),
        _ => return None,
    };
    Some((HeaderName::from_static(names.0), HeaderName::from_static(names.1)))
}

/// Rounded up, at least 1: a client that waits this long has waited enough.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}
