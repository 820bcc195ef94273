//! What one instance may use: memory, tables, computing time, log lines.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use wasmtime::ResourceLimiter;

/// Elements of all tables of an instance.
const TABLE_ELEMENTS: usize = 20_000;
const LOG_LINES_PER_SECOND: u32 = 100;

/// Caps linear memory over all memories of an instance.
pub(super) struct MemoryLimit {
    limit: usize,
    used: usize,
    /// Set once growth was refused: a trap after it means out of memory.
    pub(super) refused: bool,
}

impl MemoryLimit {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), used: 0, refused: false }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used + desired.saturating_sub(current);
        self.refused |= used > self.limit;
        if used > self.limit {
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        32
    }

    fn memories(&self) -> usize {
        8
    }

    fn tables(&self) -> usize {
        16
    }
}

/// How long a call has computed. Time spent waiting for the host or for other
/// tasks does not count: it is measured around each poll of the call.
pub(super) struct Meter {
    start: Instant,
    /// All in nanoseconds; written and read by the task that runs the call only.
    used: AtomicU64,
    entered: AtomicU64,
    limit: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { start: Instant::now(), used: zero(), entered: zero(), limit: zero() }
    }

    /// Runs a call that may compute for `limit`.
    pub(super) async fn run<T>(&self, limit: Duration, call: impl Future<Output = T>) -> T {
        self.used.store(0, Ordering::Relaxed);
        self.limit.store(nanoseconds(limit), Ordering::Relaxed);
        let mut call = pin!(call);
        poll_fn(|context| {
            self.entered.store(self.now(), Ordering::Relaxed);
            let poll = call.as_mut().poll(context);
            self.used.fetch_add(self.since_entered(), Ordering::Relaxed);
            poll
        })
        .await
    }

    /// Asked by the running call, from within a poll.
    pub(super) fn is_exhausted(&self) -> bool {
        self.used.load(Ordering::Relaxed) + self.since_entered() > self.limit.load(Ordering::Relaxed)
    }

    /// What the call that ended last has computed.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    fn since_entered(&self) -> u64 {
        self.now().saturating_sub(self.entered.load(Ordering::Relaxed))
    }

    fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// At most so many log lines a second from all instances of a version.
pub(super) struct LogLimit(Mutex<Window>);

struct Window {
    started: Instant,
    lines: u32,
}

impl LogLimit {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Window { started: Instant::now(), lines: 0 }))
    }

    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut window = self.0.lock();
        if now.duration_since(window.started) >= Duration::from_secs(1) {
            *window = Window { started: now, lines: 0 };
        }
        window.lines += 1;
        window.lines <= LOG_LINES_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_beyond_the_cap_wait_for_the_next_second() {
        let limit = LogLimit::new();
        let now = Instant::now();
        let allowed = (0..200).filter(|_| limit.allows(now)).count();
        assert_eq!(allowed, 100);
        assert!(limit.allows(now + Duration::from_secs(1)));
    }

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(!limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.refused);
        assert!(limit.memory_growing(60, 100, None).unwrap());
    }
}
