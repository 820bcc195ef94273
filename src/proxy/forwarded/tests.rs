//! Who is believed, and what becomes of what they say.

use std::sync::Arc;

use super::*;
use crate::proxy::{TlsInfo, arrival::HostRules};

#[derive(Debug)]
struct AnyHost;

impl HostRules for AnyHost {
    fn share(&self, _: Option<&str>, _: &str) -> bool {
        true
    }
}

fn networks(text: &[&str]) -> Networks {
    Networks::new(text.iter().map(|network| network.parse().unwrap()))
}

fn request(headers: &[(&str, &str)]) -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/", None).unwrap();
    for (name, value) in headers {
        head.append_header((*name).to_owned(), *value).unwrap();
    }
    head
}

fn arrival(peer: &str, secure: bool) -> Arrival {
    let hosts = Arc::new(AnyHost);
    let tls = secure.then_some(TlsInfo { version: "TLSv1.3", cipher: "", sni: None, client: None, hosts });
    let (peer, local) = (SocketAddr::new(peer.parse().unwrap(), 9), "127.0.0.1:80".parse().unwrap());
    Arrival { entrypoint: Arc::from("web"), peer, via: None, local, tls }
}

/// From 10.0.0.9, where 10.0.0.0/8 and fd00::/8 are trusted.
fn received(headers: &[(&str, &str)]) -> (RequestHeader, Sender) {
    let mut head = request(headers);
    let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
    let sender = receive(&mut head, &arrival("10.0.0.9", false), Some(&trusted));
    (head, sender)
}

