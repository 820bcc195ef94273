//! Watches the frames of one connection in both directions, before the engine
//! sees what comes in, and tells when the client overdoes it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    budget::{Abuse, Budgets},
    frames::{
        CONTINUATION, DATA, FrameHead, Frames, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, Piece,
        RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
};
use crate::config::entrypoint::{Limits, Timeouts};

const PREFACE: usize = 24;
/// How long responses wait for a client's first window, at most.
const NO_WINDOW: Duration = Duration::from_secs(5);
/// What a frame carries at most, as long as we do not offer more.
const MAX_FRAME: u64 = 16 * 1024;
/// Frames of one header block beyond those that its bytes need.
const SPARE_FRAMES: u64 = 8;
/// A block of so many times the limit is cut; below that it is answered with 431.
const BLOCK_FACTOR: u64 = 4;
/// DATA frames below this do not earn anything: a client with a tiny window
/// makes us send them at will.
const WORTHWHILE: u32 = 5;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 0x4;

/// What the guard and the accept loop tell each other.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Header blocks that became requests.
    served: AtomicU32,
    active: AtomicU32,
    cut: OnceLock<Abuse>,
    cut_now: Notify,
    idle: Notify,
}

/// A request being served.
pub(super) struct Active(Arc<Meter>);

impl Meter {
    pub(super) fn begin(self: &Arc<Self>) -> Active {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(self.clone())
    }

