//! Where a connection came in: the doors note it in the connection's digest,
//! where every request on it finds it.

use std::{any::Any, net::SocketAddr, sync::Arc};

use pingora::protocols::Digest;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub entrypoint: Arc<str>,
    /// The client: the socket's peer, or whom that peer named by the PROXY protocol.
    pub peer: SocketAddr,
    /// The balancer that named it.
    pub via: Option<SocketAddr>,
    /// Where the client connected to.
    pub local: SocketAddr,
    pub tls: Option<TlsInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    pub cipher: &'static str,
    /// The name the client asked for, in lower case.
    pub sni: Option<Arc<str>>,
}

/// Where the connection of a session came in: `arrival(session.digest()?)`.
/// Absent only on connections that no door of ours accepted.
pub fn arrival(digest: &Digest) -> Option<&Arrival> {
    let known: &(dyn Any + Send + Sync) = digest.proxy_digest.as_ref()?.user_data.as_deref()?;
    known.downcast_ref()
}
