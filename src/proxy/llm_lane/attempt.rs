//! One provider after another until one answers or the planner gives up. Up to
//! the first content byte any attempt may be replaced; after it, none.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use http::{HeaderValue, header};
use pingora::{http::RequestHeader, proxy::Session};

use super::{Exchange, bill::Bill, decide::Key, decide::Next, gone, json, relay};
use crate::{
    config::Secret,
    fault::{Fault, FaultKind},
    llm::{self, FailureClass, LlmError, UpstreamRefusal, UpstreamRequest},
    plugin::api,
    proxy::{context::RequestContext, snapshot::ResolvedCandidate},
    telemetry::AttemptOutcome,
    upstream::{self, ConnectError, Response},
};

/// An error body longer than this says nothing more.
const MAX_ERROR_BODY: usize = 64 << 10;
/// A candidate that failed without saying for how long is left alone this long.
const COOLING: Duration = Duration::from_secs(2);
/// A provider may not lock itself out for longer than this.
const MAX_COOLING: Duration = Duration::from_secs(60);
/// The longest wait for a retry of the same candidate.
const MAX_WAIT: Duration = Duration::from_secs(10);

pub(super) enum Attempt {
    /// The client has its answer, or its in-band error.
    Answered,
    Failed(Failure),
}

/// Why an attempt did not answer.
pub(super) struct Failure {
    pub(super) class: FailureClass,
    /// Upstream status, 0 if none arrived.
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) answer: Answer,
}

/// What the caller is told if this failure is the last.
pub(super) enum Answer {
    Refusal(UpstreamRefusal),
    Fault(Fault),
}

pub(super) async fn run(
    exchange: &Exchange<'_>,
    session: &mut Session,
    ctx: &mut RequestContext,
    bill: &mut Bill,
) -> Result<(), Fault> {
    let mut failed = Vec::new();
    let mut index = exchange.plan(ctx).await?;
    loop {
        bill.attempts += 1;
        let began = Instant::now();
        let candidate = &exchange.candidates[index];
        ctx.target = Some(candidate.health_key.clone());
        let failure = match attempt(exchange, index, session, ctx, bill).await {
            Ok(Attempt::Answered) => {
                if bill.ending == api::Ending::Complete {
                    candidate.provider.metrics.attempted(AttemptOutcome::Served);
                    exchange.shared.cooling.warm(&candidate.health_key);
                }
                return Ok(());
            }
            Ok(Attempt::Failed(failure)) => failure,
            Err(fault) => {
                if fault.kind == FaultKind::ClientClosed {
                    candidate.provider.metrics.attempted(AttemptOutcome::Cancelled);
                }
                return Err(fault);
            }
        };
        candidate.provider.metrics.attempted(outcome(failure.class));
        cool(exchange, candidate, &failure);
        failed.push(told(&failure, index, began.elapsed()));
        let next = if bill.attempts < exchange.service.limits.max_attempts && failure.class.replaceable() {
            exchange.after_failure(&failed, ctx).await
        } else {
            Next::GiveUp
        };
        let left = exchange.deadline.saturating_duration_since(Instant::now());
        match next {
            Next::Attempt(next) if !left.is_zero() => index = next,
            Next::AttemptAfter(next, wait) if wait.min(MAX_WAIT) < left => {
                wait_unless_gone(session, wait.min(MAX_WAIT), bill).await?;
                index = next;
            }
            _ => return give_up(failure, session, ctx).await,
        }
    }
}

async fn attempt(
    exchange: &Exchange<'_>,
    index: usize,
    session: &mut Session,
    ctx: &mut RequestContext,
    bill: &mut Bill,
) -> Result<Attempt, Fault> {
    let candidate = &exchange.candidates[index];
    let api = candidate.provider.config.api;
    let request = match llm::upstream_request(
        api,
        &exchange.chat,
        &candidate.candidate.model,
        exchange.output_limit(candidate),
    ) {
        Ok(request) => request,
        Err(error) => return Ok(Attempt::Failed(Failure::unsuitable(&error, &ctx.id))),
    };
    let key = exchange.key(index, ctx).await?;
    bill.own_key = matches!(key, Key::Sealed(_));
    let secret = secret(exchange, candidate, key)?;
    tell_dropped(&request, ctx);
    let sent = Instant::now();
    // Pinned here: `select!` would move them, and a future that may connect is over 10 KB.
    let send = pin!(send(exchange, candidate, request, secret.as_ref()));
    let response = tokio::select! {
        biased;
        response = send => response,
        () = client_gone(session) => return Err(cancelled(bill)),
    };
    let response = match response {
        Ok(response) => response,
        Err(failure) => return Ok(Attempt::Failed(failure)),
    };
    if !(200..300).contains(&response.status) {
        return tokio::select! {
            biased;
            failure = refusal(exchange, candidate, response) => Ok(Attempt::Failed(failure)),
            () = client_gone(session) => Err(cancelled(bill)),
        };
    }
    if exchange.chat.stream() {
        relay::stream(exchange, index, response, sent, session, ctx, bill).await
    } else {
        relay::whole(exchange, index, response, session, ctx, bill).await
    }
}

