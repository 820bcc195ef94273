//! What every request has to look like, whichever protocol brought it: its path
//! and the fields that origins and gateways are known to read differently.

use std::borrow::Cow;

use http::{Version, header};
use pingora::http::RequestHeader;

use crate::{
    config::entrypoint::{EncodedSlash, PathPolicy},
    fault::{Fault, FaultKind},
    route::{climbs_above_root, sanitised_path},
};

/// What cannot be repaired is refused.
pub(super) fn apply(policy: PathPolicy, head: &mut RequestHeader) -> Result<(), Fault> {
    check_fields(head)?;
    settle_path(policy, head)
}

/// Takes away what must not be acted upon: the client cannot have meant it, or
/// must not say it.
pub(super) fn repair_fields(head: &mut RequestHeader) {
    if head.version == Version::HTTP_10 {
        // It could not understand the 100 (RFC 9110 section 10.1.1).
        head.remove_header(&header::EXPECT);
    }
    if head.headers.contains_key(header::UPGRADE) && !asks_for_upgrade(head) {
        head.remove_header(&header::UPGRADE);
    }
    let imitations: Vec<_> =
        head.headers.keys().filter(|name| imitates_ours(name.as_str())).cloned().collect();
    for name in imitations {
        head.remove_header(&name);
    }
}

/// `Upgrade` means nothing unless `Connection` names it (RFC 9110 section 7.8).
fn asks_for_upgrade(head: &RequestHeader) -> bool {
    let named = |value: &http::HeaderValue| {
        let mut words = value.as_bytes().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    head.version == Version::HTTP_11 && head.headers.get_all(header::CONNECTION).iter().any(named)
}

/// Some origins read `_` as `-`, and would take these for what the gateway says.
fn imitates_ours(name: &str) -> bool {
    const OURS: [&str; 5] = ["content-length", "transfer-encoding", "x-real-ip", "x-forwarded-", "tollgate-"];
    name.contains('_') && {
        let name = name.replace('_', "-");
        OURS.iter().any(|ours| name.starts_with(ours))
    }
}

/// Refuses fields given twice of which one would be believed here and another
/// one there.
fn check_fields(head: &RequestHeader) -> Result<(), Fault> {
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        if head.headers.get_all(&name).iter().nth(1).is_some() {
            return Err(Fault::new(FaultKind::BadRequest, format!("more than one {name} field")));
        }
    }
    Ok(())
}

/// Makes the target what is matched and what is passed on: a path and query,
/// according to the entrypoint's policy. Escapes must be well-formed and `%00`
/// absent under any policy.
pub(super) fn settle_path(policy: PathPolicy, head: &mut RequestHeader) -> Result<(), Fault> {
    let path = head.uri.path();
    if path == "*" {
        return Ok(());
    }
    check_path(policy, path)?;
    let clean = if policy.normalize { sanitised_path(path) } else { Cow::Borrowed(path) };
    let is_target = head.version == Version::HTTP_2 || head.raw_path().starts_with(b"/");
    if matches!(clean, Cow::Borrowed(_)) && is_target {
        return Ok(());
    }
    let clean = clean.into_owned();
    replace_path(head, &clean)
}

fn check_path(policy: PathPolicy, path: &str) -> Result<(), Fault> {
    let bad = |message| Err(Fault::new(FaultKind::BadRequest, message));
    if !path.is_ascii() {
        return bad("the path holds bytes that must be encoded");
    }
    let reject_slash = policy.encoded_slash == EncodedSlash::Reject;
    if reject_slash && path.contains('\\') {
        return bad("the path holds a backslash");
    }
    for at in memchr::memchr_iter(b'%', path.as_bytes()) {
        match path.as_bytes().get(at + 1..at + 3) {
            Some(b"00") => return bad("the path holds an encoded NUL"),
            Some(b"2f" | b"2F" | b"5c" | b"5C") if reject_slash => {
                return bad("the path holds an encoded slash");
            }
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return bad("the path holds a malformed escape"),
        }
    }
    if policy.normalize && climbs_above_root(path) {
        return bad("the path leads above its root");
    }
    Ok(())
}

/// Another path; the query stays.
pub(super) fn replace_path(head: &mut RequestHeader, path: &str) -> Result<(), Fault> {
    let target = match head.uri.query() {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path),
    };
    let uri = with_path(&head.uri, &target)
        .map_err(|error| Fault::new(FaultKind::BadRequest, "invalid path").because(error))?;
    head.set_uri(uri);
    Ok(())
}

/// Another path and query; scheme and authority stay.
pub(super) fn with_path(uri: &http::Uri, target: &str) -> Result<http::Uri, http::Error> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse()?);
    Ok(http::Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: PathPolicy = PathPolicy { normalize: true, encoded_slash: EncodedSlash::Reject };
    const RAW: PathPolicy = PathPolicy { normalize: false, encoded_slash: EncodedSlash::Keep };

    fn settled(policy: PathPolicy, target: &str) -> Result<String, FaultKind> {
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        settle_path(policy, &mut head).map_err(|fault| fault.kind)?;
        Ok(String::from_utf8(head.raw_path().to_vec()).unwrap())
    }

    #[test]
    fn paths_are_settled_by_policy() {
        let bad = Err(FaultKind::BadRequest);
        for (target, default, strict, raw) in [
            ("/a/b?c=/../d", Ok("/a/b?c=/../d"), Ok("/a/b?c=/../d"), Ok("/a/b?c=/../d")),
            ("/a/%2e%2E/b//c?d", Ok("/b/c?d"), Ok("/b/c?d"), Ok("/a/%2e%2E/b//c?d")),
            ("/../a", bad, bad, Ok("/../a")),
            ("/a%2fb", Ok("/a%2Fb"), bad, Ok("/a%2fb")),
            ("/a%5cb", Ok("/a%5Cb"), bad, Ok("/a%5cb")),
            ("/a\\b", Ok("/a\\b"), bad, Ok("/a\\b")),
            ("/a%00b", bad, bad, bad),
            ("/a%zz", bad, bad, bad),
            ("/a%4", bad, bad, bad),
            ("/%252e%252e/a", Ok("/%252e%252e/a"), Ok("/%252e%252e/a"), Ok("/%252e%252e/a")),
            ("http://a.test/x/../y?z", Ok("/y?z"), Ok("/y?z"), Ok("/x/../y?z")),
            ("http://a.test", Ok("/"), Ok("/"), Ok("/")),
            ("http://a.test?z", Ok("/?z"), Ok("/?z"), Ok("/?z")),
            ("*", Ok("*"), Ok("*"), Ok("*")),
        ] {
            for (policy, expected) in [(PathPolicy::default(), default), (STRICT, strict), (RAW, raw)] {
                assert_eq!(settled(policy, target).as_deref(), expected.as_deref(), "{target} {policy:?}");
            }
        }
    }

    #[test]
    fn fields_that_would_be_read_differently_are_refused_or_taken_away() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for name in ["X_Forwarded_For", "tollgate_role", "Content_Length", "my_key", "Upgrade"] {
            head.append_header(name.to_owned(), "x").unwrap();
        }
        repair_fields(&mut head);
        assert_eq!(head.headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["my_key"]);
        head.append_header(header::AUTHORIZATION, "Bearer a").unwrap();
        assert!(check_fields(&head).is_ok());
        head.append_header(header::AUTHORIZATION, "Bearer b").unwrap();
        assert_eq!(check_fields(&head).unwrap_err().kind, FaultKind::BadRequest);
    }
}
