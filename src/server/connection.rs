//! One accepted connection as the HTTP engine sees it: bytes in and out with
//! small buffers, of each request exactly its own, and what is known about
//! where it came from.

use std::{
    fmt, io,
    os::fd::RawFd,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use bytes::{Buf, BytesMut};
use pingora::{
    http::ResponseHeader,
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
        TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use super::chunked::Chunked;
use crate::proxy::{Arrival, MalformedBody};

/// One read of the transport into our own buffer.
const READ_STEP: usize = 8 * 1024;
/// How much of the next request is taken off the socket while one is served.
const READ_AHEAD: usize = 16 * 1024;
/// Writes below this are collected: the engine writes head and body apart and
/// flushes when it means it.
const WRITE_BUFFER: usize = 4 * 1024;

/// How long, and for how many bytes, a client is listened to after our end is
/// closed: unread input would turn the close into a reset, which may overtake
/// the last answer (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const MOST_LINGERED: usize = 1 << 20;

/// A TCP or TLS stream.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

/// What of the incoming bytes may be handed to the engine.
#[derive(Debug)]
pub(super) enum Allowance {
    /// So many bytes; what follows belongs to the next request and stays here.
    Bytes(u64),
    /// The first `cleared` bytes of the buffer, then what `body` finds sound, up
    /// to its end.
    Chunked { cleared: usize, body: Chunked },
    /// So many bytes, and everything once the answer is 101.
    Upgrade(u64),
    /// Everything: another protocol has the connection.
    Open,
    /// Nothing: the body broke the rules.
    Broken(&'static str),
}

impl Allowance {
    /// The request has been handed on to its end.
    fn is_spent(&self) -> bool {
        match self {
            Self::Bytes(left) | Self::Upgrade(left) => *left == 0,
            Self::Chunked { cleared, body } => *cleared == 0 && body.is_complete(),
            Self::Open | Self::Broken(_) => false,
        }
    }
}

/// Implements pingora's stream traits. What a request owns is metered by
/// [`Allowance`], so that the engine never swallows the beginning of the next
/// one, which has to pass the front's checks first.
pub(super) struct Connection {
    transport: Box<dyn Transport>,
    id: RawFd,
    incoming: BytesMut,
    allowance: Allowance,
    /// Who waits for bytes that only an answer of 101 will let through.
    parked: Option<Waker>,
    outgoing: BytesMut,
    http2: bool,
    established: SystemTime,
    about: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
    ssl: Option<Arc<SslDigest>>,
}

impl Connection {
    /// `http2` as agreed by ALPN.
    pub(super) fn new(
        transport: Box<dyn Transport>,
        id: RawFd,
        arrival: Arrival,
        http2: bool,
    ) -> io::Result<Self> {
        let ssl = arrival
            .tls
            .as_ref()
            .map(|tls| Arc::new(SslDigest::new(tls.cipher, tls.version, None, None, vec![])));
        let socket = SocketDigest::from_raw_fd(id);
        // Known already: saves the engine two system calls for each connection.
        let _ = socket.peer_addr.set(Some(arrival.peer.into()));
        let _ = socket.local_addr.set(Some(arrival.local.into()));
        // The proxy digest is the one member of pingora's digest that carries
        // data of ours and can be made outside of it; the response is unused.
        let unused = ResponseHeader::build_no_case(200, None).map_err(io::Error::other)?;
        Ok(Self {
            transport,
            id,
            incoming: BytesMut::new(),
            allowance: Allowance::Open,
            parked: None,
            outgoing: BytesMut::new(),
            http2,
            established: SystemTime::now(),
            about: Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(arrival)))),
            socket: Arc::new(socket),
            ssl,
        })
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    /// The client spoke the HTTP/2 preface on a plaintext connection.
    pub(super) fn speak_http2(&mut self) {
        self.http2 = true;
    }

    /// Puts what `wrap` makes of it in the place of the transport. It is told
    /// which bytes were read already.
    pub(super) fn interpose(&mut self, wrap: impl FnOnce(Box<dyn Transport>, &[u8]) -> Box<dyn Transport>) {
        let bare = std::mem::replace(&mut self.transport, Box::new(tokio::io::empty()));
        self.transport = wrap(bare, &self.incoming);
    }

    /// Bytes that were read and not yet handed on.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.incoming
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.incoming.advance(bytes);
    }

    pub(super) fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
    }

    /// The head of so many bytes at the start of the buffer, and a chunked body.
    ///
    /// # Errors
    /// What is wrong with the part of the body that is here already.
    pub(super) fn allow_chunked(&mut self, head: usize) -> Result<(), &'static str> {
        let mut body = Chunked::default();
        let sound = body.advance(&self.incoming[head..])?;
        self.allowance = Allowance::Chunked { cleared: head + sound, body };
        Ok(())
    }

    /// The engine left bytes of the request unread.
    pub(super) fn has_unread_request(&self) -> bool {
        !self.allowance.is_spent() && !matches!(self.allowance, Allowance::Open)
    }

    /// Closes our side, then listens a little to a client that may still be
    /// talking, so that it can read what it was told.
    pub(super) async fn close(&mut self) {
        let talking = self.has_unread_request() || !self.incoming.is_empty();
        let _ = timeout(LINGER, async {
            AsyncWriteExt::shutdown(self).await?;
            let mut left = if talking { MOST_LINGERED } else { 0 };
            while left > 0 && self.fill().await? > 0 {
                left = left.saturating_sub(self.incoming.len());
                self.incoming.clear();
            }
            io::Result::Ok(())
        })
        .await;
    }

    /// Gives back the buffers of a connection that waits for its next request.
    pub(super) fn rest(&mut self) {
        if self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
        if self.outgoing.is_empty() {
            self.outgoing = BytesMut::new();
        }
    }

    /// Reads more into the buffer; 0 at the end of the stream. Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Into spare capacity: this is polled several times a request, and
        // zeroing the space each time would cost more than the read.
        self.incoming.reserve(READ_STEP);
        let read = pin!(self.transport.read_buf(&mut self.incoming));
        read.poll(cx)
    }

    /// The request is read to its end: only the client's leaving is news.
    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.incoming.len() < READ_AHEAD {
            if ready!(self.poll_fill(cx))? == 0 {
                break;
            }
        }
        // With a request in the buffer the end of the stream says only that no
        // further one comes; the answers are still wanted.
        if self.incoming.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if matches!(self.allowance, Allowance::Upgrade(_)) {
            self.parked = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A piece of a chunked body that is not handed on to its end.
    fn poll_chunked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Allowance::Chunked { cleared, body } = &mut self.allowance else { return Poll::Ready(Ok(())) };
        if *cleared > 0 {
            let part = (*cleared).min(buf.remaining());
            buf.put_slice(&self.incoming[..part]);
            self.incoming.advance(part);
            *cleared -= part;
            return Poll::Ready(Ok(()));
        }
        // With nothing cleared and the end not found, nothing is buffered.
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        let fresh = &buf.filled()[before..];
        match body.advance(fresh) {
            Ok(sound) => {
                self.incoming.extend_from_slice(&fresh[sound..]);
                buf.set_filled(before + sound);
                Poll::Ready(Ok(()))
            }
            Err(reason) => {
                buf.set_filled(before);
                self.allowance = Allowance::Broken(reason);
                Poll::Ready(Err(malformed(reason)))
            }
        }
    }

    /// What of a request that may become an upgrade depends on the answer. The
    /// engine writes a head by itself, before anything of a body.
    fn note_answer(&mut self, data: &[u8]) {
        let Allowance::Upgrade(left) = self.allowance else { return };
        match data.strip_prefix(b"HTTP/1.1 ") {
            Some([b'1', b'0', b'1', ..]) => self.allowance = Allowance::Open,
            Some([b'1', ..]) | None => return,
            Some(_) => self.allowance = Allowance::Bytes(left),
        }
        if let Some(waker) = self.parked.take() {
            waker.wake();
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.allowance.is_spent() {
            return this.poll_leaving(cx);
        }
        let allowed = match this.allowance {
            Allowance::Bytes(left) | Allowance::Upgrade(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Allowance::Chunked { .. } => return this.poll_chunked(cx, buf),
            Allowance::Broken(reason) => return Poll::Ready(Err(malformed(reason))),
            Allowance::Open => usize::MAX,
        };
        if this.incoming.is_empty() {
            if allowed >= buf.remaining() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
                this.use_up(buf.filled().len() - before);
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx))?;
        }
        let part = this.incoming.len().min(allowed).min(buf.remaining());
        buf.put_slice(&this.incoming[..part]);
        this.incoming.advance(part);
        this.use_up(part);
        Poll::Ready(Ok(()))
    }
}

impl Connection {
    fn use_up(&mut self, bytes: usize) {
        if let Allowance::Bytes(left) | Allowance::Upgrade(left) = &mut self.allowance {
            *left = left.saturating_sub(bytes as u64);
        }
    }
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, MalformedBody(reason))
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.note_answer(data);
        if self.outgoing.len() + data.len() > WRITE_BUFFER {
            ready!(self.poll_drain(cx))?;
        }
        if data.len() >= WRITE_BUFFER {
            return Pin::new(&mut self.transport).poll_write(cx, data);
        }
        self.outgoing.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("about", &self.about.user_data)
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for Connection {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.ssl.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.established, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.about.clone())
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl Peek for Connection {}
