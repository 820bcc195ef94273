//! Who may come in: open connections counted for the process and for each
//! client address.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::FrontEvents;
use crate::telemetry::Shed;

const SHARDS: usize = 16;

/// All open connections of the process, those of removed entrypoints included.
pub(super) struct House {
    open: watch::Sender<usize>,
    max: AtomicUsize,
}

impl House {
    pub(super) fn new() -> Self {
        Self { open: watch::Sender::new(0), max: AtomicUsize::new(usize::MAX) }
    }

    pub(super) fn limit(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.open() >= self.max.load(Ordering::Relaxed)
    }

    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }

    pub(super) async fn emptied(&self) {
        // The sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// Open connections by client. An entry goes with its last connection.
#[derive(Default)]
pub(super) struct Clients {
    shards: [Mutex<HashMap<Client, usize>>; SHARDS],
    hasher: RandomState,
}

/// An IPv4 address or an IPv6 network of 64 bits, which is what one customer
/// gets and chooses addresses from at will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    V4(u32),
    V6(u64),
}

/// One connection in the count of its client.
struct Place {
    clients: Arc<Clients>,
    client: Client,
}

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl Clients {
    fn shard(&self, client: Client) -> &Mutex<HashMap<Client, usize>> {
        &self.shards[self.hasher.hash_one(client) as usize % SHARDS]
    }

    /// `None` if the client has `max` connections already.
    fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Place> {
        let client = Client::of(address);
        let mut shard = self.shard(client).lock();
        let open = shard.get(&client).copied().unwrap_or(0);
        if open >= max {
            return None;
        }
        shard.insert(client, open + 1);
        Some(Place { clients: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client).lock();
        match shard.get_mut(&self.client) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(shard.remove(&self.client)),
        }
    }
}

/// An open connection in the counts and the metrics, until it is dropped.
pub(super) struct Ticket {
    house: Arc<House>,
    events: Arc<dyn FrontEvents>,
    entrypoint: Arc<str>,
    clients: Arc<Clients>,
    max_per_client: Option<usize>,
    place: Option<Place>,
}

impl Ticket {
    pub(super) fn new(
        house: &Arc<House>,
        events: &Arc<dyn FrontEvents>,
        entrypoint: Arc<str>,
        clients: &Arc<Clients>,
        max_per_client: Option<usize>,
    ) -> Self {
        house.open.send_modify(|open| *open += 1);
        events.connection_opened(&entrypoint);
        Self {
            house: house.clone(),
            events: events.clone(),
            entrypoint,
            clients: clients.clone(),
            max_per_client,
            place: None,
        }
    }

    /// Counts the connection for `client`, once its real address is known;
    /// `false` (and counted as shed) if that has as many as it may have. A
    /// second call moves the connection to another client.
    pub(super) fn admit(&mut self, client: IpAddr) -> bool {
        self.place = None;
        let Some(max) = self.max_per_client else { return true };
        self.place = self.clients.take(client, max);
        if self.place.is_none() {
            self.events.connection_shed(&self.entrypoint, Shed::Client);
        }
        self.place.is_some()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.house.open.send_modify(|open| *open -= 1);
        self.events.connection_closed(&self.entrypoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_as_many_as_it_may_and_leaves_no_trace() {
        let clients = Arc::new(Clients::default());
        let first = clients.take(ip("192.0.2.1"), 2).unwrap();
        let second = clients.take(ip("::ffff:192.0.2.1"), 2).unwrap();
        assert!(clients.take(ip("192.0.2.1"), 2).is_none());
        assert!(clients.take(ip("192.0.2.2"), 2).is_some());
        drop(first);
        let third = clients.take(ip("192.0.2.1"), 2);
        assert!(third.is_some());
        drop((second, third));
        assert!(clients.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let clients = Arc::new(Clients::default());
        let _one = clients.take(ip("2001:db8:1:2::1"), 1).unwrap();
        assert!(clients.take(ip("2001:db8:1:2:ffff::9"), 1).is_none());
        assert!(clients.take(ip("2001:db8:1:3::1"), 1).is_some());
    }
}
