//! A listening address with its TLS, limits and timeouts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::ByteSize;

/// The operator's entrypoint: the name is reserved for it.
pub const ADMIN: &str = "admin";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoint {
    pub address: SocketAddr,
    pub tls: Option<Tls>,
    pub timeouts: Timeouts,
    pub limits: Limits,
}

impl Entrypoint {
    /// Without TLS, with the default timeouts and limits.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, timeouts: Timeouts::default(), limits: Limits::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The first one also serves clients whose SNI names no certificate, unless `sni_strict`.
    pub certificates: Vec<CertificateFiles>,
    pub sni_strict: bool,
}

/// PEM files. The names a certificate serves are read from the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its head. Default 10 s.
    pub header: Duration,
    /// Between two requests on one connection. Default 75 s.
    pub idle: Duration,
    /// How long open requests may take to finish once the entrypoint closes. Default 30 s.
    pub drain: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers together. Default 64 KiB.
    pub max_header: ByteSize,
    /// Open connections on this entrypoint. Default 20,000.
    pub max_connections: usize,
}
