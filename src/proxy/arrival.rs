//! Where a connection came in: the doors note it in the connection's digest,
//! where every request on it finds it.

use std::{any::Any, fmt, net::SocketAddr, sync::Arc, time::SystemTime};

use pingora::protocols::Digest;

#[derive(Debug, Clone)]
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

#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    pub cipher: &'static str,
    /// The name the client asked for, in lower case.
    pub sni: Option<Arc<str>>,
    /// Who the client proved to be; `None` if it was not asked or did not say.
    pub client: Option<Arc<ClientIdentity>>,
    pub hosts: Arc<dyn HostRules>,
}

impl TlsInfo {
    /// Whether a request for `host` may come by this connection. `host` is
    /// canonical: lower case, no port.
    pub fn admits(&self, host: &str) -> bool {
        self.sni.as_deref() == Some(host) || self.hosts.share(self.sni.as_deref(), host)
    }
}

/// What an entrypoint asks of TLS connections, host by host.
pub trait HostRules: fmt::Debug + Send + Sync {
    /// Whether a connection that was made for `sni` fulfils what is asked for
    /// `host`: client certificates, versions, being known. RFC 9110 section 7.4.
    fn share(&self, sni: Option<&str>, host: &str) -> bool;
}

/// Read from a client certificate that one of the configured authorities has
/// signed. All text is printable ASCII, escaped as in RFC 4514.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The distinguished name, most specific first: `CN=robot,O=Partners`.
    pub subject: String,
    pub common_name: Option<String>,
    /// Alternative names with their kind: `DNS:a.test`, `URI:spiffe://a/b`, `email:`, `IP:`.
    pub names: Vec<String>,
    /// Hexadecimal.
    pub serial: String,
    /// Of the whole certificate, hexadecimal.
    pub sha256: String,
    pub not_after: SystemTime,
}

/// Where the connection of a session came in: `arrival(session.digest()?)`.
/// Absent only on connections that no door of ours accepted.
pub fn arrival(digest: &Digest) -> Option<&Arrival> {
    let known: &(dyn Any + Send + Sync) = digest.proxy_digest.as_ref()?.user_data.as_deref()?;
    known.downcast_ref()
}
