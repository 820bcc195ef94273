//! The first bytes of a connection: looked at before anything is decided, and
//! kept until it is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A stream whose beginning can be read twice: reading gives what was peeked
/// first, and records everything until [`Opening::forget`].
#[derive(Debug)]
pub(super) struct Opening<S> {
    stream: S,
    /// Peeked and not read yet.
    ahead: BytesMut,
    /// All that has been read; `None` once it is forgotten.
    read: Option<BytesMut>,
}

impl<S> Opening<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new(), read: Some(BytesMut::new()) }
    }

    /// What follows will not be asked for again.
    pub(super) fn forget(&mut self) {
        self.read = None;
    }

    /// The bare stream, and everything that came by it until now: for who has
    /// to see the connection from its first byte.
    #[cfg_attr(not(test), expect(dead_code, reason = "connections that are passed on undecrypted need it"))]
    pub(super) fn into_parts(self) -> (S, BytesMut) {
        let mut all = self.read.unwrap_or_default();
        all.unsplit(self.ahead);
        (self.stream, all)
    }
}

impl<S: AsyncRead + Unpin> Opening<S> {
    /// The first bytes, at least one unless the stream has ended.
    pub(super) async fn peek(&mut self) -> io::Result<&[u8]> {
        if self.ahead.is_empty() {
            self.stream.read_buf(&mut self.ahead).await?;
        }
        Ok(&self.ahead)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let part = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..part]);
            this.ahead.advance(part);
        }
        if let Some(read) = &mut this.read {
            read.extend_from_slice(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_peeked_and_read_is_there_again() {
        let mut opening = Opening::new(&b"hello, world"[..]);
        assert_eq!(opening.peek().await.unwrap(), b"hello, world");
        let mut first = [0; 5];
        opening.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"hello");
        assert_eq!(&opening.into_parts().1[..], b"hello, world");
    }

    #[tokio::test]
    async fn what_is_forgotten_is_still_read() {
        let mut opening = Opening::new(&b"hello"[..]);
        opening.peek().await.unwrap();
        opening.forget();
        let mut text = String::new();
        opening.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        assert!(opening.into_parts().1.is_empty());
    }
}
