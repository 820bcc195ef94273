//! The one spelling of a host and a path that matchers see. Borrows whenever
//! there is nothing to change.

use std::borrow::Cow;

/// The host of an authority: no port, no brackets, no trailing dot, lower case.
/// Host patterns see the same, so `example.com.` cannot slip past one.
pub fn host(authority: &str) -> Cow<'_, str> {
    let host = without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(host.to_ascii_lowercase());
    }
    Cow::Borrowed(host)
}

fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    match authority.split_once(':') {
        // More than one colon and no brackets: an IPv6 address as it is.
        Some((_, port)) if port.contains(':') => authority,
        Some((host, _)) => host,
        None => authority,
    }
}

/// A path with unreserved characters decoded, escapes in upper case, and `.`,
/// `..` and `//` cleaned away: what an upstream should get. Malformed escapes
/// and paths that do not start with `/` stay as they are.
pub fn sanitised_path(path: &str) -> Cow<'_, str> {
    let decoded = if path.contains('%') { decode_unreserved(path) } else { Cow::Borrowed(path) };
    if !needs_cleaning(&decoded) {
        return decoded;
    }
    Cow::Owned(clean(&decoded))
}

/// Whether the `..` of a path that starts with `/`, encoded or not, lead above
/// its root.
pub fn climbs_above_root(path: &str) -> bool {
    let decoded = if path.contains('%') { decode_unreserved(path) } else { Cow::Borrowed(path) };
    if !decoded.contains("..") {
        return false;
    }
    let mut depth = 0_usize;
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// The path with everything decoded but reserved characters, and nothing else
/// changed.
pub(super) fn decoded_path(path: &str) -> Cow<'_, [u8]> {
    if path.contains('%') { Cow::Owned(decode_unless_reserved(path)) } else { Cow::Borrowed(path.as_bytes()) }
}

/// The sanitised path with everything decoded but reserved characters, so that
/// `%20` is a space and `%2F` does not become a separator. Any byte may appear.
pub(super) fn routing_path(path: &str) -> Cow<'_, [u8]> {
    match sanitised_path(path) {
        Cow::Borrowed(path) if path.contains('%') => Cow::Owned(decode_unless_reserved(path)),
        Cow::Owned(path) if path.contains('%') => Cow::Owned(decode_unless_reserved(&path)),
        Cow::Borrowed(path) => Cow::Borrowed(path.as_bytes()),
        Cow::Owned(path) => Cow::Owned(path.into_bytes()),
    }
}

/// The byte an escape at the start of `text` stands for.
pub(super) fn escape(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some(hex_digit(*high)? << 4 | hex_digit(*low)?),
        _ => None,
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn decode_unreserved(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut kept = 0;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'%', &bytes[at..]) {
        at += found;
        let Some(byte) = escape(&bytes[at..]) else {
            at += 1;
            continue;
        };
        out.push_str(&path[kept..at]);
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&path[at..at + 3].to_ascii_uppercase());
        }
        at += 3;
        kept = at;
    }
    out.push_str(&path[kept..]);
    if out == path { Cow::Borrowed(path) } else { Cow::Owned(out) }
}

fn decode_unless_reserved(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match escape(&bytes[at..]) {
            Some(byte) if !is_reserved(byte) => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_reserved(byte: u8) -> bool {
    b":/?#[]@!$&'()*+,;=%".contains(&byte)
}

fn needs_cleaning(path: &str) -> bool {
    path.starts_with('/')
        && memchr::memchr_iter(b'/', path.as_bytes())
            .any(|at| matches!(path.as_bytes()[at + 1..], [b'/', ..] | [b'.'] | [b'.', b'.' | b'/', ..]))
}

/// Resolves `.` and `..` as Go's `path.Clean` does, but keeps a trailing slash.
fn clean(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_port_brackets_dot_and_case() {
        for (given, expected) in [
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("[10::10]:80", "10::10"),
            ("[::1]", "::1"),
            ("10::10", "10::10"),
            ("", ""),
        ] {
            assert_eq!(host(given), expected, "{given}");
        }
        assert!(matches!(host("example.com:80"), Cow::Borrowed(_)));
    }

    #[test]
    fn paths_are_cleaned_once_decoded() {
        for (given, expected) in [
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/../b", "/b"),
            ("/../..", "/"),
            ("/a/%2e%2e/b", "/b"),
            ("/%7euser/%2f%3a", "/~user/%2F%3A"),
            ("/.well-known/x", "/.well-known/x"),
            ("/..x/.y", "/..x/.y"),
            ("/%zz%4", "/%zz%4"),
            ("*", "*"),
        ] {
            assert_eq!(sanitised_path(given), expected, "{given}");
        }
    }

    #[test]
    fn only_what_leads_above_the_root_climbs() {
        for path in ["/..", "/../a", "/a/../..", "/%2e%2e", "/.%2E/a", "/a//../../b", "/a/./../.."] {
            assert!(climbs_above_root(path), "{path}");
        }
        for path in ["/", "/a/..", "/a/../b", "/a/b/../..", "/..a", "/a/...", "/a/%2e%2e", "/%2f../b", "*"] {
            assert!(!climbs_above_root(path), "{path}");
        }
    }

    #[test]
    fn nothing_is_allocated_when_there_is_nothing_to_change() {
        for path in ["/", "/a/b.c/d-e", "/.well-known/x", "/v1/chat/completions"] {
            assert!(matches!(routing_path(path), Cow::Borrowed(_)), "{path}");
        }
        assert!(matches!(sanitised_path("/a%20b"), Cow::Borrowed(_)));
    }

    #[test]
    fn reserved_escapes_survive_into_the_routing_path() {
        assert_eq!(routing_path("/a%20b%7B").as_ref(), b"/a b{");
        assert_eq!(routing_path("/a%2fb%25").as_ref(), b"/a%2Fb%25");
        assert_eq!(routing_path("/%ff").as_ref(), b"/\xff");
    }
}
