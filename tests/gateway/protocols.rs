//! Every protocol of a client with every protocol of an origin: what must be the
//! same whatever is spoken, and what a broken transfer looks like.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tollgate_fakes::{Authority, Origin};

use crate::harness::{Client, Gateway, Reply, gateway::lay_over};

const PATIENCE: Duration = Duration::from_secs(30);
const CLIENTS: [&str; 4] = ["h1", "h1 tls", "h2c", "h2 tls"];
const ORIGINS: [&str; 4] = ["h1", "h1tls", "h2c", "h2tls"];

struct Matrix {
    gateway: Gateway,
    authority: Authority,
    _origins: [Origin; 3],
}

impl Matrix {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::new().expect("a key");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("a writable directory");
        let certificate = authority.certify(&["localhost", "127.0.0.1"]).expect("valid names");
        certificate.write(directory.path(), "gateway").expect("a writable directory");
        let plain = Origin::start("plain").await;
        let h2 = Origin::secure("h2tls", &certificate, &["h2"]).await.expect("a valid certificate");
        let h1 = Origin::secure("h1tls", &certificate, &["http/1.1"]).await.expect("a valid certificate");
        let service = |origin: &Origin, protocol: &str| json!({"targets": [{"url": origin.url()}], "protocol": protocol});
        let mut config = json!({
            "entrypoints": {"secure": {"address": "127.0.0.1:0", "tls": {"certificates": [
                {"cert_file": "gateway.crt", "key_file": "gateway.key"},
            ]}}},
            "services": {
                "h1": service(&plain, "auto"), "h1tls": service(&h1, "auto"),
                "h2c": service(&plain, "h2"), "h2tls": service(&h2, "h2"), "wrong": service(&h1, "h2"),
            },
            "routes": {"wrong": {"rule": "PathPrefix(`/wrong/`)", "service": "wrong"}},
        });
        for name in ORIGINS {
            lay_over(
                &mut config["routes"],
                json!({name: {"rule": format!("PathPrefix(`/{name}/`)"), "service": name}}),
            );
        }
        let gateway = Gateway::in_directory(directory, config).await;
        Self { gateway, authority, _origins: [plain, h1, h2] }
    }

    fn request(&self, client: &str, method: &'static str, path: &str) -> Client {
        let entrypoint = if client.ends_with("tls") { "secure" } else { "web" };
        let mut request = Client::new(self.gateway.address(entrypoint), method, path);
        if client.ends_with("tls") {
            request = request.host("localhost").tls(self.authority.pem());
        }
        if client.starts_with("h2") { request.http2() } else { request }
    }

    /// The same request over every pair.
    async fn everywhere(&self, method: &'static str, path: &str, body: &[u8], check: impl Fn(&str, Reply)) {
        for client in CLIENTS {
            for origin in ORIGINS {
                let mut request = self.request(client, method, &format!("/{origin}{path}"));
                if !body.is_empty() {
                    request = request.body(Bytes::copy_from_slice(body));
                }
                let reply = timeout(PATIENCE, request.send()).await;
                let pair = format!("{method} {path} from {client} to {origin}");
                check(&pair, reply.unwrap_or_else(|_| panic!("{pair}: no answer")));
            }
        }
    }
}

fn spoken(pair: &str) -> &str {
    if pair.contains("to h2") { "HTTP/2.0" } else { "HTTP/1.1" }
}

#[tokio::test]
async fn requests_are_the_same_over_every_pair() {
    let matrix = Matrix::start().await;

    matrix
        .everywhere("GET", "/a%20b?x=1", b"", |pair, reply| {
            let seen = reply.expect(200).json();
            assert_eq!((&seen["query"], &seen["method"]), (&json!("x=1"), &json!("GET")), "{pair}");
            assert_eq!(seen["version"], spoken(pair), "{pair}");
            assert_eq!(seen["headers"]["transfer-encoding"], Value::Null, "{pair}");
            let host = seen["authority"].as_str().or(seen["headers"]["host"].as_str());
            assert!(host.is_some_and(|host| host.starts_with("127.0.0.1") || host == "localhost"), "{pair}");
        })
        .await;
    matrix
        .everywhere("POST", "/upload", &[7; 300_000], |pair, reply| {
            let seen = reply.expect(200).json();
            assert_eq!(
                (&seen["body_bytes"], &seen["version"]),
                (&json!(300_000), &json!(spoken(pair))),
                "{pair}"
            );
        })
        .await;
}

