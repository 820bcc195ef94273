//! Accuracy, headers, bounds. Time is an argument, so no test waits.

use http::HeaderMap;

use super::*;
use crate::config::middleware::{LimitBy, LimitHeaders, RateLimit};

fn policy_with(name: &str, limit: u64, window: Duration, headers: LimitHeaders) -> Policy {
    Policy::new(&name.parse().unwrap(), &RateLimit { limit, window, by: LimitBy::All, headers })
}

fn policy(limit: u64, seconds: u64) -> Policy {
    policy_with("five", limit, Duration::from_secs(seconds), LimitHeaders { ietf: true, kong: true })
}

/// So many milliseconds after some moment that is no multiple of a window.
fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_012_345 + milliseconds)
}

fn allows(limits: &RateLimits, policy: &Policy, time: SystemTime) -> bool {
    limits.check(policy, "ann", time).allowed
}

#[test]
fn the_sixth_of_five_is_denied_until_the_first_is_forgotten() {
    let (limits, policy) = (RateLimits::new(), policy(5, 60));
    for remaining in [4, 3, 2, 1, 0] {
        let decision = limits.check(&policy, "ann", at(0));
        assert!(decision.allowed);
        assert_eq!((decision.limit, decision.remaining, decision.retry_after), (5, remaining, None));
    }
    let denied = limits.check(&policy, "ann", at(1_000));
    assert!(!denied.allowed);
    assert_eq!((denied.remaining, denied.retry_after), (0, Some(Duration::from_secs(59))));
    assert!(limits.check(&policy, "ben", at(1_000)).allowed, "another identity has its own counter");

    let again = at(1_000) + denied.reset;
    assert!(!allows(&limits, &policy, again - Duration::from_nanos(1)));
    assert!(allows(&limits, &policy, again));
}

#[test]
fn a_large_limit_forgets_at_most_a_hundredth_late() {
    let (limits, policy) = (RateLimits::new(), policy(101, 60));
    assert!((0..101).all(|_| allows(&limits, &policy, at(0))));
    let denied = limits.check(&policy, "ann", at(0));
    let wait = denied.retry_after.unwrap();
    assert!(denied.reset == Duration::from_secs(60) && wait <= Duration::from_millis(60_600), "{wait:?}");
    assert!(!allows(&limits, &policy, at(0) + wait - Duration::from_nanos(1)));
    assert!(allows(&limits, &policy, at(0) + wait));
}

#[test]
fn denied_requests_consume_nothing() {
    let (limits, policy) = (RateLimits::new(), policy(1, 60));
    assert!(allows(&limits, &policy, at(0)));
    assert!((1..600).all(|n| !allows(&limits, &policy, at(n * 100))));
    assert!(allows(&limits, &policy, at(60_000)));
}

/// Moments of admitted requests under a pattern of attempts, in milliseconds.
fn admitted(limit: u64, attempts: impl Iterator<Item = u64>) -> Vec<u64> {
    let (limits, policy) = (RateLimits::new(), policy(limit, 60));
    attempts.filter(|time| allows(&limits, &policy, at(*time))).collect()
}

/// The most in any 60 s.
fn densest(times: &[u64]) -> usize {
    let inside = |(from, start): (usize, &u64)| times[from..].partition_point(|time| *time < start + 60_000);
    times.iter().enumerate().map(inside).max().unwrap_or(0)
}

#[test]
fn no_window_holds_more_than_the_limit() {
    let steady = admitted(1_000, (0..300_000).step_by(30));
    let boundary = admitted(1_000, (0..1_000).map(|_| 47_600).chain((0..1_000).map(|_| 47_700)));
    // A burst, then a stream: what two weighted counters let through twice.
    let burst = admitted(1_000, (0..1_000).map(|_| 47_600).chain((47_700..200_000).step_by(20)));
    let mut seed = 7_u64;
    let ragged = admitted(
        100,
        (0..20_000_u64).scan(0, |time, _| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *time += if seed >> 40 & 63 == 0 { 20_000 } else { seed >> 33 & 127 };
            Some(*time)
        }),
    );
    for (name, times, limit) in [
        ("steady", &steady, 1_000),
        ("boundary", &boundary, 1_000),
        ("burst", &burst, 1_000),
        ("ragged", &ragged, 100),
    ] {
        assert_eq!(densest(times), limit, "{name}");
    }
    // Being strict costs one step in a hundred.
    assert!(steady.len() >= 5 * 1_000 * 98 / 100, "{}", steady.len());
}

