//! What the engine must know to connect to a target. It leaves every timeout
//! open and shares connections too freely unless told.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use pingora::upstreams::peer::HttpPeer;

use crate::config::service::{Target, UpstreamTimeouts};

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    Http1,
    /// By ALPN with TLS; without TLS the first bytes are HTTP/2 (prior knowledge).
    Http2,
}

const MAX_H2_STREAMS: usize = 100;
/// A dead HTTP/2 connection is noticed so soon after its last sign of life; it
/// is shared, so every request on it would wait for a timeout of its own.
const H2_PING: Duration = Duration::from_secs(20);
/// How much of a response may wait here for a client that reads slowly.
const H2_STREAM_WINDOW: u32 = 1 << 20;
/// How long an unused connection stays in the pool.
pub(super) const POOLED: Duration = Duration::from_secs(60);

/// One target's peers, made once for each protocol and address. Sharing them
/// saves every request the copies and the hash.
pub(super) struct Peers {
    http1: ArcSwapOption<(SocketAddr, Arc<HttpPeer>)>,
    http2: ArcSwapOption<(SocketAddr, Arc<HttpPeer>)>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self { http1: ArcSwapOption::empty(), http2: ArcSwapOption::empty() }
    }

    /// The peer at `address`; `make` is called when the address is a new one.
    pub(super) fn at(
        &self,
        address: SocketAddr,
        wire: Wire,
        make: impl FnOnce() -> HttpPeer,
    ) -> Arc<HttpPeer> {
        let made = match wire {
            Wire::Http1 => &self.http1,
            Wire::Http2 => &self.http2,
        };
        if let Some(known) = &*made.load()
            && known.0 == address
        {
            return known.1.clone();
        }
        let peer = Arc::new(make());
        made.store(Some(Arc::new((address, peer.clone()))));
        peer
    }
}

/// A peer that speaks exactly one protocol. With TLS and [`Wire::Http2`] an
/// origin without it may still answer the handshake: look at what came of it.
pub(super) fn speaking(
    wire: Wire,
    target: &Target,
    address: SocketAddr,
    timeouts: &UpstreamTimeouts,
    group: &str,
) -> HttpPeer {
    let mut peer = peer(target, address, timeouts, group);
    let mut hasher = DefaultHasher::new();
    (peer.group_key, wire).hash(&mut hasher);
    peer.group_key = hasher.finish();
    match wire {
        Wire::Http1 => peer.options.set_http_version(1, 1),
        Wire::Http2 => peer.options.set_http_version(2, 2),
    }
    peer
}

/// `group` separates pools: connections of one are never used by another.
///
/// The engine has one read timeout for head and body: it is `first_byte`, and
/// `idle` bounds writes.
pub fn peer(target: &Target, address: SocketAddr, timeouts: &UpstreamTimeouts, group: &str) -> HttpPeer {
    // With an empty SNI the engine would skip verification altogether. An
    // address, not a name: names are looked up there blocking.
    let name = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut hasher = DefaultHasher::new();
    (group, target).hash(&mut hasher);
    let mut peer = HttpPeer::new(address, target.tls, name);
    peer.group_key = hasher.finish();
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.first_byte);
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(POOLED);
    options.max_h2_streams = MAX_H2_STREAMS;
    options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
    options.h2_ping_interval = Some(H2_PING);
    // Without TLS there is no negotiation, and few origins speak it unasked.
    options.set_http_version(if target.tls { 2 } else { 1 }, 1);
    peer
}

#[cfg(test)]
mod tests {
    use pingora::{protocols::ALPN, upstreams::peer::Peer};

    use super::*;

    fn made(tls: bool, host: &str, group: &str) -> HttpPeer {
        let second = Duration::from_secs(1);
        let timeouts = UpstreamTimeouts { connect: second, first_byte: second * 2, idle: second * 3 };
        let target = Target { tls, host: host.to_owned(), port: 443 };
        peer(&target, "127.0.0.1:443".parse().unwrap(), &timeouts, group)
    }

    #[test]
    fn nothing_is_left_open() {
        let peer = made(true, "a.test", "g");
        assert_eq!(peer.sni, "a.test");
        assert_eq!(peer.total_connection_timeout(), Some(Duration::from_secs(1)));
        assert_eq!(peer.options.read_timeout, Some(Duration::from_secs(2)));
        assert_eq!(peer.options.write_timeout, Some(Duration::from_secs(3)));
        assert!(matches!(peer.options.alpn, ALPN::H2H1));
        assert!(matches!(made(false, "a.test", "g").options.alpn, ALPN::H1));
        assert_eq!(made(true, "[::1]", "g").sni, "::1");
    }

    #[test]
    fn a_peer_is_made_once_for_each_protocol_and_address() {
        let peers = Peers::new();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let at = |address, wire| peers.at(address, wire, || made(false, "a.test", "g"));
        let first = at(address, Wire::Http1);
        assert!(Arc::ptr_eq(&first, &at(address, Wire::Http1)));
        assert!(!Arc::ptr_eq(&first, &at(address, Wire::Http2)));
        assert!(!Arc::ptr_eq(&first, &at("127.0.0.1:2".parse().unwrap(), Wire::Http1)));
    }

    #[test]
    fn protocols_do_not_share_connections() {
        let second = Duration::from_secs(1);
        let timeouts = UpstreamTimeouts { connect: second, first_byte: second, idle: second };
        let target = Target { tls: true, host: "a.test".to_owned(), port: 443 };
        let peer = |wire| speaking(wire, &target, "127.0.0.1:443".parse().unwrap(), &timeouts, "g");
        assert!(matches!(peer(Wire::Http1).options.alpn, ALPN::H1));
        assert!(matches!(peer(Wire::Http2).options.alpn, ALPN::H2));
        assert_ne!(peer(Wire::Http1).reuse_hash(), peer(Wire::Http2).reuse_hash());
    }

    #[test]
    fn pools_are_separate_by_group_and_target() {
        let hash = |host, group| made(true, host, group).reuse_hash();
        assert_eq!(hash("a.test", "g"), hash("a.test", "g"));
        assert_ne!(hash("a.test", "g"), hash("a.test", "h"));
        assert_ne!(hash("a.test", "g"), hash("b.test", "g"));
    }
}
