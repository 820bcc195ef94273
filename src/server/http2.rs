//! Serves one HTTP/2 connection: its settings, its deadlines, its end. Every
//! stream is one request to the HTTP engine.

mod budget;
mod frames;
mod guard;
mod guarded;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::Reason;
use pingora::{
    apps::HttpServerApp,
    protocols::{
        Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl, Stream,
        http::{
            ServerSession,
            v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake},
        },
    },
    server::ShutdownWatch,
};
use tokio::time::timeout;

use self::{
    budget::Abuse,
    guard::{Guard, Meter},
    guarded::Guarded,
};
use super::{connection::Connection, front::Front};
use crate::config::entrypoint::Limits;

/// What a client may send of one request body before it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all bodies of a connection: what it may make us keep.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept of one response for a client that reads slowly.
const SEND_BUFFER: usize = 64 * 1024;
/// What small DATA frames may cost beyond their bytes while nobody reads them. A
/// stream of tiny messages to an upstream that pauses must fit in.
const DATA_OVERHEAD: usize = 8 * 1024 * 1024;
const MAX_STREAMS: u32 = 100;
/// How long the last words may take to write; what hears them out has its own bound.
const FAREWELL: Duration = Duration::from_secs(2);
/// A connection that was told to go and has no request open is closed after this
/// long, which is more than requests that crossed the message need.
const LEAVING: Duration = Duration::from_secs(3);

/// What the wait for the next request ended with.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once; a box would cost each request an allocation"
)]
enum Heard {
    Request(HttpSession),
    /// Answered or reset by the engine already.
    Rejected,
    Closing,
    Idle,
    Abuse(Abuse),
    End,
}

/// A connection with its engine running.
struct Conversation {
    engine: h2::server::Connection<Stream, Bytes>,
    digest: Arc<Digest>,
    meter: Arc<Meter>,
    closing: ShutdownWatch,
    idle: Duration,
    /// The client was told that this connection takes no more requests.
    leaving: bool,
}

impl<A> Front<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// To the end of the connection.
    ///
    /// When the door closes or the client had its `max_requests_per_connection`,
    /// it is told to go, and what it began is served. A flood of frames is
    /// answered with GOAWAY (ENHANCE_YOUR_CALM) and the end.
    pub(super) async fn serve_http2(&self, connection: Box<Connection>) {
        let Some(mut conversation) = self.begin(connection).await else { return };
        let mut left = self.policy.limits.max_requests_per_connection.unwrap_or(u64::MAX);
        loop {
            match conversation.hear().await {
                Heard::Request(session) => {
                    self.answer(session, &conversation.meter);
                    left = left.saturating_sub(1);
                    if left == 0 {
                        conversation.leave();
                    }
                }
                Heard::Rejected => {}
                Heard::Closing => conversation.leave(),
                Heard::Idle => return conversation.end(Reason::NO_ERROR).await,
                Heard::Abuse(abuse) => {
                    self.events.http2_cut(&self.policy.entrypoint, abuse.label());
                    return conversation.end(Reason::ENHANCE_YOUR_CALM).await;
                }
                Heard::End => return,
            }
        }
    }

    async fn begin(&self, mut connection: Box<Connection>) -> Option<Conversation> {
        let (limits, timeouts) = (&self.policy.limits, &self.policy.timeouts);
        let meter = Arc::new(Meter::default());
        let guard = Guard::new(meter.clone(), limits, timeouts);
        connection.interpose(|transport, heard| Box::new(Guarded::new(transport, guard, heard)));
        let digest = Arc::new(Digest {
            ssl_digest: connection.get_ssl_digest(),
            timing_digest: connection.get_timing_digest(),
            proxy_digest: connection.get_proxy_digest(),
            socket_digest: connection.get_socket_digest(),
        });
        let shaken = timeout(timeouts.header, handshake(connection, Some(options(limits)))).await;
        let engine = shaken.ok()?.ok()?;
        let (closing, idle) = (self.closing.clone(), timeouts.idle);
        Some(Conversation { engine, digest, meter, closing, idle, leaving: false })
    }

    /// Detached: a request that loses its connection still has to be settled.
    fn answer(&self, session: HttpSession, meter: &Arc<Meter>) {
        let (app, closing, active) = (self.app.clone(), self.closing.clone(), meter.begin());
        tokio::spawn(async move {
            let _active = active;
            app.process_new_http(ServerSession::new_http2(session), &closing).await;
        });
    }
}

impl Conversation {
    async fn hear(&mut self) -> Heard {
        let patience = if self.leaving { LEAVING.min(self.idle) } else { self.idle };
        tokio::select! {
            biased;
            _ = self.closing.changed(), if !self.leaving => Heard::Closing,
            abuse = self.meter.until_cut() => Heard::Abuse(abuse),
            // Drives the whole connection; cancel safe.
            accepted = HttpSession::from_h2_conn(&mut self.engine, self.digest.clone()) => match accepted {
                Ok(Some(H2Accept::Session(session))) => Heard::Request(session),
                Ok(Some(H2Accept::Rejected)) => Heard::Rejected,
                Ok(None) | Err(_) => Heard::End,
            },
            () = self.meter.idle_for(patience) => Heard::Idle,
        }
    }

    fn leave(&mut self) {
        if !self.leaving {
            self.engine.graceful_shutdown();
            self.leaving = true;
        }
    }

    /// Cuts what is open, says why and closes.
    async fn end(mut self, reason: Reason) {
        self.engine.abrupt_shutdown(reason);
        // The client may not be listening.
        let _ = timeout(FAREWELL, async {
            while let Ok(Some(_)) = HttpSession::from_h2_conn(&mut self.engine, self.digest.clone()).await {}
        })
        .await;
    }
}

fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(limits.max_header.0).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(DATA_OVERHEAD)
        .max_send_buffer_size(SEND_BUFFER);
    options
}
