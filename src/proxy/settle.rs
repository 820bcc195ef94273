//! Always runs, exactly once per request: metrics, end hooks, access record.
//! Money is settled by the LLM lane's hold, which no exit path can skip.

use std::{sync::Arc, time::Duration};

use pingora::proxy::Session;

use super::{Shared, chain::authority, context::RequestContext, reply};
use crate::{
    plugin::api,
    telemetry::{AccessRecord, LlmRecord},
};

/// How much, and for how long, the rest of a refused upload is read.
const MOST_LINGERED: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(1);

pub(super) async fn settle(shared: &Arc<Shared>, session: &mut Session, ctx: &mut RequestContext) {
    let status = reply::answered(session)
        .map(|head| head.status.as_u16())
        .or_else(|| ctx.fault.map(|fault| fault.status()))
        .unwrap_or(0);
    let elapsed = ctx.started.elapsed();
    let metrics = match (&ctx.route, &ctx.snapshot) {
        (Some(route), _) => Some(&route.metrics),
        (None, Some(snapshot)) => Some(match &snapshot.admin {
            Some(admin) if &*ctx.entrypoint == crate::config::entrypoint::ADMIN => &admin.metrics,
            _ => &snapshot.unmatched,
        }),
        _ => None,
    };
    if let Some(metrics) = metrics {
        metrics.finished(status, elapsed, ctx.request_bytes, ctx.response_bytes);
        ctx.in_flight = None;
    }
    access_record(shared, session, ctx, status, elapsed);
    tell_filters(ctx, status, elapsed);
    linger(session).await;
}

/// Reads the rest of an upload that was answered early: unread bytes would turn
/// the close into a reset, which may overtake the answer (RFC 9112 section 9.6).
async fn linger(session: &mut Session) {
    let upload_left = !session.as_downstream().is_http2() && !session.as_downstream_mut().is_body_done();
    if reply::answered(session).is_none() || session.as_downstream().was_upgraded() || !upload_left {
        return;
    }
    let rest = async {
        let mut left = MOST_LINGERED;
        while let Ok(Some(chunk)) = session.as_downstream_mut().read_request_body().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

fn tell_filters(ctx: &mut RequestContext, status: u16, elapsed: Duration) {
    for version in std::mem::take(&mut ctx.filters) {
        if !version.subscription().on_end {
            continue;
        }
        let summary = api::EndSummary {
            request_id: ctx.id.to_string(),
            status,
            request_bytes: ctx.request_bytes,
            response_bytes: ctx.response_bytes,
            duration_us: elapsed.as_micros() as u64,
            complete: ctx.fault.is_none(),
        };
        // Off the request's path: the client has its answer, the connection may go on.
        tokio::spawn(async move {
            if let Err(fault) = version.on_end(summary).await {
                tracing::debug!(plugin = version.name(), %fault, "plugin failed at the end of a request");
            }
        });
    }
}

fn access_record(shared: &Shared, session: &Session, ctx: &RequestContext, status: u16, elapsed: Duration) {
    let head = session.req_header();
    let llm = ctx.llm.as_ref().map(|llm| LlmRecord {
        model: &llm.model,
        provider: some(&llm.provider),
        provider_model: some(&llm.provider_model),
        input_tokens: llm.input_tokens,
        output_tokens: llm.output_tokens,
        cost_nano_usd: llm.cost_nano_usd,
        attempts: llm.attempts,
        first_token: llm.time_to_first_token,
        stream: llm.stream,
        ending: llm.ending,
    });
    shared.access_log.write(&AccessRecord {
        ts: ctx.received,
        request_id: &ctx.id,
        entrypoint: &ctx.entrypoint,
        client: ctx.client,
        method: head.method.as_str(),
        host: authority(head),
        path: ctx.uri.path(),
        protocol: protocol(head.version),
        route: ctx.route.as_deref().map(|route| &*route.name),
        service: ctx.route.as_deref().map(|route| &*route.service),
        target: ctx.target.as_deref(),
        status,
        request_bytes: ctx.request_bytes,
        response_bytes: ctx.response_bytes,
        duration: elapsed,
        upstream: ctx.upstream,
        tls_version: ctx.tls_version,
        client_certificate: ctx.client_certificate.as_deref().map(|identity| &*identity.subject),
        caller: ctx.caller.as_deref().map(|caller| &*caller.id),
        fault: ctx.fault.map(|fault| fault.label()),
        llm,
    });
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
