//! One request and its response over a pooled connection, HTTP/1 or HTTP/2, piece
//! by piece in both directions, with a deadline for every wait.
//!
//! On HTTP/2 the two directions are independent: [`Asking`] and [`Answering`] can be
//! waited for at once, so that neither side's flow control holds up the other.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::Reason;
use http::HeaderMap;
use pingora::{
    ErrorType,
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use tokio::time::timeout;

use super::{
    Connections, Wire,
    connections::{ConnectError, not_connected},
    outflow::Outflow,
    peer::POOLED,
};

/// An exchange that does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("the origin stalled")]
    TimedOut,
    #[error("the exchange broke off: {0}")]
    Broken(String),
    /// The origin told that it did not look at the request: it may be sent again.
    #[error("the origin refused the request unseen")]
    Unprocessed,
}

/// An open exchange. Dropped before its end, the request is cancelled: an
/// HTTP/1 connection is closed, an HTTP/2 stream reset.
pub struct Exchange {
    pub asking: Asking,
    pub answering: Answering,
    /// The connection served another request before: it may be stale.
    pub reused: bool,
    pub wire: Wire,
    pub tls: bool,
}

/// The request's body on an HTTP/2 connection. Empty and never busy on HTTP/1,
/// where pieces are written as they come.
#[derive(Default)]
pub struct Asking(Option<Outflow>);

/// The response, and the connection itself.
pub struct Answering {
    /// Present until the exchange is released or dropped.
    session: Option<HttpSession>,
    peer: Arc<HttpPeer>,
    connector: Arc<Connector>,
}

impl Connections {
    /// Takes a pooled connection or makes one, and speaks `wire` or fails. The
    /// peer's own timeouts bound connecting; `write` bounds each write of the request.
    pub async fn open(
        &self,
        peer: Arc<HttpPeer>,
        wire: Wire,
        write: Duration,
    ) -> Result<Exchange, ConnectError> {
        let opened = self.connector.get_http_session(&*peer).await;
        let (mut session, reused) = opened.map_err(|error| not_connected(&error))?;
        session.set_write_timeout(Some(write));
        session.set_read_timeout(None);
        let spoken = if session.as_http2().is_some() { Wire::Http2 } else { Wire::Http1 };
        let tls = peer.is_tls();
        let answering = Answering { session: Some(session), peer, connector: self.connector.clone() };
        if spoken != wire {
            return Err(ConnectError::Failed(format!("the origin does not speak {wire:?}")));
        }
        Ok(Exchange { asking: Asking::default(), answering, reused, wire, tls })
    }
}

impl Exchange {
    /// `last`: no body follows.
    pub async fn write_head(&mut self, head: Box<RequestHeader>, last: bool) -> Result<(), ExchangeError> {
        match self.answering.session()? {
            HttpSession::H2(session) => {
                session.write_request_header(head, last).map_err(|error| broken(&error))?;
                self.asking.0 = session.take_request_body_writer().map(Outflow::new);
            }
            session => {
                session.write_request_header(head).await.map_err(|error| broken(&error))?;
                if last {
                    session.finish_request_body().await.map_err(|error| broken(&error))?;
                }
            }
        }
        Ok(())
    }

    /// Takes a piece of the body; `last`: nothing follows. The piece may be
    /// empty. On HTTP/2 it is on its way only once [`Asking::busy`] is false.
    pub async fn write_body(&mut self, piece: Bytes, last: bool) -> Result<(), ExchangeError> {
        if let Some(outflow) = &mut self.asking.0 {
            outflow.put(piece, last);
            return Ok(());
        }
        let session = self.answering.session()?;
        // An empty write would be the last chunk, and what follows a request of its own.
        if !piece.is_empty() {
            session.write_request_body(piece, false).await.map_err(|error| broken(&error))?;
        }
        if last {
            session.finish_request_body().await.map_err(|error| broken(&error))?;
        }
        Ok(())
    }

    /// After an answer of 101: what is written from now on is not HTTP.
    pub fn upgraded(&mut self) -> Result<(), ExchangeError> {
        if let HttpSession::H1(session) = self.answering.session()? {
            session.maybe_upgrade_body_writer();
        }
        Ok(())
    }

