//! Heads on their way between two hops: what may travel, what is added.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header, uri::Scheme};
use pingora::{
    http::{RequestHeader, ResponseHeader},
    proxy::Session,
};

use crate::proxy::{
    chain::{allowed, authority, subscribed},
    context::RequestContext,
    forwarded, reply,
};
use crate::{
    fault::{Fault, FaultKind},
    plugin::api,
    upstream::{Exchange, Wire},
};

/// What the target is sent: the client's head without the fields of its own
/// hop (RFC 9110 section 7.6.1), and who it came from.
pub(super) fn request(
    session: &Session,
    exchange: &Exchange,
    bodiless: bool,
    ctx: &RequestContext,
) -> Result<RequestHeader, Fault> {
    let invalid = |error: Box<pingora::Error>| {
        Fault::new(FaultKind::BadRequest, "the request cannot be forwarded").because(error.to_string())
    };
    let mut head = session.req_header().clone();
    let trailers = exchange.wire == Wire::Http2 && accepts_trailers(&head.headers);
    for name in hop_by_hop_fields(&head.headers) {
        head.remove_header(&name);
    }
    head.remove_header(&header::EXPECT);
    match exchange.wire {
        Wire::Http1 => for_http1(session, bodiless, &mut head)?,
        Wire::Http2 => for_http2(exchange.tls, &mut head, ctx)?,
    }
    if trailers {
        head.insert_header(header::TE, HeaderValue::from_static("trailers")).map_err(invalid)?;
    }
    introduce(session, &mut head, ctx).map_err(invalid)?;
    Ok(head)
}

fn for_http1(session: &Session, bodiless: bool, head: &mut RequestHeader) -> Result<(), Fault> {
    let invalid = |error: Box<pingora::Error>| {
        Fault::new(FaultKind::BadRequest, "the request cannot be forwarded").because(error.to_string())
    };
    if head.version == Version::HTTP_2 {
        let host = HeaderValue::from_str(authority(session.req_header()))
            .map_err(|error| Fault::new(FaultKind::BadRequest, "invalid authority").because(error))?;
        head.insert_header(header::HOST, host).map_err(invalid)?;
        join_cookies(head).map_err(invalid)?;
    }
    // Most targets are a path already; setting one parses it again.
    if head.uri.authority().is_some() {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        head.set_raw_path(target.as_bytes()).map_err(invalid)?;
    }
    head.set_version(Version::HTTP_11);
    frame(session, bodiless, head).map_err(invalid)
}

