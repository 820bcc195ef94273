//! One exchange between a client and a target, both bodies streaming at once:
//! connect, first byte and idle each have their own deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode, Version, header};
use pingora::{http::ResponseHeader, proxy::Session};

use super::{delivery::Delivery, head, upload::Upload};
use crate::{
    config::service::{UpstreamProtocol, UpstreamTimeouts},
    fault::{Fault, FaultKind},
    proxy::{Shared, context::RequestContext, grpc::is_grpc, reply::in_time},
    upstream::{Cluster, ConnectError, Exchange, ExchangeError, Wire},
};

/// A target that stopped reading the request gets this long for its answer.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a target may refuse a request unseen before that is its answer.
const MOST_REFUSALS: usize = 3;

pub(in crate::proxy) async fn forward(
    shared: &Arc<Shared>,
    cluster: &Arc<Cluster>,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let wire = wire(cluster.protocol(), session)?;
    let idempotent = session.req_header().method.is_idempotent();
    let mut upload = Upload::of(session, idempotent || wire == Wire::Http2);
    let mut asked = session.req_header().headers.contains_key(header::EXPECT);
    let mut refusals = 0;
    loop {
        let mut exchange = open(shared, cluster, wire, ctx).await?;
        if std::mem::take(&mut asked) {
            // Answered here, when the body has somewhere to go: the target gets it as it comes.
            let _ = in_time(session.as_downstream_mut().write_continue_response()).await;
        }
        match until_head(&mut exchange, cluster.timeouts(), &mut upload, session, ctx).await {
            Ok(answer) => {
                upload.committed();
                return relay(exchange, answer, cluster.timeouts(), upload, session, ctx).await;
            }
            Err(failure) => {
                refusals += 1;
                // The origin closed the pooled connection while it lay there. Only
                // what may safely be sent twice is (RFC 9110 section 9.2.2).
                let stale = failure.broken && exchange.reused && session.req_header().method.is_idempotent();
                let unseen = failure.unprocessed && refusals <= MOST_REFUSALS;
                if !(stale || unseen) || !upload.repeatable() {
                    return Err(failure.fault);
                }
            }
        }
    }
}

/// What is spoken with the target.
fn wire(protocol: UpstreamProtocol, session: &Session) -> Result<Wire, Fault> {
    let head = session.req_header();
    let is_grpc = is_grpc(head);
    if is_grpc && head.version != Version::HTTP_2 {
        return Err(Fault::new(FaultKind::HttpVersion, "gRPC needs HTTP/2 from the client"));
    }
    match protocol {
        UpstreamProtocol::Http2 => Ok(Wire::Http2),
        UpstreamProtocol::Auto if is_grpc => Ok(Wire::Http2),
        UpstreamProtocol::Http1 if is_grpc => {
            Err(Fault::new(FaultKind::UpstreamConnect, "gRPC needs HTTP/2, which this service does not use"))
        }
        UpstreamProtocol::Auto | UpstreamProtocol::Http1 => Ok(Wire::Http1),
    }
}

pub(super) struct Failure {
    pub(super) fault: Fault,
    /// The upstream connection broke, as opposed to a timeout or the client.
    pub(super) broken: bool,
    /// The upstream said that it did not look at the request.
    unprocessed: bool,
}

impl Failure {
    /// One that another attempt would not mend.
    pub(super) fn of(fault: Fault) -> Self {
        Self { fault, broken: false, unprocessed: false }
    }
}

