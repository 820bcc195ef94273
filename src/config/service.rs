//! What a route reaches.

use std::time::Duration;

use super::{Name, llm::Llm};

#[derive(Debug, Clone)]
pub enum Service {
    /// Targets that get the bytes as they are.
    Http(HttpService),
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
