//! What a client may send as a body, how slowly, and what it means when
//! reading it fails. Holds for HTTP/1 and HTTP/2 alike, on every lane.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::header;
use pingora::proxy::Session;

use crate::{
    config::entrypoint::Entrypoint,
    fault::{Fault, FaultKind},
};

/// Inside the `io::Error` with which a connection refuses a body that breaks
/// the rules of its framing.
#[derive(Debug, thiserror::Error)]
#[error("malformed body: {0}")]
pub struct MalformedBody(pub &'static str);

/// Watches over one request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BodyLimits {
    /// In bytes.
    max: u64,
    idle: Duration,
    /// Bytes per second, 0 for no bound.
    min_rate: u64,
    received: u64,
    /// How long the client has let us wait, all pieces together. Time in which
    /// nobody asked it for more is not its fault.
    waited: Duration,
    /// Since when it lets us wait for the next piece.
    waiting: Option<Instant>,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            max: u64::MAX,
            idle: Duration::from_secs(60),
            min_rate: 0,
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
        }
    }
}

impl BodyLimits {
    pub(super) fn of(entrypoint: &Entrypoint) -> Self {
        Self {
            max: entrypoint.limits.max_body.map_or(u64::MAX, |max| max.0),
            idle: entrypoint.timeouts.body_idle,
            min_rate: entrypoint.timeouts.min_body_rate.0,
            ..Self::default()
        }
    }

    /// Refuses by the declared length, before a byte of the body is asked for.
    pub(super) fn check_declared(&self, session: &Session) -> Result<(), Fault> {
        let declared = session.req_header().headers.get(header::CONTENT_LENGTH);
        let declared: Option<u64> = declared.and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length| length > self.max) { Err(too_large(self.max)) } else { Ok(()) }
    }

    /// Lets the client be silent for at least so long.
    pub(super) fn may_rest_for(&mut self, idle: Duration) {
        self.idle = self.idle.max(idle);
    }

    /// Counts a piece that came by another way than [`BodyLimits::next`].
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.received = self.received.saturating_add(bytes as u64);
        if self.received > self.max { Err(too_large(self.max)) } else { Ok(()) }
    }

    /// The next piece of the body, never an empty one; `None` at its end.
    /// Cancel safe: a wait that is given up and taken up again stays one wait.
    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Option<Bytes>, Fault> {
        loop {
            let since = *self.waiting.get_or_insert_with(Instant::now);
            // The engine's own patience is another one.
            session.as_downstream_mut().set_read_timeout(None);
            let read = session.as_downstream_mut().read_request_body();
            let Ok(read) = tokio::time::timeout_at((since + self.patience()).into(), read).await else {
                return Err(too_slow());
            };
            // Pieces of chunk heads come as empty ones: no progress.
            match read.map_err(client_failed)? {
                Some(piece) if piece.is_empty() && !session.as_downstream_mut().is_body_done() => {}
                piece => {
                    self.waited += since.elapsed();
                    self.waiting = None;
                    let piece = piece.filter(|piece| !piece.is_empty());
                    self.count(piece.as_ref().map_or(0, Bytes::len))?;
                    return Ok(piece);
                }
            }
        }
    }

    /// How long the next piece may take.
    fn patience(&self) -> Duration {
        if self.min_rate == 0 {
            return self.idle;
        }
        let earned = Duration::from_secs_f64(self.received as f64 / self.min_rate as f64);
        self.idle.min(self.idle.max(earned).saturating_sub(self.waited))
    }
}

fn too_large(max: u64) -> Fault {
    Fault::new(FaultKind::BodyTooLarge, format!("the request body exceeds {max} bytes"))
}

fn too_slow() -> Fault {
    Fault::new(FaultKind::RequestTimeout, "the request body took too long")
}

/// The client's mistake, if that is why `error` came about.
pub(super) fn malformed(error: &pingora::Error) -> Option<Fault> {
    let cause = error.root_cause().downcast_ref::<io::Error>()?.get_ref()?;
    let reason = cause.downcast_ref::<MalformedBody>()?.0;
    Some(Fault::new(FaultKind::BadRequest, format!("the request body is malformed: {reason}")))
}

/// What a failed read of the client's body means.
pub(super) fn client_failed(error: Box<pingora::Error>) -> Fault {
    if let Some(fault) = malformed(&error) {
        return fault;
    }
    match error.etype() {
        pingora::ErrorType::ReadTimedout => too_slow().because(error),
        pingora::ErrorType::InvalidHTTPHeader => {
            Fault::new(FaultKind::BadRequest, "the request body is not valid HTTP").because(error)
        }
        _ => Fault::new(FaultKind::ClientClosed, "the client went away").because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(idle: u64, min_rate: u64, received: u64, waited: u64) -> BodyLimits {
        BodyLimits {
            idle: Duration::from_secs(idle),
            min_rate,
            received,
            waited: Duration::from_secs(waited),
            ..BodyLimits::default()
        }
    }

    #[test]
    fn without_a_rate_every_piece_may_take_the_idle_time() {
        assert_eq!(limits(10, 0, 0, 1000).patience(), Duration::from_secs(10));
    }

    #[test]
    fn with_a_rate_the_bytes_received_earn_time_beyond_the_first_idle_time() {
        assert_eq!(limits(10, 100, 0, 0).patience(), Duration::from_secs(10));
        assert_eq!(limits(10, 100, 500, 4).patience(), Duration::from_secs(6));
        assert_eq!(limits(10, 100, 1500, 12).patience(), Duration::from_secs(3));
        assert_eq!(limits(10, 100, 1500, 15).patience(), Duration::ZERO);
        assert_eq!(limits(10, 100, 1_000_000, 15).patience(), Duration::from_secs(10));
    }

    #[test]
    fn a_body_over_its_bound_is_too_large() {
        let mut limits = BodyLimits { max: 10, ..BodyLimits::default() };
        assert!(limits.count(10).is_ok());
        assert_eq!(limits.count(1).unwrap_err().kind, FaultKind::BodyTooLarge);
    }

    #[test]
    fn a_read_that_the_connection_refused_is_the_clients_mistake() {
        let refused = io::Error::new(io::ErrorKind::InvalidData, MalformedBody("a chunk size is malformed"));
        let error = pingora::Error::because(pingora::ErrorType::ReadError, "when reading body", refused);
        assert_eq!(client_failed(error).kind, FaultKind::BadRequest);
        let broken = io::Error::from(io::ErrorKind::ConnectionReset);
        let error = pingora::Error::because(pingora::ErrorType::ReadError, "when reading body", broken);
        assert_eq!(client_failed(error).kind, FaultKind::ClientClosed);
    }
}
