//! Handles of metrics whose names come from the configuration, and the label
//! values that do not.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// Declares an enum of label values together with the list of all of them, in
/// the order of their discriminants.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident, $all:ident: $($variant:ident = $label:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($variant),+ }

        pub(super) const $all: [$name; [$($name::$variant),+].len()] = [$($name::$variant),+];

        impl $name {
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

labels! {
    /// A function that plugins export.
    Hook, HOOKS:
    Configure = "configure",
    OnRequest = "on-request",
    OnResponse = "on-response",
    OnEnd = "on-end",
    Admit = "admit",
    Plan = "plan",
    AfterFailure = "after-failure",
    CredentialFor = "credential-for",
    Settle = "settle",
    Serve = "serve",
}

labels! {
    /// How one attempt at a provider ended.
    AttemptOutcome, ATTEMPT_OUTCOMES:
    Served = "served",
    ClientError = "client-error",
    ContextExceeded = "context-exceeded",
    PolicyRefused = "policy-refused",
    ModelGone = "model-gone",
    KeyDead = "key-dead",
    Throttled = "throttled",
    Transient = "transient",
    BadStream = "bad-stream",
    Cancelled = "cancelled",
}

labels! {
    /// Disjoint kinds: a cached token is not also an input token.
    TokenKind, TOKEN_KINDS:
    Input = "input",
    InputCacheRead = "input-cache-read",
    InputCacheWrite = "input-cache-write",
    Output = "output",
    OutputReasoning = "output-reasoning",
}

labels! {
    /// What became of a settlement.
    Settled, SETTLED:
    Booked = "booked",
    Duplicate = "duplicate",
    Retried = "retried",
    Lost = "lost",
}

labels! {
    /// Which bound a connection was refused for: the entrypoint's, its client's
    /// on this entrypoint, or that of the descriptors of the process.
    Shed, SHEDS:
    Entrypoint = "entrypoint",
    Client = "client",
    Process = "process",
}

labels! {
    /// Why a passed-on connection ended before both sides had finished.
    StreamFailure, STREAM_FAILURES:
    UpstreamConnect = "upstream-connect",
    Idle = "idle",
    Broken = "broken",
    Cut = "cut",
}

/// Whether a hook returned or was ended by a trap, its time or its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookOutcome {
    Returned,
    Trapped,
}

/// One route.
pub struct RouteMetrics {
    pub(super) requests: [IntCounter; 5],
    pub(super) seconds: Histogram,
    pub(super) request_bytes: IntCounter,
    pub(super) response_bytes: IntCounter,
    pub(super) in_flight: IntGauge,
}

impl RouteMetrics {
    /// A request until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.inc();
        InFlight(self.clone())
    }

    /// A finished request.
    pub fn finished(&self, status: u16, elapsed: Duration, request_bytes: u64, response_bytes: u64) {
        let class = usize::from(status / 100).clamp(1, self.requests.len());
        self.requests[class - 1].inc();
        self.seconds.observe(elapsed.as_secs_f64());
        self.request_bytes.inc_by(request_bytes);
        self.response_bytes.inc_by(response_bytes);
    }
}

/// A request that counts as being served.
pub struct InFlight(Arc<RouteMetrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

/// One entrypoint.
pub struct EntrypointMetrics {
    pub(super) open: IntGauge,
    pub(super) total: IntCounter,
    pub(super) name: String,
    pub(super) tls_errors: IntCounterVec,
    pub(super) proxy_headers_refused: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) shed: [IntCounter; SHEDS.len()],
    pub(super) accept_errors: IntCounter,
}

impl EntrypointMetrics {
    /// Pairs with [`EntrypointMetrics::closed`].
    pub fn opened(&self) {
        self.total.inc();
        self.open.inc();
    }

    pub fn closed(&self) {
        self.open.dec();
    }

    /// Closed unheard, for want of room.
    pub fn shed(&self, why: Shed) {
        self.shed[why as usize].inc();
    }

    /// The kernel could not hand over a connection.
    pub fn accept_failed(&self) {
        self.accept_errors.inc();
    }

