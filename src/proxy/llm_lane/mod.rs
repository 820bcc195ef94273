//! Requests that are understood: admission, attempts, relay, settlement. The
//! host dials, counts and books; plugins decide who pays, with which key, and
//! which provider next.

mod attempt;
mod bill;
mod decide;
mod relay;

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, Method, header};
use pingora::proxy::Session;

use super::{
    Shared,
    context::{LlmRecord, RequestContext},
    endpoint_lane::read_body,
    reply,
    snapshot::{CompiledRoute, LlmService, ResolvedCandidate, ResolvedModel},
};
use crate::{
    fault::{Fault, FaultKind},
    llm::{self, ChatRequest},
    plugin::api,
};

/// Everything about one LLM request that its steps share.
struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    service: &'a LlmService,
    deciders: decide::Deciders,
    chat: ChatRequest,
    candidates: &'a [ResolvedCandidate],
    model: &'a ResolvedModel,
    /// What plugins are told of it.
    told: api::LlmRequest,
    /// Output limit after admission.
    max_output_tokens: Option<u64>,
    deadline: Instant,
}

impl Exchange<'_> {
    /// What the upstream is asked for at most: the caller's or the admission's
    /// limit, and never more than the model can.
    fn output_limit(&self, candidate: &ResolvedCandidate) -> Option<u64> {
        match (self.max_output_tokens, candidate.candidate.max_output_tokens) {
            (Some(limit), Some(most)) => Some(limit.min(most)),
            (limit, _) => limit,
        }
    }
}

enum Operation {
    Chat,
    Models,
    Model(String),
}

pub(super) async fn serve(
    shared: &Arc<Shared>,
    service: &LlmService,
    route: &CompiledRoute,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    match operation(session, ctx)? {
        Operation::Models => models(service, session, ctx).await,
        Operation::Model(id) => model(service, &id, session, ctx).await,
        Operation::Chat => chat(shared, service, route, session, ctx).await,
    }
}

/// `/v1/…`, `/…` and both below `/api/v1/llm` mean the same.
fn operation(session: &Session, ctx: &mut RequestContext) -> Result<Operation, Fault> {
    let head = session.req_header();
    let path = head.uri.path();
    let path = path.strip_prefix("/api/v1/llm").unwrap_or(path);
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let (operation, allowed) = match path.trim_end_matches('/') {
        "/chat/completions" => (Operation::Chat, Method::POST),
        "/models" => (Operation::Models, Method::GET),
        other => match other.strip_prefix("/models/") {
            Some(id) => (Operation::Model(id.to_owned()), Method::GET),
            None => {
                return Err(Fault::new(
                    FaultKind::NoRoute,
                    format!("unknown request URL: {} {}", head.method, head.uri.path()),
                ));
            }
        },
    };
    if head.method != allowed {
        if let Ok(allow) = HeaderValue::from_str(allowed.as_str()) {
            ctx.response_headers.insert(header::ALLOW, allow);
        }
        return Err(Fault::new(FaultKind::MethodNotAllowed, format!("use {allowed} here")));
    }
    Ok(operation)
}

async fn models(service: &LlmService, session: &mut Session, ctx: &mut RequestContext) -> Result<(), Fault> {
    let body = llm::models_body(service.models.keys().map(String::as_str), started_at());
    json(session, ctx, 200, body).await
}

async fn model(
    service: &LlmService,
    id: &str,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    if !service.models.contains_key(id) {
        return Err(unknown_model(id));
    }
    json(session, ctx, 200, llm::model_body(id, started_at())).await
}

async fn chat(
    shared: &Arc<Shared>,
    service: &LlmService,
    route: &CompiledRoute,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let body = read_body(session, ctx, service.limits.max_body.0 as usize).await?;
    let chat = match ChatRequest::parse(body) {
        Ok(chat) => chat,
        Err(error) => return refuse_body(session, ctx, &error).await,
    };
    ctx.llm = Some(Box::new(LlmRecord {
        model: chat.model().to_owned(),
        stream: chat.stream(),
        ending: "failed",
        ..LlmRecord::default()
    }));
    let model = service.models.get(chat.model()).ok_or_else(|| unknown_model(chat.model()))?;
    let candidates = &*model.candidates;
    let told = told(shared, route, ctx, &chat, candidates);
    let max_output_tokens = chat.max_output_tokens();
    let mut exchange = Exchange {
        shared,
        service,
        deciders: decide::Deciders::of(route, ctx),
        chat,
        candidates,
        model,
        told,
        max_output_tokens,
        deadline: Instant::now() + service.timeouts.total,
    };
    let hold = exchange.admit(ctx).await?;
    let mut bill = bill::Bill::new(hold);
    let served = attempt::run(&exchange, session, ctx, &mut bill).await;
    bill.settle(&exchange, ctx).await;
    served
}

/// Malformed bodies are refused in the caller's dialect with the member named.
async fn refuse_body(
    session: &mut Session,
    ctx: &mut RequestContext,
    error: &llm::LlmError,
) -> Result<(), Fault> {
    ctx.fault = Some(FaultKind::BadRequest);
    json(session, ctx, 400, error.body(&ctx.id.clone())).await
}

async fn json(
    session: &mut Session,
    ctx: &mut RequestContext,
    status: u16,
    body: bytes::Bytes,
) -> Result<(), Fault> {
    reply::whole(session, ctx, status, HeaderValue::from_static("application/json"), body).await.map_err(gone)
}

fn gone(error: Box<pingora::Error>) -> Fault {
    Fault::new(FaultKind::ClientClosed, "the client went away").because(error)
}

fn unknown_model(model: &str) -> Fault {
    // The name is the caller's own word; it is cut so that a body cannot be echoed whole.
    let shown: String = model.chars().take(128).collect();
    Fault::new(
        FaultKind::UnknownModel,
        format!("the model `{shown}` does not exist or you do not have access to it"),
    )
}

fn told(
    shared: &Shared,
    route: &CompiledRoute,
    ctx: &RequestContext,
    chat: &ChatRequest,
    candidates: &[ResolvedCandidate],
) -> api::LlmRequest {
    let caller = match &ctx.caller {
        Some(caller) => api::Caller {
            id: caller.id.to_string(),
            tenant: caller.tenant.to_string(),
            tier: caller.tier.to_string(),
        },
        None => api::Caller { id: "anonymous".into(), tenant: "anonymous".into(), tier: String::new() },
    };
    let candidates = candidates
        .iter()
        .map(|resolved| api::Candidate {
            provider: resolved.provider.name.to_string(),
            model: resolved.candidate.model.clone(),
            price: resolved.candidate.price.map(bill::told_price),
            max_output_tokens: resolved.candidate.max_output_tokens,
            cooling: shared.cooling.is_cooling(&resolved.health_key),
        })
        .collect();
    api::LlmRequest {
        request_id: ctx.id.to_string(),
        caller,
        route: route.name.to_string(),
        model: chat.model().to_owned(),
        stream: chat.stream(),
        estimated_input_tokens: chat.estimated_input_tokens(),
        max_output_tokens: chat.max_output_tokens(),
        candidates,
        unix_ms: unix_ms(),
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// `created` of listed models: they exist since this process began to serve them.
fn started_at() -> u64 {
    static STARTED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *STARTED.get_or_init(|| unix_ms() / 1000)
}
