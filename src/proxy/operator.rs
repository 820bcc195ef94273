//! The operator's entrypoint: probes and metrics natively, everything else by
//! the endpoint plugins, and nothing but the probes and metrics without a token.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use pingora::proxy::Session;

use super::{Shared, Snapshot, context::RequestContext, endpoint_lane, reply};
use crate::{
    auth,
    fault::{Fault, FaultKind},
};

pub(super) async fn serve(
    shared: &Arc<Shared>,
    snapshot: &Snapshot,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let path = session.req_header().uri.path().to_owned();
    match path.as_str() {
        "/healthz" => return native(session, ctx, 200, "text/plain; charset=utf-8", "ok\n".into()).await,
        "/readyz" => {
            let (status, text) = if shared.ready() { (200, "ready\n") } else { (503, "draining\n") };
            return native(session, ctx, status, "text/plain; charset=utf-8", text.into()).await;
        }
        "/metrics" => {
            let text = shared.metrics.render();
            return native(session, ctx, 200, "text/plain; version=0.0.4", text.into()).await;
        }
        _ => {}
    }
    let door = snapshot.admin.as_ref().ok_or_else(|| Fault::new(FaultKind::NoRoute, "no admin section"))?;
    if !auth::token_matches(&door.token, &session.req_header().headers) {
        ctx.response_headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Err(Fault::new(FaultKind::Unauthenticated, "the admin token is missing or wrong"));
    }
    let slot = door
        .endpoints
        .iter()
        .find(|(prefix, _)| under(&path, prefix))
        .map(|(_, slot)| slot)
        .ok_or_else(|| Fault::new(FaultKind::NoRoute, "no plugin serves this path"))?;
    endpoint_lane::serve(slot, endpoint_lane::Identity::Operator, session, ctx).await
}

async fn native(
    session: &mut Session,
    ctx: &mut RequestContext,
    status: u16,
    content_type: &'static str,
    body: Bytes,
) -> Result<(), Fault> {
    if !matches!(session.req_header().method, Method::GET | Method::HEAD) {
        ctx.response_headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Err(Fault::new(FaultKind::MethodNotAllowed, "only GET and HEAD"));
    }
    reply::whole(session, ctx, status, HeaderValue::from_static(content_type), body).await.map_err(|error| {
        Fault::new(FaultKind::ClientClosed, "the client went away").because(error.to_string())
    })
}

/// Whether `path` is `prefix` or below it, by whole segments.
fn under(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::under;

    #[test]
    fn prefixes_match_whole_segments() {
        assert!(under("/api/v1/credits", "/api/v1/credits"));
        assert!(under("/api/v1/credits/demo", "/api/v1/credits"));
        assert!(!under("/api/v1/creditsx", "/api/v1/credits"));
        assert!(under("/anything", "/"));
    }
}