#[test]
fn the_client_is_the_first_untrusted_address_from_the_right() {
    for (hops, expected) in [
        (&["192.0.2.1"][..], "192.0.2.1"),
        (&["192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        (&["192.0.2.1", "10.0.0.1"], "192.0.2.1"),
        (&["6.6.6.6, 192.0.2.1, 10.0.0.1,10.0.0.2"], "192.0.2.1"),
        (&["10.0.0.3, 10.0.0.1"], "10.0.0.3"),
        (&["2001:db8::1, fd00::7"], "2001:db8::1"),
        (&["192.0.2.1:4711"], "192.0.2.1"),
        (&["[2001:db8::1]:4711"], "2001:db8::1"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["::ffff:192.0.2.1"], "192.0.2.1"),
        // What is no address ends the walk.
        (&["192.0.2.1, unknown, 10.0.0.1"], "10.0.0.1"),
        (&["192.0.2.1, "], "10.0.0.9"),
        (&["\u{fc}"], "10.0.0.9"),
        (&[""], "10.0.0.9"),
        (&["1.2.3.4.5"], "10.0.0.9"),
        (&["192.0.2.1 10.0.0.1"], "10.0.0.9"),
        (&[], "10.0.0.9"),
    ] {
        let headers: Vec<_> = hops.iter().map(|value| (FOR, *value)).collect();
        assert_eq!(received(&headers).1.client.to_string(), expected, "{hops:?}");
    }
}

#[test]
fn the_last_word_on_the_scheme_holds() {
    for (value, https, is_told) in [
        ("https", true, true),
        ("HTTPS", true, true),
        ("wss", true, true),
        ("http", false, true),
        ("https, http", false, true),
        ("http,https", true, true),
        ("gopher", false, false),
        ("", false, false),
    ] {
        let (_, sender) = received(&[(PROTO, value)]);
        assert_eq!((sender.https, sender.scheme_told), (https, is_told), "{value}");
    }
}

const CLAIMS: &[(&str, &str)] = &[
    (FOR, "6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-prefix", "/x"),
    ("x-forwarded-tls-client-cert", "x"),
    ("x-real-ip", "6.6.6.6"),
    ("forwarded", "for=6.6.6.6"),
    ("x_forwarded_for", "6.6.6.6"),
    ("x-forwarded_for", "6.6.6.6"),
    ("x_real_ip", "6.6.6.6"),
];

#[test]
fn strangers_are_not_believed() {
    let trusted = networks(&["10.0.0.0/8"]);
    for networks in [None, Some(&Networks::default()), Some(&trusted)] {
        let mut head = request(CLAIMS);
        head.append_header("accept", "x").unwrap();
        let sender = receive(&mut head, &arrival("192.0.2.1", false), networks);
        assert_eq!((sender.client.to_string().as_str(), sender.https), ("192.0.2.1", false));
        assert_eq!(head.headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["accept"]);
    }
}

#[test]
fn disguised_names_go_even_with_trusted_senders() {
    let (head, _) = received(CLAIMS);
    assert_eq!(head.headers.len(), CLAIMS.len() - 3);
    assert!(head.headers.keys().all(|name| !name.as_str().contains('_')));
}

#[test]
fn strangers_words_are_replaced() {
    let mut head = request(CLAIMS);
    let sender = receive(&mut head, &arrival("2001:db8::1", true), None);
    // Even those that somebody put back.
    let told = told(&request(CLAIMS).headers, "a.test:8443", &sender);
    let expected = [
        (FOR, "2001:db8::1"),
        (PROTO, "https"),
        (HOST, "a.test:8443"),
        (PORT, "8443"),
        (REAL_IP, "2001:db8::1"),
        (FORWARDED, "for=\"[2001:db8::1]\";host=\"a.test:8443\";proto=https"),
    ];
    assert_eq!(told.fields().map(|(name, value)| (name, value)), expected.map(|(n, v)| (n, v.to_owned())));
}

fn said(headers: &[(&str, &str)], name: &str) -> String {
    let (head, sender) = received(headers);
    let fields = told(&head.headers, "a.test", &sender).fields();
    fields.into_iter().find(|(field, _)| *field == name).unwrap().1
}

#[test]
fn a_trusted_senders_words_are_kept_or_added_to() {
    let chain = [(FOR, "junk, 6.6.6.6, 192.0.2.1"), (FOR, "10.0.0.1")];
    assert_eq!(said(&chain, FOR), "6.6.6.6, 192.0.2.1, 10.0.0.1, 10.0.0.9");
    assert_eq!(said(&chain, REAL_IP), "192.0.2.1");
    assert_eq!(said(&[(REAL_IP, "192.0.2.7")], REAL_IP), "192.0.2.7");
    assert_eq!(said(&[(REAL_IP, "junk")], REAL_IP), "10.0.0.9");
    assert_eq!(said(&[(REAL_IP, "6.6.6.6"), chain[0], chain[1]], REAL_IP), "192.0.2.1");
    assert_eq!(said(&[(HOST, "www.test:444")], HOST), "www.test:444");
    for bad in ["", "a b", "a,b", "a\"b", "a/b", "x@y", "\u{fc}"] {
        assert_eq!(said(&[(HOST, bad)], HOST), "a.test", "{bad}");
    }
    assert_eq!(said(&[(PORT, "444")], PORT), "444");
    for (bad, proto, port) in [("0", "https", "443"), ("65536", "http", "80"), ("x", "junk", "80")] {
        assert_eq!(said(&[(PORT, bad), (PROTO, proto)], PORT), port, "{bad}");
    }
    assert_eq!(said(&[(PROTO, "wss")], PROTO), "https");
}

#[test]
fn forwarded_elements_are_kept_if_they_are_some() {
    let own = "for=10.0.0.9;host=\"a.test\";proto=http";
    for good in [
        "for=192.0.2.1",
        "For=\"[2001:db8::1]:4711\";Proto=https;by=203.0.113.43",
        "for=_hidden, for=unknown;host=\"a \\\"b\\\" c\"",
        "for=1.2.3.4 ;\tproto=http",
    ] {
        assert_eq!(said(&[(FORWARDED, good)], FORWARDED), format!("{good}, {own}"));
    }
    for bad in
        ["", "junk", "for=", "for=\"x", "for=a b", "for=a;;", "for=a,", "=a", "for=\"\\", "for=a\u{7f}"]
    {
        assert!(!is_forwarded(bad), "{bad}");
    }
    assert_eq!(said(&[(FORWARDED, "junk")], FORWARDED), own);
    let both = [(FOR, "2001:db8::1, 192.0.2.1"), (FORWARDED, "junk")];
    assert_eq!(said(&both, FORWARDED), format!("for=\"[2001:db8::1]\", for=192.0.2.1, {own}"));
}