async fn send(
    exchange: &Exchange<'_>,
    candidate: &ResolvedCandidate,
    request: UpstreamRequest,
    key: Option<&Secret>,
) -> Result<Response, Failure> {
    let provider = &candidate.provider;
    let head = head(candidate, &request, key).map_err(|error| {
        let fault = Fault::new(FaultKind::Internal, "the request cannot be sent to the provider");
        Failure::transient(0, fault.because(error.to_string()))
    })?;
    let target = &provider.config.target;
    let address =
        exchange.shared.clusters.resolver().resolve(&target.host, target.port).await.map_err(|error| {
            Failure::transient(
                0,
                Fault::new(FaultKind::UpstreamConnect, "the provider cannot be reached").because(error),
            )
        })?;
    let peer = upstream::peer(target, address, &provider.timeouts, &provider.group);
    let left = exchange.deadline.saturating_duration_since(Instant::now());
    let wait = exchange.service.timeouts.first_token.min(left);
    exchange
        .shared
        .connections
        .send(&peer, head, request.body, tokio::time::Instant::now() + wait)
        .await
        .map_err(|error| {
            let (kind, message) = match &error {
                ConnectError::TimedOut | ConnectError::ConnectTimedOut => {
                    (FaultKind::UpstreamTimeout, "the provider did not answer in time")
                }
                ConnectError::Failed(_) => (FaultKind::UpstreamConnect, "the provider cannot be reached"),
                ConnectError::Broken(_) => (FaultKind::UpstreamBroken, "the provider broke the connection"),
            };
            Failure::transient(0, Fault::new(kind, message).because(error))
        })
}

/// Only what the dialect needs travels: none of the caller's own headers do.
fn head(
    candidate: &ResolvedCandidate,
    request: &UpstreamRequest,
    key: Option<&Secret>,
) -> pingora::Result<RequestHeader> {
    let provider = &candidate.provider;
    let path = format!("{}{}", provider.config.base_path, request.path);
    let mut head = RequestHeader::build("POST", path.as_bytes(), Some(8))?;
    head.insert_header(header::HOST, &provider.host_header)?;
    head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    head.insert_header(header::CONTENT_LENGTH, request.body.len())?;
    head.insert_header(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION"))),
    )?;
    for (name, value) in &request.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    if let Some((name, value)) = key.and_then(|key| llm::credential_header(provider.config.api, key.expose()))
    {
        head.insert_header(name, value)?;
    }
    Ok(head)
}

fn secret(exchange: &Exchange<'_>, candidate: &ResolvedCandidate, key: Key) -> Result<Option<Secret>, Fault> {
    match key {
        Key::Anonymous => Ok(None),
        Key::Platform => Ok(candidate.provider.config.key.clone()),
        Key::Sealed(handle) => match exchange.shared.secrets.reveal(&handle) {
            Ok(Some(secret)) => Ok(Some(secret)),
            Ok(None) => Err(Fault::new(FaultKind::PluginFailed, "the chosen key does not exist")),
            Err(error) => {
                Err(Fault::new(FaultKind::StoreUnavailable, "the chosen key cannot be opened").because(error))
            }
        },
    }
}

