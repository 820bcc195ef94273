//! A listening address: who may come in by it, how, and within which limits.

use std::{net::SocketAddr, time::Duration};

use super::{ByteSize, Name, Networks, tls::EntrypointTls};

/// The operator's entrypoint: the name is reserved for it.
pub const ADMIN: &str = "admin";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoint {
    pub address: SocketAddr,
    pub tls: Option<EntrypointTls>,
    /// Every request is answered with a permanent redirect to this entrypoint,
    /// except ACME challenges.
    pub redirect_to: Option<Name>,
    /// Who may say by `X-Forwarded-*` and `Forwarded` where a request came
    /// from. Empty: nobody, what clients send is replaced.
    pub trusted_proxies: Networks,
    /// Peers whose connections begin with a PROXY protocol header (version 1
    /// or 2). Theirs must have one; from all others one is a malformed request.
    pub proxy_protocol: Networks,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub path: PathPolicy,
}

impl Entrypoint {
    /// Without TLS, trusting nobody, with the default timeouts and limits.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            redirect_to: None,
            trusted_proxies: Networks::default(),
            proxy_protocol: Networks::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            path: PathPolicy::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake, a PROXY protocol header
    /// included. Default 10 s.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its head. Default 10 s.
    pub header: Duration,
    /// Between two pieces of a request body. Default 60 s.
    pub body_idle: Duration,
    /// Bytes per second that a request body must bring on average, judged once
    /// it has been under way for `body_idle`. 0 is no bound, the default.
    pub min_body_rate: ByteSize,
    /// Between two requests on one connection. Default 75 s.
    pub idle: Duration,
    /// How long open requests may take to finish once the entrypoint closes. Default 30 s.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body_idle: Duration::from_secs(60),
            min_body_rate: ByteSize(0),
            idle: Duration::from_secs(75),
            drain: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers together. Default 64 KiB.
    pub max_header: ByteSize,
    /// A request body; larger ones are answered with 413. Default: no bound.
    pub max_body: Option<ByteSize>,
    /// Open connections on this entrypoint. Default 20,000.
    pub max_connections: usize,
    /// Open connections of one client address (of a /64 with IPv6). Default: no bound.
    pub max_connections_per_client: Option<usize>,
    /// Requests on one connection, after which it is closed. Default: no bound.
    pub max_requests_per_connection: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_header: ByteSize(64 << 10),
            max_body: None,
            max_connections: 20_000,
            max_connections_per_client: None,
            max_requests_per_connection: None,
        }
    }
}

/// What happens to a request's path before it is matched and passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathPolicy {
    /// Dot segments are resolved, repeated slashes merged, escapes of letters,
    /// digits and `-._~` decoded. What would climb above the root is answered
    /// with 400. Default true.
    pub normalize: bool,
    /// What `%2F`, `%5C` and a backslash in a path mean. Default `Keep`.
    pub encoded_slash: EncodedSlash,
}

impl Default for PathPolicy {
    fn default() -> Self {
        Self { normalize: true, encoded_slash: EncodedSlash::Keep }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedSlash {
    /// Answered with 400.
    Reject,
    /// Passed on as it is; it separates nothing. Default.
    Keep,
}
