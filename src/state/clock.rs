//! Wall-clock time as it is stored: milliseconds since 1970, signed because
//! both databases count in signed numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// So far away that it is never, and a sum with the time of day cannot overflow.
const FAR: i64 = 1 << 52;

pub(super) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// Whole milliseconds, at least one for any duration that is not zero: a ttl
/// must not round down to "no ttl".
pub(super) fn millis(duration: Duration) -> i64 {
    let whole = i64::try_from(duration.as_millis()).unwrap_or(FAR).min(FAR);
    if whole == 0 && !duration.is_zero() { 1 } else { whole }
}
