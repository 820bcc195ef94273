//! TLS by name and HTTP/2, by ALPN and by prior knowledge.

use tokio::net::TcpStream;

use super::world::{Raw, World, get_http2, secure, tls_connect};

#[tokio::test(flavor = "multi_thread")]
async fn prior_knowledge_on_plaintext_speaks_http2() {
    let world = World::plain().await;
    let stream = TcpStream::connect(world.address("web")).await.unwrap();
    let (head, body) = get_http2(stream, "http://a.test/x").await;
    assert_eq!((head.status.as_u16(), body.as_str()), (200, "GET /x "));
    assert_eq!(head.headers["x-entrypoint"], "web");
}

#[tokio::test(flavor = "multi_thread")]
async fn alpn_chooses_http2_and_the_relay_sees_the_name() {
    let world = World::new().await;
    let (files, trusted) = world.certificate("a", &["a.test"]);
    world.open(&[("tls", secure(vec![files], false))]).await;
    let stream = tls_connect(world.address("tls"), "a.test", &trusted, b"h2").await.unwrap();
    let (head, body) = get_http2(stream, "https://a.test/x").await;
    assert_eq!((head.status.as_u16(), body.as_str()), (200, "GET /x "));
    assert_eq!(head.headers["x-sni"], "a.test");
    assert_eq!(head.headers["x-tls"], "TLSv1.3");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_chooses_the_certificate() {
    let world = World::new().await;
    let (first, trust_first) = world.certificate("a", &["a.test"]);
    let (second, trust_second) = world.certificate("b", &["b.test", "*.b.test"]);
    world.open(&[("tls", secure(vec![first, second], false))]).await;
    let address = world.address("tls");
    for (name, trusted) in [("a.test", &trust_first), ("b.test", &trust_second), ("x.b.test", &trust_second)]
    {
        tls_connect(address, name, trusted, b"http/1.1")
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // One label only, and never the other one's certificate.
    assert!(tls_connect(address, "x.y.b.test", &trust_second, b"h2").await.is_err());
    assert!(tls_connect(address, "b.test", &trust_first, b"h2").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_entrypoints_refuse_unknown_names() {
    let world = World::new().await;
    let (files, trusted) = world.certificate("a", &["a.test"]);
    world.open(&[("tls", secure(vec![files], true))]).await;
    let address = world.address("tls");
    tls_connect(address, "a.test", &trusted, b"h2").await.unwrap();
    let refusal = tls_connect(address, "b.test", &trusted, b"h2").await.unwrap_err();
    assert!(refusal.to_string().contains("UnrecognisedName"), "{refusal}");
    world.events.wait_for("handshake tls unknown-name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_a_tls_entrypoint_fails_the_handshake() {
    let world = World::new().await;
    let (files, _) = world.certificate("a", &["a.test"]);
    world.open(&[("tls", secure(vec![files], false))]).await;
    let mut client = Raw::connect(world.address("tls")).await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let told = client.rest().await;
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("https"), "{told}");
    world.events.wait_for("handshake tls not-tls").await;
}
