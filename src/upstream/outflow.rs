//! A body on its way out over an HTTP/2 stream, as fast as the other side's flow
//! control lets it. Waiting for it does not keep the other direction from being read.

use std::future;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;

/// One piece at a time: a second one is taken only when the first is gone.
pub struct Outflow {
    stream: SendStream<Bytes>,
    pending: Bytes,
    ending: bool,
}

impl Outflow {
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, pending: Bytes::new(), ending: false }
    }

    /// Takes a piece, which may be empty; `last`: nothing follows. Only when not [`Self::busy`].
    pub fn put(&mut self, piece: Bytes, last: bool) {
        self.pending = piece;
        self.ending = last;
    }

    /// A piece waits for the other side to take it.
    pub fn busy(&self) -> bool {
        !self.pending.is_empty() || self.ending
    }

    /// Sends what waits. Cancel safe. Without a deadline of its own.
    pub async fn drain(&mut self) -> Result<(), h2::Error> {
        while !self.pending.is_empty() {
            let room = self.room().await?;
            let part = self.pending.split_to(room.min(self.pending.len()));
            let last = self.ending && self.pending.is_empty();
            self.ending &= !last;
            self.stream.send_data(part, last)?;
        }
        if std::mem::take(&mut self.ending) {
            self.stream.send_data(Bytes::new(), true)?;
        }
        Ok(())
    }

    /// How many bytes may go now; never 0.
    async fn room(&mut self) -> Result<usize, h2::Error> {
        self.stream.reserve_capacity(self.pending.len());
        loop {
            match self.stream.capacity() {
                0 => match future::poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                    Some(more) => drop(more?),
                    None => return Err(Reason::STREAM_CLOSED.into()),
                },
                room => return Ok(room),
            }
        }
    }

    /// Comes back when the other side gives up the stream. Cancel safe.
    pub async fn abandoned(&mut self) {
        let _ = future::poll_fn(|cx| self.stream.poll_reset(cx)).await;
    }

    /// The end, after everything was drained.
    pub fn finish(mut self, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
        match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        }
    }

    /// Tells the other side that what it has is not whole.
    pub fn tear(mut self) {
        self.stream.send_reset(Reason::INTERNAL_ERROR);
    }
}
