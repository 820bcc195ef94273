//! Decides on the bytes of an HTTP/1 request head: passed on untouched, or
//! refused. Pure; everything ambiguous between two implementations is refused.

use memchr::memchr;

/// Header fields of one request; more are answered with 431.
const MAX_FIELDS: usize = 128;

/// How the end of the request is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The head, then so many bytes of body.
    Length(u64),
    /// A chunked body, or a protocol switch is asked for.
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) detail: &'static str,
}

impl Refusal {
    const fn bad(detail: &'static str) -> Self {
        Self { status: 400, detail }
    }
    pub(super) const TOO_LARGE: Self = Self { status: 431, detail: "the request head is too large" };
    pub(super) const TOO_SLOW: Self = Self { status: 408, detail: "the request head did not arrive in time" };
}

/// Finds the end of a head that arrives in pieces, each byte looked at once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    seen: usize,
    line: usize,
}

impl Scan {
    /// Length of the head with its empty line, once it is complete.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(at) = memchr(b'\n', &bytes[self.seen..]).map(|at| at + self.seen) {
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(Refusal::bad("lines must end with CR LF"));
            }
            self.seen = at + 1;
            if at - 1 == self.line {
                return Ok(Some(self.seen));
            }
            self.line = self.seen;
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

/// Checks a complete head, empty line included.
pub(super) fn check(head: &[u8]) -> Result<Framing, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Refusal::bad("the request head is malformed")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TOO_LARGE),
        Err(_) => return Err(Refusal::bad("the request head is malformed")),
    }
    // A lone CR inside a line: some parsers end the line there.
    if memchr::memchr_iter(b'\r', head).any(|at| head.get(at + 1) != Some(&b'\n')) {
        return Err(Refusal::bad("lines must end with CR LF"));
    }
    let http11 = request.version == Some(1);
    check_target(request.method.unwrap_or_default(), request.path.unwrap_or_default())?;
    check_host(request.headers)?;
    check_expect(request.headers, http11)?;
    framing(request.headers, http11)
}

fn check_target(method: &str, target: &str) -> Result<(), Refusal> {
    if matches!(method, "TRACE" | "CONNECT") {
        return Err(Refusal { status: 405, detail: "the method is not supported" });
    }
    if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Err(Refusal::bad("the request target is malformed"));
    }
    let absolute = ["http://", "https://"]
        .iter()
        .any(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    if target.starts_with('/') || absolute || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    Err(Refusal::bad("the request target is malformed"))
}

/// Also required of HTTP/1.0: the request goes on as HTTP/1.1, which has a host.
fn check_host(fields: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let mut hosts = values(fields, "host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal::bad("exactly one Host field is required"));
    };
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    if host.is_empty() || !host.iter().all(allowed) {
        return Err(Refusal::bad("the Host field is malformed"));
    }
    Ok(())
}

fn check_expect(fields: &[httparse::Header<'_>], http11: bool) -> Result<(), Refusal> {
    let known = |value: &[u8]| http11 && value.eq_ignore_ascii_case(b"100-continue");
    // On HTTP/1.0 the engine would answer 100, which the client cannot understand.
    if values(fields, "expect").all(known) {
        return Ok(());
    }
    Err(Refusal { status: 417, detail: "the expectation cannot be met" })
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
        return check_coding(coding).map(|()| Framing::Open);
    }
    let upgrade = values(fields, "upgrade").next().is_some();
    let length =
        length.map_or(Some(0), decimal).ok_or(Refusal::bad("the Content-Length field is malformed"))?;
    Ok(if upgrade { Framing::Open } else { Framing::Length(length) })
}

fn check_coding(coding: &[u8]) -> Result<(), Refusal> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut names = coding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if names.all(|name| name.is_empty() || name.eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::bad("the framing of the body is ambiguous"));
    }
    Err(Refusal { status: 501, detail: "the transfer coding is not supported" })
}

/// Digits only: `u64::from_str` would take a leading `+`.
fn decimal(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
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
