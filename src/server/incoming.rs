//! A client's TCP connection whose first bytes may be looked at before it is
//! decided who reads them.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// One look; the usual ClientHello has fewer bytes.
const STEP: usize = 2048;

pub(super) struct Incoming {
    tcp: TcpStream,
    /// Read, and not yet handed on.
    ahead: BytesMut,
}

impl Incoming {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: BytesMut::new() }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// What has been looked at. Whoever reads next gets it first.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Waits for more to look at; 0 at the end of the stream. Cancel safe.
    pub(super) async fn look(&mut self) -> io::Result<usize> {
        self.ahead.reserve(STEP);
        self.tcp.read_buf(&mut self.ahead).await
    }

    /// Takes bytes off what has been looked at: nobody else will read them.
    pub(super) fn drop_ahead(&mut self, bytes: usize) {
        self.ahead.advance(bytes.min(self.ahead.len()));
    }
}

impl AsRawFd for Incoming {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let part = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..part]);
        self.ahead.advance(part);
        if self.ahead.is_empty() {
            // Gives the memory back for the rest of the connection.
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
