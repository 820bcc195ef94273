//! Names to addresses: one lookup at a time for each name, answers kept for a while.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

/// The system's resolver does not tell the record's own TTL.
const TTL: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(3);
/// Names come from the configuration; this only bounds many reloads.
const MAX_NAMES: usize = 4096;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    #[error("{0}: the lookup took too long")]
    TimedOut(String),
    #[error("{0}: no address")]
    NoAddress(String),
    #[error("{host}: {source}")]
    Failed { host: String, source: Arc<io::Error> },
}

/// The last answer for one name. Locked during a lookup, so that others wait
/// for its answer instead of asking again.
type Answer = Arc<tokio::sync::Mutex<Option<Known>>>;

struct Known {
    addresses: Vec<IpAddr>,
    until: Instant,
    turn: usize,
}

/// The system's resolver behind a cache. A name that stops resolving keeps its
/// last addresses: a broken resolver must not take down working origins.
pub struct Resolver {
    answers: Mutex<HashMap<String, Answer>>,
}

impl Resolver {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { answers: Mutex::default() })
    }

    /// An address of `host`, each in turn; IPv4 is preferred. Address literals,
    /// with or without brackets, are not looked up.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, ResolveError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, port));
        }
        let answer = self.answer(host);
        let mut known = answer.lock().await;
        if known.as_ref().is_none_or(|known| known.until <= Instant::now()) {
            renew(host, &mut known).await?;
        }
        match known.as_mut().and_then(Known::next) {
            Some(address) => Ok(SocketAddr::new(address, port)),
            None => Err(ResolveError::NoAddress(host.to_owned())),
        }
    }

    fn answer(&self, host: &str) -> Answer {
        let mut answers = self.answers.lock();
        if let Some(answer) = answers.get(host) {
            return answer.clone();
        }
        if answers.len() >= MAX_NAMES {
            answers.clear();
        }
        answers.entry(host.to_owned()).or_default().clone()
    }
}

async fn renew(host: &str, known: &mut Option<Known>) -> Result<(), ResolveError> {
    let until = Instant::now() + TTL;
    match (look_up(host).await, known.as_mut()) {
        (Ok(addresses), _) => *known = Some(Known { addresses, until, turn: 0 }),
        (Err(error), Some(stale)) => {
            tracing::warn!(host, %error, "keeping the last known addresses");
            stale.until = until;
        }
        (Err(error), None) => return Err(error),
    }
    Ok(())
}

async fn look_up(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let found = match timeout(DEADLINE, lookup_host((host, 0))).await {
        Err(_) => return Err(ResolveError::TimedOut(host.to_owned())),
        Ok(Err(source)) => {
            return Err(ResolveError::Failed { host: host.to_owned(), source: Arc::new(source) });
        }
        Ok(Ok(found)) => found.map(|address| address.ip()),
    };
    let (v4, v6): (Vec<_>, Vec<_>) = found.partition(IpAddr::is_ipv4);
    // Mixing families would send every second request to `::1` of an origin
    // that listens on 127.0.0.1 only.
    let addresses = if v4.is_empty() { v6 } else { v4 };
    if addresses.is_empty() { Err(ResolveError::NoAddress(host.to_owned())) } else { Ok(addresses) }
}

impl Known {
    fn next(&mut self) -> Option<IpAddr> {
        self.turn = self.turn.wrapping_add(1);
        self.addresses.get(self.turn % self.addresses.len().max(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_need_no_lookup() {
        let resolver = Resolver::new();
        for (host, address) in [("127.0.0.1", "127.0.0.1:9"), ("::1", "[::1]:9"), ("[::1]", "[::1]:9")] {
            assert_eq!(resolver.resolve(host, 9).await.unwrap(), address.parse().unwrap());
        }
        assert!(resolver.answers.lock().is_empty());
    }

    #[tokio::test]
    async fn names_are_looked_up_once() {
        let resolver = Resolver::new();
        let address = resolver.resolve("localhost", 9).await.unwrap();
        assert!(address.ip().is_loopback());
        let first = resolver.answer("localhost").lock().await.as_ref().unwrap().until;
        resolver.resolve("localhost", 9).await.unwrap();
        assert_eq!(resolver.answer("localhost").lock().await.as_ref().unwrap().until, first);
    }

    #[tokio::test]
    async fn unknown_names_fail_and_known_ones_outlive_a_failure() {
        let resolver = Resolver::new();
        let error = resolver.resolve("no such name", 9).await.unwrap_err();
        assert!(error.to_string().starts_with("no such name: "), "{error}");
        let stale = Known { addresses: vec![IpAddr::from([127, 0, 0, 7])], until: Instant::now(), turn: 0 };
        *resolver.answer("no such name").lock().await = Some(stale);
        assert_eq!(resolver.resolve("no such name", 9).await.unwrap(), "127.0.0.7:9".parse().unwrap());
    }
}
