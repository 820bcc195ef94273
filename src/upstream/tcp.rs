//! TCP services: whose turn it is, and a connection to it.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{Preamble, resolver::Resolver};
use crate::config::{
    Name,
    service::{TcpService, TcpTarget},
};

/// All TCP clusters by service name.
pub struct TcpClusters {
    resolver: Arc<Resolver>,
    known: Mutex<HashMap<Name, Arc<TcpCluster>>>,
}

/// The targets of one TCP service.
pub struct TcpCluster {
    name: Name,
    /// `host:port` of each target, for the access log.
    labels: Vec<Arc<str>>,
    service: TcpService,
    turn: AtomicUsize,
    resolver: Arc<Resolver>,
}

/// A connection to a target, the client already named to it if the service wants that.
pub struct Dialled {
    pub stream: TcpStream,
    /// `host:port`.
    pub target: Arc<str>,
    /// Targets that did not take the connection before this one did.
    pub failed: usize,
}

impl Default for TcpClusters {
    fn default() -> Self {
        Self { resolver: Resolver::new(), known: Mutex::default() }
    }
}

impl TcpClusters {
    /// The cluster of a service; an unchanged service gets the one it had, so
    /// that turns go on across a reload.
    pub fn cluster(&self, name: &Name, service: &TcpService) -> Arc<TcpCluster> {
        let mut known = self.known.lock();
        if let Some(cluster) = known.get(name).filter(|cluster| cluster.service == *service) {
            return cluster.clone();
        }
        let cluster = Arc::new(TcpCluster {
            name: name.clone(),
            labels: service.targets.iter().map(|target| label(target).into()).collect(),
            service: service.clone(),
            turn: AtomicUsize::new(0),
            resolver: self.resolver.clone(),
        });
        known.insert(name.clone(), cluster.clone());
        cluster
    }

    /// Forgets services that no stream leads to any more.
    pub fn keep(&self, wanted: impl Fn(&Name) -> bool) {
        self.known.lock().retain(|name, _| wanted(name));
    }
}

impl TcpCluster {
    pub fn name(&self) -> &Name {
        &self.name
    }

    pub fn service(&self) -> &TcpService {
        &self.service
    }

    /// Tries every target once, beginning with the one whose turn it is, each
    /// within the service's `connect`. `source` is the client, `destination`
    /// where it connected to; targets learn both if the service says so.
    ///
    /// # Errors
    /// When no target takes the connection: how many were tried.
    pub async fn dial(&self, source: SocketAddr, destination: SocketAddr) -> Result<Dialled, usize> {
        let targets = &self.service.targets;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let preamble =
            self.service.proxy_protocol.map(|version| Preamble { version, source, destination }.bytes());
        for failed in 0..targets.len() {
            let index = turn.wrapping_add(failed) % targets.len();
            let connecting = self.connect(&targets[index], preamble.as_deref());
            let outcome = timeout(self.service.connect, connecting).await;
            match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(Dialled { stream, target: self.labels[index].clone(), failed }),
                Err(error) => {
                    tracing::debug!(service = %self.name, target = %self.labels[index], %error, "cannot connect");
                }
            }
        }
        Err(targets.len())
    }

    async fn connect(&self, target: &TcpTarget, preamble: Option<&[u8]>) -> io::Result<TcpStream> {
        let address = self.resolver.resolve(&target.host, target.port).await.map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if let Some(preamble) = preamble {
            stream.write_all(preamble).await?;
        }
        Ok(stream)
    }
}

fn label(target: &TcpTarget) -> String {
    if target.host.contains(':') {
        format!("[{}]:{}", target.host, target.port)
    } else {
        format!("{}:{}", target.host, target.port)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::config::service::ProxyProtocol;

    fn service(addresses: &[SocketAddr], proxy_protocol: Option<ProxyProtocol>) -> TcpService {
        let target =
            |address: &SocketAddr| TcpTarget { host: address.ip().to_string(), port: address.port() };
        TcpService {
            targets: addresses.iter().map(target).collect(),
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            proxy_protocol,
        }
    }

    fn name() -> Name {
        "db".parse().unwrap()
    }

    fn client() -> SocketAddr {
        "192.0.2.1:5".parse().unwrap()
    }

    async fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_dead_target_is_passed_over_and_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        let cluster = TcpClusters::default().cluster(&name(), &service(&[refusing().await, live], None));
        let mut failures = Vec::new();
        for _ in 0..4 {
            let dialled = cluster.dial(client(), client()).await.ok().unwrap();
            assert_eq!(*dialled.target, *live.to_string());
            failures.push(dialled.failed);
        }
        assert_eq!(failures, [1, 0, 1, 0]);
    }

    #[tokio::test]
    async fn without_a_live_target_all_were_tried() {
        let dead = [refusing().await, refusing().await];
        let cluster = TcpClusters::default().cluster(&name(), &service(&dead, None));
        assert_eq!(cluster.dial(client(), client()).await.err(), Some(2));
    }

    #[tokio::test]
    async fn the_client_is_named_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = [listener.local_addr().unwrap()];
        let cluster = TcpClusters::default().cluster(&name(), &service(&live, Some(ProxyProtocol::V1)));
        let dialled = cluster.dial(client(), "198.51.100.7:443".parse().unwrap()).await.ok().unwrap();
        drop(dialled);
        let mut heard = String::new();
        listener.accept().await.unwrap().0.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "PROXY TCP4 192.0.2.1 198.51.100.7 5 443\r\n");
    }

    #[test]
    fn turns_go_on_across_reloads() {
        let clusters = TcpClusters::default();
        let one = service(&["127.0.0.1:1".parse().unwrap()], None);
        let first = clusters.cluster(&name(), &one);
        assert!(Arc::ptr_eq(&first, &clusters.cluster(&name(), &one)));
        assert!(!Arc::ptr_eq(&first, &clusters.cluster(&name(), &service(&[client()], None))));
        clusters.keep(|_| false);
        assert!(clusters.known.lock().is_empty());
    }
}