    /// Asks the accept loop to end the connection. The first reason counts.
    pub(super) fn cut(&self, abuse: Abuse) {
        if self.cut.set(abuse).is_ok() {
            self.cut_now.notify_one();
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    /// Cancel safe.
    pub(super) async fn until_cut(&self) -> Abuse {
        loop {
            if let Some(abuse) = self.cut.get() {
                return *abuse;
            }
            self.cut_now.notified().await;
        }
    }

    /// No request has been served for `patience`. Starts anew when cancelled.
    pub(super) async fn idle_for(&self, patience: Duration) {
        while self.active.load(Ordering::Relaxed) > 0 {
            self.idle.notified().await;
        }
        tokio::time::sleep(patience).await;
    }

    fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}

#[derive(Debug)]
pub(super) struct Guard {
    meter: Arc<Meter>,
    incoming: Frames,
    outgoing: Frames,
    books: Books,
    /// Since when a block, or a frame other than DATA, is unfinished.
    unfinished: Option<Instant>,
    /// For everything that has to be finished.
    patience: Duration,
}

impl Guard {
    pub(super) fn new(meter: Arc<Meter>, limits: &Limits, timeouts: &Timeouts) -> Self {
        let now = Instant::now();
        Self {
            meter,
            incoming: Frames::after(PREFACE),
            outgoing: Frames::after(0),
            books: Books::new(limits.max_header.0, now),
            unfinished: Some(now),
            patience: timeouts.header,
        }
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What the client sent.
    ///
    /// # Errors
    /// When the connection has to be cut, before the engine sees `bytes`.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Abuse> {
        self.books.open(now, self.meter.served.load(Ordering::Relaxed));
        self.incoming.advance(bytes, |piece| self.books.received(&piece))?;
        if std::mem::take(&mut self.books.finished) {
            self.unfinished = None;
        }
        let unfinished = self.books.block.is_some()
            || !self.books.greeted
            || self.incoming.unfinished().is_some_and(|kind| kind != Some(DATA));
        self.unfinished = unfinished.then(|| self.unfinished.unwrap_or(now));
        Ok(())
    }

    /// What we sent.
    ///
    /// # Errors
    /// When the connection has to be cut.
    pub(super) fn send(&mut self, bytes: &[u8], now: Instant) -> Result<(), Abuse> {
        self.books.open(now, self.meter.served.load(Ordering::Relaxed));
        self.outgoing.advance(bytes, |piece| self.books.sent(&piece, now))
    }

    /// When the connection has to be cut if nothing happens until then.
    pub(super) fn deadline(&self) -> Option<(Instant, Abuse)> {
        let unfinished = self.unfinished.map(|since| {
            let abuse = if self.books.greeted { Abuse::Unfinished } else { Abuse::NoSettings };
            (since + self.patience, abuse)
        });
        let held = self.books.held.filter(|_| self.meter.is_active());
        let held = held.map(|since| (since + self.patience.min(NO_WINDOW), Abuse::NoWindow));
        unfinished.into_iter().chain(held).min_by_key(|(at, _)| *at)
    }
}

/// A header block whose end has not come.
#[derive(Debug, Default)]
struct Block {
    frames: u64,
    bytes: u64,
}

/// What the frames so far amount to.
#[derive(Debug)]
struct Books {
    budgets: Budgets,
    max_header: u64,
    block: Option<Block>,
    /// A frame came to its end, and with it any header block it belongs to.
    finished: bool,
    served: u32,
    /// The first SETTINGS came.
    greeted: bool,
    /// The part of a setting that has come so far.
    setting: [u8; 6],
    /// New streams may be sent nothing.
    no_window: bool,
    /// Since when responses are under way to a client without window.
    held: Option<Instant>,
}

impl Books {
    fn new(max_header: u64, now: Instant) -> Self {
        Self {
            budgets: Budgets::new(now),
            max_header,
            block: None,
            finished: false,
            served: 0,
            greeted: false,
            setting: [0; 6],
            no_window: false,
            held: None,
        }
    }

    fn open(&mut self, now: Instant, served: u32) {
        self.budgets.pass(now);
        self.budgets.served(served.wrapping_sub(self.served));
        self.served = served;
    }

    fn received(&mut self, piece: &Piece<'_>) -> Result<(), Abuse> {
        match *piece {
            Piece::Head(head) => self.received_head(head),
            Piece::Payload(head, offset, bytes) if head.kind == SETTINGS => {
                self.settings(offset, bytes);
                Ok(())
            }
            // Nothing but padding.
            Piece::Payload(head, 0, bytes)
                if head.kind == DATA
                    && head.is_padded()
                    && u32::from(bytes[0]) + 1 >= head.length
                    && !head.ends_stream() =>
            {
                self.budgets.spend(Abuse::EmptyData, 1.0)
            }
            Piece::Payload(..) => Ok(()),
            Piece::End(head) => {
                self.greeted |= head.kind == SETTINGS;
                self.finished |= self.greeted && self.block.is_none();
                Ok(())
            }
        }
    }

    fn received_head(&mut self, head: FrameHead) -> Result<(), Abuse> {
        let budgets = &mut self.budgets;
        match head.kind {
            DATA if head.length == 0 && !head.ends_stream() => budgets.spend(Abuse::EmptyData, 1.0),
            DATA => {
                budgets.received(head.length);
                Ok(())
            }
            HEADERS => {
                budgets.spend(Abuse::Unserved, 1.0)?;
                self.block(head)
            }
            CONTINUATION => {
                if head.length == 0 {
                    budgets.spend(Abuse::EmptyContinuation, 1.0)?;
                }
                self.block(head)
            }
            PRIORITY => budgets.spend(Abuse::Priority, 1.0),
            RST_STREAM => budgets.spend(Abuse::Reset, 1.0),
            SETTINGS => budgets.spend(Abuse::Settings, 1.0),
            PING => budgets.spend(Abuse::Ping, 1.0),
            GOAWAY => budgets.spend(Abuse::GoAway, 1.0),
            WINDOW_UPDATE => {
                if head.stream != 0 {
                    self.held = None;
                }
                budgets.spend(Abuse::WindowUpdate, 1.0)
            }
            PUSH_PROMISE.. => budgets.spend(Abuse::Unknown, 1.0),
        }
    }

    /// HEADERS or CONTINUATION.
    fn block(&mut self, head: FrameHead) -> Result<(), Abuse> {
        self.budgets.spend(Abuse::HeaderBytes, f64::from(head.length))?;
        let mut block = self.block.take().unwrap_or_default();
        block.frames += 1;
        block.bytes += u64::from(head.length);
        let bytes = self.max_header.saturating_mul(BLOCK_FACTOR);
        if block.bytes > bytes || block.frames > bytes / MAX_FRAME + SPARE_FRAMES {
            return Err(Abuse::HeaderBlock);
        }
        if !head.ends_block() {
            self.block = Some(block);
        }
        Ok(())
    }

    /// Finds the initial window among the settings (RFC 9113 section 6.5.1).
    fn settings(&mut self, offset: u32, bytes: &[u8]) {
        for (position, byte) in (offset as usize..).zip(bytes) {
            self.setting[position % 6] = *byte;
            let [a, b, value @ ..] = self.setting;
            if position % 6 == 5 && u16::from_be_bytes([a, b]) == SETTINGS_INITIAL_WINDOW_SIZE {
                self.no_window = u32::from_be_bytes(value) == 0;
                self.held = self.held.filter(|_| self.no_window);
            }
        }
    }

    fn sent(&mut self, piece: &Piece<'_>, now: Instant) -> Result<(), Abuse> {
        match *piece {
            Piece::Head(head) if head.kind == HEADERS => {
                self.budgets.responded();
                if self.no_window && !head.ends_stream() {
                    self.held.get_or_insert(now);
                }
                Ok(())
            }
            Piece::Head(FrameHead { kind: DATA, length, .. }) if length > 0 => {
                self.held = None;
                if length >= WORTHWHILE {
                    self.budgets.delivered(length);
                }
                Ok(())
            }
            // The last byte of the code: all codes are below 256.
            Piece::Payload(head, offset, bytes) if head.kind == RST_STREAM => {
                let last = 3_usize.checked_sub(offset as usize).and_then(|index| bytes.get(index));
                match last {
                    Some(code) if is_clients_error(*code) => self.budgets.spend(Abuse::Error, 1.0),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED and FRAME_SIZE_ERROR. The
/// others tell of our or an upstream's troubles; REFUSED_STREAM counts as
/// unserved.
fn is_clients_error(code: u8) -> bool {
    matches!(code, 0x1 | 0x3 | 0x5 | 0x6)
}

#[cfg(test)]
mod tests;
