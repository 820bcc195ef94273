//! HTTP/2 as honest clients speak it: whatever they do in bulk is work, and is
//! served; what is malformed is refused on its own stream.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tollgate_fakes::Origin;

use crate::harness::{
    Gateway,
    frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Wire, block, frame, get,
        window_update,
    },
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn gateway(origin: &Origin, limits: Value) -> Gateway {
    Gateway::given(json!({
        "entrypoints": {"web": {"limits": limits}},
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await
}

async fn connect(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.expect("the port is open");
    stream.set_nodelay(true).expect("a socket option");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Body>, method: &str, path: &str, body: Body) -> (u16, Bytes) {
    let request = Request::builder().method(method).uri(format!("http://a.test{path}")).body(body).unwrap();
    sender.ready().await.expect("the connection is open");
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    (head.status.as_u16(), body.collect().await.expect("the whole answer").to_bytes())
}

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_on_one_connection() {
    let origin = Origin::start("alpha").await;
    let gateway = gateway(&origin, json!({})).await;
    let sender = connect(gateway.address("web")).await;
    let clients = (0..40).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            for _ in 0..250 {
                assert_eq!(ask(&mut sender, "GET", "/status/204", empty()).await.0, 204);
            }
        })
    });

    for client in clients.collect::<Vec<_>>() {
        client.await.expect("all requests are served");
    }

    assert_eq!(origin.hits(), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pings_between_requests() {
    let origin = Origin::start("alpha").await;
    let gateway = gateway(&origin, json!({})).await;
    let mut wire = Wire::open(gateway.address("web"), &[]).await;

    for unit in 0..1000 {
        let stream = unit * 2 + 1;
        assert!(wire.say(&get(stream, "/status/204")).await, "closed at request {unit}");
        assert!(wire.heard.whole(stream).await.is_some(), "no answer to request {unit}");
        assert!(wire.settle().await, "closed at ping {unit}");
    }
}

/// As gRPC and simple clients do: two window updates and a PING for each message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_of_small_messages() {
    const MESSAGES: usize = 2000;
    let origin = Origin::start("alpha").await;
    let gateway = gateway(&origin, json!({})).await;
    let mut wire = Wire::open(gateway.address("web"), &[]).await;
    wire.say(&get(1, &format!("/sse?n={MESSAGES}&every=1"))).await;

    let mut answered = 0;
    loop {
        let news = |frames: &[crate::harness::frames::Frame]| {
            let data: Vec<usize> =
                frames.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).collect();
            let ended = frames.iter().any(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
            (data.len() > answered || ended).then_some((data, ended))
        };
        let (data, ended) = wire.heard.until("more of the stream", news).await.expect("an open connection");
        for length in &data[answered..] {
            let length = u32::try_from(*length).unwrap().max(1);
            for answer in [window_update(1, length), window_update(0, length), frame(PING, 0, 0, &[7; 8])] {
                assert!(wire.say(&answer).await, "closed after {answered} messages");
            }
        }
        answered = data.len();
        if ended {
            break;
        }
    }

    assert!(wire.settle().await, "closed at the end");
    let bytes: usize = wire.heard.of(DATA).iter().map(|frame| frame.payload.len()).sum();
    assert!(bytes > MESSAGES * 10, "{bytes}");
}

async fn upload(frames: usize, size: usize) {
    let origin = Origin::start("alpha").await;
    let gateway = gateway(&origin, json!({})).await;
    let mut sender = connect(gateway.address("web")).await;
    let piece = Bytes::from(vec![b'x'; size]);
    let pieces = stream::repeat_with(move || Ok(Frame::data(piece.clone()))).take(frames);

    let (status, body) = ask(&mut sender, "POST", "/", StreamBody::new(pieces).boxed_unsync()).await;

    assert_eq!(status, 200);
    let seen: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(seen["body_bytes"], frames * size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_in_small_frames() {
    upload(32 * 1024, 1024).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_tiny_frames() {
    upload(20_000, 12).await;
}

#[tokio::test]
async fn after_its_last_request_a_connection_is_told_to_go() {
    let origin = Origin::start("alpha").await;
    let gateway = gateway(&origin, json!({"max_requests_per_connection": 3})).await;
    let mut wire = Wire::open(gateway.address("web"), &[]).await;

    for stream in [1, 3, 5] {
        wire.say(&get(stream, "/slow?ms=100")).await;
    }

    for stream in [1, 3, 5] {
        let answer = wire.heard.whole(stream).await.expect("an answer");
        assert_eq!(status(&answer[0].payload), 200);
    }
    wire.heard.until_closed().await;
    assert!(wire.heard.of(GOAWAY).iter().all(|frame| frame.code() == 0));
}

/// What a head must get.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Status(u16),
    /// RST_STREAM, or GOAWAY.
    Refused,
}

/// `:status` of a response on a new connection (RFC 7541 sections 6.1 and 6.2.1).
fn status(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(*indexed) - 0x88],
        [0x48, length, text @ ..] => digits(&text[..usize::from(length & 0x7f)], length & 0x80 != 0),
        _ => panic!("no status in {block:?}"),
    }
}

