//! One exchange between a client and a target, both bodies streaming at once:
//! connect, first byte and idle each have their own deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{StatusCode, header};
use pingora::{http::ResponseHeader, proxy::Session};

use super::head;
use crate::{
    config::service::UpstreamTimeouts,
    fault::{Fault, FaultKind},
    proxy::{
        Shared,
        body_limits::{self, BodyLimits},
        context::RequestContext,
    },
    upstream::{self, Cluster, ConnectError, Exchange, ReadError},
};

/// A target that stopped reading the request gets this long for its answer.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(in crate::proxy) async fn forward(
    shared: &Arc<Shared>,
    cluster: &Arc<Cluster>,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    if session.req_header().headers.contains_key(header::EXPECT) {
        // Answered here: the target gets the body as it comes.
        let _ = session.as_downstream_mut().write_continue_response().await;
    }
    let done = session.as_downstream_mut().is_body_done();
    let mut upload = Upload { done, started: false, refused: false };
    loop {
        let mut exchange = open(shared, cluster, ctx).await?;
        let stale = exchange.reused;
        match until_head(&mut exchange, cluster.timeouts(), &mut upload, session, ctx).await {
            Ok(answer) => return relay(exchange, answer, cluster.timeouts(), upload, session, ctx).await,
            // The origin closed the pooled connection while it lay there. Only
            // what may safely be sent twice is (RFC 9110 section 9.2.2).
            Err(Failure { broken: true, .. })
                if stale && !upload.started && session.req_header().method.is_idempotent() => {}
            Err(failure) => return Err(failure.fault),
        }
    }
}

/// The client's body on its way up.
struct Upload {
    done: bool,
    /// A byte of it was taken from the client: the request cannot be sent again.
    started: bool,
    /// The target takes no more of it; its answer may be on the way all the same.
    refused: bool,
}

struct Failure {
    fault: Fault,
    /// The upstream connection broke, as opposed to a timeout or the client.
    broken: bool,
}

/// A connection to the next target that takes one. No byte of the request has
/// left before, so any method may try all of them.
async fn open(
    shared: &Arc<Shared>,
    cluster: &Arc<Cluster>,
    ctx: &mut RequestContext,
) -> Result<Exchange, Fault> {
    let timeouts = cluster.timeouts();
    ctx.tried.clear();
    loop {
        let picked = cluster.pick(&ctx.tried);
        ctx.tried.push(picked.index);
        ctx.target = Some(cluster.label(picked.index).clone());
        let opened = match cluster.resolve(picked).await {
            Ok(address) => {
                let peer = upstream::peer(picked.target, address, timeouts, cluster.name());
                shared.connections.open(peer, timeouts.idle).await.map_err(unreachable)
            }
            Err(error) => {
                Err(Fault::new(FaultKind::UpstreamConnect, "the upstream cannot be resolved").because(error))
            }
        };
        match opened {
            Ok(exchange) => return Ok(exchange),
            Err(fault) => {
                shared.metrics.upstream(cluster.name()).connect_failed();
                if ctx.tried.len() >= cluster.len() {
                    return Err(fault);
                }
            }
        }
    }
}

fn unreachable(error: ConnectError) -> Fault {
    Fault::new(FaultKind::UpstreamConnect, "the upstream cannot be reached").because(error)
}

/// Sends the request and reads heads until the final one.
async fn until_head(
    exchange: &mut Exchange,
    timeouts: &UpstreamTimeouts,
    upload: &mut Upload,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<ResponseHeader, Failure> {
    let head = head::request(session, upload.done, ctx).map_err(|fault| Failure { fault, broken: false })?;
    exchange.write_head(head).await.map_err(failed)?;
    if upload.done {
        exchange.finish_body().await.map_err(failed)?;
    }
    let mut sent = Instant::now();
    loop {
        let wait = match upload {
            Upload { refused: true, .. } => Some(LAST_WORDS),
            Upload { done: true, .. } => Some(timeouts.first_byte.saturating_sub(sent.elapsed())),
            _ => None,
        };
        tokio::select! {
            biased;
            head = exchange.read_head(wait) => {
                let head = head.map_err(failed)?;
                if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(failed(ReadError::Broken("101 without an upgrade".to_owned())));
                }
                if !head.status.is_informational() {
                    return Ok(head);
                }
                informational(session, head).await?;
            }
            chunk = from_client(session, &mut ctx.body, upload.done) => {
                upload_step(chunk, exchange, upload, session, ctx).await?;
                sent = Instant::now();
            }
        }
    }
}

