//! Serves one connection: handshake, head checks, then request after request to
//! the HTTP engine.

use std::{io, net::SocketAddr, ops::ControlFlow, sync::Arc, time::Duration};

use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp},
    protocols::http::ServerSession,
    server::ShutdownWatch,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    FrontEvents,
    connection::{Allowance, Connection},
    greeting::Greeted,
    head::{self, Framing, Scan},
    refusal::Refusal,
    streams::StreamTable,
    ticket::Ticket,
    tls::TlsPolicy,
};
use crate::config::{
    Networks,
    entrypoint::{Limits, Timeouts},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The part of the preface that has the form of a request head.
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// A client that takes nothing for so long is gone. One write, not a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a refused client may take to take the answer.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a closing door waits for the next request on a connection that was
/// told it may be used again: that one is answered with `Connection: close`
/// instead of with a connection that is gone.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What new connections of an entrypoint get; replaced whole on reload.
pub(super) struct Policy {
    pub(super) entrypoint: Arc<str>,
    pub(super) tls: Option<TlsPolicy>,
    /// Whose connections begin with a PROXY protocol header.
    pub(super) proxy_protocol: Networks,
    pub(super) streams: Option<StreamTable>,
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
}

/// One connection's share of the door.
pub(super) struct Front<A> {
    pub(super) app: Arc<A>,
    pub(super) events: Arc<dyn FrontEvents>,
    pub(super) policy: Arc<Policy>,
    pub(super) closing: ShutdownWatch,
    /// Held to the end of the connection.
    pub(super) ticket: Ticket,
}

/// What the wait for a head ended with.
enum Heard {
    /// A checked head of so many bytes lies in the buffer.
    Request(usize, Framing),
    Http2,
    Refused(Refusal),
    /// The client is gone, idle for too long, or the door closes.
    Nothing,
}

impl<A> Front<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// To the end of the connection. Never fails: there is nobody to tell.
    pub(super) async fn serve(mut self, tcp: TcpStream, peer: SocketAddr) {
        let mut connection = match self.greet(tcp, peer).await {
            None => return,
            Some(Greeted::Stream(passage, client)) => return Box::pin(passage.run(client)).await,
            Some(Greeted::Http(connection)) => Box::new(connection),
        };
        if connection.is_http2() {
            // The engine waits for the preface without a deadline.
            let preface = timeout(self.policy.timeouts.header, await_preface(&mut connection));
            if matches!(preface.await, Ok(Ok(()))) {
                self.serve_http2(connection).await;
            }
            return;
        }
        self.serve_http1(connection).await;
    }

    async fn serve_http1(&mut self, mut connection: Box<Connection>) {
        let mut carried = None;
        let mut served: u64 = 0;
        loop {
            match self.hear(&mut connection, served == 0).await {
                Heard::Request(head, framing) => {
                    if let Err(refusal) = admit(&mut connection, head, framing) {
                        return self.refuse(&mut connection, refusal).await;
                    }
                }
                Heard::Http2 => {
                    connection.speak_http2();
                    return self.serve_http2(connection).await;
                }
                Heard::Refused(refusal) => return self.refuse(&mut connection, refusal).await,
                Heard::Nothing => {
                    connection.close().await;
                    return;
                }
            }
            served += 1;
            let last = self.policy.limits.max_requests_per_connection.is_some_and(|most| served >= most);
            let Some((next, settings)) = self.request(connection, carried, last).await else { return };
            (connection, carried) = (next, settings);
            connection.rest();
        }
    }

    /// One request through the engine; the connection comes back if it can
    /// carry another. The `last` one is answered with `Connection: close`.
    async fn request(
        &self,
        connection: Box<Connection>,
        carried: Option<HttpPersistentSettings>,
        last: bool,
    ) -> Option<(Box<Connection>, Option<HttpPersistentSettings>)> {
        let mut session = ServerSession::new_http1(connection);
        if let Some(settings) = carried {
            settings.apply_to_session(&mut session);
        }
        session.set_write_timeout(Some(WRITE_TIMEOUT));
        if last || *self.closing.borrow() {
            session.set_keepalive_reuses_remaining(Some(0));
        }
        let (stream, settings) = self.app.process_new_http(session, &self.closing).await?.consume();
        let mut connection = stream.into_any().downcast::<Connection>().ok()?;
        // A body that nobody read to its end would be taken for the next head.
        if connection.has_unread_request() {
            connection.close().await;
            return None;
        }
        Some((connection, settings))
    }

    /// Waits for the next head: `idle` for its first byte (`header` on a new
    /// connection), then `header` for the rest of it.
    async fn hear(&mut self, connection: &mut Connection, first: bool) -> Heard {
        let timeouts = &self.policy.timeouts;
        if connection.buffered().is_empty() {
            let patience = if first { timeouts.header } else { timeouts.idle };
            tokio::select! {
                biased;
                () = closed(&mut self.closing) => return Heard::Nothing,
                filled = timeout(patience, connection.fill()) => match filled {
                    Ok(Ok(read)) if read > 0 => {}
                    _ => return Heard::Nothing,
                },
            }
        }
        let deadline = Instant::now() + timeouts.header;
        let max = usize::try_from(self.policy.limits.max_header.0).unwrap_or(usize::MAX);
        match timeout_at(deadline, read_head(connection, max)).await {
            Err(_) => Heard::Refused(Refusal::TOO_SLOW),
            Ok(Err(_)) => Heard::Nothing,
            Ok(Ok(Err(refusal))) => Heard::Refused(refusal),
            Ok(Ok(Ok(length))) => judge(&connection.buffered()[..length], first),
        }
    }

    async fn refuse(&self, connection: &mut Connection, refusal: Refusal) {
        self.events.refused(&self.policy.entrypoint, refusal.status);
        let told = timeout(LAST_WORDS, connection.write_all(&refusal.answer())).await;
        if matches!(told, Ok(Ok(()))) {
            // What is still coming was never allowed: it is listened to, not read.
            connection.allow(Allowance::Broken(refusal.detail));
            connection.close().await;
        }
    }
}

