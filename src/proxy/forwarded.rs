//! Who asked, and over what: what senders claim by `X-Forwarded-*` and
//! `Forwarded`, believed of trusted ones only, and what upstreams are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderValue, uri::Authority};
use pingora::{http::RequestHeader, proxy::Session};

use super::{arrival::Arrival, chain::authority, context::RequestContext};
use crate::config::Networks;

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";
const PORT: &str = "x-forwarded-port";
const REAL_IP: &str = "x-real-ip";
const FORWARDED: &str = "forwarded";
/// More hops than any real chain has.
const MOST_HOPS: usize = 64;
/// A DNS name, a colon and a port.
const LONGEST_HOST: usize = 260;

/// The other end of the connection, and what it says about the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    /// Who sent the request: the client, or a proxy on its behalf.
    pub(super) address: SocketAddr,
    /// Where it connected to.
    pub(super) local: SocketAddr,
    /// In the entrypoint's `trusted_proxies`.
    pub(super) trusted: bool,
    /// The client: the sender, or whom trusted senders name.
    pub(super) client: IpAddr,
    /// The client's connection is encrypted.
    pub(super) https: bool,
    /// A trusted sender said so, or that it is not.
    pub(super) scheme_told: bool,
}

impl Sender {
    /// Before anything is known.
    pub(super) const UNKNOWN: Self = Self {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        trusted: false,
        client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        https: false,
        scheme_told: false,
    };
}

/// Believes what `arrival`'s peer claims if it is one of `trusted`; otherwise
/// takes the claims out of `head`, so that nobody after us believes them.
pub(super) fn receive(head: &mut RequestHeader, arrival: &Arrival, trusted: Option<&Networks>) -> Sender {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let address = canonical(arrival.peer);
    let believed = trusted.filter(|networks| networks.contains(address.ip()));
    remove_claims(head, believed.is_some());
    let told = believed.and_then(|_| scheme(&head.headers));
    Sender {
        address,
        local: canonical(arrival.local),
        trusted: believed.is_some(),
        client: believed.map_or(address.ip(), |trusted| client(&head.headers, address.ip(), trusted)),
        https: told.unwrap_or(arrival.tls.is_some()),
        scheme_told: told.is_some(),
    }
}

/// All of them, or only those that no honest proxy sends: a name with `_` is
/// the same one to CGI and its heirs.
fn remove_claims(head: &mut RequestHeader, only_disguised: bool) {
    let unwanted = |name: &str| is_claim(name) && (!only_disguised || name.contains('_'));
    if !head.headers.keys().any(|name| unwanted(name.as_str())) {
        return;
    }
    let names: Vec<_> = head.headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        head.remove_header(&name);
    }
}

fn is_claim(name: &str) -> bool {
    let starts = |with: &str| {
        let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
        name.len() >= with.len() && name.bytes().zip(with.bytes()).all(same)
    };
    starts("x-forwarded-") || name == FORWARDED || (name.len() == REAL_IP.len() && starts(REAL_IP))
}

/// From the right through trusted senders to the first one that is not; what
/// is left of it, anybody may have written. What is no address ends the walk.
fn client(headers: &HeaderMap, sender: IpAddr, trusted: &Networks) -> IpAddr {
    let mut client = sender;
    for address in hops(headers) {
        if !trusted.contains(client) {
            break;
        }
        client = address;
    }
    client
}

/// The addresses of `X-Forwarded-For` from the right, up to what is none.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = IpAddr> + '_ {
    let values = headers.get_all(FOR).iter().rev();
    let entries = values.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
    entries.map_while(address).take(MOST_HOPS)
}

/// With or without a port, as some balancers write it.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse::<IpAddr>().or_else(|_| entry.parse::<SocketAddr>().map(|full| full.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Whether the last sender that says so saw TLS.
fn scheme(headers: &HeaderMap) -> Option<bool> {
    let last = headers.get_all(PROTO).iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
    match last {
        _ if ["https", "wss"].iter().any(|word| last.eq_ignore_ascii_case(word)) => Some(true),
        _ if ["http", "ws"].iter().any(|word| last.eq_ignore_ascii_case(word)) => Some(false),
        _ => None,
    }
}

