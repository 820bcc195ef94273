//! Percent-decoding of path segments and query parameters.

pub(super) fn decode_segment(segment: &str) -> String {
    match decode(segment, false) {
        Some(decoded) if !decoded.contains('/') => decoded,
        _ => segment.to_owned(),
    }
}

pub(super) fn parameter(query: &str, wanted: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name, true)? == wanted).then(|| decode(value, true))?
    })
}

/// `None` if an escape is cut off or the result is not UTF-8.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("a=1&account=team+a%2Fb&a=2", "account").as_deref(), Some("team a/b"));
        assert_eq!(parameter("a=1&a=2", "a").as_deref(), Some("1"));
        assert_eq!(parameter("a=%zz", "a"), None);
        assert_eq!(parameter("b=1", "a"), None);
    }

    #[test]
    fn a_segment_never_gains_a_slash() {
        assert_eq!(decode_segment("team%20a"), "team a");
        assert_eq!(decode_segment("a%2fb"), "a%2fb");
        assert_eq!(decode_segment("a%2"), "a%2");
    }
}
