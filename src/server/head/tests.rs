//! Heads, whole and in pieces.

use super::*;

fn status(head: &str) -> Result<Framing, u16> {
    check(head.as_bytes()).map_err(|refusal| refusal.status)
}

#[test]
fn well_formed_heads_pass_with_their_framing() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", Framing::Length(0)),
        ("GET /a?b=c%20d HTTP/1.1\r\nHost: a.test:8080\r\nX: \r\n\r\n", Framing::Length(0)),
        ("GET http://a.test/ HTTP/1.1\r\nhost: a.test\r\n\r\n", Framing::Length(0)),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Framing::Length(0)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", Framing::Length(12)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: ws\r\nConnection: a, Upgrade\r\n\r\n", Framing::Upgrade(0)),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Framing::Length(0)),
        ("GET / HTTP/1.0\r\nHost: a\r\nUpgrade: ws\r\nConnection: upgrade\r\n\r\n", Framing::Length(0)),
        ("GET http://a.test?b HTTP/1.1\r\nhost: a.test\r\n\r\n", Framing::Length(0)),
        ("GET /{\"a\":^|} HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        ("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        ("GET / HTTP/1.1\r\nHost: a\r\nmy_key: 1\r\n\r\n", Framing::Length(0)),
        (
            "PUT / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 01\r\n\r\n",
            Framing::Length(1),
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
            Framing::Length(1),
        ),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Framing::Length(0)),
    ];
    for (head, framing) in cases {
        assert_eq!(status(head), Ok(framing), "{head:?}");
    }
}

#[test]
fn ambiguous_and_malformed_heads_are_refused() {
    let cases: &[(&str, u16)] = &[
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("-X / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET / b HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [a]:80\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: %61\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\ntransfer_encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n", 400),
        ("GET /\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: much\r\n\r\n", 417),
    ];
    for (head, expected) in cases {
        assert_eq!(status(head), Err(*expected), "{head:?}");
    }
}

#[test]
fn a_target_that_no_engine_can_hold_is_too_long() {
    let head = |length| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length));
    assert_eq!(status(&head(MAX_TARGET - 1)), Ok(Framing::Length(0)));
    assert_eq!(status(&head(MAX_TARGET)), Err(414));
}

/// What passes here the engine must not refuse in its own words.
#[test]
fn the_engine_takes_every_accepted_target() {
    let mut accepted = 0;
    for byte in 0..=u8::MAX {
        for start in ["GET /a", "GET /a?b", "GET http://a", "GET http://a/", "GET http://a?"] {
            let head = [start.as_bytes(), &[byte], b"c HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            if check(&head).is_ok() {
                accepted += 1;
                let target = &head[4..head.len() - b" HTTP/1.1\r\nHost: a\r\n\r\n".len()];
                let built = pingora::http::RequestHeader::build("GET", target, None);
                assert!(built.is_ok(), "{}", target.escape_ascii());
            }
        }
    }
    assert!(accepted > 300, "{accepted}");
}

#[test]
fn too_many_fields_are_too_large() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS));
    assert_eq!(status(&head), Err(431));
}

#[test]
fn the_end_is_found_however_the_head_arrives() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n";
    for step in 1..head.len() {
        let mut scan = Scan::default();
        let found = (0..=head.len())
            .step_by(step)
            .chain([head.len()])
            .find_map(|end| scan.advance(&head[..end]).unwrap());
        assert_eq!(found, Some(head.len() - 5), "in steps of {step}");
    }
}

#[test]
fn bare_line_feeds_are_refused_as_soon_as_they_arrive() {
    for head in ["GET / HTTP/1.1\n", "\n", "GET / HTTP/1.1\r\nHost: a\n\n"] {
        assert_eq!(Scan::default().advance(head.as_bytes()).unwrap_err().status, 400, "{head:?}");
    }
}