    /// Back to the pool. Only after both bodies came to their ends.
    pub async fn release(mut self) {
        let Answering { session, peer, connector } = &mut self.answering;
        if let Some(session) = session.take() {
            connector.release_http_session(session, &**peer, Some(POOLED)).await;
        }
    }
}

impl Asking {
    /// A piece waits for the origin to take it.
    pub fn busy(&self) -> bool {
        self.0.as_ref().is_some_and(Outflow::busy)
    }

    /// Sends what waits, as the origin's flow control allows. Cancel safe.
    pub async fn drain(&mut self, wait: Duration) -> Result<(), ExchangeError> {
        let Some(outflow) = &mut self.0 else { return Ok(()) };
        let drained = timeout(wait, outflow.drain()).await.map_err(|_| ExchangeError::TimedOut)?;
        drained.map_err(|error| ExchangeError::Broken(error.to_string()))
    }
}

impl Answering {
    fn session(&mut self) -> Result<&mut HttpSession, ExchangeError> {
        self.session.as_mut().ok_or_else(|| ExchangeError::Broken("the exchange is over".to_owned()))
    }

    /// The next head: informational ones come before the final one on HTTP/1.
    /// Cancel safe. `wait` of `None` waits for as long as the caller polls.
    pub async fn head(&mut self, wait: Option<Duration>) -> Result<ResponseHeader, ExchangeError> {
        let session = self.session()?;
        let read = session.read_response_header();
        match wait {
            Some(wait) => timeout(wait, read).await.map_err(|_| ExchangeError::TimedOut)?,
            None => read.await,
        }
        .map_err(|error| broken(&error))?;
        session.response_header().cloned().ok_or_else(|| ExchangeError::Broken("no response head".to_owned()))
    }

    /// The next piece of the body, `None` at its end. Cancel safe.
    pub async fn piece(&mut self, wait: Duration) -> Result<Option<Bytes>, ExchangeError> {
        let read = timeout(wait, self.session()?.read_response_body()).await;
        match read.map_err(|_| ExchangeError::TimedOut)? {
            Err(error) if upload_unwanted(&error) => Ok(None),
            read => read.map_err(|error| broken(&error)),
        }
    }

    /// Nothing follows what was read: neither body nor trailers.
    pub fn ended(&mut self) -> Result<bool, ExchangeError> {
        match self.session()? {
            HttpSession::H2(session) => match session.check_response_end_or_error() {
                Err(error) if upload_unwanted(&error) => Ok(true),
                ended => ended.map_err(|error| broken(&error)),
            },
            session => Ok(session.response_done()),
        }
    }

    /// What follows the body. Only on HTTP/2: the engine drops trailers of HTTP/1.
    pub async fn trailers(&mut self, wait: Duration) -> Result<Option<HeaderMap>, ExchangeError> {
        match self.session()? {
            HttpSession::H2(session) => timeout(wait, session.read_trailers())
                .await
                .map_err(|_| ExchangeError::TimedOut)?
                .map_err(|error| broken(&error)),
            _ => Ok(None),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Only HTTP/2: the connection serves others, and left out of the pool's
        // books it would never be closed for idleness. This never waits.
        if let Some(session @ HttpSession::H2(_)) = self.session.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let _ = self.connector.release_http_session(session, &*self.peer, Some(POOLED)).now_or_never();
        }
    }
}

/// The origin answered in full and wants no more of the request (RFC 9113 section 8.1).
fn upload_unwanted(error: &pingora::Error) -> bool {
    http2_error(error).is_some_and(|error| {
        error.is_reset() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR)
    })
}

/// The origin says that it did not look at the request (RFC 9113 section 8.7).
fn unprocessed(error: &pingora::Error) -> bool {
    http2_error(error).is_some_and(|error| {
        error.is_remote()
            && match error.reason() {
                Some(Reason::REFUSED_STREAM) => true,
                Some(Reason::NO_ERROR) => error.is_go_away(),
                _ => false,
            }
    })
}

fn http2_error(error: &pingora::Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

fn broken(error: &pingora::Error) -> ExchangeError {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => ExchangeError::TimedOut,
        // Its text would show the head, cookies and all.
        ErrorType::InvalidHTTPHeader => ExchangeError::Broken("the head is not valid HTTP".to_owned()),
        _ if unprocessed(error) => ExchangeError::Unprocessed,
        _ => ExchangeError::Broken(error.to_string()),
    }
}
