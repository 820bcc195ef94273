//! The PROXY protocol towards targets: each connection begins by naming the
//! client that it serves.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use pingora::{
    ErrorType, OrErr, connectors::L4Connect, protocols::l4::socket::SocketAddr as PeerAddress,
    protocols::l4::stream::Stream, upstreams::peer::HttpPeer,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::config::service::ProxyProtocol;

/// PROXY protocol specification, section 2.2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Who a connection to a target is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Preamble {
    pub version: ProxyProtocol,
    /// The client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

impl Preamble {
    /// The header's bytes. Addresses of different families are both written as IPv6.
    pub fn bytes(&self) -> Vec<u8> {
        let (source, destination) = (self.source.ip().to_canonical(), self.destination.ip().to_canonical());
        let ports = (self.source.port(), self.destination.port());
        let (source, destination) = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (source, destination),
            _ => (widened(source), widened(destination)),
        };
        match self.version {
            ProxyProtocol::V1 => v1(source, destination, ports),
            ProxyProtocol::V2 => v2(source, destination, ports),
        }
    }

    /// Makes connections to `peer` begin with this header. They are pooled for
    /// this client and destination alone.
    pub fn introduce(self, peer: &mut HttpPeer) {
        let mut hasher = DefaultHasher::new();
        (peer.group_key, self).hash(&mut hasher);
        peer.group_key = hasher.finish();
        peer.options.custom_l4 = Some(Arc::new(self));
    }
}

fn widened(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(_) => address,
    }
}

fn v1(source: IpAddr, destination: IpAddr, (from, to): (u16, u16)) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
}

fn v2(source: IpAddr, destination: IpAddr, (from, to): (u16, u16)) -> Vec<u8> {
    let family = if source.is_ipv4() { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 };
    let mut addresses = Vec::with_capacity(36);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => addresses.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => addresses.extend_from_slice(&address.octets()),
        }
    }
    addresses.extend_from_slice(&from.to_be_bytes());
    addresses.extend_from_slice(&to.to_be_bytes());
    let length = addresses.len() as u16;
    [V2_SIGNATURE, &[V2_PROXY, family], &length.to_be_bytes(), &addresses].concat()
}

/// The engine bounds this by the peer's `total_connection_timeout`.
#[async_trait]
impl L4Connect for Preamble {
    async fn connect(&self, address: &PeerAddress) -> pingora::Result<Stream> {
        let Some(address) = address.as_inet() else {
            return pingora::Error::e_explain(ErrorType::InternalError, "a target has an IP address");
        };
        let mut tcp = TcpStream::connect(address).await.or_err(ErrorType::ConnectError, "cannot connect")?;
        let told = tcp.write_all(&self.bytes()).await;
        told.or_err(ErrorType::ConnectError, "cannot name the client")?;
        Ok(tcp.into())
    }
}

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer;

    use super::*;

    fn preamble(version: ProxyProtocol, source: &str, destination: &str) -> Preamble {
        Preamble { version, source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn version_1_is_a_line() {
        for (source, destination, line) in [
            ("192.0.2.1:5", "198.51.100.7:443", "PROXY TCP4 192.0.2.1 198.51.100.7 5 443\r\n"),
            ("[2001:db8::1]:5", "[::1]:443", "PROXY TCP6 2001:db8::1 ::1 5 443\r\n"),
            ("[::ffff:192.0.2.1]:5", "198.51.100.7:443", "PROXY TCP4 192.0.2.1 198.51.100.7 5 443\r\n"),
            ("[2001:db8::1]:0", "192.0.2.7:80", "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.7 0 80\r\n"),
        ] {
            let bytes = preamble(ProxyProtocol::V1, source, destination).bytes();
            assert_eq!(String::from_utf8(bytes).unwrap(), line);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let bytes = preamble(ProxyProtocol::V2, "192.0.2.1:258", "198.51.100.7:443").bytes();
        let rest = [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 0xbb];
        assert_eq!(bytes, [V2_SIGNATURE, &rest].concat());
        let bytes = preamble(ProxyProtocol::V2, "[2001:db8::1]:5", "192.0.2.7:80").bytes();
        assert_eq!(bytes.len(), 16 + 36);
        assert_eq!(bytes[12..16], [0x21, 0x21, 0, 36]);
    }

    #[test]
    fn clients_have_pools_of_their_own() {
        let hash = |source: &str| {
            let mut peer = HttpPeer::new("127.0.0.1:80".parse::<SocketAddr>().unwrap(), false, String::new());
            preamble(ProxyProtocol::V1, source, "127.0.0.1:80").introduce(&mut peer);
            peer.reuse_hash()
        };
        assert_eq!(hash("192.0.2.1:5"), hash("192.0.2.1:5"));
        assert_ne!(hash("192.0.2.1:5"), hash("192.0.2.1:6"));
        assert_ne!(hash("192.0.2.1:5"), hash("192.0.2.2:5"));
    }
}
