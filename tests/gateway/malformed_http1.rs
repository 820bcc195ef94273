//! Malformed, ambiguous and odd HTTP/1, through the real binary to a live
//! origin: what each is answered, and what the origin sees of it.

mod rows;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Gateway, Witness, eventually};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const CHUNKED: &[u8] = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
/// Ends every conversation in which nothing is refused: it is answered only if
/// the gateway found the ends of all requests before it.
pub(crate) const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Delivery {
    Whole,
    ByteByByte,
}

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) witness: Witness,
}

impl World {
    /// A gateway whose origin is proven to be reached: without one, every 502
    /// would look like a refusal.
    pub(crate) async fn new(entrypoint: Value) -> Self {
        let witness = Witness::start().await;
        let mut web = json!({"address": "127.0.0.1:0"});
        crate::harness::gateway::lay_over(&mut web, entrypoint);
        let gateway = Gateway::given(json!({
            "entrypoints": {"web": web},
            "services": {"witness": {"targets": [{"url": witness.url()}]}},
            "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "witness"}},
        }))
        .await;
        let world = Self { gateway, witness };
        let answer = world.converse(LAST, Delivery::Whole).await;
        assert_eq!(statuses(&answer), [200], "the origin is not reached: {answer}");
        assert_eq!(world.lines(), ["GET /last"]);
        world
    }

