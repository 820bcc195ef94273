//! The pool against an origin that follows a script.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::*;
use crate::{
    config::service::{Target, UpstreamTimeouts},
    upstream::peer,
};

const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// In place of an answer: read the request, say nothing, close.
const CLOSE: &str = "";
/// In place of an answer: say nothing, stay.
const SILENCE: &str = "silence";

/// Answers the requests of its n-th connection with the n-th list, and then
/// closes. Tells each request it got with the connection's number.
async fn origin(scripts: Vec<Vec<&'static str>>) -> (SocketAddr, mpsc::UnboundedReceiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for (number, script) in scripts.into_iter().enumerate() {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(follow(tcp, number, script, tell.clone()));
        }
    });
    (address, told)
}

async fn follow<S>(
    mut io: S,
    number: usize,
    script: Vec<&'static str>,
    tell: mpsc::UnboundedSender<(usize, String)>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for answer in script {
        let request = read_request(&mut io).await;
        let _ = tell.send((number, request));
        match answer {
            CLOSE => return,
            SILENCE => std::future::pending().await,
            answer => io.write_all(answer.as_bytes()).await.unwrap(),
        }
        io.flush().await.unwrap();
    }
    // Stays open until the other side goes.
    let _ = io.read_u8().await;
}

/// Head and body; the client always sends `content-length`.
async fn read_request<S: AsyncRead + Unpin>(io: &mut S) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => text.push(byte.into()),
            Err(_) => return text,
        }
    }
    let lower = text.to_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    io.read_exact(&mut body).await.unwrap();
    text + std::str::from_utf8(&body).unwrap()
}

fn to(address: SocketAddr, tls: bool, host: &str) -> HttpPeer {
    let timeouts = UpstreamTimeouts { connect: PATIENCE, first_byte: PATIENCE, idle: PATIENCE };
    peer(&Target { tls, host: host.to_owned(), port: address.port() }, address, &timeouts, "test")
}

fn post() -> RequestHeader {
    let mut head = RequestHeader::build("POST", b"/v1/chat", None).unwrap();
    head.insert_header("host", "a.test").unwrap();
    head
}

async fn send(
    connections: &Connections,
    peer: &HttpPeer,
    body: &'static str,
) -> Result<Response, ConnectError> {
    connections.send(peer, post(), Bytes::from_static(body.as_bytes()), soon()).await
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[tokio::test]
async fn a_body_read_to_its_end_gives_the_connection_back() {
    let (address, mut told) = origin(vec![vec![OK, OK, OK]]).await;
    let (connections, peer) = (Connections::new(), to(address, false, "a.test"));
    for body in ["one", "", "three"] {
        let response = send(&connections, &peer, body).await.unwrap();
        assert_eq!((response.status, response.reused), (200, body != "one"));
        assert_eq!(response.collect(100, soon()).await.unwrap(), "ok");
        let (number, request) = told.recv().await.unwrap();
        assert!(number == 0 && request.starts_with("POST /v1/chat HTTP/1.1\r\n") && request.ends_with(body));
    }
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once() {
    let (address, mut told) = origin(vec![vec![OK, CLOSE], vec![OK, OK]]).await;
    let (connections, peer) = (Connections::new(), to(address, false, "a.test"));
    assert!(send(&connections, &peer, "a").await.unwrap().drain(100, soon()).await);
    let response = send(&connections, &peer, "b").await.unwrap();
    assert!(!response.reused);
    assert!(response.drain(100, soon()).await);
    // The replacement went to the same pool.
    assert!(send(&connections, &peer, "c").await.unwrap().reused);
    let mut numbers = Vec::new();
    for _ in 0..4 {
        numbers.push(told.recv().await.unwrap().0);
    }
    assert_eq!(numbers, [0, 0, 1, 1]);
}

#[tokio::test]
async fn a_new_connection_that_breaks_is_not_tried_again() {
    let (address, mut told) = origin(vec![vec![CLOSE], vec![OK]]).await;
    let (connections, peer) = (Connections::new(), to(address, false, "a.test"));
    let error = send(&connections, &peer, "a").await.err().unwrap();
    assert!(matches!(error, ConnectError::Broken(_)), "{error}");
    assert_eq!(told.recv().await.unwrap().0, 0);
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn nobody_listening_is_a_failure_to_connect() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = send(&Connections::new(), &to(closed, false, "a.test"), "a").await.err().unwrap();
    assert!(matches!(error, ConnectError::Failed(_)), "{error}");
}

#[tokio::test]
async fn a_silent_origin_times_out() {
    let (address, _told) = origin(vec![vec![SILENCE]]).await;
    let deadline = Instant::now() + Duration::from_millis(50);
    let sent = Connections::new().send(&to(address, false, "a.test"), post(), Bytes::new(), deadline).await;
    let error = sent.err().unwrap();
    assert!(matches!(error, ConnectError::TimedOut), "{error}");
}

#[tokio::test]
async fn chunks_arrive_as_sent_and_a_stall_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = to(listener.local_addr().unwrap(), false, "a.test");
    let (go, mut gate) = mpsc::unbounded_channel::<&str>();
    let origin = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        read_request(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        while let Some(chunk) = gate.recv().await {
            tcp.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await.unwrap();
        }
        tcp
    });
    let mut response = send(&Connections::new(), &peer, "a").await.unwrap();
    for chunk in ["data: a\n\n", "data: b\n\n"] {
        go.send(chunk).unwrap();
        assert_eq!(response.chunk(PATIENCE).await.unwrap().unwrap(), chunk);
    }
    let stalled = response.chunk(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(stalled, ReadError::TimedOut), "{stalled}");
    drop(go);
    // The connection of a stalled response is closed, not pooled.
    assert_eq!(origin.await.unwrap().read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_cut_short_is_an_error() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok";
    let (address, _told) = origin(vec![vec![OK], vec![short, CLOSE]]).await;
    let (connections, peer) = (Connections::new(), to(address, false, "a.test"));
    let large = send(&connections, &peer, "a").await.unwrap().collect(1, soon()).await;
    assert!(matches!(large, Err(ReadError::TooLarge(1))));
    let mut response = send(&connections, &peer, "b").await.unwrap();
    assert_eq!(response.chunk(PATIENCE).await.unwrap().unwrap(), "ok");
    assert!(matches!(response.chunk(Duration::from_millis(50)).await, Err(ReadError::TimedOut)));
}

#[tokio::test]
async fn https_is_verified_against_the_given_authority_and_name() {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, _told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(tls) = acceptor.accept(tcp).await {
                tokio::spawn(follow(tls, 0, vec![OK], tell.clone()));
            }
        }
    });
    let connections = Connections::trusting(&ca);
    let answer = send(&connections, &to(address, true, "a.test"), "a").await.unwrap();
    assert_eq!(answer.collect(100, soon()).await.unwrap(), "ok");
    for (connections, name) in [(connections, "b.test"), (Connections::new(), "a.test")] {
        let error = send(&connections, &to(address, true, name), "a").await.err().unwrap();
        assert!(matches!(error, ConnectError::Failed(_)), "{error}");
    }
}