/// 103 and its like pass; 100 was answered by us already.
async fn informational(session: &mut Session, head: ResponseHeader) -> Result<(), Failure> {
    if head.status == StatusCode::CONTINUE || session.req_header().version != http::Version::HTTP_11 {
        return Ok(());
    }
    session.as_downstream_mut().write_response_header(Box::new(head)).await.map_err(client_gone)
}

/// The next piece of the client's body, or, once that is `done`, the client's
/// end. Cancel safe.
async fn from_client(
    session: &mut Session,
    limits: &mut BodyLimits,
    done: bool,
) -> Result<Option<Bytes>, Fault> {
    if done {
        let left = session.as_downstream_mut().read_body_or_idle(true).await;
        return left.map_err(body_limits::client_failed);
    }
    limits.next(session).await
}

async fn upload_step(
    chunk: Result<Option<Bytes>, Fault>,
    exchange: &mut Exchange,
    upload: &mut Upload,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Failure> {
    let chunk = match chunk {
        Err(fault) => return Err(Failure { fault, broken: false }),
        Ok(_) if upload.done => {
            let fault = Fault::new(FaultKind::ClientClosed, "the client went away");
            return Err(Failure { fault, broken: false });
        }
        Ok(chunk) => chunk,
    };
    let ended = chunk.is_none();
    if let Some(chunk) = chunk {
        upload.started = true;
        ctx.request_bytes += chunk.len() as u64;
        if !upload.refused {
            upload.refused = exchange.write_body(chunk).await.is_err();
        }
    }
    // The end may come with the last piece rather than after it.
    if ended || session.as_downstream_mut().is_body_done() {
        upload.done = true;
        if !upload.refused {
            upload.refused = exchange.finish_body().await.is_err();
        }
    }
    Ok(())
}

/// The response on its way down, while the rest of the request may still go up.
async fn relay(
    mut exchange: Exchange,
    answer: ResponseHeader,
    timeouts: &UpstreamTimeouts,
    mut upload: Upload,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let gone = |error| client_gone(error).fault;
    let keep = keeps_connection(&answer);
    let head = head::response(session, answer, ctx).await.map_err(gone)?;
    session.write_response_header(Box::new(head), false).await.map_err(gone)?;
    loop {
        tokio::select! {
            biased;
            chunk = exchange.read_body(timeouts.idle) => {
                let Some(chunk) = chunk.map_err(|error| failed(error).fault)? else { break };
                ctx.response_bytes += chunk.len() as u64;
                session.write_response_body(Some(chunk), false).await.map_err(gone)?;
            }
            chunk = from_client(session, &mut ctx.body, upload.done) => {
                upload_step(chunk, &mut exchange, &mut upload, session, ctx).await.map_err(|failure| failure.fault)?;
            }
        }
    }
    session.write_response_body(None, true).await.map_err(gone)?;
    if upload.done && keep && !upload.refused {
        exchange.release().await;
    } else if !upload.done {
        // The rest of a refused upload would have to be read before the next request.
        session.as_downstream_mut().set_keepalive(None);
    }
    Ok(())
}

fn keeps_connection(answer: &ResponseHeader) -> bool {
    !answer
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| value.as_bytes().to_ascii_lowercase().windows(5).any(|word| word == b"close"))
}

fn failed(error: ReadError) -> Failure {
    let (kind, message) = match &error {
        ReadError::TimedOut => (FaultKind::UpstreamTimeout, "the upstream did not answer in time"),
        _ => (FaultKind::UpstreamBroken, "the upstream broke the exchange"),
    };
    let broken = kind == FaultKind::UpstreamBroken;
    Failure { fault: Fault::new(kind, message).because(error), broken }
}

fn client_gone(error: Box<pingora::Error>) -> Failure {
    let fault = Fault::new(FaultKind::ClientClosed, "the client went away").because(error);
    Failure { fault, broken: false }
}