#[tokio::test]
async fn answers_are_the_same_over_every_pair() {
    let matrix = Matrix::start().await;

    matrix
        .everywhere("GET", "/bytes?n=1000000", b"", |pair, reply| {
            assert_eq!((reply.status, reply.body.len()), (200, 1_000_000), "{pair}");
        })
        .await;
    matrix
        .everywhere("HEAD", "/bytes?n=1000", b"", |pair, reply| {
            assert_eq!((reply.status, reply.header("content-length")), (200, "1000"), "{pair}");
            assert!(reply.body.is_empty(), "{pair}");
        })
        .await;
    for status in [204, 304] {
        matrix
            .everywhere("GET", &format!("/status/{status}"), b"", |pair, reply| {
                assert_eq!((reply.status, reply.body.len()), (status, 0), "{pair}");
                assert_eq!(reply.header("transfer-encoding"), "", "{pair}");
            })
            .await;
    }
    matrix
        .everywhere("GET", "/sse?n=3&every=1", b"", |pair, reply| {
            assert_eq!(reply.text().matches("data:").count(), 3, "{pair}");
            assert_eq!(reply.header("connection").replace("keep-alive", ""), "", "{pair}");
        })
        .await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let matrix = Matrix::start().await;

    for client in CLIENTS {
        for origin in ORIGINS {
            for length in [2, 100_000] {
                let request = matrix.request(client, "GET", &format!("/{origin}/cut?n={length}"));
                let whole = timeout(PATIENCE, async { request.try_stream().await?.whole().await }).await;
                let whole: anyhow::Result<Bytes> = whole.expect("an end in time");
                assert!(whole.is_err(), "{client} to {origin}: {length} bytes pass for whole");
            }
        }
    }
}

#[tokio::test]
async fn trailers_travel_over_http2() {
    let matrix = Matrix::start().await;

    for client in CLIENTS {
        for origin in ["h2c", "h2tls"] {
            let streaming = matrix.request(client, "GET", &format!("/{origin}/trailers")).stream().await;
            let collected = streaming.collect().await;
            let sum = collected.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
            assert_eq!(sum.is_some(), client.starts_with("h2"), "{client} to {origin}");
            assert_eq!(collected.to_bytes(), "hello", "{client} to {origin}");
        }
    }
}

#[tokio::test]
async fn an_origin_without_http2_is_told_apart() {
    let matrix = Matrix::start().await;

    let problem = matrix.request("h1", "GET", "/wrong/").send().await.expect(502).json();

    assert_eq!(problem["type"], "urn:tollgate:problem:upstream-connect");
}

/// A body that is written piece by piece while the answer is read.
async fn both_ways(tcp: TcpStream, http2: bool, path: &str) -> (mpsc::Sender<Bytes>, Response<Incoming>) {
    let (send, mut receive) = mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::poll_fn(move |cx| {
        receive
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece))))
    });
    let body = BoxBody::new(StreamBody::new(pieces));
    let request = Request::post(if http2 { format!("http://a.test{path}") } else { path.to_owned() });
    let request = if http2 { request } else { request.header("host", "a.test") };
    let request = request.body(body).expect("a valid request");
    send.send(Bytes::from_static(b"first")).await.expect("a client that reads");
    let io = TokioIo::new(tcp);
    let answer = if http2 {
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        timeout(PATIENCE, sender.send_request(request)).await
    } else {
        let (mut sender, connection) = conn::http1::handshake(io).await.expect("HTTP/1");
        tokio::spawn(connection);
        timeout(PATIENCE, sender.send_request(request)).await
    };
    (send, answer.expect("a head in time").expect("a head"))
}

#[tokio::test]
async fn both_bodies_stream_at_once() {
    let matrix = Matrix::start().await;

    for http2 in [false, true] {
        for origin in ORIGINS {
            let tcp = TcpStream::connect(matrix.gateway.address("web")).await.expect("an open port");
            let (send, answer) = both_ways(tcp, http2, &format!("/{origin}/echo")).await;
            let mut body = answer.into_body();
            for piece in ["first", "second", "third"] {
                if piece != "first" {
                    send.send(Bytes::from(piece)).await.expect("an open stream");
                }
                let mut read = Vec::new();
                while read.len() < piece.len() {
                    let frame = timeout(PATIENCE, body.frame()).await;
                    let frame =
                        frame.unwrap_or_else(|_| panic!("{http2} {origin}: {piece} does not come back"));
                    read.extend_from_slice(
                        &frame.expect("a frame").expect("no break").into_data().expect("data"),
                    );
                }
                assert_eq!(read, piece.as_bytes(), "{http2} {origin}");
            }
            drop(send);
            let rest = timeout(PATIENCE, body.collect()).await.expect("an end in time");
            assert!(rest.expect("a proper end").to_bytes().is_empty(), "{http2} {origin}");
        }
    }
}

