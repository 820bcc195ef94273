//! Every event reaches the page under its name.

use std::time::Duration;

use super::*;
use crate::telemetry::{Hook, HookOutcome, StreamFailure, TokenKind};

const SECOND: Duration = Duration::from_secs(1);

fn assert_lines(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.render();
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "no line `{line}` in\n{text}");
    }
}

#[test]
fn a_request_is_counted_by_route_service_and_class() {
    let metrics = Metrics::new();
    let route = metrics.route("api", "echo");
    let serving = route.begin();
    assert_lines(&metrics, &["tollgate_requests_in_flight{route=\"api\"} 1"]);
    drop(serving);
    route.finished(204, SECOND, 3, 5);
    route.finished(499, SECOND, 3, 5);
    // A status that is none counts with its nearest class.
    route.finished(0, SECOND, 0, 0);
    route.finished(999, SECOND, 0, 0);
    // A handle that is resolved again, as a reload does, counts on.
    metrics.route("api", "echo").finished(200, SECOND, 1, 1);
    assert_lines(
        &metrics,
        &[
            "tollgate_requests_in_flight{route=\"api\"} 0",
            "tollgate_requests_total{route=\"api\",service=\"echo\",status=\"1xx\"} 1",
            "tollgate_requests_total{route=\"api\",service=\"echo\",status=\"2xx\"} 2",
            "tollgate_requests_total{route=\"api\",service=\"echo\",status=\"4xx\"} 1",
            "tollgate_requests_total{route=\"api\",service=\"echo\",status=\"5xx\"} 1",
            "tollgate_request_bytes_total{route=\"api\"} 7",
            "tollgate_response_bytes_total{route=\"api\"} 11",
            "tollgate_request_duration_seconds_bucket{route=\"api\",le=\"0.5\"} 0",
            "tollgate_request_duration_seconds_bucket{route=\"api\",le=\"1\"} 5",
        ],
    );
}

#[test]
fn connections_and_limits_are_counted() {
    let metrics = Metrics::new();
    let web = metrics.entrypoint("web");
    web.opened();
    web.opened();
    web.closed();
    web.tls_failed("timeout");
    metrics.upstream("echo").connect_failed();
    web.proxy_header_refused();
    let database = metrics.stream("database");
    database.opened();
    database.received(3);
    database.sent(5);
    database.failed(StreamFailure::Idle);
    let five = metrics.rate_limit("five");
    five.decided(true);
    five.decided(true);
    five.decided(false);
    assert_lines(
        &metrics,
        &[
            "tollgate_connections_open{entrypoint=\"web\"} 1",
            "tollgate_connections_total{entrypoint=\"web\"} 2",
            "tollgate_tls_handshake_errors_total{entrypoint=\"web\",reason=\"timeout\"} 1",
            "tollgate_proxy_headers_refused_total{entrypoint=\"web\"} 1",
            "tollgate_streams_open{service=\"database\"} 1",
            "tollgate_streams_total{service=\"database\"} 1",
            "tollgate_stream_bytes_total{from=\"client\",service=\"database\"} 3",
            "tollgate_stream_bytes_total{from=\"target\",service=\"database\"} 5",
            "tollgate_stream_failures_total{reason=\"idle\",service=\"database\"} 1",
            "tollgate_upstream_connect_errors_total{service=\"echo\"} 1",
            "tollgate_rate_limit_decisions_total{policy=\"five\",verdict=\"allowed\"} 2",
            "tollgate_rate_limit_decisions_total{policy=\"five\",verdict=\"denied\"} 1",
        ],
    );
}

#[test]
fn plugin_calls_are_counted_by_hook() {
    let metrics = Metrics::new();
    let plugin = metrics.plugin("mine");
    plugin.called(Hook::OnRequest, Duration::from_micros(7), HookOutcome::Returned);
    plugin.called(Hook::OnRequest, SECOND, HookOutcome::Trapped);
    plugin.called(Hook::Settle, SECOND, HookOutcome::Returned);
    plugin.serving(3);
    assert_eq!(plugin.totals(), (3, 1));
    assert_lines(
        &metrics,
        &[
            "tollgate_plugin_calls_total{hook=\"on-request\",plugin=\"mine\"} 2",
            "tollgate_plugin_traps_total{hook=\"on-request\",plugin=\"mine\"} 1",
            "tollgate_plugin_calls_total{hook=\"settle\",plugin=\"mine\"} 1",
            "tollgate_plugin_call_duration_seconds_bucket{hook=\"on-request\",plugin=\"mine\",le=\"0.00001\"} 1",
            "tollgate_plugin_version{plugin=\"mine\"} 3",
        ],
    );
}

#[test]
fn llm_requests_and_their_money_are_counted() {
    let metrics = Metrics::new();
    metrics.provider("openai").attempted(AttemptOutcome::Throttled);
    let model = metrics.model("vendor/m:latest");
    model.tokens(TokenKind::Output, 12);
    model.cost(1_500);
    model.cost(-1);
    model.first_token(Duration::from_millis(80));
    metrics.settled(Settled::Booked);
    metrics.settled(Settled::Lost);
    metrics.hold_opened();
    metrics.hold_opened();
    metrics.hold_closed();
    metrics.config_reloaded(true);
    metrics.config_reloaded(false);
    metrics.config_reloaded(false);
    assert_lines(
        &metrics,
        &[
            "tollgate_llm_attempts_total{outcome=\"throttled\",provider=\"openai\"} 1",
            "tollgate_llm_tokens_total{kind=\"output\",model=\"vendor/m:latest\"} 12",
            "tollgate_llm_cost_nano_usd_total{model=\"vendor/m:latest\"} 1500",
            "tollgate_llm_time_to_first_token_seconds_bucket{model=\"vendor/m:latest\",le=\"0.1\"} 1",
            "tollgate_ledger_settlements_total{outcome=\"booked\"} 1",
            "tollgate_ledger_settlements_total{outcome=\"lost\"} 1",
            "tollgate_ledger_open_holds 1",
            "tollgate_config_reloads_total{outcome=\"applied\"} 1",
            "tollgate_config_reloads_total{outcome=\"refused\"} 2",
            "tollgate_access_log_dropped_total 0",
        ],
    );
}

#[test]
fn label_values_stand_at_their_discriminants() {
    assert!(HOOKS.iter().enumerate().all(|(at, hook)| *hook as usize == at));
    assert!(ATTEMPT_OUTCOMES.iter().enumerate().all(|(at, outcome)| *outcome as usize == at));
    assert!(TOKEN_KINDS.iter().enumerate().all(|(at, kind)| *kind as usize == at));
    assert!(STREAM_FAILURES.iter().enumerate().all(|(at, failure)| *failure as usize == at));
    assert!(SETTLED.iter().enumerate().all(|(at, outcome)| *outcome as usize == at));
}
