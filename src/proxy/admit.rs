//! The start of a request: its snapshot, its entrypoint, its sender.

use std::{sync::Arc, time::Duration};

use pingora::proxy::Session;

use super::{Shared, arrival::arrival, body_limits::BodyLimits, context::RequestContext, forwarded, rules};

/// How long a client may take for reading the next piece of the answer.
pub(super) const CLIENT_IDLE: Duration = Duration::from_secs(60);

/// Headers by which endpoint plugins are told who asks. Nobody else may set them.
pub(super) const IDENTITY_PREFIX: &str = "tollgate-";

pub(super) fn admit(shared: &Arc<Shared>, session: &mut Session, ctx: &mut RequestContext) {
    ctx.snapshot = shared.snapshot();
    ctx.uri = session.req_header().uri.clone();
    if let Some(arrival) = session.digest().and_then(arrival).cloned() {
        let entrypoints = ctx.snapshot.as_ref().map(|snapshot| &snapshot.config.entrypoints);
        let entrypoint = entrypoints.and_then(|entrypoints| entrypoints.get(&*arrival.entrypoint));
        let trusted = entrypoint.map(|entrypoint| &entrypoint.trusted_proxies);
        ctx.sender = forwarded::receive(session.req_header_mut(), &arrival, trusted);
        ctx.client = ctx.sender.client;
        ctx.entrypoint = arrival.entrypoint.clone();
        if let Some(tls) = &arrival.tls {
            ctx.tls_version = Some(tls.version);
            ctx.client_certificate = tls.client.clone();
        }
    }
    let entrypoints = ctx.snapshot.as_ref().map(|snapshot| &snapshot.config.entrypoints);
    if let Some(entrypoint) = entrypoints.and_then(|all| all.get(&*ctx.entrypoint)) {
        ctx.body = BodyLimits::of(entrypoint);
        ctx.path = entrypoint.path;
    }
    // The front does so for HTTP/1; HTTP/2 streams come to pingora directly.
    session.as_downstream_mut().set_write_timeout(Some(CLIENT_IDLE));
    drop_identity_headers(session);
    rules::repair_fields(session.req_header_mut());
}

fn drop_identity_headers(session: &mut Session) {
    let head = session.req_header_mut();
    if !head.headers.keys().any(|name| name.as_str().starts_with(IDENTITY_PREFIX)) {
        return;
    }
    let names: Vec<_> =
        head.headers.keys().filter(|name| name.as_str().starts_with(IDENTITY_PREFIX)).cloned().collect();
    for name in names {
        head.remove_header(&name);
    }
}