/// An origin that answers every connection with these bytes and closes.
async fn raw(answer: impl Into<Vec<u8>>) -> std::net::SocketAddr {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                    if tcp.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = tcp.write_all(&answer).await;
                let _ = tcp.shutdown().await;
                // Until the gateway has read it: unread input would reset the connection.
                while tcp.read_buf(&mut asked).await.unwrap_or(0) > 0 {}
            });
        }
    });
    address
}

async fn answered_with(answer: impl Into<Vec<u8>>) -> Gateway {
    let address = raw(answer).await;
    Gateway::given(json!({
        "services": {"raw": {"targets": [{"url": format!("http://{address}")}]}},
        "routes": {"raw": {"rule": "PathPrefix(`/`)", "service": "raw"}},
    }))
    .await
}

#[tokio::test]
async fn heads_that_are_too_large_or_no_heads_are_bad_gateways() {
    let huge = format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(2 << 20));
    let answers = [
        huge.as_str(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "what?\r\n\r\n",
        "",
    ];
    for answer in answers {
        let gateway = answered_with(answer).await;
        let start = &answer[..answer.len().min(60)];
        let reply =
            timeout(PATIENCE, gateway.get("/")).await.unwrap_or_else(|_| panic!("{start:?}: no answer"));
        assert_eq!(reply.status, 502, "{start:?}: {}", reply.text());
    }
}

#[tokio::test]
async fn fields_of_the_origins_hop_stay_there() {
    let gateway = answered_with(
        "HTTP/1.1 200 OK\r\nconnection: x-private, close\r\nx-private: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-authenticate: Basic\r\nx-public: 1\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;

    for http2 in [false, true] {
        let request = gateway.request("GET", "/");
        let reply = if http2 { request.http2() } else { request }.send().await.expect(200);
        assert_eq!(reply.header("x-public"), "1");
        for name in ["x-private", "keep-alive", "proxy-authenticate"] {
            assert_eq!(reply.header(name), "", "{name}");
        }
        assert!(!reply.header("connection").contains("x-private"));
        assert_eq!(reply.text(), "ok");
    }
}

#[tokio::test]
async fn early_hints_reach_clients_of_http1() {
    let gateway = answered_with(
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;

    let mut tcp = TcpStream::connect(gateway.address("web")).await.expect("an open port");
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
        .await
        .expect("an open socket");
    let mut text = String::new();
    timeout(PATIENCE, tcp.read_to_string(&mut text)).await.expect("an answer in time").expect("text");
    let (hints, answer) = text.split_once("\r\n\r\n").expect("two heads");
    assert!(hints.starts_with("HTTP/1.1 103") && hints.contains("</a.css>; rel=preload"), "{text}");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{text}");

    assert_eq!(gateway.request("GET", "/").http2().send().await.expect(200).text(), "ok");
}

/// Sends a head that expects 100-continue; what comes before any body is sent.
async fn expecting(gateway: &Gateway, path: &str) -> (TcpStream, String) {
    let mut tcp = TcpStream::connect(gateway.address("web")).await.expect("an open port");
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.expect("an open socket");
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        let more = timeout(PATIENCE, tcp.read_buf(&mut read)).await.expect("an answer in time");
        assert_ne!(more.expect("an open socket"), 0, "closed without an answer");
    }
    (tcp, String::from_utf8_lossy(&read).into_owned())
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_will_be_read() {
    let matrix = Matrix::start().await;

    for origin in ORIGINS {
        let (mut tcp, told) = expecting(&matrix.gateway, &format!("/{origin}/upload")).await;
        assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n", "{origin}");
        tcp.write_all(b"hello").await.expect("an open socket");
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("\"body_bytes\":5") {
            let read = timeout(PATIENCE, tcp.read_buf(&mut answer)).await.expect("an answer in time");
            assert_ne!(read.expect("an open socket"), 0, "{origin}: {}", String::from_utf8_lossy(&answer));
        }
    }
    for (path, status) in [("/nowhere", "404"), ("/wrong/upload", "502")] {
        let (_, told) = expecting(&matrix.gateway, path).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {told}");
    }
}