/// A connection to the next target that takes one. No byte of the request has
/// left before, so any method may try all of them.
pub(super) async fn open(
    shared: &Arc<Shared>,
    cluster: &Arc<Cluster>,
    wire: Wire,
    ctx: &mut RequestContext,
) -> Result<Exchange, Fault> {
    ctx.tried.clear();
    loop {
        let picked = cluster.pick(&ctx.tried);
        ctx.tried.push(picked.index);
        ctx.target = Some(cluster.label(picked.index).clone());
        let opened = match cluster.resolve(picked).await {
            Ok(address) => {
                let mut peer = cluster.peer(picked, address, wire);
                if let Some(version) = cluster.proxy_protocol() {
                    ctx.preamble(version).introduce(Arc::make_mut(&mut peer));
                }
                shared.connections.open(peer, wire, cluster.timeouts().idle).await.map_err(unreachable)
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
    let head = head::request(session, exchange, upload.bodiless, ctx).map_err(Failure::of)?;
    exchange.write_head(Box::new(head), upload.bodiless).await.map_err(failed)?;
    if let Some(body) = upload.again().filter(|_| !upload.bodiless)
        && (!body.is_empty() || upload.done)
    {
        exchange.write_body(body, upload.done).await.map_err(failed)?;
    }
    if is_grpc(session.req_header()) {
        // Its streams may rest for as long as the service lets them.
        ctx.body.may_rest_for(timeouts.idle);
    }
    let mut sent = Instant::now();
    loop {
        let busy = exchange.asking.busy();
        let wait = match upload {
            Upload { refused: true, .. } => Some(LAST_WORDS),
            Upload { done: true, .. } if !busy => Some(timeouts.first_byte.saturating_sub(sent.elapsed())),
            _ => None,
        };
        tokio::select! {
            biased;
            head = exchange.answering.head(wait) => {
                let head = head.map_err(failed)?;
                if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(failed(ExchangeError::Broken("101 without an upgrade".to_owned())));
                }
                if !head.status.is_informational() {
                    return Ok(head);
                }
                informational(session, head).await?;
            }
            drained = exchange.asking.drain(timeouts.idle), if busy => {
                upload.refused |= refused(drained)?;
                sent = Instant::now();
            }
            piece = upload.next(session, &mut ctx.body), if !busy || upload.done => {
                upload.step(piece, exchange, session, ctx).await?;
                sent = Instant::now();
            }
        }
    }
}

/// Whether the target takes no more of the request. It may have answered.
fn refused(drained: Result<(), ExchangeError>) -> Result<bool, Failure> {
    match drained.err() {
        None => Ok(false),
        Some(error @ ExchangeError::TimedOut) => Err(failed(error)),
        Some(_) => Ok(true),
    }
}

/// 103 and its like pass to HTTP/1.1; 100 was answered by us already.
pub(super) async fn informational(session: &mut Session, head: ResponseHeader) -> Result<(), Failure> {
    if head.status == StatusCode::CONTINUE || session.req_header().version != Version::HTTP_11 {
        return Ok(());
    }
    let head = head::informational(head);
    let written = in_time(session.as_downstream_mut().write_response_header(Box::new(head))).await;
    written.map_err(|error| Failure::of(client_gone(error)))
}

/// The response on its way down, while the rest of the request may still go up.
pub(super) async fn relay(
    mut exchange: Exchange,
    answer: ResponseHeader,
    timeouts: &UpstreamTimeouts,
    mut upload: Upload,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    // Some origins send a body where there is none; on HTTP/2 it would break the stream.
    let last = head::is_bodiless(session, &answer)
        || exchange.answering.ended().map_err(|error| failed(error).fault)?;
    let head = head::response(session, answer, ctx).await.map_err(client_gone)?;
    let mut delivery = Delivery::begin(session, head, last).await.map_err(client_gone)?;
    let trailers = if last {
        None
    } else {
        match pump(&mut exchange, &mut delivery, timeouts, &mut upload, session, ctx).await {
            Ok(trailers) => trailers,
            Err(fault) => {
                delivery.fail(&fault, is_grpc(session.req_header()));
                return Err(fault);
            }
        }
    };
    delivery.finish(session, trailers).await.map_err(client_gone)?;
    if upload.done && !upload.refused {
        exchange.release().await;
    } else if !upload.done {
        // The rest of a refused upload would have to be read before the next request.
        session.as_downstream_mut().set_keepalive(None);
    }
    Ok(())
}

/// Moves bytes both ways until the response's body is delivered; its trailers.
async fn pump(
    exchange: &mut Exchange,
    delivery: &mut Delivery,
    timeouts: &UpstreamTimeouts,
    upload: &mut Upload,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<Option<HeaderMap>, Fault> {
    let broken = |error| failed(error).fault;
    let (mut ended, mut may_have_trailers) = (false, true);
    while !ended || delivery.busy() {
        let (going_up, going_down) = (exchange.asking.busy() && !upload.refused, delivery.busy());
        // With the request read to its end, `progress` sees a client of HTTP/2 go.
        let from_client = !(going_up || upload.done && delivery.is_http2());
        tokio::select! {
            piece = exchange.answering.piece(timeouts.idle), if !ended && !going_down => {
                match piece.map_err(broken)? {
                    None => ended = true,
                    Some(piece) => {
                        ctx.response_bytes += piece.len() as u64;
                        ended = exchange.answering.ended().map_err(broken)?;
                        may_have_trailers = !ended;
                        delivery.put(session, Some(piece), ended).await.map_err(client_gone)?;
                    }
                }
            }
            moved = delivery.progress() => moved.map_err(client_gone)?,
            drained = exchange.asking.drain(timeouts.idle), if going_up => {
                upload.refused |= refused(drained).map_err(|failure| failure.fault)?;
            }
            piece = upload.next(session, &mut ctx.body), if from_client => {
                upload.step(piece, exchange, session, ctx).await.map_err(|failure| failure.fault)?;
            }
        }
    }
    if !may_have_trailers {
        return Ok(None);
    }
    exchange.answering.trailers(timeouts.idle).await.map_err(broken)
}

pub(super) fn failed(error: ExchangeError) -> Failure {
    let (kind, message) = match &error {
        ExchangeError::TimedOut => (FaultKind::UpstreamTimeout, "the upstream did not answer in time"),
        _ => (FaultKind::UpstreamBroken, "the upstream broke the exchange"),
    };
    let broken = kind == FaultKind::UpstreamBroken;
    let unprocessed = matches!(error, ExchangeError::Unprocessed);
    Failure { fault: Fault::new(kind, message).because(error), broken, unprocessed }
}

pub(super) fn client_gone(error: Box<pingora::Error>) -> Fault {
    Fault::new(FaultKind::ClientClosed, "the client went away").because(error)
}
