//! One connection passed on as bytes, both ways at once, to the end of both.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::{Instant, sleep_until},
};

use super::{FrontEvents, streams::Way};
use crate::{
    proxy::Arrival,
    telemetry::{StreamFailure, StreamMetrics, StreamRecord},
};

/// A connection that a stream has taken. Leaves its record when dropped, so
/// also when the door that it came in by cuts it.
pub(super) struct Passage {
    way: Arc<Way>,
    events: Arc<dyn FrontEvents>,
    arrival: Arrival,
    /// Whether a ClientHello was seen, and the name in it.
    tls: bool,
    sni: Option<String>,
    received: SystemTime,
    target: Option<Arc<str>>,
    tally: Arc<Tally>,
    /// How it ended; none before it has.
    ended: Option<Result<(), StreamFailure>>,
}

/// What went through, and when the last of it did.
struct Tally {
    started: Instant,
    /// Milliseconds after the start.
    last: AtomicU64,
    from_client: AtomicU64,
    from_target: AtomicU64,
    metrics: Option<Arc<StreamMetrics>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Target,
}

impl Passage {
    pub(super) fn new(
        way: Arc<Way>,
        events: Arc<dyn FrontEvents>,
        arrival: Arrival,
        tls: bool,
        sni: Option<String>,
    ) -> Self {
        if let Some(metrics) = &way.metrics {
            metrics.opened();
        }
        let tally = Arc::new(Tally {
            started: Instant::now(),
            last: AtomicU64::new(0),
            from_client: AtomicU64::new(0),
            from_target: AtomicU64::new(0),
            metrics: way.metrics.clone(),
        });
        let received = SystemTime::now();
        Self { way, events, arrival, tls, sni, received, target: None, tally, ended: None }
    }

    /// To the end of the connection.
    pub(super) async fn run<C>(mut self, client: C)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let ended = self.carry(client).await;
        if let (Err(failure), Some(metrics)) = (ended, &self.way.metrics) {
            metrics.failed(failure);
        }
        self.ended = Some(ended);
    }

    async fn carry<C>(&mut self, client: C) -> Result<(), StreamFailure>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let dialled = self.way.cluster.dial(self.arrival.peer, self.arrival.local).await;
        let failed = dialled.as_ref().map_or_else(|tried| *tried, |dialled| dialled.failed);
        if let Some(metrics) = &self.way.metrics {
            metrics.targets_failed(failed as u64);
        }
        let dialled = dialled.map_err(|_| StreamFailure::UpstreamConnect)?;
        self.target = Some(dialled.target);
        let mut client = Tallied { stream: client, side: Side::Client, tally: self.tally.clone() };
        let mut target = Tallied { stream: dialled.stream, side: Side::Target, tally: self.tally.clone() };
        let mut copying = pin!(copy_bidirectional(&mut client, &mut target));
        let idle = self.way.cluster.service().idle;
        loop {
            let until = self.tally.last() + idle;
            tokio::select! {
                biased;
                copied = &mut copying => return copied.map(drop).map_err(|_| StreamFailure::Broken),
                () = sleep_until(until) => if self.tally.last() + idle <= Instant::now() {
                    return Err(StreamFailure::Idle);
                },
            }
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let metrics = self.way.metrics.as_deref();
        if let Some(metrics) = metrics {
            metrics.closed();
        }
        let failure = match self.ended {
            Some(ended) => ended.err(),
            None => {
                if let Some(metrics) = metrics {
                    metrics.failed(StreamFailure::Cut);
                }
                Some(StreamFailure::Cut)
            }
        };
        self.events.stream_ended(&StreamRecord {
            ts: self.received,
            entrypoint: &self.arrival.entrypoint,
            client: self.arrival.peer.ip().to_canonical(),
            protocol: if self.tls { "TLS" } else { "TCP" },
            sni: self.sni.as_deref(),
            stream: &self.way.stream,
            service: self.way.cluster.name().as_str(),
            target: self.target.as_deref(),
            request_bytes: self.tally.from_client.load(Ordering::Relaxed),
            response_bytes: self.tally.from_target.load(Ordering::Relaxed),
            duration: self.tally.started.elapsed(),
            tls_version: self.arrival.tls.as_ref().map(|tls| tls.version),
            fault: failure.map(StreamFailure::label),
        });
    }
}

impl Tally {
    fn add(&self, side: Side, bytes: u64) {
        let counter = if side == Side::Client { &self.from_client } else { &self.from_target };
        counter.fetch_add(bytes, Ordering::Relaxed);
        match (&self.metrics, side) {
            (Some(metrics), Side::Client) => metrics.received(bytes),
            (Some(metrics), Side::Target) => metrics.sent(bytes),
            (None, _) => {}
        }
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.started + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// Counts what is read from one side.
struct Tallied<S> {
    stream: S,
    side: Side,
    tally: Arc<Tally>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tallied<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            self.tally.add(self.side, read as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tallied<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
