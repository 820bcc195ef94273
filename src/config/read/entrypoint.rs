//! Readers of `entrypoints`.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::config::{
    ByteSize, Name, Networks,
    admin::Admin,
    entrypoint::{EncodedSlash, Entrypoint, Limits, PathPolicy, Timeouts},
    reader::{Fields, Item},
    scalar,
    tls::TlsOptions,
};

use super::tls;

pub(super) fn entrypoint(
    name: &Name,
    item: &Item<'_>,
    options: &BTreeMap<Name, TlsOptions>,
) -> Option<Entrypoint> {
    if name.as_str() == "admin" {
        item.fail_key::<()>("the name admin is reserved for the listener of the admin section");
    }
    item.fields(|f| {
        let address = f.require("address").and_then(|item| item.parse(scalar::address));
        let tls = f.take("tls").map(|item| tls::entrypoint(&item, options));
        let redirect_to = f.take("redirect_to").and_then(|item| redirect(name, &item));
        let trusted_proxies = f.take("trusted_proxies").map(|item| networks(&item)).unwrap_or_default();
        let proxy_protocol = f.take("proxy_protocol").map(|item| networks(&item)).unwrap_or_default();
        let timeouts = f.take("timeouts").and_then(|item| item.fields(|f| Some(timeouts(f))));
        let limits = f.take("limits").and_then(|item| item.fields(|f| Some(limits(f))));
        let path = f.take("path").and_then(|item| item.fields(|f| Some(path(f))));
        let tls = match tls {
            None => None,
            Some(tls) => Some(tls?),
        };
        Some(Entrypoint {
            address: address?,
            tls,
            redirect_to,
            trusted_proxies,
            proxy_protocol,
            timeouts: timeouts.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            path: path.unwrap_or_default(),
        })
    })
}

fn redirect(name: &Name, item: &Item<'_>) -> Option<Name> {
    let target = item.reference("entrypoint", &item.context().names.entrypoints)?;
    if target == *name {
        return item.fail("an entrypoint cannot redirect to itself");
    }
    Some(target)
}

/// Addresses and networks; every one given, so that nobody is trusted by accident.
pub(super) fn networks(item: &Item<'_>) -> Networks {
    if item.items().is_some_and(|items| items.is_empty()) {
        item.fail::<()>("at least one network is needed, such as 10.0.0.0/8");
    }
    Networks::new(item.list(|item| item.parse(scalar::network)))
}

fn timeouts(f: &mut Fields<'_>) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        handshake: f.or("handshake", default.handshake, scalar::duration),
        header: f.or("header", default.header, scalar::duration),
        body_idle: f.or("body_idle", default.body_idle, scalar::duration),
        min_body_rate: f.or("min_body_rate", default.min_body_rate, scalar::byte_rate),
        idle: f.or("idle", default.idle, scalar::duration),
        drain: f.or("drain", default.drain, scalar::duration),
    }
}

fn limits(f: &mut Fields<'_>) -> Limits {
    let default = Limits::default();
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let connections = 1..=10_000_000;
    Limits {
        max_header: f.size_or("max_header", default.max_header.0, 1 << 10..=1 << 20),
        max_body: f.optional_size("max_body", 1..=1 << 50).map(ByteSize),
        max_connections: count(f.number_or("max_connections", 20_000, connections.clone())),
        max_connections_per_client: f.optional_number("max_connections_per_client", connections).map(count),
        max_requests_per_connection: f.optional_number("max_requests_per_connection", 1..=u64::MAX),
    }
}

fn path(f: &mut Fields<'_>) -> PathPolicy {
    let default = PathPolicy::default();
    let words = [("reject", EncodedSlash::Reject), ("keep", EncodedSlash::Keep)];
    PathPolicy {
        normalize: f.or("normalize", default.normalize, scalar::boolean),
        encoded_slash: f
            .take("encoded_slash")
            .and_then(|item| item.choice("treatment", &words))
            .unwrap_or(default.encoded_slash),
    }
}

/// An entrypoint that redirects leads to one that serves.
pub(super) fn redirects_end(f: &mut Fields<'_>, entrypoints: &BTreeMap<Name, Entrypoint>) {
    let Some(section) = f.take("entrypoints") else { return };
    for (name, item) in section.named() {
        let target = entrypoints.get(name).and_then(|entrypoint| entrypoint.redirect_to.as_ref());
        let Some(next) = target.and_then(|target| entrypoints.get(target)) else { continue };
        if next.redirect_to.is_some() {
            item.fail_key::<()>("redirects to an entrypoint that only redirects itself");
        }
    }
}

/// Two listeners cannot have one address, unless the system chooses the port.
pub(super) fn unique_addresses(
    f: &mut Fields<'_>,
    entrypoints: &BTreeMap<Name, Entrypoint>,
    admin: Option<&Admin>,
) {
    let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    if let Some(admin) = admin {
        taken.insert(admin.address, "the admin section");
    }
    let Some(section) = f.take("entrypoints") else { return };
    for (name, item) in section.named() {
        let Some(entrypoint) = entrypoints.get(name).filter(|entrypoint| entrypoint.address.port() != 0)
        else {
            continue;
        };
        match taken.get(&entrypoint.address) {
            Some(other) => {
                item.fail_key::<()>(format!("the address {} belongs to {other} already", entrypoint.address));
            }
            None => {
                taken.insert(entrypoint.address, name);
            }
        }
    }
}
