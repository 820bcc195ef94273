//! Every metric, declared once. What has a name from the configuration is
//! reached through a handle that is resolved when that is loaded, so that a
//! request only adds to atomics. A name that a reload removes keeps its series
//! until the process ends.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use super::handles::{
    ATTEMPT_OUTCOMES, AttemptOutcome, EntrypointMetrics, HOOKS, ModelMetrics, OrderOutcome, PluginMetrics,
    ProviderMetrics, RateLimitMetrics, RouteMetrics, SETTLED, SHEDS, STREAM_FAILURES, Settled, Shed,
    StreamMetrics, TOKEN_KINDS, UpstreamMetrics, hook_metrics,
};

/// Seconds; from what a cache answers to the longest stream.
const REQUEST_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const FIRST_TOKEN_BUCKETS: &[f64] = &[0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 60.0];
const PLUGIN_BUCKETS: &[f64] =
    &[0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 5.0];

pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    request_bytes: IntCounterVec,
    response_bytes: IntCounterVec,
    in_flight: IntGaugeVec,
    connections_open: IntGaugeVec,
    connections: IntCounterVec,
    tls_handshake_errors: IntCounterVec,
    certificate_not_after: IntGaugeVec,
    /// By entrypoint: the names that `certificate_not_after` has now.
    certificate_names: Mutex<HashMap<String, Vec<String>>>,
    proxy_headers_refused: IntCounterVec,
    heads_refused: IntCounterVec,
    connections_shed: IntCounterVec,
    accept_errors: IntCounterVec,
    http2_cut: IntCounterVec,
    upstream_connect_errors: IntCounterVec,
    streams_open: IntGaugeVec,
    streams: IntCounterVec,
    stream_bytes: IntCounterVec,
    stream_failures: IntCounterVec,
    rate_limit_decisions: IntCounterVec,
    plugin_calls: IntCounterVec,
    plugin_traps: IntCounterVec,
    plugin_seconds: HistogramVec,
    plugin_version: IntGaugeVec,
    llm_attempts: IntCounterVec,
    llm_tokens: IntCounterVec,
    llm_cost: IntCounterVec,
    llm_first_token: HistogramVec,
    settlements: [IntCounter; SETTLED.len()],
    open_holds: IntGauge,
    reloads: [IntCounter; 2],
    upgrades: [IntCounter; 2],
    generation: IntGauge,
    access_log_dropped: IntCounter,
    acme_orders: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        // `process_*`: descriptors and their limit, memory, CPU, start time.
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("each name is declared once");
        let r = &registry;
        let settlements = counters(r, "ledger_settlements_total", "Settlements, by outcome.", &["outcome"]);
        let reloads =
            counters(r, "config_reloads_total", "Configurations offered, by outcome.", &["outcome"]);
        let upgrades = counters(r, "upgrades_total", "Attempts to hand over, by outcome.", &["outcome"]);
        let dropped = counters(r, "access_log_dropped_total", "Access records dropped or not written.", &[]);
        Arc::new(Self {
            requests: counters(
                r,
                "requests_total",
                "Finished requests, by class of status.",
                &["route", "service", "status"],
            ),
            request_seconds: seconds(
                r,
                "request_duration_seconds",
                "Requests to their last byte.",
                &["route"],
                REQUEST_BUCKETS,
            ),
            request_bytes: counters(r, "request_bytes_total", "Bytes of request bodies.", &["route"]),
            response_bytes: counters(r, "response_bytes_total", "Bytes of response bodies.", &["route"]),
            in_flight: gauges(r, "requests_in_flight", "Requests being served.", &["route"]),
            connections_open: gauges(r, "connections_open", "Open client connections.", &["entrypoint"]),
            connections: counters(r, "connections_total", "Accepted client connections.", &["entrypoint"]),
            tls_handshake_errors: counters(
                r,
                "tls_handshake_errors_total",
                "Failed TLS handshakes, by reason.",
                &["entrypoint", "reason"],
            ),
            certificate_not_after: gauges(
                r,
                "certificate_not_after_seconds",
                "Unix time at which a served certificate ends; entrypoint * is all of them.",
                &["entrypoint", "name"],
            ),
            certificate_names: Mutex::default(),
            proxy_headers_refused: counters(
                r,
                "proxy_headers_refused_total",
                "Connections closed for want of a valid PROXY protocol header.",
                &["entrypoint"],
            ),
            connections_shed: counters(
                r,
                "connections_shed_total",
                "Connections closed unheard, by what was full.",
                &["entrypoint", "bound"],
            ),
            accept_errors: counters(
                r,
                "accept_errors_total",
                "Connections that could not be accepted, usually for want of descriptors.",
                &["entrypoint"],
            ),
            http2_cut: counters(
                r,
                "http2_connections_cut_total",
                "HTTP/2 connections ended for floods and other abuse.",
                &["entrypoint", "reason"],
            ),
            heads_refused: counters(
                r,
                "heads_refused_total",
                "Malformed, oversized or slow request heads that the front answered.",
                &["entrypoint"],
            ),
            upstream_connect_errors: counters(
                r,
                "upstream_connect_errors_total",
                "Failed connects.",
                &["service"],
            ),
            streams_open: gauges(r, "streams_open", "Connections being passed on.", &["service"]),
            streams: counters(r, "streams_total", "Connections passed on to TCP services.", &["service"]),
            stream_bytes: counters(
                r,
                "stream_bytes_total",
                "Bytes of connections passed on, by where they came from.",
                &["service", "from"],
            ),
            stream_failures: counters(
                r,
                "stream_failures_total",
                "Passed-on connections that ended before both sides had finished.",
                &["service", "reason"],
            ),
            rate_limit_decisions: counters(
                r,
                "rate_limit_decisions_total",
                "Rate limit verdicts.",
                &["policy", "verdict"],
            ),
            plugin_calls: counters(r, "plugin_calls_total", "Calls into plugins.", &["plugin", "hook"]),
            plugin_traps: counters(
                r,
                "plugin_traps_total",
                "Calls ended by a trap or a limit.",
                &["plugin", "hook"],
            ),
            plugin_seconds: seconds(
                r,
                "plugin_call_duration_seconds",
                "Calls into plugins.",
                &["plugin", "hook"],
                PLUGIN_BUCKETS,
            ),
            plugin_version: gauges(r, "plugin_version", "Version being served.", &["plugin"]),
            llm_attempts: counters(
                r,
                "llm_attempts_total",
                "Attempts at providers.",
                &["provider", "outcome"],
            ),
            llm_tokens: counters(r, "llm_tokens_total", "Tokens, by kind.", &["model", "kind"]),
            llm_cost: counters(r, "llm_cost_nano_usd_total", "Known cost in 1e-9 USD.", &["model"]),
            llm_first_token: seconds(
                r,
                "llm_time_to_first_token_seconds",
                "To the first content.",
                &["model"],
                FIRST_TOKEN_BUCKETS,
            ),
            settlements: SETTLED.map(|outcome: Settled| settlements.with_label_values(&[outcome.label()])),
            open_holds: gauges(r, "ledger_open_holds", "Holds not yet settled.", &[])
                .with_label_values::<&str>(&[]),
            reloads: ["applied", "refused"].map(|outcome| reloads.with_label_values(&[outcome])),
            upgrades: ["done", "failed"].map(|outcome| upgrades.with_label_values(&[outcome])),
            generation: gauges(r, "process_generation", "Processes that handed over before this one.", &[])
                .with_label_values::<&str>(&[]),
            access_log_dropped: dropped.with_label_values::<&str>(&[]),
            acme_orders: counters(
                r,
                "acme_orders_total",
                "Certificates asked for by ACME, by outcome.",
                &["resolver", "outcome"],
            ),
            registry,
        })
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics not rendered");
        }
        text
    }

    /// Of a route and the service behind it. Requests without a route have their own handle.
    pub fn route(&self, route: &str, service: &str) -> Arc<RouteMetrics> {
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Arc::new(RouteMetrics {
            requests: requests.map(|class| self.requests.with_label_values(&[route, service, class])),
            seconds: self.request_seconds.with_label_values(&[route]),
            request_bytes: self.request_bytes.with_label_values(&[route]),
            response_bytes: self.response_bytes.with_label_values(&[route]),
            in_flight: self.in_flight.with_label_values(&[route]),
        })
    }

    pub fn entrypoint(&self, entrypoint: &str) -> Arc<EntrypointMetrics> {
        Arc::new(EntrypointMetrics {
            open: self.connections_open.with_label_values(&[entrypoint]),
            total: self.connections.with_label_values(&[entrypoint]),
            name: entrypoint.to_owned(),
            tls_errors: self.tls_handshake_errors.clone(),
            proxy_headers_refused: self.proxy_headers_refused.with_label_values(&[entrypoint]),
            refused: self.heads_refused.with_label_values(&[entrypoint]),
            shed: SHEDS
                .map(|bound: Shed| self.connections_shed.with_label_values(&[entrypoint, bound.label()])),
            accept_errors: self.accept_errors.with_label_values(&[entrypoint]),
        })
    }

    /// All names that `entrypoint` has a certificate for, with its end; those
    /// of before that are not among them are forgotten.
    pub fn certificates(&self, entrypoint: &str, ends: &[(String, SystemTime)]) {
        // Of two certificates for a name the one that ends first needs attention.
        let mut earliest = BTreeMap::new();
        for (name, end) in ends {
            let known = earliest.entry(name.as_str()).or_insert(*end);
            *known = (*known).min(*end);
        }
        let names = earliest.keys().map(|name| (*name).to_owned()).collect();
        let mut known = self.certificate_names.lock();
        for gone in known.insert(entrypoint.to_owned(), names).unwrap_or_default() {
            if !earliest.contains_key(gone.as_str()) {
                // It was set, so it is there to be removed.
                let _ = self.certificate_not_after.remove_label_values(&[entrypoint, &gone]);
            }
        }
        for (name, end) in earliest {
            let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let gauge = self.certificate_not_after.with_label_values(&[entrypoint, name]);
            gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// `reason` is one of a few fixed words.
    pub fn http2_cut(&self, entrypoint: &str, reason: &'static str) {
        self.http2_cut.with_label_values(&[entrypoint, reason]).inc();
    }

    pub fn upstream(&self, service: &str) -> Arc<UpstreamMetrics> {
        let connect_errors = self.upstream_connect_errors.with_label_values(&[service]);
        Arc::new(UpstreamMetrics { connect_errors })
    }

    /// Of a TCP service.
    pub fn stream(&self, service: &str) -> Arc<StreamMetrics> {
        let bytes = |from| self.stream_bytes.with_label_values(&[service, from]);
        Arc::new(StreamMetrics {
            open: self.streams_open.with_label_values(&[service]),
            total: self.streams.with_label_values(&[service]),
            received: bytes("client"),
            sent: bytes("target"),
            connect_errors: self.upstream_connect_errors.with_label_values(&[service]),
            failures: STREAM_FAILURES
                .map(|failure| self.stream_failures.with_label_values(&[service, failure.label()])),
        })
    }

    pub fn rate_limit(&self, policy: &str) -> Arc<RateLimitMetrics> {
        let of = |verdict| self.rate_limit_decisions.with_label_values(&[policy, verdict]);
        Arc::new(RateLimitMetrics { allowed: of("allowed"), denied: of("denied") })
    }

    pub fn plugin(&self, plugin: &str) -> Arc<PluginMetrics> {
        let hooks = HOOKS.map(|hook| {
            let labels = [plugin, hook.label()];
            hook_metrics(
                self.plugin_calls.with_label_values(&labels),
                self.plugin_traps.with_label_values(&labels),
                self.plugin_seconds.with_label_values(&labels),
            )
        });
        Arc::new(PluginMetrics { hooks, version: self.plugin_version.with_label_values(&[plugin]) })
    }

    pub fn provider(&self, provider: &str) -> Arc<ProviderMetrics> {
        let of = |outcome: AttemptOutcome| self.llm_attempts.with_label_values(&[provider, outcome.label()]);
        Arc::new(ProviderMetrics { attempts: ATTEMPT_OUTCOMES.map(of) })
    }

    /// Of a model by the name that callers use.
    pub fn model(&self, model: &str) -> Arc<ModelMetrics> {
        Arc::new(ModelMetrics {
            tokens: TOKEN_KINDS.map(|kind| self.llm_tokens.with_label_values(&[model, kind.label()])),
            cost: self.llm_cost.with_label_values(&[model]),
            first_token: self.llm_first_token.with_label_values(&[model]),
        })
    }

    pub fn settled(&self, outcome: Settled) {
        self.settlements[outcome as usize].inc();
    }

    pub fn hold_opened(&self) {
        self.open_holds.inc();
    }

    pub fn hold_closed(&self) {
        self.open_holds.dec();
    }

    pub fn config_reloaded(&self, applied: bool) {
        self.reloads[usize::from(!applied)].inc();
    }

    /// An attempt to hand over to another process.
    pub fn upgraded(&self, done: bool) {
        self.upgrades[usize::from(!done)].inc();
    }

    /// How many processes handed over, one to the next, before this one.
    pub fn generation(&self, generation: u64) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// A finished attempt to get a certificate.
    pub fn acme_order(&self, resolver: &str, outcome: OrderOutcome) {
        self.acme_orders.with_label_values(&[resolver, outcome.label()]).inc();
    }

    pub(super) fn access_log_dropped(&self) -> IntCounter {
        self.access_log_dropped.clone()
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(options(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(options(name, help), labels))
}

fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, labels))
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("tollgate")
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names and labels are literals in this file");
    registry.register(Box::new(metric.clone())).expect("each name is declared once");
    metric
}

#[cfg(test)]
mod tests;
