//! Requests per window. Counters live outside any configuration, so a reload
//! keeps what was counted; nothing here knows who is counted or why.

mod headers;
mod policy;
mod window;

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

pub use policy::Policy;
use window::Window;

/// What one check found. The verdict and every header come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub limit: u64,
    /// After this request.
    pub remaining: u64,
    /// Until the oldest counted request is forgotten and `remaining` rises; at
    /// most the window.
    pub reset: Duration,
    /// Of a denied request: when one will pass, if no other comes first. May be
    /// a hundredth longer than the window.
    pub retry_after: Option<Duration>,
}

/// Counters at once. The least recently used are forgotten beyond that, so a
/// flood of identities costs bounded memory, about 130 MB at the very worst,
/// and an identity may start afresh when 65,536 others came after it.
const MOST_KEYS: usize = 65_536;
const SHARDS: usize = 64;

/// Counters of all policies and identities.
pub struct RateLimits {
    shards: Box<[Mutex<Shard>]>,
    /// Random, so that nobody can choose identities that share a counter.
    keys: [RandomState; 2],
}

type Shard = HashMap<u128, Window>;

impl RateLimits {
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, keys: [RandomState::new(), RandomState::new()] }
    }

    /// Counts a request unless that would exceed the limit: a denied request
    /// consumes nothing. The counter belongs to the policy's name, limit and
    /// window and to the identity, of which only a hash is kept.
    pub fn check(&self, policy: &Policy, identity: &str, now: SystemTime) -> Decision {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let key = self.key(policy, identity);
        let mut shard = self.shard(key).lock();
        if shard.len() >= MOST_KEYS / SHARDS && !shard.contains_key(&key) {
            evict(&mut shard);
        }
        shard.entry(key).or_default().check(policy, now)
    }

    fn key(&self, policy: &Policy, identity: &str) -> u128 {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            policy.write_key(&mut hasher);
            hasher.write(identity.as_bytes());
            u128::from(hasher.finish())
        };
        half(&self.keys[0]) << 64 | half(&self.keys[1])
    }

    fn shard(&self, key: u128) -> &Mutex<Shard> {
        &self.shards[(key % SHARDS as u128) as usize]
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// Forgets the least recently used eighth, so that a flood of new identities
/// pays for one scan in a hundred requests.
fn evict(shard: &mut Shard) {
    let mut seen: Vec<Duration> = shard.values().map(Window::seen).collect();
    let eighth = seen.len() / 8;
    let (_, oldest, _) = seen.select_nth_unstable(eighth);
    let oldest = *oldest;
    let mut over = eighth + 1;
    shard.retain(|_, window| {
        let goes = over > 0 && window.seen() <= oldest;
        over -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests;