    /// Everything that is answered to `bytes` until the gateway closes.
    pub(crate) async fn converse(&self, bytes: &[u8], delivery: Delivery) -> String {
        let mut stream = TcpStream::connect(self.gateway.address("web")).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut reader, mut writer) = stream.split();
        let talk = async {
            // A refusal may come, and the connection go, before the last byte.
            match delivery {
                Delivery::Whole => drop(writer.write_all(bytes).await),
                Delivery::ByteByByte => {
                    for byte in bytes {
                        if writer.write_all(&[*byte]).await.is_err() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        let mut heard = Vec::new();
        let listen = async {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut part).await {
                heard.extend_from_slice(&part[..read]);
            }
        };
        let both = timeout(PATIENCE, async { tokio::join!(talk, listen) }).await;
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(both.is_ok(), "{} is not ended; heard {heard:?}", bytes.escape_ascii());
        heard
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.witness.take().whole.iter().map(super::harness::witness::Heard::line).collect()
    }
}

pub(crate) fn statuses(answer: &str) -> Vec<u16> {
    let answers = answer.split("HTTP/1.1 ").skip(1);
    answers.map(|rest| rest[..3].parse().unwrap()).collect()
}

/// One answer, a problem that ends the connection.
pub(crate) fn assert_refused(answer: &str, status: u16, name: &str) {
    assert_eq!(statuses(answer), [status], "{name}: {answer}");
    let answer = answer.to_ascii_lowercase();
    for part in ["content-type: application/problem+json\r\n", "connection: close\r\n"] {
        assert!(answer.contains(part), "{name}: {answer}");
    }
    assert!(answer.contains(&format!("\"status\":{status}")), "{name}: {answer}");
    assert_eq!(answer.contains("\r\nallow: "), status == 405, "{name}: {answer}");
}

async fn refuse_heads(delivery: Delivery) {
    let world = World::new(json!({})).await;
    for (name, bytes, status) in rows::HEADS {
        let answer = world.converse(bytes, delivery).await;
        assert_refused(&answer, *status, name);
        assert_eq!(world.witness.take().begun, 0, "{name}: the origin saw it");
    }
}

#[tokio::test]
async fn malformed_heads_are_refused_and_never_reach_the_origin() {
    refuse_heads(Delivery::Whole).await;
}

#[tokio::test]
async fn malformed_heads_that_come_byte_by_byte_are_refused_alike() {
    refuse_heads(Delivery::ByteByByte).await;
}

#[tokio::test]
async fn malformed_bodies_that_come_with_their_heads_never_reach_the_origin() {
    let world = World::new(json!({})).await;
    for (name, body) in rows::BODIES {
        let answer = world.converse(&[CHUNKED, body].concat(), Delivery::Whole).await;
        assert_refused(&answer, 400, name);
        assert_eq!(world.witness.take().begun, 0, "{name}: the origin saw it");
    }
}

#[tokio::test]
async fn malformed_bodies_that_come_byte_by_byte_never_reach_the_origin_whole() {
    let world = World::new(json!({})).await;
    for (name, body) in rows::BODIES {
        let answer = world.converse(&[CHUNKED, body].concat(), Delivery::ByteByByte).await;
        assert_refused(&answer, 400, name);
        let seen = world.witness.take();
        assert!(seen.whole.is_empty(), "{name}: the origin saw {:?}", seen.whole);
    }
}

async fn serve_odd(delivery: Delivery) {
    let world = World::new(json!({})).await;
    for (name, bytes, seen) in rows::SERVED {
        let answer = world.converse(&[bytes, LAST].concat(), delivery).await;
        assert_eq!(statuses(&answer), vec![200; seen.len() + 1], "{name}: {answer}");
        let expected: Vec<&str> = seen.iter().copied().chain(["GET /last"]).collect();
        assert_eq!(world.lines(), expected, "{name}");
    }
    for (name, bytes, seen) in rows::LAST {
        let answer = world.converse(bytes, delivery).await;
        assert_eq!(statuses(&answer), [200], "{name}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{name}: {answer}");
        assert_eq!(world.lines(), [*seen], "{name}");
    }
}

#[tokio::test]
async fn odd_requests_are_served_and_the_next_one_is_found_behind_them() {
    serve_odd(Delivery::Whole).await;
}

#[tokio::test]
async fn odd_requests_that_come_byte_by_byte_are_served_alike() {
    serve_odd(Delivery::ByteByByte).await;
}

#[tokio::test]
async fn heads_and_targets_over_their_bounds_are_refused() {
    let world = World::new(json!({"limits": {"max_header": "8KiB"}})).await;
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    let cases = [
        ("long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)), 414),
        ("endless target", format!("GET /{}", "x".repeat(9000)), 414),
        ("long method", format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "X".repeat(9000)), 414),
        ("long value", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(9000)), 431),
        ("endless value", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(9000)), 431),
        ("long name", format!("GET / HTTP/1.1\r\nHost: a\r\n{}: y\r\n\r\n", "X".repeat(9000)), 431),
        ("many fields", many, 431),
        ("1 MiB of fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(170_000)), 431),
    ];
    for (name, bytes, status) in cases {
        let answer = world.converse(bytes.as_bytes(), Delivery::Whole).await;
        assert_refused(&answer, status, name);
        assert_eq!(world.witness.take().begun, 0, "{name}: the origin saw it");
    }
}

#[tokio::test]
async fn chunk_extensions_and_trailers_over_their_bounds_are_refused() {
    let world = World::new(json!({})).await;
    for (name, body) in [
        ("long extension", format!("5;a={}\r\nhello\r\n0\r\n\r\n", "x".repeat(65_536))),
        ("many extensions", format!("1;{}\r\nx\r\n", "a".repeat(2000)).repeat(20)),
        ("long trailers", format!("0\r\n{}\r\n", "X: y\r\n".repeat(3000))),
    ] {
        let answer = world.converse(&[CHUNKED, body.as_bytes()].concat(), Delivery::Whole).await;
        assert_refused(&answer, 400, name);
        assert!(world.witness.take().whole.is_empty(), "{name}: the origin saw it whole");
    }
}

#[tokio::test]
async fn fields_of_one_hop_and_imitations_of_ours_are_not_passed_on() {
    let world = World::new(json!({})).await;
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\nTE: gzip, chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
        X_Forwarded_For: 1.2.3.4\r\ntollgate_role: operator\r\nmy_key: kept\r\n\r\n";
    world.converse(&[request, LAST].concat(), Delivery::Whole).await;
    let head = world.witness.take().whole[0].head.to_ascii_lowercase();
    for gone in ["\r\nte:", "x-hop", "x_forwarded_for", "tollgate_role"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
    assert!(head.contains("\r\nmy_key: kept\r\n"), "{head}");
}

#[tokio::test]
async fn the_path_policy_is_the_entrypoints() {
    let strict = World::new(json!({"path": {"encoded_slash": "reject"}})).await;
    for target in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_refused(&strict.converse(request.as_bytes(), Delivery::Whole).await, 400, target);
        assert_eq!(strict.witness.take().begun, 0, "{target}");
    }
    let raw = World::new(json!({"path": {"normalize": false}})).await;
    for target in ["/a/../b", "//a", "/%61/%2e%2e/b", "/../a", "/a%2fb?c=//"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        raw.converse(&[request.as_bytes(), LAST].concat(), Delivery::Whole).await;
        assert_eq!(raw.lines(), [&format!("GET {target}"), "GET /last"]);
    }
}

#[tokio::test]
async fn an_upload_that_turns_out_malformed_is_cut_off_at_the_origin() {
    let world = World::new(json!({})).await;
    let mut stream = TcpStream::connect(world.gateway.address("web")).await.unwrap();
    stream.write_all(&[CHUNKED, b"5\r\nhello\r\n"].concat()).await.unwrap();
    eventually("the origin sees the beginning", || (world.witness.take().begun == 1).then_some(())).await;
    stream.write_all(b"0\r\n\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_refused(&answer, 400, "late");
    eventually("the origin loses the connection", || (world.witness.broken() == 1).then_some(())).await;
    assert!(world.lines().is_empty());
}
