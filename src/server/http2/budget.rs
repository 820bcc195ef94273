//! What a connection may do without work to show for it: one allowance for each
//! kind of frame that costs us more than its sender.

use tokio::time::Instant;

/// Why a connection was cut: an allowance is used up, or a deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abuse {
    Settings,
    Ping,
    WindowUpdate,
    Priority,
    /// Frames of unknown type, and PUSH_PROMISE, which no client may send.
    Unknown,
    /// DATA without data that does not end its stream.
    EmptyData,
    EmptyContinuation,
    /// RST_STREAM by the client: requests that it asked for and does not want.
    Reset,
    /// RST_STREAM by us for what the client did wrong.
    Error,
    GoAway,
    /// Bytes of header blocks.
    HeaderBytes,
    /// Header blocks that became no request: malformed, too large, one too many.
    Unserved,
    /// One header block with too many frames or bytes.
    HeaderBlock,
    /// A header block, or a frame other than DATA, that does not end in time.
    Unfinished,
    /// No SETTINGS in time after the preface.
    NoSettings,
    /// Responses wait for a client that grants no window.
    NoWindow,
}

/// How much of one kind a connection may do.
struct Allowance {
    /// At once.
    burst: f64,
    /// Earned by time.
    second: f64,
    /// Earned by each response head that we sent.
    response: f64,
    /// Earned by each DATA frame that we sent, and again by each KiB in it.
    data: f64,
}

/// Kinds with an allowance: the first so many of [`Abuse`].
const KINDS: usize = Abuse::Unserved as usize + 1;

impl Abuse {
    /// Fit for a metric label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::WindowUpdate => "window-update",
            Self::Priority => "priority",
            Self::Unknown => "unknown-frame",
            Self::EmptyData => "empty-data",
            Self::EmptyContinuation => "empty-continuation",
            Self::Reset => "reset",
            Self::Error => "stream-error",
            Self::GoAway => "goaway",
            Self::HeaderBytes => "header-bytes",
            Self::Unserved => "unserved",
            Self::HeaderBlock => "header-block",
            Self::Unfinished => "unfinished",
            Self::NoSettings => "no-settings",
            Self::NoWindow => "no-window",
        }
    }
}

const MIB: f64 = 1024.0 * 1024.0;

/// In the order of [`Abuse`].
///
/// Generous to what clients are known to do: browsers send a PRIORITY or two for
/// each request and PRIORITY_UPDATE, which is unknown here; gRPC clients send a
/// PING for each round trip in which they receive DATA, to measure the path;
/// simple clients send two WINDOW_UPDATEs for each DATA frame; hedging clients
/// reset every second request. A flood shows no such work.
const ALLOWANCES: [Allowance; KINDS] = [
    Allowance { burst: 50.0, second: 1.0, response: 0.0, data: 0.0 },
    Allowance { burst: 200.0, second: 10.0, response: 2.0, data: 1.0 },
    Allowance { burst: 400.0, second: 20.0, response: 3.0, data: 2.0 },
    Allowance { burst: 300.0, second: 10.0, response: 3.0, data: 0.0 },
    Allowance { burst: 200.0, second: 10.0, response: 3.0, data: 0.0 },
    Allowance { burst: 100.0, second: 5.0, response: 1.0, data: 0.0 },
    Allowance { burst: 20.0, second: 0.2, response: 0.0, data: 0.0 },
    Allowance { burst: 200.0, second: 10.0, response: 1.0, data: 0.0 },
    Allowance { burst: 100.0, second: 2.0, response: 0.5, data: 0.0 },
    Allowance { burst: 10.0, second: 0.1, response: 0.0, data: 0.0 },
    Allowance { burst: MIB * 16.0, second: MIB, response: 8.0 * 1024.0, data: 0.0 },
    Allowance { burst: 400.0, second: 5.0, response: 0.0, data: 0.0 },
];

/// What is left of every allowance.
#[derive(Debug)]
pub(super) struct Budgets {
    left: [f64; KINDS],
    at: Instant,
}

impl Budgets {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: std::array::from_fn(|kind| ALLOWANCES[kind].burst), at: now }
    }

    /// Credits the time since the last call.
    pub(super) fn pass(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.earn(|allowance| allowance.second * seconds);
    }

    pub(super) fn responded(&mut self) {
        self.earn(|allowance| allowance.response);
    }

    /// Sent `bytes` of DATA.
    pub(super) fn delivered(&mut self, bytes: u32) {
        let worth = 1.0 + f64::from(bytes) / 1024.0;
        self.earn(|allowance| allowance.data * worth);
    }

    /// So many header blocks became requests. Trailers never do, so that one
    /// request pays for both.
    pub(super) fn served(&mut self, requests: u32) {
        self.credit(Abuse::Unserved, 2.0 * f64::from(requests));
    }

    /// Received `bytes` of DATA: those who measure the path by it send PINGs.
    pub(super) fn received(&mut self, bytes: u32) {
        self.credit(Abuse::Ping, f64::from(bytes) / 4096.0);
    }

    /// # Errors
    /// When the allowance is used up.
    pub(super) fn spend(&mut self, kind: Abuse, amount: f64) -> Result<(), Abuse> {
        let left = &mut self.left[kind as usize];
        *left -= amount;
        if *left < 0.0 { Err(kind) } else { Ok(()) }
    }

    fn credit(&mut self, kind: Abuse, amount: f64) {
        let (left, allowance) = (&mut self.left[kind as usize], &ALLOWANCES[kind as usize]);
        *left = (*left + amount).min(allowance.burst);
    }

    fn earn(&mut self, worth: impl Fn(&Allowance) -> f64) {
        for (left, allowance) in self.left.iter_mut().zip(&ALLOWANCES) {
            *left = (*left + worth(allowance)).min(allowance.burst);
        }
    }
}
