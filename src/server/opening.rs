//! A stream whose first bytes are looked at before anything is decided.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Room for a ClientHello with a post-quantum key share.
const FIRST_READ: usize = 4 * 1024;

/// What was peeked is read again.
#[derive(Debug)]
pub(super) struct Opening<S> {
    stream: S,
    peeked: BytesMut,
}

impl<S: AsyncRead + Unpin> Opening<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, peeked: BytesMut::new() }
    }

    /// The first bytes, at least one unless the stream has ended.
    pub(super) async fn peek(&mut self) -> io::Result<&[u8]> {
        if self.peeked.is_empty() {
            self.peeked.reserve(FIRST_READ);
            self.stream.read_buf(&mut self.peeked).await?;
        }
        Ok(&self.peeked)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.peeked.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let part = self.peeked.len().min(buf.remaining());
        buf.put_slice(&self.peeked[..part]);
        self.peeked.advance(part);
        if self.peeked.is_empty() {
            // The connection may live long; its first bytes need not.
            self.peeked = BytesMut::new();
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
    async fn what_was_peeked_is_read_again() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut opening = Opening::new(ours);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"hello").await.unwrap();
        assert_eq!(opening.peek().await.unwrap(), b"hello");
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b", world").await.unwrap();
        drop(theirs);
        let mut text = String::new();
        opening.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello, world");
    }
}
