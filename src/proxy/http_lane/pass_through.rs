//! Pingora's own loop: WebSocket.

use pingora::{
    Error, ErrorSource, ErrorType, OrErr,
    http::{RequestHeader, ResponseHeader},
    proxy::{FailToProxy, Session},
    upstreams::peer::HttpPeer,
};

use super::head;
use crate::{
    fault::{Fault, FaultKind},
    proxy::{body_limits, context::RequestContext, reply, snapshot::Lane},
    upstream::Wire,
};

/// The next target: round robin, skipping those already tried.
pub(in crate::proxy) async fn peer(ctx: &mut RequestContext) -> pingora::Result<Box<HttpPeer>> {
    let Some(Lane::Http(cluster)) = ctx.route.as_deref().map(|route| &route.lane) else {
        return Error::e_explain(
            ErrorType::InternalError,
            "a request without an HTTP service reached the HTTP lane",
        );
    };
    let picked = cluster.pick(&ctx.tried);
    ctx.tried.push(picked.index);
    ctx.target = Some(cluster.label(picked.index).clone());
    let address =
        cluster.resolve(picked).await.or_err(ErrorType::ConnectError, "cannot resolve the target").map_err(
            |mut error| {
                error.as_up();
                error.set_retry(ctx.tried.len() < cluster.len());
                error
            },
        )?;
    // Only HTTP/1.1 can be upgraded.
    let mut peer = HttpPeer::clone(&cluster.peer(picked, address, Wire::Http1));
    if let Some(version) = cluster.proxy_protocol() {
        ctx.preamble(version).introduce(&mut peer);
    }
    // One read timeout for head and body: an upgraded connection may well be
    // silent for longer than a head may take.
    peer.options.read_timeout = Some(cluster.timeouts().idle);
    Ok(Box::new(peer))
}

/// A target that cannot be reached is replaced by the next one: no byte of the
/// request has left yet, so any method may be retried.
pub(in crate::proxy) fn connect_failed(ctx: &mut RequestContext, mut error: Box<Error>) -> Box<Error> {
    if let Some(Lane::Http(cluster)) = ctx.route.as_deref().map(|route| &route.lane) {
        error.set_retry(ctx.tried.len() < cluster.len());
    }
    error
}

/// What the upstream is told beyond the client's own words. Pingora has removed
/// the fields of the client's hop.
pub(in crate::proxy) fn request_head(
    session: &Session,
    request: &mut RequestHeader,
    ctx: &RequestContext,
) -> pingora::Result<()> {
    head::introduce(session, request, ctx)
}

/// A piece of the body on its way up. What follows an upgrade is no body.
pub(in crate::proxy) fn count_body(
    session: &Session,
    ctx: &mut RequestContext,
    bytes: usize,
) -> pingora::Result<()> {
    if session.as_downstream().was_upgraded() {
        return Ok(());
    }
    ctx.body.count(bytes).map_err(|fault| {
        let mut error =
            Error::explain(ErrorType::HTTPStatus(fault.kind.status()), fault.message.into_owned());
        error.as_down();
        error
    })
}

/// The upstream's head on its way back: the chain in reverse, then our headers.
pub(in crate::proxy) async fn response_head(
    response: &mut ResponseHeader,
    ctx: &mut RequestContext,
) -> pingora::Result<()> {
    // 1xx heads pass; the final one follows.
    if response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    ctx.upstream.get_or_insert_with(|| ctx.started.elapsed());
    head::filter_response(response, ctx).await;
    reply::decorate(response, ctx)
}

/// The end of a request that could not be passed through.
pub(in crate::proxy) async fn failed(
    session: &mut Session,
    ctx: &mut RequestContext,
    error: &Error,
) -> FailToProxy {
    let torn = FailToProxy { error_code: 0, can_reuse_downstream: false };
    if ctx.fault.is_some() {
        // Another lane has dealt with it; all that is left is to close.
        return torn;
    }
    let fault = fault_of(error);
    match reply::fault(session, ctx, &fault).await {
        reply::Replied::Whole => FailToProxy { error_code: fault.kind.status(), can_reuse_downstream: false },
        reply::Replied::Torn => torn,
    }
}

fn fault_of(error: &Error) -> Fault {
    if let Some(fault) = body_limits::malformed(error) {
        return fault;
    }
    let (kind, message) = match (error.esource(), error.etype()) {
        (
            ErrorSource::Downstream,
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed,
        ) => (FaultKind::ClientClosed, "the client went away"),
        (ErrorSource::Downstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            (FaultKind::RequestTimeout, "the request body took too long")
        }
        (ErrorSource::Downstream, ErrorType::HTTPStatus(413)) => {
            (FaultKind::BodyTooLarge, "the request body is too large")
        }
        (ErrorSource::Downstream, _) => (FaultKind::BadRequest, "the request is not valid HTTP"),
        (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            (FaultKind::UpstreamTimeout, "the upstream did not answer in time")
        }
        (
            _,
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert
            | ErrorType::SocketError,
        ) => (FaultKind::UpstreamConnect, "the upstream cannot be reached"),
        (ErrorSource::Upstream, _) => (FaultKind::UpstreamBroken, "the upstream broke the exchange"),
        _ => (FaultKind::Internal, "the gateway failed"),
    };
    Fault::new(kind, message).because(error.to_string())
}
