//! The PROXY protocol, versions 1 and 2, as a balancer in front of us speaks it:
//! who the client behind it is. Parsed from memory; reading is the caller's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A version 1 header with its line break (specification section 2.1).
const V1_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
/// Section 2.2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// A version 2 header may announce 64 KiB of extensions; with a client
/// certificate among them they take some 3 KiB.
const V2_MAX: usize = 16 * 1024;
const TYPE_CRC32C: u8 = 0x03;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// The balancer's own connection, or a client whose address it cannot
    /// tell: the addresses of the socket hold.
    Own,
    Client {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

/// Not a header, or one with a mistake. Nothing after it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The header at the start of `bytes` and its length; `None` while more bytes
/// are needed, of which there are never more than 16 KiB in all.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins(bytes, V2_SIGNATURE) {
        return v2(bytes);
    }
    if begins(bytes, V1_START) {
        return v1(bytes);
    }
    Err(Malformed)
}

/// As far as there are bytes.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

fn v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let seen = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        let hopeless = bytes.len() >= V1_MAX || seen.contains(&b'\n');
        return if hopeless { Err(Malformed) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&seen[..end]).map_err(|_| Malformed)?;
    let rest = line.strip_prefix("PROXY ").ok_or(Malformed)?;
    Ok(Some((v1_addresses(rest)?, end + 2)))
}

/// `TCP4 SOURCE DESTINATION PORT PORT`, single spaces; or `UNKNOWN` and anything.
fn v1_addresses(text: &str) -> Result<Header, Malformed> {
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Header::Own);
    }
    let mut words = text.split(' ');
    let family = words.next();
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            Some("TCP4") => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            Some("TCP6") => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, destination) = (address().ok_or(Malformed)?, address().ok_or(Malformed)?);
    let mut port = || words.next().and_then(v1_port).ok_or(Malformed);
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(Header::Client {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Digits without leading zeros; integer parsing would take a `+` as well.
fn v1_port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

fn v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else { return Ok(None) };
    let [.., version_command, family, high, low] = *fixed;
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || length > V2_MAX {
        return Err(Malformed);
    }
    let proxied = match version_command & 0x0f {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    // Unspecified, IPv4, IPv6 or UNIX; unspecified, stream or datagram.
    if family >> 4 > 3 || family & 0x0f > 2 {
        return Err(Malformed);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let client = if proxied { v2_addresses(family, header)? } else { Header::Own };
    Ok(Some((client, length)))
}

/// `header` is whole. Addresses of other families than TCP over IP say nothing
/// that we could use.
fn v2_addresses(family: u8, header: &[u8]) -> Result<Header, Malformed> {
    let body = &header[V2_FIXED..];
    let (source, destination, used) = match family {
        0x11 => {
            let addresses = body.first_chunk::<12>().ok_or(Malformed)?;
            let [a, b, c, d, e, f, g, h, ..] = *addresses;
            (IpAddr::from([a, b, c, d]), IpAddr::from([e, f, g, h]), 12)
        }
        0x21 => {
            let addresses = body.first_chunk::<36>().ok_or(Malformed)?;
            (ipv6(&addresses[..16])?, ipv6(&addresses[16..32])?, 36)
        }
        _ => return Ok(Header::Own),
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    check_extensions(header, V2_FIXED + used)?;
    Ok(Header::Client {
        source: SocketAddr::new(source, port(used - 4)),
        destination: SocketAddr::new(destination, port(used - 2)),
    })
}

fn ipv6(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    bytes.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)).ok_or(Malformed)
}

/// Extensions are skipped; a checksum among them must be right (section 2.2.3).
fn check_extensions(header: &[u8], start: usize) -> Result<(), Malformed> {
    let mut at = start;
    while at < header.len() {
        let [kind, high, low] = *header[at..].first_chunk::<3>().ok_or(Malformed)?;
        let value = at + 3;
        at = value + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(value..at).map(|bytes| (value, bytes)).ok_or(Malformed)?;
        if kind == TYPE_CRC32C && !checksum_fits(header, value) {
            return Err(Malformed);
        }
    }
    Ok(())
}

/// The sum is made with zeros in its own place.
fn checksum_fits(header: &[u8], (at, value): (usize, &[u8])) -> bool {
    let Ok(value) = <[u8; 4]>::try_from(value) else { return false };
    let parts = [&header[..at], &[0; 4], &header[at + 4..]];
    crc32c(&parts) == u32::from_be_bytes(value)
}

/// Castagnoli's polynomial, reflected. Bit by bit: a header has few bytes.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut sum = !0_u32;
    for byte in parts.iter().copied().flatten() {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

#[cfg(test)]
mod tests;
