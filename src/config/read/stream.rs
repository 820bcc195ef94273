//! Readers of `streams` and of TCP services.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::config::{
    Name,
    entrypoint::Entrypoint,
    reader::{Fields, Item},
    scalar::{self, Refusal},
    service::{Service, TcpService, TcpTarget},
    stream::{Stream, StreamTls},
};

use super::{named, service::proxy_protocol};

/// In the order of their names.
pub(super) fn streams(item: &Item<'_>) -> Vec<Stream> {
    let streams: Vec<Stream> = named(item, stream).into_values().collect();
    let mut taken: HashMap<(&Name, &str), &Name> = HashMap::new();
    for stream in &streams {
        for (entrypoint, host) in
            stream.entrypoints.iter().flat_map(|e| stream.hosts.iter().map(move |host| (e, host.as_str())))
        {
            if let Some(other) = taken.insert((entrypoint, host), &stream.name) {
                item.fail::<()>(format!("{other} and {} both take {host} on {entrypoint}", stream.name));
            }
        }
    }
    streams
}

fn stream(name: &Name, item: &Item<'_>) -> Option<Stream> {
    let names = &item.context().names;
    item.fields(|f| {
        let hosts = match f.only_one(&["hosts", "rule"]) {
            Some("hosts") => f.require("hosts").map(|item| item.list(|item| item.parse(sni))),
            Some(_) => f.require("rule").and_then(|item| item.parse(rule)),
            None => None,
        };
        let entrypoints = f
            .require("entrypoints")
            .map(|item| item.list(|item| item.reference("entrypoint", &names.entrypoints)));
        let words = [("passthrough", StreamTls::Passthrough), ("terminate", StreamTls::Terminate)];
        let tls = f.take("tls").map(|item| item.choice("treatment of TLS", &words));
        let service = f.require("service").and_then(|item| item.reference("service", &names.services));
        Some(Stream {
            name: name.clone(),
            hosts: hosts?,
            entrypoints: entrypoints?,
            tls: tls.flatten().unwrap_or(StreamTls::Passthrough),
            service: service?,
        })
    })
}

/// ``HostSNI(`a`) || HostSNI(`b`)``, as in Traefik.
fn rule(text: &str) -> scalar::Result<Vec<String>> {
    let expected = || Refusal::new("expected HostSNI(`name`), several of them joined by ||");
    text.split("||")
        .map(|term| {
            let inner = term.trim().strip_prefix("HostSNI(").and_then(|rest| rest.strip_suffix(')'));
            let name = inner.map(str::trim).and_then(|name| name.strip_prefix('`')?.strip_suffix('`'));
            sni(name.ok_or_else(expected)?)
        })
        .collect()
}

fn sni(text: &str) -> scalar::Result<String> {
    if text == "*" { Ok(text.to_owned()) } else { scalar::host(text) }
}

pub(super) fn tcp(item: &Item<'_>) -> Option<TcpService> {
    item.fields(|f| {
        let targets = f.require("targets").map(|item| {
            if item.items().is_some_and(|items| items.is_empty()) {
                item.fail::<()>("at least one target is needed");
            }
            item.list(|item| item.parse(target))
        });
        Some(TcpService {
            connect: f.or("connect", Duration::from_secs(2), scalar::duration),
            idle: f.or("idle", Duration::from_secs(3600), scalar::duration),
            proxy_protocol: proxy_protocol(f),
            targets: targets?,
        })
    })
}

fn target(text: &str) -> scalar::Result<TcpTarget> {
    let expected = || Refusal::new("expected host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(expected)?;
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(expected());
    }
    Ok(TcpTarget { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port })
}

/// TLS ends only where there is some.
pub(super) fn tls_ends(f: &mut Fields<'_>, streams: &[Stream], entrypoints: &BTreeMap<Name, Entrypoint>) {
    let Some(section) = f.take("streams") else { return };
    for (name, item) in section.named() {
        let ended = |stream: &&Stream| stream.name.as_str() == name && stream.tls == StreamTls::Terminate;
        let Some(stream) = streams.iter().find(ended) else { continue };
        let plain = |name: &&Name| entrypoints.get(*name).is_some_and(|entrypoint| entrypoint.tls.is_none());
        if let (Some(plain), Some(tls)) = (stream.entrypoints.iter().find(plain), item.peek("tls")) {
            tls.fail::<()>(format!("TLS cannot end on {plain}, which has none"));
        }
    }
}

/// Routes lead requests and streams lead connections; a service takes one kind.
pub(super) fn services_fit(f: &mut Fields<'_>, services: &BTreeMap<Name, Service>) {
    for (section, wants_tcp) in [("routes", false), ("streams", true)] {
        let Some(item) = f.take(section) else { continue };
        for (_, entry) in item.named() {
            let Some(service) = entry.peek("service") else { continue };
            let Some(name) = service.text().map(|text| text.value) else { continue };
            let Some(found) = services.get(name.as_str()) else { continue };
            let mistake = match (matches!(found, Service::Tcp(_)), wants_tcp) {
                (true, false) => "a TCP service is reached by streams, not by routes",
                (false, true) => "a stream needs a TCP service: { tcp: {...} }",
                _ => continue,
            };
            service.fail::<()>(mistake);
        }
    }
}