/// The authority moves into the target, and the scheme is that of the
/// connection (RFC 9113 section 8.3.1).
fn for_http2(tls: bool, head: &mut RequestHeader, ctx: &RequestContext) -> Result<(), Fault> {
    let authority = match (authority(head), &ctx.target) {
        // HTTP/1.0 need not name a host.
        ("", Some(target)) => target,
        (authority, _) => authority,
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri = Uri::builder()
        .scheme(if tls { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(authority)
        .path_and_query(target)
        .build()
        .map_err(|error| Fault::new(FaultKind::BadRequest, "invalid authority").because(error))?;
    head.set_uri(uri);
    head.remove_header(&header::HOST);
    head.set_version(Version::HTTP_2);
    Ok(())
}

/// The one use of `TE` that HTTP/2 knows (RFC 9113 section 8.2.2). Servers of
/// gRPC refuse requests without it.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    let mut fields =
        headers.get_all(header::TE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    fields.any(|field| field.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The request's id, and where it is from.
fn introduce(session: &Session, head: &mut RequestHeader, ctx: &RequestContext) -> pingora::Result<()> {
    if let Ok(id) = HeaderValue::from_str(&ctx.id) {
        head.insert_header(ctx.id_header.clone(), id)?;
    }
    forwarded::introduce(session, head, ctx)
}

/// A body of unknown length is chunked on HTTP/1 (RFC 9112 section 6.3).
fn frame(session: &Session, bodiless: bool, head: &mut RequestHeader) -> pingora::Result<()> {
    let incoming = session.req_header();
    let chunked = incoming.headers.contains_key(header::TRANSFER_ENCODING);
    let unsized_h2 =
        incoming.version == Version::HTTP_2 && !head.headers.contains_key(header::CONTENT_LENGTH);
    if chunked || (unsized_h2 && !bodiless) {
        head.remove_header(&header::CONTENT_LENGTH);
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(())
}

/// HTTP/2 may split cookies; HTTP/1 wants one field (RFC 9113 section 8.2.3).
fn join_cookies(head: &mut RequestHeader) -> pingora::Result<()> {
    let mut cookies = head.headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return Ok(()) };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        head.insert_header(header::COOKIE, joined)?;
    }
    Ok(())
}

/// A head before the final one, for the client's hop.
pub(super) fn informational(mut head: ResponseHeader) -> ResponseHeader {
    for name in hop_by_hop_fields(&head.headers) {
        head.remove_header(&name);
    }
    head.set_version(Version::HTTP_11);
    head
}

/// What the client gets: the target's head without its hop's fields, passed by
/// the chain in reverse, framed for the client's protocol.
pub(super) async fn response(
    session: &Session,
    mut head: ResponseHeader,
    ctx: &mut RequestContext,
) -> pingora::Result<ResponseHeader> {
    head = answer(head, ctx).await?;
    let client = session.req_header().version;
    head.set_version(if client == Version::HTTP_2 { Version::HTTP_2 } else { Version::HTTP_11 });
    if client == Version::HTTP_11
        && !is_bodiless(session, &head)
        && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(head)
}

/// The same without the framing.
pub(super) async fn answer(
    mut head: ResponseHeader,
    ctx: &mut RequestContext,
) -> pingora::Result<ResponseHeader> {
    for name in hop_by_hop_fields(&head.headers) {
        head.remove_header(&name);
    }
    ctx.upstream.get_or_insert_with(|| ctx.started.elapsed());
    filter_response(&mut head, ctx).await;
    reply::decorate(&mut head, ctx)?;
    Ok(head)
}

async fn filter_response(response: &mut ResponseHeader, ctx: &RequestContext) {
    for version in ctx.filters.iter().rev().filter(|version| version.subscription().on_response) {
        let head = api::ResponseHead {
            request_id: ctx.id.to_string(),
            status: response.status.as_u16(),
            headers: subscribed(&version.subscription().response_headers, &response.headers),
        };
        match version.on_response(head).await {
            Ok(edits) => edit_response(response, edits, version.name(), ctx),
            // The answer exists already; dropping it would punish the wrong party.
            Err(fault) => {
                tracing::warn!(request_id = %ctx.id, plugin = version.name(), %fault, "plugin failed on a response");
            }
        }
    }
}

fn edit_response(response: &mut ResponseHeader, edits: Vec<api::Edit>, plugin: &str, ctx: &RequestContext) {
    for edit in edits {
        let done = match edit {
            api::Edit::SetHeader((name, value)) if allowed(&name) => response.insert_header(name, value),
            api::Edit::AppendHeader((name, value)) if allowed(&name) => {
                response.append_header(name, value).map(drop)
            }
            api::Edit::RemoveHeader(name) if allowed(&name) => {
                response.remove_header(name.as_str());
                Ok(())
            }
            // Whether there is a body is decided already.
            api::Edit::SetStatus(status)
                if (200..=599).contains(&status)
                    && bodiless(status) == bodiless(response.status.as_u16()) =>
            {
                response.set_status(status)
            }
            _ => Ok(()),
        };
        if done.is_err() {
            tracing::warn!(request_id = %ctx.id, plugin, "plugin made an invalid edit of a response");
        }
    }
}

/// Whether no body follows this head, whatever its fields say (RFC 9112 section 6.3).
pub(super) fn is_bodiless(session: &Session, head: &ResponseHeader) -> bool {
    bodiless(head.status.as_u16()) || session.req_header().method == http::Method::HEAD
}

fn bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// Standard hop-by-hop fields that are present and those that `Connection` names.
fn hop_by_hop_fields(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut fields: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for nominated in headers.get_all(header::CONNECTION) {
        let names = nominated.to_str().unwrap_or("").split(',').filter_map(|name| name.trim().parse().ok());
        // A client must not be able to nominate away what the next hop relies on.
        fields.extend(
            names.filter(|name: &HeaderName| *name != header::HOST && *name != header::CONTENT_LENGTH),
        );
    }
    fields
}

/// Fields that concern one hop only.
pub(in crate::proxy) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nominated_fields_stay_on_their_hop() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, X-Secret, host"));
        headers.insert("x-secret", HeaderValue::from_static("1"));
        headers.insert(header::HOST, HeaderValue::from_static("a.test"));
        let fields = hop_by_hop_fields(&headers);
        assert!(fields.contains(&HeaderName::from_static("x-secret")));
        assert!(fields.contains(&header::CONNECTION));
        assert!(!fields.contains(&header::HOST));
    }
}
