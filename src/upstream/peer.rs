//! What the engine must know to connect to a target. It leaves every timeout
//! open and shares connections too freely unless told.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::Duration,
};

use pingora::upstreams::peer::HttpPeer;

use crate::config::service::{Target, UpstreamTimeouts};

const MAX_H2_STREAMS: usize = 100;
/// How long an unused connection stays in the pool.
pub(super) const POOLED: Duration = Duration::from_secs(60);

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
    fn pools_are_separate_by_group_and_target() {
        let hash = |host, group| made(true, host, group).reuse_hash();
        assert_eq!(hash("a.test", "g"), hash("a.test", "g"));
        assert_ne!(hash("a.test", "g"), hash("a.test", "h"));
        assert_ne!(hash("a.test", "g"), hash("b.test", "g"));
    }
}