    /// The front answered a malformed head by itself.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// A PROXY protocol header was wanted and none, or a malformed one, came.
    pub fn proxy_header_refused(&self) {
        self.proxy_headers_refused.inc();
    }

    /// `reason` is one of a few.
    pub fn tls_failed(&self, reason: &'static str) {
        self.tls_errors.with_label_values(&[self.name.as_str(), reason]).inc();
    }
}

/// One upstream service.
pub struct UpstreamMetrics {
    pub(super) connect_errors: IntCounter,
}

impl UpstreamMetrics {
    pub fn connect_failed(&self) {
        self.connect_errors.inc();
    }
}

/// One TCP service.
pub struct StreamMetrics {
    pub(super) open: IntGauge,
    pub(super) total: IntCounter,
    pub(super) received: IntCounter,
    pub(super) sent: IntCounter,
    pub(super) connect_errors: IntCounter,
    pub(super) failures: [IntCounter; STREAM_FAILURES.len()],
}

impl StreamMetrics {
    /// Pairs with [`StreamMetrics::closed`].
    pub fn opened(&self) {
        self.total.inc();
        self.open.inc();
    }

    pub fn closed(&self) {
        self.open.dec();
    }

    /// Bytes that came from the client.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Bytes that came from the target.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// So many targets did not take a connection.
    pub fn targets_failed(&self, targets: u64) {
        self.connect_errors.inc_by(targets);
    }

    pub fn failed(&self, failure: StreamFailure) {
        self.failures[failure as usize].inc();
    }
}

/// One rate limit.
pub struct RateLimitMetrics {
    pub(super) allowed: IntCounter,
    pub(super) denied: IntCounter,
}

impl RateLimitMetrics {
    pub fn decided(&self, allowed: bool) {
        if allowed { self.allowed.inc() } else { self.denied.inc() }
    }
}

/// One plugin, whatever its version.
pub struct PluginMetrics {
    pub(super) hooks: [HookMetrics; HOOKS.len()],
    pub(super) version: IntGauge,
}

pub(super) struct HookMetrics {
    calls: IntCounter,
    traps: IntCounter,
    seconds: Histogram,
}

pub(super) fn hook_metrics(calls: IntCounter, traps: IntCounter, seconds: Histogram) -> HookMetrics {
    HookMetrics { calls, traps, seconds }
}

impl PluginMetrics {
    pub fn called(&self, hook: Hook, elapsed: Duration, outcome: HookOutcome) {
        let metrics = &self.hooks[hook as usize];
        metrics.calls.inc();
        metrics.seconds.observe(elapsed.as_secs_f64());
        if outcome == HookOutcome::Trapped {
            metrics.traps.inc();
        }
    }

    pub fn serving(&self, version: u64) {
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// Calls and traps of all hooks since the process started.
    pub fn totals(&self) -> (u64, u64) {
        self.hooks
            .iter()
            .fold((0, 0), |(calls, traps), hook| (calls + hook.calls.get(), traps + hook.traps.get()))
    }
}

/// One LLM provider.
pub struct ProviderMetrics {
    pub(super) attempts: [IntCounter; ATTEMPT_OUTCOMES.len()],
}

impl ProviderMetrics {
    pub fn attempted(&self, outcome: AttemptOutcome) {
        self.attempts[outcome as usize].inc();
    }
}

/// One model, by the name that callers use.
pub struct ModelMetrics {
    pub(super) tokens: [IntCounter; TOKEN_KINDS.len()],
    pub(super) cost: IntCounter,
    pub(super) first_token: Histogram,
}

impl ModelMetrics {
    pub fn tokens(&self, kind: TokenKind, count: u64) {
        self.tokens[kind as usize].inc_by(count);
    }

    /// A known cost; an unknown one is not counted, and none is negative.
    pub fn cost(&self, nano_usd: i64) {
        self.cost.inc_by(u64::try_from(nano_usd).unwrap_or(0));
    }

    pub fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }
}

/// How an attempt to get a certificate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderOutcome {
    Issued,
    /// The authority asks to come back later.
    RateLimited,
    Failed,
}

impl OrderOutcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::RateLimited => "rate-limited",
            Self::Failed => "failed",
        }
    }
}
