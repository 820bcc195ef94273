//! Chunked bodies, whole and at every split.

use super::*;

/// The length of the body at the start of `bytes`, read in one piece.
fn whole(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut scan = Chunked::default();
    let length = scan.advance(bytes)?;
    Ok(scan.is_complete().then_some(length))
}

/// The same in two pieces, cut at `at`.
fn split(bytes: &[u8], at: usize) -> Result<Option<usize>, &'static str> {
    let mut scan = Chunked::default();
    let mut length = scan.advance(&bytes[..at])?;
    if !scan.is_complete() {
        length += scan.advance(&bytes[at..])?;
    }
    Ok(scan.is_complete().then_some(length))
}

fn bytewise(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut scan = Chunked::default();
    let mut length = 0;
    for byte in bytes {
        length += scan.advance(std::slice::from_ref(byte))?;
    }
    Ok(scan.is_complete().then_some(length))
}

const WELL_FORMED: &[&[u8]] = &[
    b"0\r\n\r\n",
    b"000\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
    b"000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5;a\r\nhello\r\n0;b;c\r\n\r\n",
    b"5;a=b;c=\"d;\\\" e\t\xff\";f\r\nhello\r\n0\r\n\r\n",
    b"5 ; a\t= \"b\" ;c=d ;e\r\nhello\r\n0\r\nContent-Type: a\r\n\r\n",
    b"5;chunk-signature=abc123\r\nhello\r\n0;chunk-signature=def\r\n\r\n",
    b"2\r\n\r\n\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX-Checksum: abc\r\nExpires:\r\n\r\n",
    b"0\r\nX-Very-Long-Name-Of-A-Trailer-Field: \xe4 \t1\r\n\r\n",
    b"0\r\nhosts: 1\r\n\r\n",
];

const MALFORMED: &[&[u8]] = &[
    b"\r\nhello\r\n0\r\n\r\n",
    b"\r\n\r\n",
    b"g\r\n",
    b"0x5\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"-1\r\n",
    b"1_0\r\n",
    b" 5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"5\t\r\nhello\r\n",
    b"5 ;\r\nhello\r\n",
    b"5 a\r\nhello\r\n",
    b"5 5\r\nhello\r\n",
    b"5.0\r\nhello\r\n",
    b"5,\r\nhello\r\n",
    b"\xef\xbc\x95\r\nhello\r\n",
    b"0000000000000005\r\nhello\r\n",
    b"fffffffffffffffff\r\n",
    b"5\nhello\r\n",
    b"5\rhello\r\n",
    b"5\r\r\nhello",
    b"5\0\r\nhello\r\n",
    b";a\r\nhello\r\n",
    b"5;\r\nhello\r\n",
    b"5;;a\r\nhello\r\n",
    b"5;a;\r\nhello\r\n",
    b"5; \r\nhello\r\n",
    b"5;a= \r\nhello\r\n",
    b"5;a b\r\nhello\r\n",
    b"5;a=b =c\r\nhello\r\n",
    b"5;a \r\nhello\r\n",
    b"5;a=\r\nhello\r\n",
    b"5;=b\r\nhello\r\n",
    b"5;a=b=c\r\nhello\r\n",
    b"5;a[=x\r\nhello\r\n",
    b"5;a=\"b\r\nhello\r\n",
    b"5;a=\"b\"c\r\nhello\r\n",
    b"5;a=\"b\n\"\r\nhello\r\n",
    b"5;a=\"b\\\r\"\r\nhello\r\n",
    b"5;a\0\r\nhello\r\n",
    b"5;a\x0b\r\nhello\r\n",
    b"5;\nhello\r\n",
    b"5;a\nhello\r\n",
    b"5;a\rX\r\nhello\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello!!\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n",
    b"5\r\nhello\r\n\r\n",
    b"5\r\nhell\r\n0\r\n\r\n",
    b"0\r\n\n",
    b"0\r\n\rX",
    b"0\n\r\n",
    b"0\r\nX\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n: y\r\n\r\n",
    b"0\r\n X: y\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\nX: y\rZ\r\n\r\n",
    b"0\r\nX: y\r\n z\r\n\r\n",
    b"0\r\nX: \0\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
    b"0\r\nHost: b\r\n\r\n",
    b"0\r\nProxy-Authorization: b\r\n\r\n",
];

#[test]
fn a_body_ends_where_it_ends_however_it_arrives() {
    for body in WELL_FORMED {
        let mut bytes = body.to_vec();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for at in 0..=bytes.len() {
            assert_eq!(split(&bytes, at), Ok(Some(body.len())), "{} cut at {at}", body.escape_ascii());
        }
        assert_eq!(bytewise(&bytes), Ok(Some(body.len())), "{}", body.escape_ascii());
        for end in 0..body.len() {
            assert_eq!(whole(&bytes[..end]), Ok(None), "{}", bytes[..end].escape_ascii());
        }
    }
}

#[test]
fn a_malformed_body_is_refused_however_it_arrives() {
    for body in MALFORMED {
        let found = whole(body);
        assert!(found.is_err(), "{}", body.escape_ascii());
        for at in 0..=body.len() {
            assert_eq!(split(body, at), found, "{} cut at {at}", body.escape_ascii());
        }
        assert_eq!(bytewise(body), found, "{}", body.escape_ascii());
    }
}

#[test]
fn heads_extensions_and_trailers_are_bounded() {
    let name = |length: usize| "x".repeat(length);
    assert!(whole(format!("1;{}\r\nx\r\n", name(MAX_HEAD - 4)).as_bytes()).is_ok());
    assert!(whole(format!("1;{}\r\nx\r\n", name(MAX_HEAD)).as_bytes()).is_err());
    let weighty = format!("1;{}\r\nx\r\n", name(1024)).repeat(17);
    assert!(whole(weighty.as_bytes()).is_err());
    let worth_it = format!("800;{}\r\n{}\r\n", name(1024), name(2048)).repeat(100);
    assert_eq!(whole(worth_it.as_bytes()), Ok(None));
    assert!(whole(format!("0\r\n{}", "X: y\r\n".repeat(MAX_TRAILERS / 6)).as_bytes()).is_ok());
    assert!(whole(format!("0\r\n{}", "X: y\r\n".repeat(MAX_TRAILERS / 6 + 1)).as_bytes()).is_err());
}

/// The engine's parser of chunk heads, over all short heads of an alphabet that
/// has one byte of each kind: what we let through, it must read alike.
#[test]
fn the_engine_reads_every_accepted_chunk_head_alike() {
    let alphabet = b"0aF;=\"\\ x\t\r\n\0\xff";
    let mut accepted = 0;
    let mut head = Vec::new();
    for length in 0..=5_u32 {
        for number in 0..alphabet.len().pow(length) {
            head.clear();
            let mut rest = number;
            for _ in 0..length {
                head.push(alphabet[rest % alphabet.len()]);
                rest /= alphabet.len();
            }
            head.extend_from_slice(b"\r\n");
            let mut scan = Chunked::default();
            let before_end = scan.advance(&head[..head.len() - 1]);
            if before_end.is_err() || scan.at != At::HeadEnd || scan.data > 0 {
                continue;
            }
            accepted += 1;
            let read = httparse::parse_chunk_size(&head);
            let complete = httparse::Status::Complete((head.len(), scan.size));
            assert_eq!(read, Ok(complete), "{}", head.escape_ascii());
        }
    }
    assert!(accepted > 300, "{accepted}");
}