/// The door has been closing for [`LAST_REQUEST`].
async fn closed(closing: &mut ShutdownWatch) {
    // An error is a door that is gone.
    let _ = closing.wait_for(|closing| *closing).await;
    sleep(LAST_REQUEST).await;
}

/// Lets the engine have the request whose head lies at the start of the buffer.
fn admit(connection: &mut Connection, head: usize, framing: Framing) -> Result<(), Refusal> {
    let with_head = |body: u64| body.saturating_add(head as u64);
    match framing {
        Framing::Length(body) => connection.allow(Allowance::Bytes(with_head(body))),
        Framing::Upgrade(body) => connection.allow(Allowance::Upgrade(with_head(body))),
        Framing::Chunked => connection.allow_chunked(head).map_err(Refusal::bad)?,
    }
    Ok(())
}

fn judge(bytes: &[u8], first: bool) -> Heard {
    if first && bytes == PREFACE_HEAD {
        return Heard::Http2;
    }
    if first && !is_http(bytes) {
        return Heard::Nothing;
    }
    match head::check(bytes) {
        Ok(framing) => Heard::Request(bytes.len(), framing),
        Err(refusal) => Heard::Refused(refusal),
    }
}

/// `false` for three words and no more of which the last names no version: such
/// as a broken HTTP/2 preface, whose sender would take an HTTP/1 answer for frames.
fn is_http(head: &[u8]) -> bool {
    let words: Vec<_> = head.trim_ascii_end().splitn(4, |byte| matches!(byte, b' ' | b'\n')).collect();
    !matches!(words[..], [_, _, last] if last.iter().all(u8::is_ascii_uppercase) && !last.starts_with(b"HTTP"))
}

/// The length of a complete head at the start of the buffer. Empty lines
/// before it are dropped (RFC 9112 section 2.2).
async fn read_head(connection: &mut Connection, max: usize) -> io::Result<Result<usize, Refusal>> {
    let mut scan = Scan::default();
    loop {
        while connection.buffered().starts_with(b"\r\n") {
            connection.skip(2);
        }
        if let ControlFlow::Break(verdict) = look(&mut scan, connection.buffered(), max) {
            return Ok(verdict);
        }
        if connection.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn look(scan: &mut Scan, bytes: &[u8], max: usize) -> ControlFlow<Result<usize, Refusal>> {
    // Half an empty line; scanning it would set the marks in the wrong place.
    if bytes == b"\r" {
        return ControlFlow::Continue(());
    }
    match scan.advance(bytes) {
        Ok(Some(length)) if length <= max => ControlFlow::Break(Ok(length)),
        Ok(Some(_)) => ControlFlow::Break(Err(scan.too_large(max))),
        Ok(None) if bytes.len() > max => ControlFlow::Break(Err(scan.too_large(max))),
        Ok(None) => ControlFlow::Continue(()),
        Err(refusal) => ControlFlow::Break(Err(refusal)),
    }
}

async fn await_preface(connection: &mut Connection) -> io::Result<()> {
    while connection.buffered().len() < PREFACE.len() {
        if connection.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    // Anything else is left to the engine, which answers with GOAWAY.
    Ok(())
}
