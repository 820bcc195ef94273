//! A transport under a [`Guard`]'s eyes, with deadlines for what the engine
//! would wait for without end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{budget::Abuse, guard::Guard};
use crate::server::connection::Transport;

/// A client that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client that was told to go may take to hear it.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it sends meanwhile is read: who does not listen shall not
/// go on for long.
const UNHEARD: usize = 4 * 1024;

pub(super) struct Guarded {
    transport: Box<dyn Transport>,
    guard: Guard,
    /// Armed for [`Guard::deadline`].
    watch: Option<Pin<Box<Sleep>>>,
    /// Armed while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Armed once our side is closed.
    lingering: Option<Pin<Box<Sleep>>>,
    unheard: usize,
}

impl Guarded {
    /// `heard`: what was read of the connection already and the engine will see.
    pub(super) fn new(transport: Box<dyn Transport>, guard: Guard, heard: &[u8]) -> Self {
        let mut guarded = Self { transport, guard, watch: None, stalled: None, lingering: None, unheard: 0 };
        if let Err(abuse) = guarded.guard.receive(heard, Instant::now()) {
            guarded.cut(abuse);
        }
        guarded
    }

    fn cut(&self, abuse: Abuse) {
        self.guard.meter().cut(abuse);
    }

    /// Wakes the task when the guard's deadline comes, and acts on it then.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) {
        let Some((at, abuse)) = self.guard.deadline() else { return };
        let watch = self.watch.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if watch.deadline() != at {
            watch.as_mut().reset(at);
        }
        if watch.as_mut().poll(cx).is_ready() {
            self.cut(abuse);
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        stalled.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Closing with unread input resets the connection, and the client would
    /// never read why: listens a little.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if lingering.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut space = [0; UNHEARD];
        while self.unheard < UNHEARD {
            let mut unheard = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.transport).poll_read(cx, &mut unheard)) {
                Ok(()) if !unheard.filled().is_empty() => self.unheard += unheard.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.guard.meter().is_cut() {
            // The accept loop was woken and ends it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.transport).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) => {
                if let Err(abuse) = this.guard.receive(&buf.filled()[before..], Instant::now()) {
                    buf.set_filled(before);
                    this.cut(abuse);
                    return Poll::Pending;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.poll_deadline(cx),
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match Pin::new(&mut this.transport).poll_write(cx, data) {
            Poll::Ready(Ok(written)) => {
                this.stalled = None;
                if let Err(abuse) = this.guard.send(&data[..written], Instant::now()) {
                    this.cut(abuse);
                }
                this.poll_deadline(cx);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_stalled(cx).map(Err),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.transport).poll_flush(cx) {
            Poll::Ready(flushed) => {
                this.stalled = None;
                Poll::Ready(flushed)
            }
            Poll::Pending => this.poll_stalled(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.transport).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}
