//! Requests that the gateway itself sends, over the engine's pooled connector:
//! head and body out at once, the answer back piece by piece.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pingora::{
    Error, ErrorType,
    connectors::{ConnectorOptions, http::Connector},
    http::RequestHeader,
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::peer::POOLED;

const POOL_SIZE: usize = 1024;

/// No response head came.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection: refused, unreachable, TLS failed. Nothing was sent.
    #[error("cannot connect: {0}")]
    Failed(String),
    /// No connection within the peer's timeout. Nothing was sent.
    #[error("connecting took too long")]
    ConnectTimedOut,
    /// Connected, but no response head before the deadline.
    #[error("no response head in time")]
    TimedOut,
    /// The connection broke, or the answer was not HTTP, before a whole head.
    #[error("broken before the response head: {0}")]
    Broken(String),
}

/// A response body that does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the response stalled")]
    TimedOut,
    #[error("the response broke off: {0}")]
    Broken(String),
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
}

/// The pool. One for the process; cheap to clone.
#[derive(Clone)]
pub struct Connections {
    pub(super) connector: Arc<Connector>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

impl Connections {
    /// Trusts the system's certificate authorities (`/etc/ssl/certs`, or
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`), read once, here. Without any, every
    /// HTTPS connection fails.
    pub fn new() -> Self {
        Self::with(ConnectorOptions::new(POOL_SIZE))
    }

    /// Trusts exactly the authorities of a PEM file.
    pub fn trusting(ca_file: &Path) -> Self {
        let mut options = ConnectorOptions::new(POOL_SIZE);
        options.ca_file = Some(ca_file.to_string_lossy().into_owned());
        Self::with(options)
    }

    fn with(options: ConnectorOptions) -> Self {
        Self { connector: Arc::new(Connector::new(Some(options))) }
    }

    /// Sends a request with a whole body and waits for the response head until
    /// `deadline`. Sets `content-length`; `host` is the caller's.
    ///
    /// A pooled connection that breaks before a whole response head was most
    /// likely closed by the origin while it lay there: the request is then sent
    /// once more, on a new connection. Nothing else is retried.
    pub async fn send(
        &self,
        peer: &HttpPeer,
        mut head: RequestHeader,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Response, ConnectError> {
        head.remove_header(&http::header::TRANSFER_ENCODING);
        head.insert_header(http::header::CONTENT_LENGTH, body.len())
            .map_err(|error| ConnectError::Broken(error.to_string()))?;
        match self.attempt(peer, &head, &body, deadline).await {
            Err((_, true)) => {}
            other => return other.map_err(|(error, _)| error),
        }
        // A key that nobody uses has an empty pool.
        let mut fresh = peer.clone();
        fresh.group_key = rand::random();
        let mut response = self.attempt(&fresh, &head, &body, deadline).await.map_err(|(error, _)| error)?;
        if matches!(response.session, Some(HttpSession::H1(_))) {
            response.peer = peer.clone();
        }
        Ok(response)
    }

    /// The flag of a failure: whether it may be blamed on a stale connection.
    async fn attempt(
        &self,
        peer: &HttpPeer,
        head: &RequestHeader,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Response, (ConnectError, bool)> {
        let connecting = timeout_at(deadline, self.connector.get_http_session(peer)).await;
        let (mut session, reused) = match connecting {
            Err(_) => return Err((ConnectError::ConnectTimedOut, false)),
            Ok(connected) => connected.map_err(|error| (not_connected(&error), false))?,
        };
        // Ours are the deadline here and the patience of each chunk.
        session.set_read_timeout(None);
        match timeout_at(deadline, exchange(&mut session, head, body)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let stale = reused && error.etype != ErrorType::InvalidHTTPHeader;
                return Err((ConnectError::Broken(safe_text(&error)), stale));
            }
            Err(_) => {
                session.shutdown().await;
                return Err((ConnectError::TimedOut, false));
            }
        }
        let Some(answer) = session.response_header() else {
            return Err((ConnectError::Broken("no response head".to_owned()), false));
        };
        let (status, headers) = (answer.status.as_u16(), answer.headers.clone());
        let connector = self.connector.clone();
        Ok(Response { status, headers, reused, session: Some(session), peer: peer.clone(), connector })
    }
}

async fn exchange(session: &mut HttpSession, head: &RequestHeader, body: &Bytes) -> pingora::Result<()> {
    let written = write(session, head, body).await;
    // An origin may refuse before it read everything: its answer is then
    // already here although writing failed.
    loop {
        if let Err(error) = session.read_response_header().await {
            return Err(written.err().unwrap_or(error));
        }
        if session.response_header().is_some_and(|head| !head.status.is_informational()) {
            return Ok(());
        }
    }
}

async fn write(session: &mut HttpSession, head: &RequestHeader, body: &Bytes) -> pingora::Result<()> {
    session.write_request_header(Box::new(head.clone())).await?;
    if !body.is_empty() {
        session.write_request_body(body.clone(), true).await?;
    }
    session.finish_request_body().await
}

/// The engine's text for a malformed head shows the head, cookies and all.
fn safe_text(error: &Error) -> String {
    match error.etype {
        ErrorType::InvalidHTTPHeader => "the head is not valid HTTP".to_owned(),
        _ => error.to_string(),
    }
}

pub(super) fn not_connected(error: &Error) -> ConnectError {
    match error.etype {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => ConnectError::ConnectTimedOut,
        _ => ConnectError::Failed(error.to_string()),
    }
}

/// A response whose body is still to be read. Dropped before its end, it closes
/// the connection (HTTP/1) or resets the stream (HTTP/2).
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// Whether the connection came from the pool.
    pub reused: bool,
    /// Absent once the body was read to its end or broke.
    session: Option<HttpSession>,
    peer: HttpPeer,
    connector: Arc<Connector>,
}

impl Response {
    /// The next piece of the body as it arrived, never empty; `None` at its
    /// end, which gives the connection back to the pool.
    pub async fn chunk(&mut self, patience: Duration) -> Result<Option<Bytes>, ReadError> {
        let Some(session) = &mut self.session else { return Ok(None) };
        loop {
            match timeout(patience, session.read_response_body()).await {
                Ok(Ok(Some(chunk))) if chunk.is_empty() => {}
                Ok(Ok(Some(chunk))) => return Ok(Some(chunk)),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    self.session = None;
                    return Err(ReadError::Broken(error.to_string()));
                }
                Err(_) => {
                    self.session = None;
                    return Err(ReadError::TimedOut);
                }
            }
        }
        if let Some(session) = self.session.take() {
            self.connector.release_http_session(session, &self.peer, Some(POOLED)).await;
        }
        Ok(None)
    }

    /// The whole rest of the body.
    pub async fn collect(mut self, cap: usize, deadline: Instant) -> Result<Bytes, ReadError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk(deadline.saturating_duration_since(Instant::now())).await? {
            if body.len() + chunk.len() > cap {
                return Err(ReadError::TooLarge(cap));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Throws the rest away so that the connection can be used again; `false`
    /// if it was longer or slower than that is worth, and is closed.
    pub async fn drain(mut self, cap: usize, deadline: Instant) -> bool {
        let mut read = 0;
        while read <= cap {
            match self.chunk(deadline.saturating_duration_since(Instant::now())).await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
