//! What a route reaches.

use std::time::Duration;

use super::{Name, llm::Llm};

#[derive(Debug, Clone)]
pub enum Service {
    /// Targets that get the bytes as they are.
    Http(HttpService),
    /// Targets of connections, for `streams`.
    Tcp(TcpService),
    /// Providers and models that are understood.
    Llm(Llm),
    /// A plugin that exports `wasi:http/incoming-handler`.
    Plugin(Name),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpService {
    /// Never empty. Round robin.
    pub targets: Vec<Target>,
    pub timeouts: UpstreamTimeouts,
    pub protocol: UpstreamProtocol,
    /// Each connection to a target begins with a PROXY protocol header that
    /// names the client, and serves that client only. Default: none.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// What is spoken with HTTP targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, and HTTP/2 for gRPC: by ALPN with TLS, by prior knowledge without.
    #[default]
    Auto,
    Http1,
    /// HTTP/2 for everything but upgrades; without TLS by prior knowledge (h2c).
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// Connections are passed on to one of the targets, in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpService {
    /// `tcp://host:port`. Never empty.
    pub targets: Vec<TcpTarget>,
    /// Default 2 s.
    pub connect: Duration,
    /// Without a byte in either direction. Default 1 h.
    pub idle: Duration,
    pub proxy_protocol: Option<ProxyProtocol>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpTarget {
    pub host: String,
    pub port: u16,
}

/// An origin: `http://host:port` or `https://host:port`, without a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub tls: bool,
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamTimeouts {
    /// TCP and TLS together. Default 2 s. Exceeded: 502.
    pub connect: Duration,
    /// From the end of the request to the response head. Default 30 s. Exceeded: 504.
    pub first_byte: Duration,
    /// Between two reads or writes after that. Default 60 s.
    pub idle: Duration,
}
