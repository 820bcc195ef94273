//! Who is calling: API keys of consumers and the operator's token. Neither
//! knows what a caller may do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::config::{
    Name,
    consumer::{Consumer, KeyHash},
    middleware::ApiKey,
};

/// An authenticated consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub id: Arc<str>,
    /// The account that pays.
    pub tenant: Arc<str>,
    /// Empty when none was given.
    pub tier: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("no api key given")]
    Missing,
    #[error("unknown api key")]
    Unknown,
}

/// All consumers' keys, by hash.
#[derive(Debug, Default)]
pub struct ApiKeys {
    callers: HashMap<KeyHash, Arc<Caller>>,
}

impl ApiKeys {
    /// A key that two consumers claim belongs to the first by name.
    pub fn build(consumers: &BTreeMap<Name, Consumer>) -> Self {
        let mut callers = HashMap::new();
        for (name, consumer) in consumers {
            let caller = Arc::new(Caller {
                id: name.shared(),
                tenant: consumer.tenant.shared(),
                tier: consumer.tier.as_str().into(),
            });
            for key in &consumer.api_keys {
                callers.entry(*key).or_insert_with(|| caller.clone());
            }
        }
        Self { callers }
    }

    /// The owner of the first key found in the policy's headers. A later header
    /// is not tried after a key that nobody owns.
    ///
    /// The lookup need not take constant time: what its timing tells is about
    /// the SHA-256 of the key, from which no key can be worked out.
    pub fn authenticate(&self, policy: &ApiKey, headers: &HeaderMap) -> Result<Arc<Caller>, AuthError> {
        let key = policy.headers.iter().find_map(|name| key_in(headers, name)).ok_or(AuthError::Missing)?;
        self.callers.get(&hash(key)).cloned().ok_or(AuthError::Unknown)
    }
}

/// Whether the request bears the token of this hash. The hash is compared in
/// constant time, although only the hash of a guess could be learnt from it.
pub fn token_matches(expected: &KeyHash, headers: &HeaderMap) -> bool {
    key_in(headers, &header::AUTHORIZATION).is_some_and(|token| bool::from(hash(token).0.ct_eq(&expected.0)))
}

/// The first value of the header, which for `authorization` is its bearer token.
/// An empty one is none.
fn key_in<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let value = headers.get(name).map(HeaderValue::as_bytes)?.trim_ascii();
    let key = if name == header::AUTHORIZATION { bearer(value)? } else { value };
    (!key.is_empty()).then_some(key)
}

/// RFC 9110, section 11.1: the scheme's case does not count.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii_start())
}

fn hash(key: &[u8]) -> KeyHash {
    KeyHash(Sha256::digest(key).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> ApiKeys {
        let consumer = |tenant: &str, keys: &[&str]| Consumer {
            tenant: tenant.parse().unwrap(),
            tier: "free".to_owned(),
            api_keys: keys.iter().map(|key| hash(key.as_bytes())).collect(),
            opening_credit_nano_usd: 0,
        };
        let named = |name: &str, consumer| (name.parse().unwrap(), consumer);
        ApiKeys::build(&BTreeMap::from([
            named("ann", consumer("acme", &["key-1", "key-2"])),
            named("ben", consumer("acme", &["key-3", "key-1"])),
        ]))
    }

    fn policy() -> ApiKey {
        ApiKey { headers: vec![header::AUTHORIZATION, HeaderName::from_static("x-api-key")], hide: true }
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(pair).collect()
    }

    fn who(list: &[(&'static str, &'static str)]) -> Result<String, AuthError> {
        keys().authenticate(&policy(), &headers(list)).map(|caller| caller.id.to_string())
    }

    #[test]
    fn keys_are_found_in_the_headers_of_the_policy() {
        for (list, expected) in [
            (&[("authorization", "Bearer key-1")][..], Ok("ann")),
            (&[("authorization", "bEARER   key-2 ")], Ok("ann")),
            (&[("x-api-key", "key-3")], Ok("ben")),
            (&[("authorization", "Basic abc"), ("x-api-key", "key-3")], Ok("ben")),
            (&[("authorization", "Bearer key-2"), ("x-api-key", "key-3")], Ok("ann")),
            (&[("authorization", "Bearer nope"), ("x-api-key", "key-3")], Err(AuthError::Unknown)),
            (&[("authorization", "Bearer KEY-1")], Err(AuthError::Unknown)),
            (&[("authorization", "Bearerkey-1")], Err(AuthError::Missing)),
            (&[("authorization", "Bearer ")], Err(AuthError::Missing)),
            (&[("authorization", "key-1")], Err(AuthError::Missing)),
            (&[("x-other", "key-1")], Err(AuthError::Missing)),
            (&[], Err(AuthError::Missing)),
        ] {
            assert_eq!(who(list), expected.map(str::to_owned), "{list:?}");
        }
    }

    #[test]
    fn a_caller_carries_its_tenant_and_tier() {
        let caller = keys().authenticate(&policy(), &headers(&[("x-api-key", "key-3")])).unwrap();
        assert_eq!((&*caller.id, &*caller.tenant, &*caller.tier), ("ben", "acme", "free"));
    }

    #[test]
    fn only_the_right_token_is_the_operators() {
        let expected = hash(b"secret");
        let bears = |value| token_matches(&expected, &headers(&[("authorization", value)]));
        assert!(bears("Bearer secret"));
        assert!(bears("bearer secret"));
        assert!(!bears("Bearer Secret"));
        assert!(!bears("Bearer "));
        assert!(!bears("secret"));
        assert!(!token_matches(&expected, &HeaderMap::new()));
        // What hashes to the token's hash is the token, not the hash itself.
        assert!(!token_matches(&expected, &headers(&[("x-api-key", "secret")])));
    }
}
