//! Routes whose service is a plugin: the component gives the whole response.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Uri, header};
use http_body_util::BodyExt;
use pingora::{http::ResponseHeader, proxy::Session};

use super::{chain::authority, client_certificate, context::RequestContext, http_lane::is_hop_by_hop, reply};
use crate::{
    auth::Caller,
    fault::{Fault, FaultKind},
    plugin::{self, Slot},
};

/// The largest request body an endpoint is given.
const MAX_BODY: usize = 16 << 20;

/// Who asks, as the plugin is told in `tollgate-*` headers.
pub(super) enum Identity {
    Operator,
    Caller(Option<Arc<Caller>>),
}

pub(super) async fn serve(
    slot: &Slot,
    identity: Identity,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<(), Fault> {
    let version = slot.current();
    let body = read_body(session, ctx, MAX_BODY).await?;
    let request = request(session, ctx, &identity, body)?;
    let response = version.clone().serve(request).await.map_err(|fault| {
        Fault::new(FaultKind::PluginFailed, "the endpoint's plugin failed").because(fault)
    })?;
    relay(session, ctx, response).await
}

/// Reads the whole request body; over `cap` it is refused.
pub(super) async fn read_body(
    session: &mut Session,
    ctx: &mut RequestContext,
    cap: usize,
) -> Result<Bytes, Fault> {
    let too_large = || Fault::new(FaultKind::BodyTooLarge, format!("the request body exceeds {cap} bytes"));
    let head = session.req_header();
    let declared: Option<usize> =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length| length > cap) {
        return Err(too_large());
    }
    if head
        .headers
        .get(header::EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        // Pingora sends it only on its pass-through path; without it clients stall for a second.
        let _ = session.as_downstream_mut().write_continue_response().await;
    }
    let Some(first) = ctx.body.next(session).await? else {
        return Ok(Bytes::new());
    };
    ctx.request_bytes += first.len() as u64;
    let Some(second) = ctx.body.next(session).await? else {
        return if first.len() > cap { Err(too_large()) } else { Ok(first) };
    };
    let mut whole = BytesMut::with_capacity(declared.unwrap_or(first.len() + second.len()));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        ctx.request_bytes += chunk.len() as u64;
        if whole.len() + chunk.len() > cap {
            return Err(too_large());
        }
        whole.extend_from_slice(&chunk);
        next = ctx.body.next(session).await?;
    }
    Ok(whole.freeze())
}

fn request(
    session: &Session,
    ctx: &RequestContext,
    identity: &Identity,
    body: Bytes,
) -> Result<http::Request<plugin::Body>, Fault> {
    let head = session.req_header();
    let scheme = if ctx.tls_version.is_some() { "https" } else { "http" };
    let host = match authority(head) {
        "" => "localhost",
        host => host,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let invalid =
        |error: http::Error| Fault::new(FaultKind::BadRequest, "invalid request target").because(error);
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(path).build().map_err(invalid)?;
    let mut request = http::Request::builder()
        .method(head.method.clone())
        .uri(uri)
        .body(plugin::body(body))
        .map_err(invalid)?;
    let headers = request.headers_mut();
    for (name, value) in &head.headers {
        if !is_hop_by_hop(name) && name != header::AUTHORIZATION && name != header::HOST {
            headers.append(name.clone(), value.clone());
        }
    }
    identify(headers, ctx, identity);
    Ok(request)
}

fn identify(headers: &mut http::HeaderMap, ctx: &RequestContext, identity: &Identity) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("tollgate-request-id", &ctx.id);
    match identity {
        Identity::Operator => set("tollgate-role", "operator"),
        Identity::Caller(None) => set("tollgate-role", "anonymous"),
        Identity::Caller(Some(caller)) => {
            set("tollgate-role", "caller");
            set("tollgate-caller", &caller.id);
            set("tollgate-tenant", &caller.tenant);
            set("tollgate-tier", &caller.tier);
        }
    }
    if let Some(identity) = ctx.client_certificate.as_deref() {
        for (name, value) in client_certificate::headers(identity) {
            set(name, &value);
        }
    }
}

async fn relay(
    session: &mut Session,
    ctx: &mut RequestContext,
    response: http::Response<plugin::Body>,
) -> Result<(), Fault> {
    let client_gone = |error: Box<pingora::Error>| {
        Fault::new(FaultKind::ClientClosed, "the client went away").because(error.to_string())
    };
    let (parts, mut body) = response.into_parts();
    if parts.status.is_informational() {
        return Err(Fault::new(
            FaultKind::PluginFailed,
            "the endpoint's plugin answered with an informational status",
        ));
    }
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len() + 4)).map_err(client_gone)?;
    for (name, value) in &parts.headers {
        if !is_hop_by_hop(name) {
            head.append_header(name.clone(), value.clone()).map_err(client_gone)?;
        }
    }
    reply::decorate(&mut head, ctx).map_err(client_gone)?;
    let bodiless =
        matches!(parts.status.as_u16(), 204 | 304) || session.req_header().method == http::Method::HEAD;
    let sized = parts.headers.contains_key(header::CONTENT_LENGTH);
    if !sized && !bodiless && session.req_header().version == http::Version::HTTP_11 {
        head.insert_header(header::TRANSFER_ENCODING, "chunked").map_err(client_gone)?;
    }
    session.write_response_header(Box::new(head), false).await.map_err(client_gone)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Fault::new(FaultKind::PluginFailed, "the endpoint's plugin broke off").because(error.to_string())
        })?;
        if let Ok(data) = frame.into_data() {
            ctx.response_bytes += data.len() as u64;
            session.write_response_body(Some(data), false).await.map_err(client_gone)?;
        }
    }
    session.write_response_body(None, true).await.map_err(client_gone)
}
