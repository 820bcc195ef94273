//! One condition on a request head.

use std::{borrow::Cow, fmt, net::IpAddr};

use http::{HeaderMap, HeaderName, Method, header};
use ipnet::IpNet;

use super::{canonical, pattern::Pattern};

/// A request head with host and path made canonical.
pub(super) struct Head<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a str>,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) client: IpAddr,
    /// Lower case.
    pub(super) sni: Option<&'a str>,
}

/// Host names are kept lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// Also holds where there is no host.
    AnyHost,
    Host(String),
    /// Exactly one label more than this domain.
    Subdomain(String),
    HostPattern(Pattern),
    Path(String),
    /// As bytes: `/a` also holds for `/ab`.
    PathPrefix(String),
    /// By segment: `/a` holds for `/a` and `/a/b`, not for `/ab`.
    PathUnder(String),
    PathPattern(Pattern),
    Method(String),
    Header(HeaderName, String),
    HeaderPattern(HeaderName, Pattern),
    /// The key has this value; empty for a key without one.
    Query(String, String),
    QueryPattern(String, Pattern),
    /// The key is there, with any value.
    QueryKey(String),
    Client(IpNet),
    Sni(String),
    /// Exactly one label more than this domain.
    SniUnder(String),
}

impl Condition {
    pub(super) fn holds(&self, head: &Head<'_>) -> bool {
        match self {
            Self::AnyHost => true,
            Self::Host(host) => host == head.host,
            Self::Subdomain(domain) => parent_domain(head.host) == Some(domain),
            Self::HostPattern(pattern) => pattern.matches(head.host.as_bytes()),
            Self::Path(path) => path.as_bytes() == head.path,
            Self::PathPrefix(prefix) => head.path.starts_with(prefix.as_bytes()),
            Self::PathUnder(prefix) => is_under(head.path, prefix.as_bytes()),
            Self::PathPattern(pattern) => pattern.matches(head.path),
            Self::Method(method) => method == head.method.as_str(),
            Self::Header(name, value) => header_values(head, name).any(|found| found == value.as_bytes()),
            Self::HeaderPattern(name, pattern) => {
                header_values(head, name).any(|found| pattern.matches(found))
            }
            Self::Query(key, value) => query_values(head, key).any(|found| *found == *value.as_bytes()),
            Self::QueryKey(key) => query_values(head, key).next().is_some(),
            Self::QueryPattern(key, pattern) => query_values(head, key).any(|found| pattern.matches(&found)),
            Self::Client(network) => within(network, head.client),
            Self::Sni(name) => head.sni == Some(name),
            Self::SniUnder(domain) => head.sni.and_then(parent_domain) == Some(domain),
        }
    }
}

/// As a rule says it, or a `match` field where rules have no word for it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyHost => f.write_str("Host(`*`)"),
            Self::Host(host) => write!(f, "Host(`{host}`)"),
            Self::Subdomain(domain) => write!(f, "Host(`*.{domain}`)"),
            Self::HostPattern(pattern) => write!(f, "HostRegexp({pattern:?})"),
            Self::Path(path) => write!(f, "Path(`{path}`)"),
            Self::PathPrefix(prefix) => write!(f, "PathPrefix(`{prefix}`)"),
            Self::PathUnder(prefix) => write!(f, "path {prefix}"),
            Self::PathPattern(pattern) => write!(f, "PathRegexp({pattern:?})"),
            Self::Method(method) => write!(f, "Method(`{method}`)"),
            Self::Header(name, value) => write!(f, "Header(`{name}`, `{value}`)"),
            Self::HeaderPattern(name, pattern) => write!(f, "HeaderRegexp(`{name}`, {pattern:?})"),
            Self::Query(key, value) => write!(f, "Query(`{key}`, `{value}`)"),
            Self::QueryPattern(key, pattern) => write!(f, "QueryRegexp(`{key}`, {pattern:?})"),
            Self::QueryKey(key) => write!(f, "query key {key}"),
            Self::Client(network) => write!(f, "ClientIP(`{network}`)"),
            Self::Sni(name) => write!(f, "SNI {name}"),
            Self::SniUnder(domain) => write!(f, "SNI *.{domain}"),
        }
    }
}

/// What follows the first label, if that label is not empty.
pub(super) fn parent_domain(host: &str) -> Option<&str> {
    host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent)
}

fn is_under(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.ends_with(b"/") || matches!(rest.first(), None | Some(b'/')))
}

/// `Host` is never visible as a header: rules about it are `Host` rules.
fn header_values<'a>(head: &Head<'a>, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let hidden = name == header::HOST;
    head.headers.get_all(name).into_iter().filter(move |_| !hidden).map(|value| value.as_bytes())
}

/// The decoded values of a key. A pair with `;` or a broken escape is left out,
/// as Go's `url.ParseQuery` does.
fn query_values<'a>(head: &Head<'a>, key: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    let pairs =
        head.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs.filter_map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*form_decoded(name)? == *key.as_bytes()).then(|| form_decoded(value)).flatten()
    })
}

fn form_decoded(text: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = text.as_bytes();
    if memchr::memchr2(b'%', b'+', bytes).is_none() {
        return Some(Cow::Borrowed(bytes));
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                out.push(canonical::escape(&bytes[at..])?);
                at += 2;
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(Cow::Owned(out))
}

/// An address or a CIDR block; host bits of a block are ignored.
pub(super) fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse::<IpNet>().ok().map(|network| network.trunc()),
    }
}

/// An IPv4 client seen through an IPv6 socket counts as IPv4.
fn within(network: &IpNet, client: IpAddr) -> bool {
    network.contains(&client.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, client, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("fe80::/10", "fe80::1", true),
            ("::1", "::1", true),
            ("::1", "::2", false),
        ] {
            let parsed = super::network(network).unwrap();
            assert_eq!(within(&parsed, client.parse().unwrap()), expected, "{network} {client}");
        }
        for bad in ["1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "x/8", ""] {
            assert!(network(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn segments_end_at_a_slash() {
        for (path, prefix, expected) in [
            ("/x", "/x", true),
            ("/x/y", "/x", true),
            ("/xy", "/x", false),
            ("/anything", "/", true),
            ("/x/y", "/x/", true),
            ("/x", "/x/", false),
        ] {
            assert_eq!(is_under(path.as_bytes(), prefix.as_bytes()), expected, "{path} {prefix}");
        }
    }

    #[test]
    fn broken_query_pairs_are_left_out() {
        assert_eq!(form_decoded("a+b%26").unwrap().as_ref(), b"a b&");
        assert!(form_decoded("%4").is_none());
    }
}