#[test]
fn counters_are_kept_by_name_limit_and_window() {
    let limits = RateLimits::new();
    assert!(allows(&limits, &policy(1, 60), at(0)));
    assert!(!allows(&limits, &policy(1, 60), at(0)), "a policy built again counts on");
    assert!(allows(&limits, &policy(2, 60), at(0)));
    assert!(allows(&limits, &policy(1, 61), at(0)));
    let other = policy_with("six", 1, Duration::from_secs(60), LimitHeaders { ietf: true, kong: true });
    assert!(allows(&limits, &other, at(0)));
}

#[test]
fn a_clock_that_goes_back_neither_frees_nor_blocks() {
    let (limits, policy) = (RateLimits::new(), policy(1, 60));
    assert!(allows(&limits, &policy, at(7_200_000)));
    assert!(!allows(&limits, &policy, at(7_150_000)));
    assert!(allows(&limits, &policy, at(3_600_000)), "an hour back starts afresh");
    assert!(!allows(&limits, &policy, at(3_600_001)));
}

#[test]
fn zero_denies_everything() {
    let denied = RateLimits::new().check(&policy(0, 60), "ann", at(0));
    assert!(!denied.allowed);
    assert_eq!(denied.retry_after, Some(Duration::from_secs(60)));
}

#[test]
fn of_many_at_once_exactly_the_limit_pass() {
    let (limits, policy) = (RateLimits::new(), policy(10, 60));
    let passed: usize = std::thread::scope(|scope| {
        let run = || (0..50).filter(|_| allows(&limits, &policy, at(0))).count();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 10);
}

#[test]
fn a_flood_of_identities_is_bounded_and_forgets_the_idle_first() {
    let (limits, policy) = (RateLimits::new(), policy(1, 3_600));
    for n in 0..u64::try_from(MOST_KEYS * 2).unwrap() {
        limits.check(&policy, &format!("flood-{n}"), at(n));
        // Seen all the time, so never the one to go.
        assert_eq!(limits.check(&policy, "busy", at(n)).allowed, n == 0);
    }
    let kept: usize = limits.shards.iter().map(|shard| shard.lock().len()).sum();
    assert!(kept <= MOST_KEYS && kept > MOST_KEYS / 2, "{kept}");
}

#[test]
fn an_eviction_takes_an_eighth_even_of_the_equally_old() {
    let mut shard: Shard = (0..800).map(|key| (key, Window::default())).collect();
    evict(&mut shard);
    assert_eq!(shard.len(), 699);
}

fn texts(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn both_families_say_the_same() {
    let (limits, policy) = (RateLimits::new(), policy(1, 60));
    let mut headers = HeaderMap::new();
    limits.check(&policy, "ann", at(0)).write_headers(&policy, &mut headers);
    let expected = [
        "ratelimit-policy: \"five\";q=1;w=60",
        "ratelimit: \"five\";r=0;t=60",
        "ratelimit-limit: 1",
        "ratelimit-remaining: 0",
        "ratelimit-reset: 60",
        "x-ratelimit-limit-minute: 1",
        "x-ratelimit-remaining-minute: 0",
    ];
    assert_eq!(texts(&headers), expected);

    let mut headers = HeaderMap::new();
    limits.check(&policy, "ann", at(30_000)).write_headers(&policy, &mut headers);
    assert_eq!(headers["ratelimit"], "\"five\";r=0;t=30");
    assert_eq!(headers["retry-after"], "30");
}

#[test]
fn each_family_can_be_left_out() {
    let names = |ietf, kong, seconds| {
        let policy = policy_with("p", 9, Duration::from_secs(seconds), LimitHeaders { ietf, kong });
        let mut headers = HeaderMap::new();
        RateLimits::new().check(&policy, "ann", at(0)).write_headers(&policy, &mut headers);
        headers.keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names(true, false, 60), ["ratelimit-policy", "ratelimit"]);
    assert_eq!(names(false, true, 90), ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"]);
    assert!(names(false, false, 60).is_empty());
}

#[test]
fn of_two_policies_the_tighter_one_is_shown() {
    let limits = RateLimits::new();
    let headers = LimitHeaders { ietf: true, kong: true };
    let wide = policy_with("wide", 100, Duration::from_secs(3_600), headers);
    let tight = policy_with("tight", 5, Duration::from_secs(60), headers);
    for order in [[&wide, &tight], [&tight, &wide]] {
        let mut headers = HeaderMap::new();
        for policy in order {
            limits.check(policy, &format!("{:p}", order[0]), at(0)).write_headers(policy, &mut headers);
        }
        assert_eq!(headers["ratelimit-limit"], "5");
        assert_eq!(headers["ratelimit-remaining"], "4");
        assert_eq!(headers["x-ratelimit-remaining-hour"], "99");
        assert_eq!(headers.get_all("ratelimit-policy").iter().count(), 2);
    }
}
