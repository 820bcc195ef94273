//! A service's targets and whose turn it is.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;

use super::{
    peer::{Peers, Wire, speaking},
    resolver::{ResolveError, Resolver},
};
use crate::config::{
    Name,
    service::{HttpService, ProxyProtocol, Target, UpstreamProtocol, UpstreamTimeouts},
};

/// All clusters by service name; one for the life of the process.
pub struct Clusters {
    resolver: Arc<Resolver>,
    known: Mutex<HashMap<Name, Arc<Cluster>>>,
}

impl Clusters {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { resolver: Resolver::new(), known: Mutex::default() })
    }

    /// The cluster of a service. An unchanged service gets the one it had, so
    /// that a reload forgets nothing; a changed one replaces it for new requests.
    pub fn cluster(&self, name: &Name, service: &HttpService) -> Arc<Cluster> {
        let mut known = self.known.lock();
        if let Some(cluster) = known.get(name).filter(|cluster| cluster.service == *service) {
            return cluster.clone();
        }
        let labels = service.targets.iter().map(|target| format!("{}:{}", target.host, target.port).into());
        let cluster = Arc::new(Cluster {
            name: name.clone(),
            labels: labels.collect(),
            peers: service.targets.iter().map(|_| Peers::new()).collect(),
            service: service.clone(),
            turn: AtomicUsize::new(0),
            resolver: self.resolver.clone(),
        });
        known.insert(name.clone(), cluster.clone());
        cluster
    }

    /// Shared by everything that needs an address, the LLM lane included.
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }
}

pub struct Cluster {
    name: Name,
    /// `host:port` of each target, for the access log.
    labels: Vec<Arc<str>>,
    peers: Vec<Peers>,
    service: HttpService,
    turn: AtomicUsize,
    resolver: Arc<Resolver>,
}

/// A target and its position, for the list of those tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked<'a> {
    pub index: usize,
    pub target: &'a Target,
}

impl Cluster {
    /// Round robin over the targets that are not in `tried`; over all of them
    /// once every one was tried.
    pub fn pick(&self, tried: &[usize]) -> Picked<'_> {
        let targets = &self.service.targets;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = (0..targets.len()).map(|step| turn.wrapping_add(step) % targets.len());
        let index = order.into_iter().find(|index| !tried.contains(index)).unwrap_or(turn % targets.len());
        Picked { index, target: &targets[index] }
    }

    pub async fn resolve(&self, picked: Picked<'_>) -> Result<SocketAddr, ResolveError> {
        self.resolver.resolve(&picked.target.host, picked.target.port).await
    }

    /// How to connect to a target at `address`, speaking exactly `wire`.
    pub fn peer(&self, picked: Picked<'_>, address: SocketAddr, wire: Wire) -> Arc<HttpPeer> {
        self.peers[picked.index]
            .at(address, wire, || speaking(wire, picked.target, address, self.timeouts(), self.name.as_str()))
    }

    pub fn protocol(&self) -> UpstreamProtocol {
        self.service.protocol
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// `host:port` of the target at `index`.
    pub fn label(&self, index: usize) -> &Arc<str> {
        &self.labels[index]
    }

    /// Whether connections begin by naming their client, and how.
    pub fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.service.proxy_protocol
    }

    pub fn timeouts(&self) -> &UpstreamTimeouts {
        &self.service.timeouts
    }

    pub fn len(&self) -> usize {
        self.service.targets.len()
    }

    /// Always false: a service without targets is refused at load.
    pub fn is_empty(&self) -> bool {
        self.service.targets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::service::UpstreamProtocol;

    fn service(hosts: &[&str]) -> HttpService {
        let target = |host: &&str| Target { tls: false, host: (*host).to_owned(), port: 80 };
        let second = Duration::from_secs(1);
        HttpService {
            targets: hosts.iter().map(target).collect(),
            timeouts: UpstreamTimeouts { connect: second, first_byte: second, idle: second },
            protocol: UpstreamProtocol::Auto,
            proxy_protocol: None,
        }
    }

    fn name() -> Name {
        "echo".parse().unwrap()
    }

    #[test]
    fn targets_take_turns_and_tried_ones_are_skipped() {
        let cluster = Clusters::new().cluster(&name(), &service(&["a", "b", "c"]));
        let turns: Vec<usize> = (0..6).map(|_| cluster.pick(&[]).index).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        assert!((0..6).all(|_| cluster.pick(&[0, 2]).index == 1));
        assert_eq!(cluster.pick(&[1]).target.host, "a");
    }

    #[test]
    fn when_all_were_tried_all_take_turns_again() {
        let cluster = Clusters::new().cluster(&name(), &service(&["a", "b"]));
        let turns: Vec<usize> = (0..4).map(|_| cluster.pick(&[0, 1]).index).collect();
        assert_eq!(turns, [0, 1, 0, 1]);
    }

    #[test]
    fn an_unchanged_service_keeps_its_cluster() {
        let clusters = Clusters::new();
        let first = clusters.cluster(&name(), &service(&["a", "b"]));
        assert!(Arc::ptr_eq(&first, &clusters.cluster(&name(), &service(&["a", "b"]))));
        assert!(!Arc::ptr_eq(&first, &clusters.cluster(&name(), &service(&["a"]))));
    }

    #[tokio::test]
    async fn literal_addresses_resolve_to_themselves() {
        let cluster = Clusters::new().cluster(&name(), &service(&["127.0.0.9"]));
        let address = cluster.resolve(cluster.pick(&[])).await.unwrap();
        assert_eq!(address, "127.0.0.9:80".parse().unwrap());
    }
}
