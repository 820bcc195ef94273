//! What a scripted provider answers, and how the bytes are cut and paced.

use std::{
    future, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::serve::{self, Body};

/// One answer of a script; cheap to clone.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    cut: Cut,
    end: End,
    hangs: bool,
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    /// One chunk per server-sent event, with a pause before each but the first.
    Events(Duration),
    /// One chunk per byte: every split a network can make.
    Bytes,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Complete,
    /// The connection breaks after that many chunks.
    Reset(usize),
    /// Nothing more comes after that many chunks.
    Hang(usize),
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            cut: Cut::Whole,
            end: End::Complete,
            hangs: false,
        }
    }

    /// Status 200 with these bytes.
    pub fn replay(body: impl Into<Bytes>, content_type: &str) -> Self {
        let mut answer = Self::status(200).header("content-type", content_type);
        answer.body = body.into();
        answer
    }

    /// A recorded event stream, one chunk per event.
    pub fn events(body: impl Into<Bytes>) -> Self {
        Self::replay(body, "text/event-stream; charset=utf-8").per_event(Duration::ZERO)
    }

    /// Never answers; the request stays open.
    pub fn hang() -> Self {
        Self { hangs: true, ..Self::status(200) }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn json(mut self, body: &serde_json::Value) -> Self {
        self.body = body.to_string().into();
        self.header("content-type", "application/json")
    }

    #[must_use]
    pub fn per_event(mut self, pause: Duration) -> Self {
        self.cut = Cut::Events(pause);
        self
    }

    #[must_use]
    pub fn byte_by_byte(mut self) -> Self {
        self.cut = Cut::Bytes;
        self
    }

    #[must_use]
    pub fn reset_after(mut self, chunks: usize) -> Self {
        self.end = End::Reset(chunks);
        self
    }

    #[must_use]
    pub fn hang_after(mut self, chunks: usize) -> Self {
        self.end = End::Hang(chunks);
        self
    }

    /// `cancelled` counts answers whose reader went away before their end.
    pub(crate) async fn into_response(self, cancelled: Arc<AtomicU64>) -> Response<Body> {
        let mut unread = Unread { cancelled, finished: false };
        if self.hangs {
            return future::pending().await;
        }
        let mut builder = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let body = if matches!((self.cut, self.end), (Cut::Whole, End::Complete)) {
            unread.finish();
            serve::whole(self.body)
        } else {
            paced(self.chunks(), self.pause(), self.end, unread)
        };
        builder.body(body).expect("a script has valid headers")
    }

    fn pause(&self) -> Duration {
        match self.cut {
            Cut::Events(pause) => pause,
            Cut::Whole | Cut::Bytes => Duration::ZERO,
        }
    }

    fn chunks(&self) -> Vec<Bytes> {
        match self.cut {
            Cut::Whole => vec![self.body.clone()],
            Cut::Bytes => (0..self.body.len()).map(|at| self.body.slice(at..=at)).collect(),
            Cut::Events(_) => events(&self.body),
        }
    }
}

/// Splits behind each blank line.
fn events(body: &Bytes) -> Vec<Bytes> {
    let mut rest = body.clone();
    let mut events = Vec::new();
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\n\n") {
        events.push(rest.split_to(at + 2));
    }
    if !rest.is_empty() {
        events.push(rest);
    }
    events
}

struct Unread {
    cancelled: Arc<AtomicU64>,
    finished: bool,
}

impl Unread {
    fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if !self.finished {
            self.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn paced(chunks: Vec<Bytes>, pause: Duration, end: End, unread: Unread) -> Body {
    let state = (0, chunks, unread);
    let stream = stream::unfold(state, move |(at, chunks, mut unread)| async move {
        match end {
            End::Reset(after) if at == after => {
                unread.finish();
                let error = io::Error::from(io::ErrorKind::ConnectionReset);
                return Some((Err(error), (usize::MAX, Vec::new(), unread)));
            }
            End::Hang(after) if at == after => future::pending::<()>().await,
            _ => {}
        }
        let Some(chunk) = chunks.get(at).cloned() else {
            unread.finish();
            return None;
        };
        if at > 0 && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        } else {
            // Lets the connection write this chunk by itself.
            tokio::task::yield_now().await;
        }
        Some((Ok(Frame::data(chunk)), (at + 1, chunks, unread)))
    });
    StreamBody::new(stream).boxed_unsync()
}
