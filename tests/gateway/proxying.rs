//! Bytes through: balancing, HTTP/2, TLS by SNI, WebSocket, server-sent events.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tollgate_fakes::{Authority, Origin};

use crate::harness::{Client, Gateway};

fn to(origins: &[&Origin]) -> Value {
    let targets: Vec<Value> = origins.iter().map(|origin| json!({"url": origin.url()})).collect();
    json!({
        "services": {"echo": {"targets": targets}},
        "routes": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    })
}

#[tokio::test]
async fn two_targets_take_turns() {
    let (alpha, beta) = (Origin::start("alpha").await, Origin::start("beta").await);
    let gateway = Gateway::given(to(&[&alpha, &beta])).await;

    for _ in 0..10 {
        gateway.get("/").await.expect(200);
    }

    assert_eq!((alpha.hits(), beta.hits()), (5, 5));
}

#[tokio::test]
async fn method_query_headers_and_body_arrive_unchanged() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(to(&[&origin])).await;

    let request = gateway.request("PUT", "/a%20b?x=%2F&y").header("x-Custom", "value").body(vec![7; 100_000]);
    let seen = request.send().await.expect(200).json();

    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/a%20b");
    assert_eq!(seen["query"], "x=%2F&y");
    assert_eq!(seen["headers"]["x-custom"], "value");
    assert_eq!(seen["body_bytes"], 100_000);
}

#[tokio::test]
async fn cleartext_http2_is_served_on_the_same_port() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(to(&[&origin])).await;

    let reply = gateway.request("GET", "/over/h2").http2().send().await;

    assert_eq!(reply.expect(200).json()["path"], "/over/h2");
}

struct Secured {
    gateway: Gateway,
    authorities: [Authority; 2],
    _origin: Origin,
}

/// Certificates of two authorities for two names on one entrypoint.
async fn secured() -> Secured {
    let origin = Origin::start("alpha").await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let authorities = [Authority::new().expect("a key"), Authority::new().expect("a key")];
    for (authority, name) in authorities.iter().zip(["a.test", "b.test"]) {
        let certificate = authority.certify(&[name]).expect("a valid name");
        certificate.write(directory.path(), name).expect("the directory is writable");
    }
    let files = |name: &str| json!({"cert_file": format!("{name}.crt"), "key_file": format!("{name}.key")});
    let mut config = to(&[&origin]);
    config["entrypoints"]["secure"] = json!({
        "address": "127.0.0.1:0",
        "tls": {"certificates": [files("a.test"), files("b.test")]},
    });
    Secured { gateway: Gateway::in_directory(directory, config).await, authorities, _origin: origin }
}

impl Secured {
    fn request(&self, host: &str, authority: usize) -> Client {
        let client = Client::new(self.gateway.address("secure"), "GET", "/");
        client.host(host).tls(self.authorities[authority].pem())
    }
}

#[tokio::test]
async fn the_name_asked_for_selects_the_certificate() {
    let secured = secured().await;

    assert_eq!(secured.request("a.test", 0).send().await.status, 200);
    assert_eq!(secured.request("b.test", 1).send().await.status, 200);
    let wrong = secured.request("a.test", 1).try_stream().await;

    assert!(wrong.is_err(), "a certificate of another authority is trusted");
}

#[tokio::test]
async fn http2_is_negotiated_over_tls() {
    let secured = secured().await;

    let reply = secured.request("b.test", 1).http2().send().await;

    assert_eq!(reply.expect(200).json()["name"], "alpha");
}

#[tokio::test]
async fn a_websocket_passes_through() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(to(&[&origin])).await;
    let url = format!("ws://{}/echo/ws", gateway.address("web"));

    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("an upgrade");
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.expect("an open socket");
        let echoed = socket.next().await.expect("an answer").expect("an open socket");
        assert_eq!(echoed.into_text().expect("text"), text);
    }
    socket.close(None).await.expect("an open socket");

    gateway.access_record(|record| record["status"] == 101).await;
}

#[tokio::test]
async fn events_arrive_while_the_origin_still_sends() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(to(&[&origin])).await;

    let events = gateway.request("GET", "/sse?n=3&every=200").stream().await.events().await;

    let data: Vec<&str> = events.iter().map(|(_, data)| data.as_str()).collect();
    assert_eq!(data, [r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":2}"#]);
    let spread = events[2].0 - events[0].0;
    assert!(spread > Duration::from_millis(200), "all events came within {spread:?}");
}

#[tokio::test]
async fn an_idle_origin_is_cut_off_in_the_middle() {
    let origin = Origin::start("alpha").await;
    let mut config = to(&[&origin]);
    config["services"]["echo"]["timeouts"] = json!({"idle": "200ms"});
    let gateway = Gateway::given(config).await;

    let mut stream = gateway.request("GET", "/sse?n=2&every=60000").stream().await;

    assert_eq!(stream.event().await.expect("the first event").as_deref(), Some(r#"{"n":0}"#));
    assert!(stream.event().await.is_err(), "a cut stream must not look complete");
}
