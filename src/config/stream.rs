//! Connections that are passed on as bytes: plain TCP, and TLS that is not ended here.

use super::Name;

/// A rule for connections; the counterpart of a route for requests. On an
/// entrypoint with TLS it is looked up by SNI before any route gets a say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub name: Name,
    /// `HostSNI` names in lower case: exact, `*.` for one more label, or `*` for
    /// every connection, TLS or not.
    pub hosts: Vec<String>,
    /// Never empty.
    pub entrypoints: Vec<Name>,
    pub tls: StreamTls,
    /// A key of `services` that is a TCP service.
    pub service: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTls {
    /// The bytes go on as they came, TLS included. Default.
    Passthrough,
    /// TLS ends here, with the entrypoint's certificates; what is inside goes on.
    Terminate,
}