/// Digits, perhaps Huffman coded: five bits up to 2, else six (RFC 7541 appendix B).
fn digits(text: &[u8], huffman: bool) -> u16 {
    if !huffman {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut take = |count: usize| bits.by_ref().take(count).fold(0, |number, bit| number << 1 | bit);
    (0..3).fold(0, |number, _| {
        let digit = match take(5) {
            small @ 0..=2 => small,
            high => (high << 1 | take(1)) - 0b01_1001 + 3,
        };
        number * 10 + digit
    })
}

#[tokio::test]
async fn heads_that_are_not_in_order() {
    use Verdict::{Refused, Status};
    let origin = Origin::start("alpha").await;
    let gateway = gateway(&origin, json!({})).await;
    let (get, http, host, root) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/"));
    let path = |path: &'static str| vec![get, http, host, (":path", path)];
    let with = |name: &'static str, value: &'static str| vec![get, http, host, root, (name, value)];
    let method = |method: &'static str| vec![(":method", method), http, host, root];
    let cases: Vec<(Vec<(&str, &str)>, Verdict)> = vec![
        (with("x-any", "thing"), Status(200)),
        (with("te", "trailers"), Status(200)),
        (with("host", "a.test"), Status(200)),
        (vec![get, http, root, ("host", "a.test")], Status(200)),
        (method("OPTIONS"), Status(200)),
        (method("TRACE"), Status(405)),
        (vec![(":method", "CONNECT"), (":authority", "a.test:443")], Status(405)),
        // RFC 9113 section 8.2.2.
        (with("connection", "close"), Refused),
        (with("connection", "x-any"), Refused),
        (with("keep-alive", "timeout=5"), Refused),
        (with("proxy-connection", "close"), Refused),
        (with("transfer-encoding", "chunked"), Refused),
        (with("upgrade", "websocket"), Refused),
        (with("te", "gzip"), Refused),
        // Section 8.2.1.
        (with("X-Upper", "case"), Refused),
        (with("x any", "thing"), Refused),
        (with("", "thing"), Refused),
        (with("x-any", "a\r\nb: c"), Refused),
        (with("x-any", "a\0b"), Refused),
        // Section 8.3.
        (with(":path", "/"), Refused),
        (with(":method", "GET"), Refused),
        (with(":status", "200"), Refused),
        (with(":unknown", "x"), Refused),
        (vec![get, http, ("x-any", "thing"), host, root], Refused),
        (vec![http, host, root], Refused),
        (vec![get, host, root], Refused),
        (vec![get, http, host], Refused),
        (path(""), Refused),
        (vec![(":method", "CONNECT"), http, host, root], Refused),
        (vec![("  :method", "GET"), http, host, root], Refused),
        (method("GE T"), Refused),
        (method(""), Refused),
        // Section 8.3.1: one authority, and no other one elsewhere.
        (with("host", "b.test"), Status(400)),
        (vec![get, http, root], Status(400)),
        (vec![get, http, (":authority", ""), root], Refused),
        (vec![get, http, (":authority", "user@a.test"), root], Refused),
        (vec![get, http, (":authority", "a.test/x"), root], Refused),
        (vec![get, http, (":authority", "a.test, b.test"), root], Refused),
        (path("http://b.test/"), Refused),
        (path("x"), Refused),
        (path("*"), Status(400)),
        (path("/a b"), Refused),
        (path("/a\tb"), Refused),
        (path("/a\0b"), Refused),
        (with("content-length", "5"), Refused),
        (with("content-length", "+0"), Refused),
        (with("content-length", "0, 1"), Refused),
    ];
    let mut wrong = Vec::new();
    for (fields, expected) in cases {
        let mut wire = Wire::open(gateway.address("web"), &[]).await;
        wire.say(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields))).await;
        let answer = wire.heard.whole(1).await;
        let got = answer.as_ref().map(|frames| match frames[0].kind {
            HEADERS => status(&frames[0].payload),
            RST_STREAM => 0,
            kind => panic!("{fields:?}: a frame of type {kind}"),
        });
        let right = match (expected, got) {
            (Status(status), got) => got == Some(status),
            (Refused, got) => matches!(got, None | Some(0 | 400)),
        };
        if !right {
            wrong.push(format!("{fields:?}: {got:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Any answer in HTTP/1 would be read as frames.
#[tokio::test]
async fn a_broken_preface_is_not_answered() {
    let origin = Origin::start("alpha").await;
    let gateway = gateway(&origin, json!({})).await;
    let mut stream = TcpStream::connect(gateway.address("web")).await.expect("the port is open");
    stream.write_all(b"INVALID CONNECTION PREFACE\r\n\r\n").await.expect("the gateway reads");

    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;

    assert_eq!(heard, b"");
}
