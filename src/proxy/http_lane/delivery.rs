//! The response's body on its way to the client.

use std::future;

use bytes::Bytes;
use http::HeaderMap;
use pingora::{
    Error, ErrorType, OrErr, http::ResponseHeader, protocols::http::ServerSession, proxy::Session,
};

use crate::{
    fault::Fault,
    proxy::{grpc, reply::in_time},
    upstream::Outflow,
};

/// Begun with the head. Dropped before its end, the client sees a torn response.
pub(super) enum Delivery {
    /// Pieces are written as they come.
    Http1,
    /// Pieces leave as the client's flow control allows, whatever the request's
    /// body does meanwhile.
    Http2(Outflow),
    Complete,
}

impl Delivery {
    /// Writes the head; `last`: nothing follows.
    pub(super) async fn begin(
        session: &mut Session,
        head: ResponseHeader,
        last: bool,
    ) -> pingora::Result<Self> {
        if let ServerSession::H2(stream) = session.as_downstream_mut() {
            stream.write_response_header(Box::new(head), last)?;
            let writer = stream.take_response_body_writer();
            return Ok(writer
                .filter(|_| !last)
                .map_or(Self::Complete, |writer| Self::Http2(Outflow::new(writer))));
        }
        in_time(session.write_response_header(Box::new(head), last)).await?;
        let mut delivery = Self::Http1;
        if last {
            delivery.put(session, None, true).await?;
        }
        Ok(delivery)
    }

    /// Takes a piece; `last`: nothing follows. Only when not [`Self::busy`].
    pub(super) async fn put(
        &mut self,
        session: &mut Session,
        piece: Option<Bytes>,
        last: bool,
    ) -> pingora::Result<()> {
        match self {
            Self::Http1 => {
                in_time(session.write_response_body(piece, last)).await?;
                if last {
                    *self = Self::Complete;
                }
            }
            Self::Http2(outflow) => outflow.put(piece.unwrap_or_default(), last),
            Self::Complete => {}
        }
        Ok(())
    }

    /// A piece waits for the client to take it.
    pub(super) fn busy(&self) -> bool {
        matches!(self, Self::Http2(outflow) if outflow.busy())
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// On HTTP/2: sends what waits; with nothing to send, notices when the
    /// client gives up, which is an error. Cancel safe.
    pub(super) async fn progress(&mut self) -> pingora::Result<()> {
        let Self::Http2(outflow) = self else { return future::pending().await };
        if outflow.busy() {
            return in_time(async {
                outflow.drain().await.or_err(ErrorType::WriteError, "sending to the client")
            })
            .await;
        }
        outflow.abandoned().await;
        Error::e_explain(ErrorType::ConnectionClosed, "the client gave up the stream")
    }

    /// The end, when nothing waits. Trailers reach clients of HTTP/2 only.
    pub(super) async fn finish(
        mut self,
        session: &mut Session,
        trailers: Option<HeaderMap>,
    ) -> pingora::Result<()> {
        match self {
            Self::Http2(outflow) => {
                outflow.finish(trailers).or_err(ErrorType::WriteError, "ending the response")
            }
            Self::Http1 => self.put(session, None, true).await,
            Self::Complete => Ok(()),
        }
    }

    /// Tells the client that the rest will not come: a gRPC client by a status,
    /// others by the broken transfer.
    pub(super) fn fail(self, fault: &Fault, is_grpc: bool) {
        match self {
            Self::Http2(outflow) if is_grpc => drop(outflow.finish(Some(grpc::trailers(fault)))),
            Self::Http2(outflow) => outflow.tear(),
            // The connection is closed without the end that was announced.
            Self::Http1 | Self::Complete => {}
        }
    }
}