/// Tells the upstream where the request is from. A trusted sender's own words
/// are kept or added to, anybody else's are replaced.
pub(super) fn introduce(
    session: &Session,
    head: &mut RequestHeader,
    ctx: &RequestContext,
) -> pingora::Result<()> {
    let incoming = session.req_header();
    let told = told(&incoming.headers, authority(incoming), &ctx.sender);
    for (name, value) in told.fields() {
        match HeaderValue::try_from(value) {
            Ok(value) => head.insert_header(name, value)?,
            Err(_) => drop(head.remove_header(name)),
        }
    }
    Ok(())
}

/// What upstreams are told; empty values are left out.
struct Told {
    hops: String,
    proto: &'static str,
    host: String,
    port: String,
    real_ip: String,
    forwarded: String,
}

impl Told {
    fn fields(self) -> [(&'static str, String); 6] {
        [
            (FOR, self.hops),
            (PROTO, self.proto.to_owned()),
            (HOST, self.host),
            (PORT, self.port),
            (REAL_IP, self.real_ip),
            (FORWARDED, self.forwarded),
        ]
    }
}

fn told(incoming: &HeaderMap, authority: &str, sender: &Sender) -> Told {
    let none = HeaderMap::new();
    let claims = if sender.trusted { incoming } else { &none };
    let text = |name: &str| claims.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let mut before: Vec<IpAddr> = hops(claims).collect();
    before.reverse();
    let proto = if sender.https { "https" } else { "http" };
    let host = text(HOST).filter(|host| is_host(host)).unwrap_or(authority);
    let port = text(PORT).and_then(|port| port.parse::<u16>().ok().filter(|port| *port != 0));
    let port = port.or_else(|| port_of(authority)).unwrap_or(if sender.https { 443 } else { 80 });
    let real_ip = match text(REAL_IP).and_then(address) {
        // What the chain of addresses says is told by every hop.
        Some(claimed) if before.is_empty() => claimed,
        _ => sender.client,
    };
    let hops = before.iter().copied().chain([sender.address.ip()]).map(|hop| hop.to_string());
    Told {
        hops: hops.collect::<Vec<_>>().join(", "),
        proto,
        host: host.to_owned(),
        port: port.to_string(),
        real_ip: real_ip.to_string(),
        forwarded: forwarded(claims, &before, host, proto, sender.address.ip()),
    }
}

/// RFC 7239. Where only `X-Forwarded-For` came, its addresses begin the list
/// (section 7.4).
fn forwarded(claims: &HeaderMap, before: &[IpAddr], host: &str, proto: &str, sender: IpAddr) -> String {
    let kept: Vec<&str> = claims
        .get_all(FORWARDED)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::trim).filter(|text| is_forwarded(text)))
        .collect();
    let mut elements: Vec<String> = if kept.is_empty() {
        before.iter().map(|address| node(*address)).collect()
    } else {
        kept.into_iter().map(str::to_owned).collect()
    };
    let host = if is_host(host) { format!(";host=\"{host}\"") } else { String::new() };
    elements.push(format!("{}{host};proto={proto}", node(sender)));
    elements.join(", ")
}

fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    }
}

/// What can stand in a host and port, and needs no escaping in a quoted text.
fn is_host(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]~%".contains(&byte);
    !text.is_empty() && text.len() <= LONGEST_HOST && text.bytes().all(fits)
}

fn port_of(authority: &str) -> Option<u16> {
    authority.parse::<Authority>().ok()?.port_u16().filter(|port| *port != 0)
}

/// RFC 7239 section 4: elements of pairs, values that are tokens or quoted.
fn is_forwarded(text: &str) -> bool {
    let mut rest = text;
    loop {
        let Some(after) = pair(rest) else { return false };
        let after = after.trim_start_matches([' ', '\t']);
        if after.is_empty() {
            return true;
        }
        let Some(next) = after.strip_prefix([';', ',']) else { return false };
        rest = next.trim_start_matches([' ', '\t']);
    }
}

/// What follows a pair at the start of `text`.
fn pair(text: &str) -> Option<&str> {
    let value = token(text)?.strip_prefix('=')?;
    let Some(quoted) = value.strip_prefix('"') else { return token(value) };
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some(&quoted[at + 1..]),
            '\\' => drop(characters.next()?),
            _ => {}
        }
    }
    None
}

/// What follows a token of at least one character (RFC 9110 section 5.6.2).
fn token(text: &str) -> Option<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !fits(c)).unwrap_or(text.len());
    if end == 0 { None } else { Some(&text[end..]) }
}

#[cfg(test)]
mod tests;
