//! When to renew, and when to try again. Pure: every node comes to the same
//! answer from the same certificate.

use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// After the first failure, and with every further one three times as long.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(12 * 3600);
/// When the authority limits us and does not say for how long.
const LIMITED: Duration = Duration::from_secs(3600);
/// An authority that names a longer pause is asked again by then all the same.
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);

/// A certificate's validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// What the authority suggests (RFC 9773 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

/// A point in the authority's window if there is one, else in the first tenth
/// of the last `before` of its life (of the last third, if that is shorter).
/// The point differs from certificate to certificate (`seed`), so that many
/// from one day are not renewed at one moment. Always before the last twelfth
/// of a life, whatever the window says.
pub(super) fn renewal(life: Life, before: Duration, window: Option<Window>, seed: &str) -> SystemTime {
    let length = life.not_after.duration_since(life.not_before).unwrap_or_default();
    let before = before.min(length / 3);
    let latest = life.not_after - length / 12;
    let (start, spread) = match window {
        Some(Window { start, end }) => (start, end.duration_since(start).unwrap_or_default()),
        None => (life.not_after - before, before / 10),
    };
    (start + spread.mul_f64(fraction(seed))).min(latest)
}

/// How long to wait after so many failures in a row, one included. What the
/// authority asks for counts if it is longer.
pub(super) fn retry(failures: u32, limited: bool, asked: Option<Duration>, seed: &str) -> Duration {
    let backoff = FIRST_RETRY.saturating_mul(3_u32.saturating_pow(failures.saturating_sub(1)));
    let mut wait = backoff.min(LONGEST_RETRY);
    match asked {
        Some(asked) => wait = wait.max(asked.min(LONGEST_PAUSE)),
        None if limited => wait = wait.max(LIMITED),
        None => {}
    }
    wait + wait.mul_f64(fraction(seed) / 10.0)
}

/// 0 to 1, evenly spread over seeds.
fn fraction(seed: &str) -> f64 {
    let digest = Sha256::digest(seed);
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(number) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn life(days: u32) -> Life {
        let not_before = SystemTime::UNIX_EPOCH + DAY * 10_000;
        Life { not_before, not_after: not_before + DAY * days }
    }

    /// In days from the beginning of the life.
    fn days(life: Life, at: SystemTime) -> f64 {
        at.duration_since(life.not_before).unwrap().as_secs_f64() / DAY.as_secs_f64()
    }

    #[test]
    fn renewed_before_the_end_but_never_before_two_thirds_of_a_life() {
        for (length, before, from, to) in
            [(90, 30, 60.0, 63.0), (90, 10, 80.0, 81.0), (6, 30, 4.0, 4.2), (90, 0, 82.5, 82.5)]
        {
            let life = life(length);
            for seed in ["a", "b", "c", "d"] {
                let at = days(life, renewal(life, DAY * before, None, seed));
                assert!((from..=to).contains(&at), "{length} {before} {seed}: {at}");
            }
        }
    }

    #[test]
    fn the_authority_decides_within_the_life() {
        let life = life(90);
        let window = |start, end| Some(Window { start: life.not_before + start, end: life.not_before + end });
        let at = days(life, renewal(life, DAY * 30, window(DAY * 20, DAY * 22), "a"));
        assert!((20.0..=22.0).contains(&at), "{at}");
        // A certificate that is to be revoked has a window in the past.
        assert!(days(life, renewal(life, DAY * 30, window(Duration::ZERO, DAY), "a")) <= 1.0);
        let late = renewal(life, DAY * 30, window(DAY * 200, DAY * 201), "a");
        assert!((days(life, late) - 82.5).abs() < 0.001);
    }

    #[test]
    fn certificates_of_one_day_are_not_renewed_at_one_moment() {
        let life = life(90);
        let at: std::collections::BTreeSet<_> =
            (0..100).map(|seed| renewal(life, DAY * 30, None, &seed.to_string())).collect();
        assert_eq!(at.len(), 100);
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_bound() {
        let wait = |failures, limited, asked| retry(failures, limited, asked, "a").as_secs();
        assert!((60..=66).contains(&wait(1, false, None)));
        assert!((540..=594).contains(&wait(3, false, None)));
        assert!((43_200..=47_520).contains(&wait(u32::MAX, false, None)));
        assert!((3600..=3960).contains(&wait(1, true, None)));
        assert!((120..=132).contains(&wait(1, true, Some(Duration::from_secs(120)))));
        assert!(wait(1, true, Some(DAY * 1000)) <= 8 * 86_400);
    }
}
