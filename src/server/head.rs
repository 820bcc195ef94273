//! Decides on the bytes of an HTTP/1 request head: passed on untouched, or
//! refused. Pure; everything ambiguous between two implementations is refused.

use std::net::Ipv6Addr;

use memchr::memchr;

use super::refusal::Refusal;

/// Header fields of one request; more are answered with 431.
const MAX_FIELDS: usize = 128;

const MAX_METHOD: usize = 32;
/// Longer request targets are answered with 414. What the URI type of the
/// engine can hold.
const MAX_TARGET: usize = 65_534;

/// How the end of the request is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The head, then so many bytes of body.
    Length(u64),
    Chunked,
    /// The same as `Length`, unless the answer switches protocols.
    Upgrade(u64),
}

/// Finds the end of a head that arrives in pieces, each byte looked at once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    seen: usize,
    line: usize,
    /// Where the request line ends, once it does.
    request_line: usize,
}

impl Scan {
    /// Length of the head with its empty line, once it is complete.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(at) = memchr(b'\n', &bytes[self.seen..]).map(|at| at + self.seen) {
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(Refusal::bad("lines must end with CR LF"));
            }
            self.seen = at + 1;
            if self.request_line == 0 {
                self.request_line = self.seen;
            }
            if at - 1 == self.line {
                return Ok(Some(self.seen));
            }
            self.line = self.seen;
        }
        self.seen = bytes.len();
        Ok(None)
    }

    /// What to say of a head that exceeds `max` bytes: is it the target?
    pub(super) fn too_large(&self, max: usize) -> Refusal {
        let request_line = if self.request_line == 0 { self.seen } else { self.request_line };
        if request_line > max { Refusal::TARGET_TOO_LONG } else { Refusal::TOO_LARGE }
    }
}

/// Checks a complete head, empty line included.
pub(super) fn check(head: &[u8]) -> Result<Framing, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TOO_LARGE),
        Err(httparse::Error::Version) if names_a_version(head) => return Err(Refusal::VERSION),
        Ok(_) | Err(_) => return Err(Refusal::bad("the request head is malformed")),
    }
    // A lone CR inside a line: some parsers end the line there.
    if memchr::memchr_iter(b'\r', head).any(|at| head.get(at + 1) != Some(&b'\n')) {
        return Err(Refusal::bad("lines must end with CR LF"));
    }
    let http11 = request.version == Some(1);
    let method = request.method.unwrap_or_default();
    if matches!(method, "TRACE" | "CONNECT") {
        return Err(Refusal::METHOD);
    }
    if !is_method(method) {
        return Err(Refusal::bad("the method is malformed"));
    }
    let host = host(request.headers)?;
    check_target(method, request.path.unwrap_or_default(), host)?;
    check_names(request.headers)?;
    check_expect(request.headers)?;
    framing(request.headers, http11)
}

