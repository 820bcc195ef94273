//! One request and its response over a pooled HTTP/1 connection, head and body
//! piece by piece in both directions, with a deadline for every wait.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pingora::{
    ErrorType,
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use tokio::time::timeout;

use super::{
    Connections,
    connections::{ConnectError, ReadError, not_connected},
    peer::POOLED,
};

/// An open exchange. Dropped before its end, its connection is closed.
pub struct Exchange {
    session: HttpSession,
    peer: HttpPeer,
    connector: Arc<Connector>,
    /// The connection served another request before: it may be stale.
    pub reused: bool,
}

impl Connections {
    /// Takes a pooled connection or makes one. The peer's own timeouts bound
    /// connecting; `write` bounds each write of the request.
    pub async fn open(&self, mut peer: HttpPeer, write: Duration) -> Result<Exchange, ConnectError> {
        // This side streams both bodies at once, which needs a connection of its own.
        peer.options.set_http_version(1, 1);
        let opened = self.connector.get_http_session(&peer).await;
        let (mut session, reused) = opened.map_err(|error| not_connected(&error))?;
        session.set_write_timeout(Some(write));
        session.set_read_timeout(None);
        Ok(Exchange { session, peer, connector: self.connector.clone(), reused })
    }
}

impl Exchange {
    pub async fn write_head(&mut self, head: RequestHeader) -> Result<(), ReadError> {
        self.session.write_request_header(Box::new(head)).await.map_err(|error| broken(&error))
    }

    pub async fn write_body(&mut self, chunk: Bytes) -> Result<(), ReadError> {
        self.session.write_request_body(chunk, false).await.map_err(|error| broken(&error))
    }

    pub async fn finish_body(&mut self) -> Result<(), ReadError> {
        self.session.finish_request_body().await.map_err(|error| broken(&error))
    }

    /// The next head: informational ones come before the final one. Cancel
    /// safe. `wait` of `None` waits for as long as the caller polls.
    pub async fn read_head(&mut self, wait: Option<Duration>) -> Result<ResponseHeader, ReadError> {
        let read = self.session.read_response_header();
        match wait {
            Some(wait) => timeout(wait, read).await.map_err(|_| ReadError::TimedOut)?,
            None => read.await,
        }
        .map_err(|error| broken(&error))?;
        self.session
            .response_header()
            .cloned()
            .ok_or_else(|| ReadError::Broken("no response head".to_owned()))
    }

    /// The next piece of the body, `None` at its end. Cancel safe.
    pub async fn read_body(&mut self, wait: Duration) -> Result<Option<Bytes>, ReadError> {
        timeout(wait, self.session.read_response_body())
            .await
            .map_err(|_| ReadError::TimedOut)?
            .map_err(|error| broken(&error))
    }

    /// Back to the pool. Only after both bodies came to their ends.
    pub async fn release(self) {
        self.connector.release_http_session(self.session, &self.peer, Some(POOLED)).await;
    }
}

fn broken(error: &pingora::Error) -> ReadError {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => ReadError::TimedOut,
        // Its text would show the head, cookies and all.
        ErrorType::InvalidHTTPHeader => ReadError::Broken("the head is not valid HTTP".to_owned()),
        _ => ReadError::Broken(error.to_string()),
    }
}
