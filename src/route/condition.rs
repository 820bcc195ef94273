//! One condition on a request head.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, HeaderName, Method, header};

use super::{canonical, pattern::Pattern};

/// A request head with host and path made canonical.
pub(super) struct Head<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a str>,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) client: IpAddr,
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
    Client(Network),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u32,
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
            Self::QueryPattern(key, pattern) => query_values(head, key).any(|found| pattern.matches(&found)),
            Self::Client(network) => network.contains(head.client),
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

impl Network {
    /// An address or a CIDR block; host bits of a block are ignored.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        (bits <= width).then_some(Self { address, bits })
    }

    /// An IPv4 client seen through an IPv6 socket counts as IPv4.
    fn contains(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let ignored = width(self.address) - self.bits;
        width(client) == width(self.address)
            && (number(client) ^ number(self.address)).checked_shr(ignored).unwrap_or(0) == 0
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
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
            let network_ = Network::parse(network).unwrap();
            assert_eq!(network_.contains(client.parse().unwrap()), expected, "{network} {client}");
        }
        for bad in ["1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "x/8", ""] {
            assert!(Network::parse(bad).is_none(), "{bad}");
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
