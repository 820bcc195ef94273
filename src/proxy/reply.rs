//! Every failure becomes a response here and nowhere else: problem+json
//! (RFC 9457) on HTTP routes, the caller's dialect on LLM routes.

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora::{http::ResponseHeader, protocols::http::ServerSession, proxy::Session};
use serde::Serialize;

use super::{admit::CLIENT_IDLE, context::RequestContext, grpc, snapshot::Lane};
use crate::{
    fault::{Fault, FaultKind, Party},
    llm,
};

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
}

/// What the client has once a fault is dealt with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Replied {
    /// A complete response that tells of the fault.
    Whole,
    /// Nothing, or part of a response that cannot be completed: only closing tells.
    Torn,
}

/// Writes the response for `fault`. A client that is gone gets none.
pub(super) async fn fault(session: &mut Session, ctx: &mut RequestContext, fault: &Fault) -> Replied {
    ctx.fault = Some(fault.kind);
    log(ctx, fault);
    if answered(session).is_some() || fault.kind == FaultKind::ClientClosed {
        return Replied::Torn;
    }
    if session.req_header().version == http::Version::HTTP_2 && grpc::is_grpc(session.req_header()) {
        return match grpc_status(session, ctx, fault).await {
            Ok(()) => Replied::Whole,
            Err(_) => Replied::Torn,
        };
    }
    let on_llm_route = matches!(ctx.route.as_deref(), Some(route) if matches!(route.lane, Lane::Llm(_)));
    let (content_type, body) = if on_llm_route {
        ("application/json", llm::error_body(fault.kind, &fault.message, &ctx.id))
    } else {
        ("application/problem+json", problem(fault, &ctx.id))
    };
    let status = fault.kind.status();
    if let Some(wait) = fault.retry_after {
        set_retry_after(ctx, wait);
    }
    match whole(session, ctx, status, HeaderValue::from_static(content_type), body).await {
        Ok(()) => Replied::Whole,
        Err(_) => Replied::Torn,
    }
}

/// gRPC clients read the status from trailers and take any HTTP status but 200
/// for a broken server.
async fn grpc_status(session: &mut Session, ctx: &mut RequestContext, fault: &Fault) -> pingora::Result<()> {
    let mut head = grpc::refusal(fault)?;
    decorate(&mut head, ctx)?;
    match session.as_downstream_mut() {
        // Not through the session: it leaves the end of the stream to a frame of its own.
        ServerSession::H2(stream) => stream.write_response_header(Box::new(head), true),
        _ => session.write_response_header(Box::new(head), true).await,
    }
}

/// The head of the response, once there is one. Pingora counts informational
/// heads too, which are no answer.
pub(super) fn answered(session: &Session) -> Option<&ResponseHeader> {
    let head = session.response_written()?;
    let final_head = !head.status.is_informational() || head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    final_head.then_some(head)
}

/// Writes a complete response with the context's own headers.
pub(super) async fn whole(
    session: &mut Session,
    ctx: &mut RequestContext,
    status: u16,
    content_type: HeaderValue,
    body: Bytes,
) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(status, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, content_type)?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    if status == 429 || status >= 500 {
        head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    }
    decorate(&mut head, ctx)?;
    let no_body = body.is_empty() || session.req_header().method == http::Method::HEAD;
    ctx.response_bytes = if no_body { 0 } else { body.len() as u64 };
    in_time(async {
        session.write_response_header(Box::new(head), no_body).await?;
        if !no_body {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    })
    .await
}

/// Bounds a write to the client: heads and flushes on HTTP/1 have no bound of
/// their own, nor has flow control on HTTP/2.
pub(super) async fn in_time<T>(write: impl Future<Output = pingora::Result<T>>) -> pingora::Result<T> {
    match tokio::time::timeout(CLIENT_IDLE, write).await {
        Ok(written) => written,
        Err(_) => pingora::Error::e_explain(pingora::ErrorType::WriteTimedout, "the client takes nothing"),
    }
}

/// Adds what every response carries: the request id and rate-limit state.
pub(super) fn decorate(head: &mut ResponseHeader, ctx: &RequestContext) -> pingora::Result<()> {
    if let Ok(id) = HeaderValue::from_str(&ctx.id) {
        head.insert_header(ctx.id_header.clone(), id)?;
    }
    for (name, value) in &ctx.response_headers {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

fn set_retry_after(ctx: &mut RequestContext, wait: std::time::Duration) {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    ctx.response_headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds as u64));
}

fn problem(fault: &Fault, request_id: &str) -> Bytes {
    let kind = fault.kind;
    let problem = Problem {
        r#type: format!("urn:tollgate:problem:{}", kind.label()),
        title: title(kind.status()),
        status: kind.status(),
        detail: &fault.message,
        request_id,
    };
    // A struct of strings and numbers always serialises.
    serde_json::to_vec(&problem).unwrap_or_default().into()
}

fn title(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

fn log(ctx: &RequestContext, fault: &Fault) {
    if fault.kind.party() == Party::Client {
        return;
    }
    let mut cause = String::new();
    let mut source = std::error::Error::source(fault);
    while let Some(error) = source {
        if !cause.is_empty() {
            cause.push_str(": ");
        }
        cause.push_str(&error.to_string());
        source = error.source();
    }
    tracing::warn!(
        request_id = %ctx.id,
        route = ctx.route.as_deref().map_or("", |route| &*route.name),
        fault = fault.kind.label(),
        message = %fault.message,
        cause,
    );
}
