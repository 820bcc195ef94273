//! Callers known by API key.

use std::fmt;

use super::Name;

#[derive(Debug, Clone)]
pub struct Consumer {
    /// The account that pays; defaults to the consumer's name.
    pub tenant: Name,
    /// Empty when none was given.
    pub tier: String,
    pub api_keys: Vec<KeyHash>,
    /// Booked once as an opening credit of the tenant's account.
    pub opening_credit_nano_usd: i64,
}

/// SHA-256 of a key or token. Keys themselves are not kept: what has 128 bits
/// of entropy needs no slow hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}
