//! gRPC end to end: with grpcio on both sides, and frame by frame where what
//! matters is how something is said.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};
use tollgate_fakes::{Authority, Origin, refusing_address};

use crate::{
    clients::{passes, python},
    harness::Gateway,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// grpcio's server; ends with this value.
struct PythonServer {
    child: Child,
    plain: u16,
    secure: u16,
}

impl PythonServer {
    fn start(python: &str, directory: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/grpc_server.py");
        let mut child = Command::new(python)
            .arg(script)
            .env("CERT_FILE", directory.join("origin.crt"))
            .env("KEY_FILE", directory.join("origin.key"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the server starts");
        let mut ports = line.split_whitespace().map(|port| port.parse().expect("a port"));
        let (plain, secure) = (ports.next().expect("a port"), ports.next().expect("a port"));
        Self { child, plain, secure }
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn grpcio_works_over_every_pair_of_legs() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let authority = Authority::new().expect("a key");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("a writable directory");
    for name in ["origin", "gateway"] {
        let certificate = authority.certify(&["localhost", "127.0.0.1"]).expect("valid names");
        certificate.write(directory.path(), name).expect("a writable directory");
    }
    let authority_file = directory.path().join("ca.pem").display().to_string();
    let server = PythonServer::start(&python, directory.path());
    let away = refusing_address().await;
    let route = |name: &str| json!({"rule": format!("PathPrefix(`/{name}.Echo/`)"), "service": name});
    let gateway = Gateway::in_directory(
        directory,
        json!({
            "entrypoints": {"secure": {"address": "127.0.0.1:0", "tls": {"certificates": [
                {"cert_file": "gateway.crt", "key_file": "gateway.key"},
            ]}}},
            "services": {
                "plain": {"targets": [{"url": format!("http://127.0.0.1:{}", server.plain)}]},
                "secure": {"targets": [{"url": format!("https://127.0.0.1:{}", server.secure)}]},
                "away": {"targets": [{"url": format!("http://{away}")}]},
            },
            "routes": {"plain": route("plain"), "secure": route("secure"), "away": route("away")},
        }),
    )
    .await;

    let environment = vec![
        ("H2C", gateway.address("web").to_string()),
        ("TLS", format!("localhost:{}", gateway.address("secure").port())),
        ("CA_FILE", authority_file),
    ];
    passes(python, "test_grpc.py", environment).await;
}

/// An origin of one connection after the other; `serve` answers each stream.
async fn origin<F, A>(serve: F) -> SocketAddr
where
    F: Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        let mut streams = 0;
        loop {
            let (tcp, _) = listener.accept().await.expect("a listening socket");
            let Ok(mut connection) = h2::server::handshake(tcp).await else { continue };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(streams, request, respond));
                streams += 1;
            }
        }
    });
    address
}

async fn gateway_to(address: SocketAddr, service: Value) -> Gateway {
    let mut config = json!({
        "services": {"grpc": {"targets": [{"url": format!("http://{address}")}]}},
        "routes": {"grpc": {"rule": "PathPrefix(`/a.B/`)", "service": "grpc"}},
    });
    crate::harness::gateway::lay_over(&mut config["services"]["grpc"], service);
    Gateway::given(config).await
}

async fn client(gateway: &Gateway) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(gateway.address("web")).await.expect("an open port");
    let (client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(connection);
    client
}

fn call(path: &str) -> Request<()> {
    Request::post(format!("http://a.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a valid request")
}

/// What a client sees of a call whose request is `body`.
struct Seen {
    head: HeaderMap,
    /// The head was the end as well.
    alone: bool,
    trailers: HeaderMap,
}

async fn ask(client: &mut SendRequest<Bytes>, path: &str, body: &'static [u8]) -> Result<Seen, h2::Error> {
    let asked = async {
        let (response, mut upload) = client.clone().ready().await?.send_request(call(path), false)?;
        upload.send_data(Bytes::from_static(body), true)?;
        let (head, mut stream) = response.await?.into_parts();
        assert_eq!(head.status, 200);
        let alone = stream.is_end_stream();
        while let Some(data) = stream.data().await {
            let length = data?.len();
            stream.flow_control().release_capacity(length)?;
        }
        let trailers = stream.trailers().await?.unwrap_or_default();
        Ok(Seen { head: head.headers, alone, trailers })
    };
    timeout(PATIENCE, asked).await.expect("an answer in time")
}

fn ok() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).expect("a valid head")
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())])
}

async fn all(mut body: RecvStream) -> usize {
    let mut read = 0;
    while let Some(Ok(data)) = body.data().await {
        read += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    read
}

#[tokio::test]
async fn a_head_that_is_the_end_stays_one_frame() {
    let address = origin(|_, request, mut respond| async move {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.uri().scheme_str(), Some("http"));
        assert_eq!(request.uri().authority().map(|name| name.as_str()), Some("a.test"));
        let mut head = ok();
        head.headers_mut().extend(status("5"));
        respond.send_response(head, true).expect("an open stream");
    })
    .await;
    let gateway = gateway_to(address, json!({})).await;

    let seen = ask(&mut client(&gateway).await, "/a.B/C", b"x").await.expect("an answer");

    assert!(seen.alone, "trailers-only became head and end");
    assert_eq!(seen.head["grpc-status"], "5");
}

