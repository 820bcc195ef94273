//! Entrypoints that only send their clients to another one.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Method, header, uri::Authority};
use pingora::{http::RequestHeader, proxy::Session};

use super::{
    chain::{Served, authority},
    context::RequestContext,
    reply,
};
use crate::{
    config::{Config, Name},
    fault::{Fault, FaultKind},
};

/// Which entrypoints redirect, and where to.
#[derive(Debug, Default)]
pub(super) struct Redirects(BTreeMap<Name, Target>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    entrypoint: Name,
    https: bool,
    port: u16,
}

impl Redirects {
    pub(super) fn of(config: &Config) -> Self {
        let targets = config.entrypoints.iter().filter_map(|(name, entrypoint)| {
            let target = entrypoint.redirect_to.as_ref()?;
            let found = config.entrypoints.get(target)?;
            let (https, port) = (found.tls.is_some(), found.address.port());
            Some((name.clone(), Target { entrypoint: target.clone(), https, port }))
        });
        Self(targets.collect())
    }

    /// The real ports, where the system chose them.
    pub(super) fn learn(&mut self, addresses: &BTreeMap<Name, SocketAddr>) {
        for target in self.0.values_mut() {
            target.port = addresses.get(&target.entrypoint).map_or(target.port, SocketAddr::port);
        }
    }
}

/// Answers requests on an entrypoint that redirects: 301 for GET and HEAD, and
/// 308 for all others, whose method and body must stay what they are.
///
/// A request that came over TLS to a trusted proxy, which says so, has been
/// where the redirect would send it; it passes.
pub(super) async fn redirect(
    redirects: &Redirects,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<Served, Fault> {
    let Some(target) = redirects.0.get(&*ctx.entrypoint) else { return Ok(Served::No) };
    if target.https && ctx.sender.https && ctx.sender.scheme_told {
        return Ok(Served::No);
    }
    let head = session.req_header();
    let location = location(target, head)
        .ok_or_else(|| Fault::new(FaultKind::BadRequest, "the request names no host to redirect to"))?;
    let status = if matches!(head.method, Method::GET | Method::HEAD) { 301 } else { 308 };
    ctx.response_headers.insert(header::LOCATION, location);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply::whole(session, ctx, status, plain, Bytes::new())
        .await
        .map_err(|error| Fault::new(FaultKind::ClientClosed, "the client went away").because(error))?;
    Ok(Served::Answered)
}

/// The same host, path and query.
fn location(target: &Target, head: &RequestHeader) -> Option<HeaderValue> {
    let authority: Authority = authority(head).parse().ok()?;
    let host = authority.host();
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let location = match (target.https, target.port) {
        (true, 443) => format!("https://{host}{path}"),
        (false, 80) => format!("http://{host}{path}"),
        (true, port) => format!("https://{host}:{port}{path}"),
        (false, port) => format!("http://{host}:{port}{path}"),
    };
    HeaderValue::try_from(location).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(https: bool, port: u16, host: &str, path: &str) -> Option<String> {
        let mut head = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        head.insert_header(header::HOST, host).unwrap();
        let target = Target { entrypoint: "x".parse().unwrap(), https, port };
        location(&target, &head).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn host_path_and_query_stay() {
        for (https, port, host, path, expected) in [
            (true, 443, "a.test", "/", "https://a.test/"),
            (true, 443, "a.test:80", "/x%2Fy?z=%20&q", "https://a.test/x%2Fy?z=%20&q"),
            (true, 8443, "a.test:8080", "/", "https://a.test:8443/"),
            (false, 80, "a.test", "/", "http://a.test/"),
            (false, 443, "[::1]:80", "/", "http://[::1]:443/"),
            (true, 443, "a.test", "//evil.test/", "https://a.test//evil.test/"),
            (true, 443, "a.test", "*", "https://a.test/"),
        ] {
            assert_eq!(located(https, port, host, path).as_deref(), Some(expected));
        }
    }

    #[test]
    fn without_a_host_there_is_nowhere_to_go() {
        for host in ["", "a b", "evil@a.test", "a/b", ":80"] {
            assert_eq!(located(true, 443, host, "/"), None, "{host}");
        }
    }
}
