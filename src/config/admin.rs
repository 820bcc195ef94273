//! The operator's door.

use std::net::SocketAddr;

use super::{Name, consumer::KeyHash};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub address: SocketAddr,
    /// SHA-256 of the bearer token.
    pub token: KeyHash,
    /// Path prefixes and the plugins that answer them, longest first. Defaults:
    /// `/api/v1/credits` and `/api/v1/usage` to `metering`, `/api/v1/byok` to
    /// `byok`, `/` to `admin`.
    pub endpoints: Vec<(String, Name)>,
}
