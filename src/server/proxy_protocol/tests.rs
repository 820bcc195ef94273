//! Headers as balancers send them, and as attackers do.

use super::*;

fn client(source: &str, destination: &str) -> Header {
    Header::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[version_command, family], &length, body].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xde, 0xad, 0x01, 0xbb];

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn with_checksum() -> Vec<u8> {
    let body = [&IPV4[..], &extension(0x04, b"pad"), &extension(TYPE_CRC32C, &[0; 4])].concat();
    let mut header = v2(0x21, 0x11, &body);
    let sum = crc32c(&[&header]).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    header
}

fn good() -> Vec<(Vec<u8>, Header)> {
    let ipv6: Vec<u8> =
        [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 80, 1, 0xbb]].concat();
    let told = client("192.0.2.1:57005", "198.51.100.7:443");
    let text = |line: &str| line.as_bytes().to_vec();
    vec![
        (text("PROXY TCP4 192.0.2.1 198.51.100.7 57005 443\r\n"), told),
        (text("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"), client("[2001:db8::1]:0", "[::1]:65535")),
        (text("PROXY UNKNOWN\r\n"), Header::Own),
        (text("PROXY UNKNOWN ffff::1 junk\r\n"), Header::Own),
        (v2(0x21, 0x11, &IPV4), told),
        (v2(0x21, 0x21, &ipv6), client("[2001:db8::1]:80", "[::1]:443")),
        (v2(0x21, 0x11, &[&IPV4[..], &extension(0x04, &[0; 300])].concat()), told),
        (with_checksum(), told),
        // LOCAL, whatever it carries.
        (v2(0x20, 0x00, b""), Header::Own),
        (v2(0x20, 0x11, b"junk"), Header::Own),
        // A family that has no IP addresses, and datagrams.
        (v2(0x21, 0x00, b""), Header::Own),
        (v2(0x21, 0x31, &[b'/'; 216]), Header::Own),
        (v2(0x21, 0x12, &IPV4), Header::Own),
    ]
}

#[test]
fn headers_tell_the_client() {
    for (bytes, header) in good() {
        assert_eq!(parse(&bytes), Ok(Some((header, bytes.len()))), "{}", bytes.escape_ascii());
        let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more), Ok(Some((header, bytes.len()))), "{}", more.escape_ascii());
    }
}

#[test]
fn every_beginning_waits_for_more() {
    for (bytes, _) in good() {
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Ok(None), "{}", bytes[..length].escape_ascii());
        }
    }
}

#[test]
fn mistakes_are_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let lines = [
        "GET / HTTP/1.1\r\n",
        "\x16\x03\x01",
        "proxy TCP4 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY\tTCP4 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 +2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7  2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2 198.51.100.7 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
        "PROXY TCP4 192.0.2.\u{ff11} 198.51.100.7 1 2\r\n",
        long.as_str(),
        &long[..V1_MAX],
    ];
    let binary = [
        v2(0x11, 0x11, &IPV4),
        v2(0x31, 0x11, &IPV4),
        v2(0x22, 0x11, &IPV4),
        v2(0x2f, 0x11, &IPV4),
        v2(0x21, 0x41, &IPV4),
        v2(0x21, 0x13, &IPV4),
        v2(0x21, 0x11, &IPV4[..11]),
        v2(0x21, 0x21, &[0; 35]),
        // Extensions that end early.
        v2(0x21, 0x11, &[&IPV4[..], &[4, 0]].concat()),
        v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 2, 7]].concat()),
        v2(0x21, 0x11, &[&IPV4[..], &[4, 0xff, 0xff]].concat()),
        // Checksums that do not fit.
        v2(0x21, 0x11, &[&IPV4[..], &extension(TYPE_CRC32C, &[0; 4])].concat()),
        v2(0x21, 0x11, &[&IPV4[..], &extension(TYPE_CRC32C, &[0; 3])].concat()),
        v2(0x21, 0x11, &[&IPV4[..], &extension(0x04, &[0; 17_000])].concat()),
    ];
    for bytes in lines.iter().map(|line| line.as_bytes()).chain(binary.iter().map(Vec::as_slice)) {
        assert_eq!(parse(bytes), Err(Malformed), "{}", bytes.escape_ascii());
    }
}

#[test]
fn one_wrong_bit_spoils_the_checksum() {
    let header = with_checksum();
    // Of another type, the checksum is none.
    let kind = header.len() - 7;
    for at in (V2_FIXED..header.len()).filter(|at| *at != kind) {
        let mut spoilt = header.clone();
        spoilt[at] ^= 1;
        assert_ne!(parse(&spoilt), parse(&header), "byte {at}");
    }
}

/// RFC 3720 appendix B.4.
#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
    assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
}

#[test]
fn noise_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    for (bytes, _) in good() {
        for _ in 0..2_000 {
            let mut noisy = bytes.clone();
            for _ in 0..3 {
                let at = usize::from(next()) % noisy.len();
                noisy[at] = next();
            }
            if let Ok(Some((_, length))) = parse(&noisy) {
                assert!(length <= noisy.len());
            }
        }
    }
}
