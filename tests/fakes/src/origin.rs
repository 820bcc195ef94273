//! An HTTP origin that says what it was asked. What a path ends with decides:
//! `/ws` echoes WebSocket messages, `/sse?n=N&every=MS` streams N events,
//! `/status/NNN`, `/slow?ms=N` and `/bytes?n=N` do as named, `/trailers` answers
//! with trailers, `/cut?n=N` announces N bytes and breaks off before the last,
//! `/echo` sends the body back as it comes; all else is answered with the request
//! as JSON.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{
    certificates::ServerCertificate,
    serve::{self, Body, Listening},
};

/// A named echo server.
#[derive(Debug)]
pub struct Origin {
    listening: Listening,
    scheme: &'static str,
    hits: Arc<AtomicU64>,
}

impl Origin {
    pub async fn start(name: &str) -> Self {
        let name: Arc<str> = name.into();
        let hits = Arc::new(AtomicU64::new(0));
        let counter = hits.clone();
        let listening = serve::serve(move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            answer(name.clone(), request)
        })
        .await;
        Self { listening, scheme: "http", hits }
    }

    /// One behind TLS with these protocols by ALPN, `h2` or `http/1.1`.
    pub async fn secure(
        name: &str,
        certificate: &ServerCertificate,
        protocols: &[&str],
    ) -> anyhow::Result<Self> {
        let name: Arc<str> = name.into();
        let hits = Arc::new(AtomicU64::new(0));
        let counter = hits.clone();
        let handler = move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            answer(name.clone(), request)
        };
        let listening = serve::serve_tls(certificate, protocols, handler).await?;
        Ok(Self { listening, scheme: "https", hits })
    }

    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// `http://127.0.0.1:PORT`, without a path; `https` behind TLS.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.listening.address)
    }

    /// Requests that arrived so far.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

async fn answer(name: Arc<str>, mut request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path.ends_with("/ws") && request.headers().contains_key(header::SEC_WEBSOCKET_KEY) {
        return websocket(&mut request);
    }
    if path.ends_with("/sse") {
        return events(number(&query, "n", 3), Duration::from_millis(number(&query, "every", 10)));
    }
    if let Some((_, status)) = path.rsplit_once("/status/") {
        let status = status.parse().ok().filter(|status| (200..600).contains(status)).unwrap_or(400);
        return serve::json(status, &json!({"name": &*name, "status": status}));
    }
    if path.ends_with("/slow") {
        tokio::time::sleep(Duration::from_millis(number(&query, "ms", 1000))).await;
    }
    if path.ends_with("/bytes") {
        let length = usize::try_from(number(&query, "n", 1024)).unwrap_or(usize::MAX).min(64 << 20);
        return Response::new(serve::whole(vec![b'x'; length]));
    }
    if path.ends_with("/trailers") {
        return trailers();
    }
    if path.ends_with("/cut") {
        return cut(usize::try_from(number(&query, "n", 1024)).unwrap_or(usize::MAX).min(64 << 20));
    }
    if path.ends_with("/echo") {
        return Response::new(request.into_body().map_err(io::Error::other).boxed_unsync());
    }
    describe(&name, request).await
}

fn trailers() -> Response<Body> {
    let trailers = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        http::HeaderValue::from_static("5"),
    )]);
    let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, io::Error>)));
    Response::builder().header(header::TRAILER, "x-sum").body(body.boxed_unsync()).expect("a valid header")
}

fn cut(length: usize) -> Response<Body> {
    let sent = vec![b'x'; length.saturating_sub(1)];
    let frames = [Ok(Frame::data(sent.into())), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    // The data must be on its way before the error is met.
    let paced = stream::iter(frames).then(|frame| async {
        tokio::task::yield_now().await;
        frame
    });
    let builder = Response::builder().header(header::CONTENT_LENGTH, length);
    builder.body(StreamBody::new(paced).boxed_unsync()).expect("a valid header")
}

async fn describe(name: &str, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body_bytes = body.collect().await.map(|body| body.to_bytes().len()).unwrap_or_default();
    let headers: serde_json::Map<String, Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let mut answer = json!({
        "name": name,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body_bytes": body_bytes,
    });
    if let Some(authority) = head.uri.authority() {
        answer["authority"] = authority.as_str().into();
    }
    serve::json(200, &answer)
}

fn events(count: u64, every: Duration) -> Response<Body> {
    let events = stream::unfold(0, move |i| async move {
        if i == count {
            return None;
        }
        if i > 0 {
            tokio::time::sleep(every).await;
        }
        let event = Bytes::from(format!("data: {{\"n\":{i}}}\n\n"));
        Some((Ok::<_, io::Error>(Frame::data(event)), i + 1))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-cache")
        .body(StreamBody::new(events).boxed_unsync())
        .expect("the headers are valid")
}

fn websocket(request: &mut Request<Incoming>) -> Response<Body> {
    let key = request.headers()[header::SEC_WEBSOCKET_KEY].clone();
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
        let _ = socket.close(None).await;
    });
    Response::builder()
        .status(101)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(serve::whole(""))
        .expect("the headers are valid")
}

fn number(query: &str, name: &str, default: u64) -> u64 {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok()).unwrap_or(default)
}
