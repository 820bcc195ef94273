//! A small HTTP client: one connection per request, HTTP/1.1, HTTP/2 or TLS.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer whose body is still arriving. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Streaming {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    rest: Vec<u8>,
}

/// A request in the making.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    method: &'static str,
    path: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Bytes,
    http2: bool,
    authority_pem: Option<String>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, method: &'static str, path: &str) -> Self {
        Self {
            address,
            method,
            path: path.to_owned(),
            host: None,
            headers: Vec::new(),
            body: Bytes::new(),
            http2: false,
            authority_pem: None,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// The `Host` header and, with TLS, the SNI.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self.header("content-type", "application/json")
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Speaks TLS and trusts this authority only.
    pub(crate) fn tls(mut self, authority_pem: &str) -> Self {
        self.authority_pem = Some(authority_pem.to_owned());
        self
    }

    pub(crate) async fn send(self) -> Reply {
        let streaming = self.stream().await;
        let (status, headers) = (streaming.status, streaming.headers);
        let body = streaming.body.collect().await.expect("the body arrives whole").to_bytes();
        Reply { status, headers, body }
    }

    pub(crate) async fn stream(self) -> Streaming {
        self.try_stream().await.expect("the gateway answers")
    }

    /// Fails when the connection is refused or breaks before the head.
    pub(crate) async fn try_stream(self) -> anyhow::Result<Streaming> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let answer = match &self.authority_pem {
            Some(pem) => {
                let stream = self.handshake(stream, pem).await?;
                self.exchange(stream).await?
            }
            None => self.exchange(stream).await?,
        };
        let (head, body) = answer.into_parts();
        Ok(Streaming { status: head.status.as_u16(), headers: head.headers, body, rest: Vec::new() })
    }

    async fn handshake(&self, stream: TcpStream, pem: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = ServerName::try_from(self.host.clone().unwrap_or_else(|| "localhost".to_owned()))?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    async fn exchange<S>(self, stream: S) -> anyhow::Result<http::Response<Incoming>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        if self.http2 {
            let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return Ok(sender.send_request(self.request()).await?);
        }
        let (mut sender, connection) = conn::http1::handshake(io).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender.send_request(self.request()).await?)
    }

    fn request(self) -> Request<Full<Bytes>> {
        let host = self.host.unwrap_or_else(|| self.address.to_string());
        let mut builder = Request::builder().method(self.method);
        builder = if self.http2 {
            let scheme = if self.authority_pem.is_some() { "https" } else { "http" };
            builder.uri(format!("{scheme}://{host}{}", self.path))
        } else {
            builder.uri(&self.path).header(header::HOST, host)
        };
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::new(self.body)).expect("the test builds a valid request")
    }
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: status {}, body {:?}", self.status, self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Panics with the body unless the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "body: {}", self.text());
        self
    }
}

impl Streaming {
    /// The rest of the body; an error if it breaks off.
    pub(crate) async fn whole(self) -> anyhow::Result<Bytes> {
        Ok(self.body.collect().await?.to_bytes())
    }

    /// Body and trailers.
    pub(crate) async fn collect(self) -> http_body_util::Collected<Bytes> {
        self.body.collect().await.expect("the body arrives whole")
    }

    /// The next server-sent event's data; `None` at the end; an error if the stream broke.
    pub(crate) async fn event(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(at) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..at + 2).collect();
                let text = String::from_utf8(event)?;
                let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                if !data.is_empty() {
                    return Ok(Some(data.join("\n")));
                }
                continue;
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// All events to the end, with the times of their arrival.
    pub(crate) async fn events(mut self) -> Vec<(Instant, String)> {
        let mut events = Vec::new();
        while let Some(event) = self.event().await.expect("the stream does not break") {
            events.push((Instant::now(), event));
        }
        events
    }

    /// All events to the end as JSON; `[DONE]` is kept as a string.
    pub(crate) async fn json_events(self) -> Vec<Value> {
        let events = self.events().await;
        events
            .into_iter()
            .map(|(_, data)| serde_json::from_str(&data).unwrap_or(Value::String(data)))
            .collect()
    }
}
