//! Request bodies in every framing: what the origin gets, and that the
//! connection is still in step afterwards.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tollgate_fakes::{Origin, Provider};

use crate::harness::{
    CALLER_KEY, Gateway, eventually_asking,
    llm::{ask, llm_with},
};

async fn echoing(origin: &Origin) -> Gateway {
    Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await
}

/// A connection on which every byte is ours.
struct Wire(TcpStream);

impl Wire {
    async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the port is open");
        stream.set_nodelay(true).expect("a socket option");
        Self(stream)
    }

    /// Each part travels alone: the gateway has read one before the next is sent.
    async fn send(&mut self, parts: &[&str]) {
        for part in parts {
            self.0.write_all(part.as_bytes()).await.expect("the gateway reads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One response with a Content-Length or chunked body; its head and body.
    async fn answer(&mut self) -> (String, String) {
        let mut text = String::new();
        loop {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_secs(10), self.0.read(&mut byte)).await;
            if read.expect("an answer in time").expect("an open connection") == 0 {
                break;
            }
            text.push(char::from(byte[0]));
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && complete(head, body)
            {
                return (head.to_owned(), body.to_owned());
            }
        }
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        (head.to_owned(), body.to_owned())
    }
}

fn complete(head: &str, body: &str) -> bool {
    let head = head.to_ascii_lowercase();
    let length: Option<usize> =
        head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    match length {
        Some(length) => body.len() == length,
        None => head.starts_with("http/1.1 100") || body.ends_with("0\r\n\r\n"),
    }
}

fn json_in(body: &str) -> Value {
    let (start, end) = (body.find('{').expect("JSON"), body.rfind('}').expect("JSON"));
    serde_json::from_str(&body[start..=end]).expect("JSON")
}

#[tokio::test]
async fn a_chunked_upload_may_be_cut_anywhere_and_smuggles_nothing() {
    let origin = Origin::start("alpha").await;
    let gateway = echoing(&origin).await;
    let upload = "5\r\nhello\r\n1c\r\nGET /smuggled HTTP/1.1\r\nA: b\r\n0\r\n\r\n";

    for cut in 0..=upload.len() {
        let mut wire = Wire::to(gateway.address("web")).await;
        let head = "POST /upload HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (first, second) = upload.split_at(cut);
        wire.send(&[head, first, second]).await;
        let (status, body) = wire.answer().await;
        assert!(status.starts_with("HTTP/1.1 200"), "cut at {cut}: {status}");
        let seen = json_in(&body);
        assert_eq!((&seen["path"], &seen["body_bytes"]), (&json!("/upload"), &json!(33)), "cut at {cut}");
    }
    assert_eq!(origin.hits(), upload.len() as u64 + 1, "the origin saw a request that nobody sent");
}

#[tokio::test]
async fn trailers_of_an_upload_do_not_disturb_the_next_request() {
    let origin = Origin::start("alpha").await;
    let gateway = echoing(&origin).await;

    for round in 0..3 {
        let mut wire = Wire::to(gateway.address("web")).await;
        let head =
            "POST /upload HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n";
        wire.send(&[head, "5\r\nhello\r\n0\r\n", "x-sum: 1\r\n\r\n"]).await;
        assert!(wire.answer().await.0.starts_with("HTTP/1.1 200"), "round {round}");
        // The connection to the origin goes on with this one.
        assert_eq!(gateway.get("/next").await.expect(200).json()["path"], "/next");
    }
}

#[tokio::test]
async fn after_a_sized_upload_the_connection_serves_on() {
    let origin = Origin::start("alpha").await;
    let gateway = echoing(&origin).await;
    let mut wire = Wire::to(gateway.address("web")).await;

    for round in 0..3 {
        wire.send(&["POST /sized HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n", "hel", "lo"]).await;
        let (head, body) = wire.answer().await;
        assert!(head.starts_with("HTTP/1.1 200"), "round {round}: {head}");
        assert_eq!(json_in(&body)["body_bytes"], 5);
    }
}

#[tokio::test]
async fn an_http2_upload_needs_no_length() {
    let origin = Origin::start("alpha").await;
    let gateway = echoing(&origin).await;
    let stream = TcpStream::connect(gateway.address("web")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    for method in ["POST", "GET"] {
        let pieces = ["hel", "lo"].map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let request = Request::builder().method(method).uri("http://a.test/unsized").body(body).unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request)).await;
        let response = answered.expect("an answer in time").expect("an answer");
        assert_eq!(response.status(), 200, "{method}");
        let seen: Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(seen["body_bytes"], 5, "{method}");
    }
}

#[tokio::test]
async fn a_slow_answer_to_an_upload_is_a_504() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": origin.url()}], "timeouts": {"first_byte": "200ms"}}},
        "routes": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await;

    let reply = gateway.request("POST", "/slow?ms=60000").body("hello").send().await;

    assert_eq!(reply.expect(504).json()["status"], 504);
}

#[tokio::test]
async fn after_100_continue_a_fault_is_still_told() {
    let hanging_up = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = hanging_up.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = hanging_up.accept().await {
            // The head and the body, and then not a word.
            let mut asked = Vec::new();
            while !asked.ends_with(b"hello") && tcp.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {}
        }
    });
    let gateway = Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": format!("http://{address}")}]}},
        "routes": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await;
    let mut wire = Wire::to(gateway.address("web")).await;

    wire.send(&["POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"])
        .await;

    let (interim, _) = wire.answer().await;
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    wire.send(&["hello"]).await;
    let (head, body) = wire.answer().await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    assert_eq!(json_in(&body)["status"], 502);
    let record = gateway.access_record(|record| record["method"] == "POST").await;
    assert_eq!(record["status"], 502);
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_still_uploads() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"echo": {"rule": "Path(`/only`)", "service": "echo"}},
    }))
    .await;

    for _ in 0..20 {
        let mut wire = Wire::to(gateway.address("web")).await;
        let head = "POST /elsewhere HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n";
        wire.0.write_all(head.as_bytes()).await.unwrap();
        wire.0.write_all(&[b'x'; 200_000]).await.expect("the upload is read to its end");
        assert!(wire.answer().await.0.starts_with("HTTP/1.1 404"));
    }
}

#[tokio::test]
async fn a_repeated_request_id_is_billed_each_time() {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let ids = json!({"middlewares": {"ids": {"request_id": {"trust_incoming": true}}}});
    let gateway = Gateway::given(llm_with(&openai, &anthropic, ids)).await;

    for _ in 0..3 {
        let chat = gateway.request("POST", "/v1/chat/completions").bearer(CALLER_KEY).json(&ask("gpt"));
        let reply = chat.header("x-request-id", "mine").send().await.expect(200);
        assert_eq!(reply.header("x-request-id"), "mine");
    }

    eventually_asking("all requests are booked", async || {
        let usage = gateway.admin_json("/api/v1/usage").await;
        (usage["usage"].as_array().map_or(0, Vec::len) == 3).then_some(())
    })
    .await;
}