/// The first line ends with a version, if not with one that we speak.
fn names_a_version(head: &[u8]) -> bool {
    let line = &head[..memchr(b'\r', head).unwrap_or(head.len())];
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    matches!((words.next(), words.next()), (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Stricter than RFC 9110: an origin may take `get` for GET, which our rules do not.
fn is_method(method: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    method.starts_with(|first: char| first.is_ascii_uppercase())
        && method.len() <= MAX_METHOD
        && method.bytes().all(allowed)
}

fn check_target(method: &str, target: &str, host: &[u8]) -> Result<(), Refusal> {
    let malformed = Refusal::bad("the request target is malformed");
    if target.len() > MAX_TARGET {
        return Err(Refusal::TARGET_TOO_LONG);
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(());
    }
    if target.starts_with('/') {
        return if is_path_and_query(target) { Ok(()) } else { Err(malformed) };
    }
    let absolute = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let absolute = absolute.ok_or(malformed)?;
    let (authority, path) = absolute.split_at(absolute.find(['/', '?']).unwrap_or(absolute.len()));
    if authority.as_bytes() != host {
        return Err(Refusal::bad("the Host field differs from the request target"));
    }
    if is_path_and_query(path) { Ok(()) } else { Err(malformed) }
}

/// What the URI type of the engine takes, without a fragment and in ASCII.
fn is_path_and_query(text: &str) -> bool {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#<>`".contains(&byte))
        && query.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>".contains(&byte))
}

/// Also required of HTTP/1.0: the request goes on as HTTP/1.1, which has a host.
fn host<'a>(fields: &'a [httparse::Header<'a>]) -> Result<&'a [u8], Refusal> {
    let mut hosts = values(fields, "host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal::bad("exactly one Host field is required"));
    };
    if is_host(host) { Ok(host) } else { Err(Refusal::bad("the Host field is malformed")) }
}

/// A name or address, and perhaps a port. Stricter than RFC 3986: no escapes,
/// which a router and an origin may read differently.
fn is_host(text: &[u8]) -> bool {
    let colon = text.iter().rposition(|byte| *byte == b':').filter(|_| !text.ends_with(b"]"));
    let (host, port) = text.split_at(colon.unwrap_or(text.len()));
    let port = port.strip_prefix(b":").unwrap_or(port);
    if port.len() > 5 || !port.iter().all(u8::is_ascii_digit) {
        return false;
    }
    if let Some(address) = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
        return std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte);
    !host.is_empty() && host.iter().all(allowed)
}

/// Some origins read `_` as `-`, and would find another framing than ours.
fn check_names(fields: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let lookalike = |name: &str| {
        name.contains('_')
            && ["content_length", "transfer_encoding"].iter().any(|framing| {
                framing.len() == name.len()
                    && framing.bytes().zip(name.bytes()).all(|(letter, byte)| {
                        letter == byte.to_ascii_lowercase() || (letter == b'_' && byte == b'-')
                    })
            })
    };
    if fields.iter().any(|field| lookalike(field.name)) {
        return Err(Refusal::bad("a field name imitates the framing of the body"));
    }
    Ok(())
}

/// HTTP/1.0 clients get no 100, whatever they expect (RFC 9110 section 10.1.1).
fn check_expect(fields: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let known = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if values(fields, "expect").all(known) { Ok(()) } else { Err(Refusal::EXPECTATION) }
}

fn framing(fields: &[httparse::Header<'_>], http11: bool) -> Result<Framing, Refusal> {
    let mut lengths = values(fields, "content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Refusal::bad("more than one Content-Length field"));
    }
    let mut codings = values(fields, "transfer-encoding");
    if let Some(coding) = codings.next() {
        if length.is_some() || codings.next().is_some() || !http11 {
            return Err(Refusal::bad("the framing of the body is ambiguous"));
        }
        return check_coding(coding).map(|()| Framing::Chunked);
    }
    let length =
        length.map_or(Some(0), decimal).ok_or(Refusal::bad("the Content-Length field is malformed"))?;
    let upgrade = http11 && asks_for_upgrade(fields);
    Ok(if upgrade { Framing::Upgrade(length) } else { Framing::Length(length) })
}

/// `Upgrade` means nothing unless `Connection` names it (RFC 9110 section 7.8).
fn asks_for_upgrade(fields: &[httparse::Header<'_>]) -> bool {
    let named = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    values(fields, "upgrade").next().is_some() && values(fields, "connection").any(named)
}

fn check_coding(coding: &[u8]) -> Result<(), Refusal> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut names = coding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_chunked = |name: &[u8]| name.eq_ignore_ascii_case(b"chunked");
    // Listed twice, or before another coding: the end cannot be known.
    let last = names.next_back().unwrap_or_default();
    let before = names.clone().any(is_chunked);
    if last.is_empty() || before || (is_chunked(last) && names.all(<[u8]>::is_empty)) {
        return Err(Refusal::bad("the framing of the body is ambiguous"));
    }
    Err(Refusal::CODING)
}

/// Digits only: `u64::from_str` would take a leading `+`.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn values<'a>(fields: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value.trim_ascii())
}

#[cfg(test)]
mod tests;
