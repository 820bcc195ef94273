//! From the request head to its lane: match, then the chain in written order.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderName, HeaderValue, header};
use pingora::{http::RequestHeader, proxy::Session};

use super::{
    Shared,
    admit::IDENTITY_PREFIX,
    arrival::arrival,
    challenges, client_certificate,
    context::RequestContext,
    endpoint_lane, http_lane, llm_lane, operator, redirect, reply, rules,
    snapshot::{CompiledRoute, Lane, RateLimitStep, Step},
};
use crate::{
    auth::AuthError,
    config::{
        entrypoint::PathPolicy,
        middleware::{self, LimitBy},
        plugin::OnError,
    },
    fault::{Fault, FaultKind},
    plugin::{Version, api},
    route::{RequestView, canonical_host},
};

/// The longest incoming request id that is kept.
const MAX_REQUEST_ID: usize = 128;

/// Whether the request has its response already.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Served {
    Answered,
    /// Not yet.
    No,
}

pub(super) async fn serve(
    shared: &Arc<Shared>,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<Served, Fault> {
    let Some(snapshot) = ctx.snapshot.clone() else {
        return Err(Fault::new(FaultKind::Overloaded, "the gateway is starting"));
    };
    if let Err(fault) = rules::apply(ctx.path, session.req_header_mut()) {
        // Who sends such a thing may mean the next one to hide behind it.
        session.as_downstream_mut().set_keepalive(None);
        return Err(fault);
    }
    if &*ctx.entrypoint == crate::config::entrypoint::ADMIN {
        Box::pin(operator::serve(shared, &snapshot, session, ctx)).await?;
        return Ok(Served::Answered);
    }
    if challenges::serve(&shared.challenges, session, ctx).await? {
        return Ok(Served::Answered);
    }
    // The front refuses them on HTTP/1; HTTP/2 heads do not pass it.
    if matches!(session.req_header().method, http::Method::TRACE | http::Method::CONNECT) {
        return Err(Fault::new(FaultKind::MethodNotAllowed, "TRACE and CONNECT are not served"));
    }
    if misdirected(session) {
        return Err(Fault::new(FaultKind::Misdirected, "this connection was made for another host"));
    }
    // RFC 9113 section 8.3.1.
    if session.req_header().uri.path() == "*" && session.req_header().method != http::Method::OPTIONS {
        return Err(Fault::new(FaultKind::BadRequest, "only OPTIONS may ask for *"));
    }
    if let Served::Answered = redirect::redirect(&snapshot.redirects, session, ctx).await? {
        return Ok(Served::Answered);
    }
    let route = matched(&snapshot, session, ctx)
        .ok_or_else(|| Fault::new(FaultKind::NoRoute, "no route matches this request"))?;
    ctx.route = Some(route.clone());
    ctx.in_flight = Some(route.metrics.begin());
    ctx.body.check_declared(session)?;
    for step in &route.chain {
        if let Served::Answered = pass(shared, step, &route, session, ctx).await? {
            return Ok(Served::Answered);
        }
    }
    rewrite_path(&route, ctx.path, session.req_header_mut())?;
    match &route.lane {
        Lane::Http(cluster) if http_lane::is_websocket(session) => {
            Box::pin(http_lane::websocket(shared, cluster, session, ctx)).await?;
        }
        Lane::Http(cluster) => http_lane::forward(shared, cluster, session, ctx).await?,
        // Boxed: the largest lane would otherwise make every request's future as
        // large as its own, and such futures are moved.
        Lane::Llm(service) => Box::pin(llm_lane::serve(shared, service, &route, session, ctx)).await?,
        Lane::Endpoint(slot) => {
            let identity = endpoint_lane::Identity::Caller(ctx.caller.clone());
            Box::pin(endpoint_lane::serve(slot, identity, session, ctx)).await?;
        }
    }
    Ok(Served::Answered)
}

/// The client reached one host's TLS and asks for another, of which the TLS
/// asks other things: a certificate, perhaps (RFC 9110 section 7.4).
fn misdirected(session: &Session) -> bool {
    let tls = session.digest().and_then(arrival).and_then(|arrival| arrival.tls.as_ref());
    tls.is_some_and(|tls| !tls.admits(&canonical_host(authority(session.req_header()))))
}

fn matched(
    snapshot: &super::Snapshot,
    session: &Session,
    ctx: &RequestContext,
) -> Option<Arc<CompiledRoute>> {
    let head = session.req_header();
    let arrival = session.digest().and_then(arrival);
    let view = RequestView {
        entrypoint: &ctx.entrypoint,
        host: authority(head),
        path: head.uri.path(),
        exact_path: !ctx.path.normalize,
        query: head.uri.query(),
        method: &head.method,
        headers: &head.headers,
        // Not the client that a proxy names: as in Traefik, rules see the peer.
        client: arrival.map_or(ctx.client, |arrival| arrival.peer.ip()),
        sni: arrival.and_then(|arrival| arrival.tls.as_ref()?.sni.as_deref()),
    };
    snapshot.table.lookup(&view).map(|index| snapshot.routes[index].clone())
}

/// Host and port as sent: `:authority` or an absolute target wins over Host (RFC 9112 section 3.2.2).
pub(super) fn authority(head: &RequestHeader) -> &str {
    match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}

async fn pass(
    shared: &Shared,
    step: &Step,
    route: &CompiledRoute,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<Served, Fault> {
    match step {
        Step::RequestId(step) => request_id(step, session, ctx),
        Step::ApiKey(step) => api_key(step, session, ctx)?,
        Step::RateLimit(step) => rate_limit(shared, step, session, ctx)?,
        Step::Plugin(slot) => {
            let version = slot.current();
            if version.hooks().filter {
                return filter(version, route, session, ctx).await;
            }
        }
    }
    Ok(Served::No)
}

fn request_id(step: &middleware::RequestId, session: &mut Session, ctx: &mut RequestContext) {
    ctx.id_header = step.header.clone();
    let incoming = session.req_header().headers.get(&step.header).and_then(|id| id.to_str().ok());
    if let (true, Some(id)) = (step.trust_incoming, incoming) {
        let clean = !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
        if clean {
            ctx.id = id.into();
        }
    }
}

fn api_key(step: &middleware::ApiKey, session: &mut Session, ctx: &mut RequestContext) -> Result<(), Fault> {
    let Some(snapshot) = &ctx.snapshot else { return Ok(()) };
    let caller = snapshot.api_keys.authenticate(step, &session.req_header().headers).map_err(|error| {
        let message = match error {
            AuthError::Missing => "no API key: send it as a Bearer token",
            AuthError::Unknown => "unknown API key",
        };
        Fault::new(FaultKind::Unauthenticated, message)
    });
    let caller = caller.inspect_err(|_| {
        ctx.response_headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    })?;
    ctx.caller = Some(caller);
    if step.hide {
        for name in &step.headers {
            session.req_header_mut().remove_header(name);
        }
    }
    Ok(())
}

fn rate_limit(
    shared: &Shared,
    step: &RateLimitStep,
    session: &Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let address;
    let identity = match (&step.by, &ctx.caller) {
        (LimitBy::All, _) => "",
        (LimitBy::Consumer, Some(caller)) => &*caller.id,
        (LimitBy::Header(name), _) => {
            session.req_header().headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
        }
        (LimitBy::Consumer | LimitBy::Address, _) => {
            address = ctx.client.to_string();
            &address
        }
    };
    let decision = shared.limits.check(&step.policy, identity, SystemTime::now());
    decision.write_headers(&step.policy, &mut ctx.response_headers);
    step.metrics.decided(decision.allowed);
    if decision.allowed {
        return Ok(());
    }
    Err(Fault::new(FaultKind::RateLimited, "too many requests: the limit of this route is used up"))
}

async fn filter(
    version: Arc<Version>,
    route: &CompiledRoute,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<Served, Fault> {
    let head = request_head(&version, route, session, ctx);
    let verdict = match version.on_request(head).await {
        Ok(verdict) => verdict,
        Err(fault) if version.on_error() == OnError::Continue => {
            tracing::warn!(request_id = %ctx.id, plugin = version.name(), %fault, "plugin skipped");
            return Ok(Served::No);
        }
        Err(fault) => {
            return Err(Fault::new(FaultKind::PluginFailed, "a plugin of this route failed").because(fault));
        }
    };
    ctx.filters.push(version);
    match verdict {
        api::RequestVerdict::Pass => Ok(Served::No),
        api::RequestVerdict::Edit(edits) => {
            edit_request(session.req_header_mut(), edits)?;
            Ok(Served::No)
        }
        api::RequestVerdict::Reply(reply) => {
            plugin_reply(session, ctx, reply).await?;
            Ok(Served::Answered)
        }
    }
}

fn request_head(
    version: &Version,
    route: &CompiledRoute,
    session: &Session,
    ctx: &RequestContext,
) -> api::RequestHead {
    let head = session.req_header();
    api::RequestHead {
        request_id: ctx.id.to_string(),
        method: head.method.as_str().to_owned(),
        scheme: if ctx.sender.https { "https" } else { "http" }.to_owned(),
        authority: authority(head).to_owned(),
        path: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        client_address: ctx.client.to_string(),
        route: route.name.to_string(),
        headers: known_headers(&version.subscription().request_headers, &head.headers, ctx),
    }
}

/// The named headers of the client, and those by which we tell who it is.
fn known_headers(
    names: &[HeaderName],
    headers: &http::HeaderMap,
    ctx: &RequestContext,
) -> Vec<(String, String)> {
    let mut found = subscribed(names, headers);
    if let Some(identity) = ctx.client_certificate.as_deref() {
        found.extend(client_certificate::headers(identity).filter_map(|(name, value)| {
            names.iter().any(|wanted| wanted == name).then(|| (name.to_owned(), value))
        }));
    }
    found
}

/// The named headers that are present and valid UTF-8.
pub(super) fn subscribed(names: &[HeaderName], headers: &http::HeaderMap) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in names {
        for value in headers.get_all(name) {
            if let Ok(value) = std::str::from_utf8(value.as_bytes()) {
                found.push((name.as_str().to_owned(), value.to_owned()));
            }
        }
    }
    found
}

fn edit_request(head: &mut RequestHeader, edits: Vec<api::Edit>) -> Result<(), Fault> {
    let nonsense = |_| Fault::new(FaultKind::PluginFailed, "a plugin of this route made an invalid edit");
    for edit in edits {
        match edit {
            api::Edit::SetHeader((name, value)) if allowed(&name) => {
                head.insert_header(name, value).map_err(nonsense)?;
            }
            api::Edit::AppendHeader((name, value)) if allowed(&name) => {
                head.append_header(name, value).map_err(nonsense)?;
            }
            api::Edit::RemoveHeader(name) if allowed(&name) => drop(head.remove_header(name.as_str())),
            api::Edit::SetPath(path) => {
                head.set_uri(rules::with_path(&head.uri, &path).map_err(|error| {
                    Fault::new(FaultKind::PluginFailed, "a plugin of this route set an invalid path")
                        .because(error)
                })?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Framing and identity stay the host's: a plugin that could set them could
/// smuggle requests or impersonate callers.
pub(super) fn allowed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !matches!(
        name.as_str(),
        "content-length" | "transfer-encoding" | "connection" | "upgrade" | "te" | "trailer" | "host"
    ) && !name.starts_with(IDENTITY_PREFIX)
}

async fn plugin_reply(
    session: &mut Session,
    ctx: &mut RequestContext,
    reply: api::Reply,
) -> Result<(), Fault> {
    let invalid = || Fault::new(FaultKind::PluginFailed, "a plugin of this route made an invalid reply");
    if !(200..=599).contains(&reply.status) {
        return Err(invalid());
    }
    let mut content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    for (name, value) in reply.headers.into_iter().filter(|(name, _)| allowed(name)) {
        let name: HeaderName = name.parse().map_err(|_| invalid())?;
        let value = HeaderValue::from_str(&value).map_err(|_| invalid())?;
        if name == header::CONTENT_TYPE {
            content_type = value;
        } else {
            ctx.response_headers.append(name, value);
        }
    }
    reply::whole(session, ctx, reply.status, content_type, reply.body.into())
        .await
        .map_err(|error| Fault::new(FaultKind::ClientClosed, "the client went away").because(error))
}

/// The service gets the path that the route was chosen by, without the route's
/// prefix; what remains starts with `/`. What plugins made of it is made sane again.
fn rewrite_path(route: &CompiledRoute, policy: PathPolicy, head: &mut RequestHeader) -> Result<(), Fault> {
    rules::settle_path(policy, head)?;
    let path = head.uri.path();
    let Some(rest) = route.strip_path.as_ref().and_then(|prefix| path.strip_prefix(prefix.as_str())) else {
        return Ok(());
    };
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let target = format!("{slash}{rest}");
    rules::replace_path(head, &target)
}