#[tokio::test]
async fn faults_are_told_as_grpc() {
    let h1_only = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let h1_address = h1_only.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = h1_only.accept().await {
            // As a server that knows HTTP/1 only takes the preface.
            let refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, refusal).await;
        }
    });
    let silent = origin(|_, _request, respond| async move {
        let _held = respond;
        std::future::pending::<()>().await;
    })
    .await;
    let away = refusing_address().await;
    let cases = [
        (away, json!({}), "/a.B/C", "14"),
        (away, json!({}), "/no.Route/C", "12"),
        (away, json!({"protocol": "h1"}), "/a.B/C", "14"),
        (h1_address, json!({}), "/a.B/C", "14"),
        (silent, json!({"timeouts": {"first_byte": "100ms"}}), "/a.B/C", "4"),
    ];
    for (address, service, path, code) in cases {
        let gateway = gateway_to(address, service.clone()).await;
        let seen = ask(&mut client(&gateway).await, path, b"x").await.expect("an answer");
        let case = format!("{service} {path}");
        assert_eq!(seen.head["grpc-status"], code, "{case}");
        assert_eq!(seen.head["content-type"], "application/grpc", "{case}");
        assert!(seen.alone && !seen.head["grpc-message"].is_empty(), "{case}");
        assert!(seen.head.contains_key("x-request-id"), "{case}");
    }
}

#[tokio::test]
async fn a_client_of_http1_is_told_to_use_http2() {
    let gateway = gateway_to(refusing_address().await, json!({})).await;

    let request = gateway.request("POST", "/a.B/C").header("content-type", "application/grpc");

    let problem = request.send().await.expect(505).json();
    assert_eq!(problem["type"], "urn:tollgate:problem:http-version");
}

#[tokio::test]
async fn grpc_web_is_ordinary_http() {
    let origin = Origin::start("alpha").await;
    let gateway = gateway_to(origin.address(), json!({})).await;

    let request = gateway.request("POST", "/a.B/C").header("content-type", "application/grpc-web+proto");

    assert_eq!(request.body("x").send().await.expect(200).json()["version"], "HTTP/1.1");
}

#[tokio::test]
async fn a_stream_that_breaks_in_the_middle_ends_with_a_status() {
    let arrived = Arc::new(Notify::new());
    let signal = arrived.clone();
    let address = origin(move |_, _request, mut respond| {
        let arrived = arrived.clone();
        async move {
            let mut body = respond.send_response(ok(), false).expect("an open stream");
            body.send_data(Bytes::from_static(b"12345"), false).expect("an open stream");
            // A reset overtakes data that is not out yet.
            arrived.notified().await;
            body.send_reset(Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let gateway = gateway_to(address, json!({})).await;
    let mut client = client(&gateway).await.ready().await.expect("an open connection");

    let (response, _upload) = client.send_request(call("/a.B/C"), true).expect("an open connection");
    let mut body = timeout(PATIENCE, response).await.expect("a head in time").expect("a head").into_body();
    let data = timeout(PATIENCE, body.data()).await.expect("data in time").expect("data").expect("no reset");
    assert_eq!(data, "12345");
    signal.notify_one();
    let rest = timeout(PATIENCE, body.data()).await.expect("an end in time");

    assert!(rest.is_none(), "{rest:?}");
    let trailers = body.trailers().await.expect("no reset").expect("trailers");
    assert_eq!(trailers["grpc-status"], "14");
    gateway.access_record(|record| record["fault"] == "upstream-broken").await;
}

#[tokio::test]
async fn a_request_that_the_origin_refuses_unseen_is_sent_again() {
    let address = origin(|stream, request, mut respond| async move {
        if stream % 2 == 0 {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let read = all(request.into_body()).await;
        assert_eq!(read, 5, "the second attempt lacks the body");
        let mut body = respond.send_response(ok(), false).expect("an open stream");
        body.send_trailers(status("0")).expect("an open stream");
    })
    .await;
    let gateway = gateway_to(address, json!({})).await;
    let mut client = client(&gateway).await;

    for _ in 0..5 {
        let seen = ask(&mut client, "/a.B/C", b"12345").await.expect("an answer");
        assert_eq!(seen.trailers["grpc-status"], "0");
    }
}

async fn send_all(stream: &mut SendStream<Bytes>, mut left: usize) -> Result<(), h2::Error> {
    while left > 0 {
        stream.reserve_capacity(left);
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("an open stream")?;
        let part = room.min(left);
        stream.send_data(vec![0; part].into(), false)?;
        left -= part;
    }
    Ok(())
}

#[tokio::test]
async fn neither_direction_waits_for_the_other() {
    const LENGTH: usize = 4 << 20;
    let address = origin(|_, request, mut respond| async move {
        let mut body = respond.send_response(ok(), false).expect("an open stream");
        let (read, sent) = tokio::join!(all(request.into_body()), send_all(&mut body, LENGTH));
        sent.expect("the gateway reads");
        assert_eq!(read, LENGTH);
        body.send_trailers(status("0")).expect("an open stream");
    })
    .await;
    let gateway = gateway_to(address, json!({})).await;
    let mut client = client(&gateway).await.ready().await.expect("an open connection");

    let (response, mut upload) = client.send_request(call("/a.B/C"), false).expect("an open connection");
    let (_, mut download) =
        timeout(PATIENCE, response).await.expect("a head in time").expect("a head").into_parts();
    // The answer is not read, its flow is at a standstill: the request goes on.
    timeout(PATIENCE, send_all(&mut upload, LENGTH))
        .await
        .expect("the upload does not stall")
        .expect("no reset");
    upload.send_data(Bytes::new(), true).expect("an open stream");

    let mut read = 0;
    while let Some(data) = timeout(PATIENCE, download.data()).await.expect("the rest in time") {
        read += data.as_ref().expect("no reset").len();
        download.flow_control().release_capacity(data.unwrap().len()).expect("an open stream");
    }
    assert_eq!(read, LENGTH);
    assert_eq!(download.trailers().await.expect("no reset").expect("trailers")["grpc-status"], "0");
}