async fn refusal(exchange: &Exchange<'_>, candidate: &ResolvedCandidate, mut response: Response) -> Failure {
    let status = response.status;
    let patience = exchange.service.timeouts.inter_token;
    let left = || patience.min(exchange.deadline.saturating_duration_since(Instant::now()));
    let mut body = Vec::new();
    // Read to its end, so that the connection serves the next attempt.
    while let Ok(Some(chunk)) = response.chunk(left()).await {
        if body.len() + chunk.len() > MAX_ERROR_BODY {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let refusal = llm::refusal(candidate.provider.config.api, status, &response.headers, &body);
    Failure {
        class: refusal.class,
        status,
        retry_after: refusal.retry_after,
        answer: Answer::Refusal(refusal),
    }
}

async fn give_up(failure: Failure, session: &mut Session, ctx: &mut RequestContext) -> Result<(), Fault> {
    match failure.answer {
        Answer::Fault(fault) => Err(fault),
        Answer::Refusal(refusal) => {
            ctx.fault = Some(FaultKind::UpstreamRefused);
            if let Some(wait) = refusal.retry_after {
                let millis = wait.as_millis() as u64;
                ctx.response_headers
                    .insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
                ctx.response_headers.insert("retry-after-ms", HeaderValue::from(millis));
            }
            json(session, ctx, refusal.status, refusal.body).await
        }
    }
}

fn cool(exchange: &Exchange<'_>, candidate: &ResolvedCandidate, failure: &Failure) {
    if failure.class.blames_provider() {
        let wait = failure.retry_after.unwrap_or(COOLING).min(MAX_COOLING);
        exchange.shared.cooling.cool(&candidate.health_key, wait);
    }
}

fn outcome(class: FailureClass) -> AttemptOutcome {
    match class {
        FailureClass::ClientError => AttemptOutcome::ClientError,
        FailureClass::ContextExceeded => AttemptOutcome::ContextExceeded,
        FailureClass::PolicyRefused => AttemptOutcome::PolicyRefused,
        FailureClass::ModelGone => AttemptOutcome::ModelGone,
        FailureClass::KeyDead => AttemptOutcome::KeyDead,
        FailureClass::Throttled => AttemptOutcome::Throttled,
        FailureClass::Transient => AttemptOutcome::Transient,
        FailureClass::BadStream => AttemptOutcome::BadStream,
    }
}

fn told(failure: &Failure, index: usize, elapsed: Duration) -> api::FailedAttempt {
    api::FailedAttempt {
        candidate: index as u32,
        class: match failure.class {
            FailureClass::ClientError => api::FailureClass::ClientError,
            FailureClass::ContextExceeded => api::FailureClass::ContextExceeded,
            FailureClass::PolicyRefused => api::FailureClass::PolicyRefused,
            FailureClass::ModelGone => api::FailureClass::ModelGone,
            FailureClass::KeyDead => api::FailureClass::KeyDead,
            FailureClass::Throttled => api::FailureClass::Throttled,
            FailureClass::Transient => api::FailureClass::Transient,
            FailureClass::BadStream => api::FailureClass::BadStream,
        },
        status: failure.status,
        retry_after_ms: failure.retry_after.map(|wait| wait.as_millis() as u64),
        elapsed_ms: elapsed.as_millis() as u64,
    }
}

fn tell_dropped(request: &UpstreamRequest, ctx: &mut RequestContext) {
    ctx.response_headers.remove("x-tollgate-dropped-params");
    if !request.dropped.is_empty()
        && let Ok(value) = HeaderValue::from_str(&request.dropped.join(", "))
    {
        ctx.response_headers.insert("x-tollgate-dropped-params", value);
    }
}

async fn wait_unless_gone(session: &mut Session, wait: Duration, bill: &mut Bill) -> Result<(), Fault> {
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        () = client_gone(session) => Err(cancelled(bill)),
    }
}

/// Resolves when the client closes or resets. The request body is read already,
/// so anything that arrives is the end of the exchange.
pub(super) async fn client_gone(session: &mut Session) {
    let _ = session.as_downstream_mut().read_body_or_idle(true).await;
}

pub(super) fn cancelled(bill: &mut Bill) -> Fault {
    bill.ending = api::Ending::Cancelled;
    Fault::new(FaultKind::ClientClosed, "the client went away")
}

impl Failure {
    /// The candidate's dialect cannot carry the request; another one's may.
    fn unsuitable(error: &LlmError, request_id: &str) -> Self {
        let class = FailureClass::ModelGone;
        let body = error.body(request_id);
        let refusal = UpstreamRefusal { class, status: 400, body, retry_after: None, retry_same: false };
        Self { class, status: 0, retry_after: None, answer: Answer::Refusal(refusal) }
    }

    pub(super) fn transient(status: u16, fault: Fault) -> Self {
        Self { class: FailureClass::Transient, status, retry_after: None, answer: Answer::Fault(fault) }
    }

    pub(super) fn bad_stream(class: FailureClass, fault: Fault) -> Self {
        Self { class, status: 200, retry_after: None, answer: Answer::Fault(fault) }
    }
}

pub(super) fn client_closed(error: Box<pingora::Error>, bill: &mut Bill) -> Fault {
    bill.ending = api::Ending::Cancelled;
    gone(error)
}
