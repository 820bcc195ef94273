//! Readers of `services` with targets, and of URLs.

use std::time::Duration;

use url::{Host, Url};

use crate::config::{
    Name,
    reader::{Fields, Item},
    scalar::{self, Refusal},
    service::{HttpService, ProxyProtocol, Service, Target, UpstreamProtocol, UpstreamTimeouts},
};

use super::{llm, stream};

pub(super) fn service(_: &Name, item: &Item<'_>) -> Option<Service> {
    item.fields(|f| match f.only_one(&["targets", "llm", "plugin", "tcp"])? {
        "targets" => http(f).map(Service::Http),
        "llm" => f.take_present("llm").and_then(|item| llm::llm(&item)).map(Service::Llm),
        "tcp" => f.take_present("tcp").and_then(|item| stream::tcp(&item)).map(Service::Tcp),
        _ => {
            let item = f.require("plugin")?;
            item.reference("plugin", &item.context().names.plugins).map(Service::Plugin)
        }
    })
}

fn http(f: &mut Fields<'_>) -> Option<HttpService> {
    let targets = f.require("targets").map(|item| {
        if item.items().is_some_and(|items| items.is_empty()) {
            item.fail::<()>("at least one target is needed");
        }
        item.list(target)
    });
    let timeouts = f.take_present("timeouts").and_then(|item| item.fields(|f| Some(timeouts(f))));
    let words =
        [("auto", UpstreamProtocol::Auto), ("h1", UpstreamProtocol::Http1), ("h2", UpstreamProtocol::Http2)];
    let protocol = f.take("protocol").and_then(|item| item.choice("protocol", &words));
    let proxy_protocol = proxy_protocol(f);
    Some(HttpService {
        targets: targets?,
        timeouts: timeouts.unwrap_or_default(),
        protocol: protocol.unwrap_or_default(),
        proxy_protocol,
    })
}

pub(super) fn proxy_protocol(f: &mut Fields<'_>) -> Option<ProxyProtocol> {
    let words = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
    f.take("proxy_protocol").and_then(|item| item.choice("version of the PROXY protocol", &words))
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

fn timeouts(f: &mut Fields<'_>) -> UpstreamTimeouts {
    let default = UpstreamTimeouts::default();
    UpstreamTimeouts {
        connect: f.or("connect", default.connect, scalar::duration),
        first_byte: f.or("first_byte", default.first_byte, scalar::duration),
        idle: f.or("idle", default.idle, scalar::duration),
    }
}

fn target(item: &Item<'_>) -> Option<Target> {
    item.fields(|f| {
        f.require("url")?.parse(|text| {
            let (target, path) = origin(text)?;
            if path.is_empty() { Ok(target) } else { Err(Refusal::new("a target has no path")) }
        })
    })
}

/// An origin and the path after it, which is empty or starts with `/` and does not end with one.
pub(super) fn origin(text: &str) -> scalar::Result<(Target, String)> {
    let expected = "expected http://host[:port] or https://host[:port]";
    let url = Url::parse(text).map_err(|_| {
        let suggestion = (!text.contains("://") && !text.is_empty()).then(|| format!("http://{text}"));
        Refusal::new(expected).suggesting(suggestion)
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::new(expected));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::new("a URL may not hold credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Refusal::new("a URL has no query and no fragment here"));
    }
    let host = match url.host() {
        Some(Host::Domain(domain)) => domain.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(Refusal::new(expected)),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Refusal::new("a port is from 1 to 65535"))?;
    let path = url.path().trim_end_matches('/').to_owned();
    Ok((Target { tls: url.scheme() == "https", host, port }, path))
}
