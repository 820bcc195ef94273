//! Access records as JSON lines, written by a thread of their own so that a
//! slow reader of the log never slows a request.

use std::{
    cell::RefCell,
    io::{self, Write},
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use serde::Serialize;

use super::{AccessRecord, Metrics, StreamRecord};

/// Bytes that wait for the writer; a record that does not fit is dropped and
/// counted in `tollgate_access_log_dropped_total`. About 10,000 records.
const MOST_WAITING: usize = 4 << 20;

/// How long the writer gathers lines before it writes them: waking it for each
/// costs more than the line itself.
const GATHER: Duration = Duration::from_millis(5);

/// One per process. The writer ends, after all that is queued, when this is dropped.
pub struct AccessLog {
    shared: Arc<Shared>,
    dropped: IntCounter,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    drained: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Whole lines. The writer takes all of them at once, which batches the
    /// more the slower it is.
    waiting: Vec<u8>,
    writing: bool,
    /// Somebody waits for what is queued.
    hurried: bool,
    closed: bool,
}

impl AccessLog {
    pub fn stdout(metrics: &Metrics) -> Self {
        Self::to(io::stdout(), metrics)
    }

    pub fn to(writer: impl Write + Send + 'static, metrics: &Metrics) -> Self {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), drained: Condvar::new() });
        let (log, dropped) = (shared.clone(), metrics.access_log_dropped());
        let failed = dropped.clone();
        let started =
            thread::Builder::new().name("access-log".to_owned()).spawn(move || log.run(writer, &failed));
        if let Err(error) = started {
            tracing::error!(%error, "no thread for the access log; every record will be dropped");
            shared.queue.lock().closed = true;
        }
        Self { shared, dropped }
    }

    /// Queues a record, or drops and counts it when the queue is full. Never
    /// waits for the writer; takes a lock for the copy of one line.
    pub fn write(&self, record: &AccessRecord<'_>) {
        self.write_line(record);
    }

    /// The same for a connection that was passed on.
    pub fn write_stream(&self, record: &StreamRecord<'_>) {
        self.write_line(record);
    }

    fn write_line(&self, record: &impl Serialize) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            // A record holds only what JSON can express, so this cannot fail.
            if serde_json::to_writer(&mut *line, record).is_ok() {
                line.push(b'\n');
                self.push(line);
            }
        });
    }

    /// Waits until everything queued so far is written, at most so long; false
    /// if that was not enough. Blocks the thread: for the end of the process.
    pub fn flush(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut queue = self.shared.queue.lock();
        while queue.writing || !queue.waiting.is_empty() {
            queue.hurried = true;
            self.shared.filled.notify_one();
            if self.shared.drained.wait_until(&mut queue, deadline).timed_out() {
                return !queue.writing && queue.waiting.is_empty();
            }
        }
        true
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.shared.queue.lock();
        if queue.closed || queue.waiting.len() + line.len() > MOST_WAITING {
            drop(queue);
            self.dropped.inc();
            return;
        }
        let was_empty = queue.waiting.is_empty();
        queue.waiting.extend_from_slice(line);
        drop(queue);
        // Otherwise the writer is awake, and comes for all of it.
        if was_empty {
            self.shared.filled.notify_one();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_one();
    }
}

impl Shared {
    fn run(&self, mut writer: impl Write, failed: &IntCounter) {
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            if let Err(error) = writer.write_all(&batch).and_then(|()| writer.flush()) {
                let lines = memchr::memchr_iter(b'\n', &batch).count();
                failed.inc_by(u64::try_from(lines).unwrap_or(u64::MAX));
                tracing::warn!(%error, lines, "access records not written");
            }
            batch.clear();
            self.queue.lock().writing = false;
            self.drained.notify_all();
        }
    }

    /// Swaps the waiting lines into the empty batch; false when closed and empty.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return false;
            }
            self.filled.wait(&mut queue);
        }
        let until = Instant::now() + GATHER;
        while !queue.closed && !queue.hurried && !self.filled.wait_until(&mut queue, until).timed_out() {}
        queue.hurried = false;
        mem::swap(&mut queue.waiting, batch);
        queue.writing = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;
    use crate::telemetry::access_record::tests::record;

    const LONG: Duration = Duration::from_secs(30);

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Tells that a write has begun, then waits to be let go.
    struct Gate(SyncSender<()>, Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(()).ok();
            self.1.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_are_whole_lines_in_order() {
        let (sink, metrics) = (Sink::default(), Metrics::new());
        let log = AccessLog::to(sink.clone(), &metrics);
        for n in 0..1_000 {
            log.write(&record(&n.to_string()));
        }
        assert!(log.flush(LONG));
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        let ids = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let ids: Vec<String> = ids.map(|line| line["request_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_stuck_writer_costs_records_not_time() {
        let ((began, begun), (go, gate)) = (sync_channel(1), sync_channel(0));
        let metrics = Metrics::new();
        let log = AccessLog::to(Gate(began, gate), &metrics);
        log.write(&record("first"));
        begun.recv().unwrap();
        let big = "x".repeat(MOST_WAITING / 4);
        for _ in 0..5 {
            log.write(&record(&big));
        }
        assert!(!log.flush(Duration::from_millis(1)));
        // Three fit; a fourth would go over the bound by its other fields.
        assert!(metrics.render().contains("tollgate_access_log_dropped_total 2"), "{}", metrics.render());
        drop(go);
        assert!(log.flush(LONG));
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let metrics = Metrics::new();
        let log = AccessLog::to(Broken, &metrics);
        log.write(&record("lost"));
        assert!(log.flush(LONG));
        assert!(metrics.render().contains("tollgate_access_log_dropped_total 1"));
    }
}
