//! WebSocket (RFC 6455 section 4): the handshake through HTTP, then bytes both
//! ways until either side ends.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora::{http::ResponseHeader, proxy::Session};

use super::{
    forward::{Failure, client_gone, failed, informational, open, relay},
    head,
    upload::Upload,
};
use crate::{
    config::service::UpstreamTimeouts,
    fault::{Fault, FaultKind},
    proxy::{Shared, context::RequestContext, reply::in_time},
    upstream::{Cluster, Exchange, Wire},
};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Any other upgrade is not taken up, and the request served as if it had not
/// been asked for (RFC 9110 section 7.8).
pub(in crate::proxy) fn is_websocket(session: &Session) -> bool {
    let head = session.req_header();
    let bodiless = !head.headers.contains_key(header::CONTENT_LENGTH)
        && !head.headers.contains_key(header::TRANSFER_ENCODING);
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && bodiless
        && names_websocket(&head.headers)
        && session.as_downstream().is_upgrade_req()
}

fn names_websocket(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::UPGRADE).iter();
    named.any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

pub(in crate::proxy) async fn websocket(
    shared: &Arc<Shared>,
    cluster: &Arc<Cluster>,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let mut upload = Upload::of(session, false);
    loop {
        let mut exchange = open(shared, cluster, Wire::Http1, ctx).await?;
        let answer = match handshake(&mut exchange, cluster.timeouts(), &upload, session, ctx).await {
            Ok(answer) => answer,
            // The origin closed the pooled connection while it lay there.
            Err(failure) if failure.broken && exchange.reused => continue,
            Err(failure) => return Err(failure.fault),
        };
        if answer.status != StatusCode::SWITCHING_PROTOCOLS {
            // The connection was promised to a socket: it serves nothing else.
            upload.refused = true;
            return relay(exchange, answer, cluster.timeouts(), upload, session, ctx).await;
        }
        if !names_websocket(&answer.headers) {
            return Err(Fault::new(FaultKind::UpstreamBroken, "the upstream switched to another protocol"));
        }
        switch(answer, session, ctx).await?;
        return splice(exchange, cluster.timeouts(), session, ctx).await;
    }
}

/// Sends the request and reads heads until the final one, which may be 101.
async fn handshake(
    exchange: &mut Exchange,
    timeouts: &UpstreamTimeouts,
    upload: &Upload,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<ResponseHeader, Failure> {
    let mut request = head::request(session, exchange, true, ctx).map_err(Failure::of)?;
    let asked = request
        .insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .and_then(|()| request.insert_header(header::UPGRADE, WEBSOCKET));
    asked.map_err(|error| Failure::of(client_gone(error)))?;
    // No end of a body: it would be taken for the end of what follows the upgrade.
    exchange.write_head(Box::new(request), false).await.map_err(failed)?;
    let sent = Instant::now();
    loop {
        let wait = timeouts.first_byte.saturating_sub(sent.elapsed());
        tokio::select! {
            biased;
            answer = exchange.answering.head(Some(wait)) => {
                let answer = answer.map_err(failed)?;
                if !answer.status.is_informational() || answer.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Ok(answer);
                }
                informational(session, answer).await?;
            }
            // The request is read to its end: this is the client's.
            left = upload.next(session, &mut ctx.body) => {
                let gone = Fault::new(FaultKind::ClientClosed, "the client went away");
                return Err(Failure::of(left.err().unwrap_or(gone)));
            }
        }
    }
}

/// Tells the client; from here on its bytes are the socket's.
async fn switch(
    answer: ResponseHeader,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let mut answer = head::answer(answer, ctx).await.map_err(client_gone)?;
    answer.set_version(Version::HTTP_11);
    let told = answer
        .insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .and_then(|()| answer.insert_header(header::UPGRADE, WEBSOCKET));
    told.map_err(client_gone)?;
    in_time(session.write_response_header(Box::new(answer), false)).await.map_err(client_gone)
}

/// Until either side ends, or neither says anything for `idle`.
async fn splice(
    mut exchange: Exchange,
    timeouts: &UpstreamTimeouts,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let broken = |error| failed(error).fault;
    exchange.upgraded().map_err(broken)?;
    // The engine's own patience is another one.
    session.as_downstream_mut().set_read_timeout(None);
    loop {
        tokio::select! {
            piece = exchange.answering.piece(timeouts.idle) => {
                let Some(piece) = piece.map_err(broken)? else { return Ok(()) };
                ctx.response_bytes += piece.len() as u64;
                in_time(session.as_downstream_mut().write_response_body(piece, false))
                    .await
                    .map_err(client_gone)?;
            }
            piece = session.as_downstream_mut().read_request_body() => {
                let Some(piece) = piece.map_err(client_gone)? else { return Ok(()) };
                ctx.request_bytes += piece.len() as u64;
                exchange.write_body(piece, false).await.map_err(broken)?;
            }
        }
    }
}
