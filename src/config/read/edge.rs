//! Readers of `entrypoints` and `state`.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::config::{
    ByteSize, Name,
    admin::Admin,
    entrypoint::{CertificateFiles, Entrypoint, Limits, Timeouts, Tls},
    reader::{Fields, Item},
    scalar,
    state::{Backend, State},
};

use super::access;

pub(super) fn entrypoint(name: &Name, item: &Item<'_>) -> Option<Entrypoint> {
    if name.as_str() == "admin" {
        item.fail_key::<()>("the name admin is reserved for the listener of the admin section");
    }
    item.fields(|f| {
        let address = f.require("address").and_then(|item| item.parse(scalar::address));
        let tls = f.take("tls").map(|item| tls(&item));
        let timeouts = f.take_present("timeouts").and_then(|item| item.fields(|f| Some(timeouts(f))));
        let limits = f.take_present("limits").and_then(|item| item.fields(|f| Some(limits(f))));
        let tls = match tls {
            None => None,
            Some(tls) => Some(tls?),
        };
        Some(Entrypoint {
            address: address?,
            tls,
            timeouts: timeouts.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
        })
    })
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            drain: Duration::from_secs(30),
        }
    }
}

fn timeouts(f: &mut Fields<'_>) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        handshake: f.or("handshake", default.handshake, scalar::duration),
        header: f.or("header", default.header, scalar::duration),
        idle: f.or("idle", default.idle, scalar::duration),
        drain: f.or("drain", default.drain, scalar::duration),
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_header: ByteSize(64 << 10), max_connections: 20_000 }
    }
}

fn limits(f: &mut Fields<'_>) -> Limits {
    let default = Limits::default();
    let max_connections = f.number_or("max_connections", 20_000, 1..=10_000_000);
    Limits {
        max_header: f.size_or("max_header", default.max_header.0, 1 << 10..=1 << 20),
        max_connections: usize::try_from(max_connections).unwrap_or(default.max_connections),
    }
}

fn tls(item: &Item<'_>) -> Option<Tls> {
    item.fields(|f| {
        let certificates = f.require("certificates").map(|item| {
            if item.items().is_some_and(|items| items.is_empty()) {
                item.fail::<()>("at least one certificate is needed");
            }
            item.list(certificate)
        });
        let sni_strict = f.or("sni_strict", false, scalar::boolean);
        Some(Tls { certificates: certificates?, sni_strict })
    })
}

fn certificate(item: &Item<'_>) -> Option<CertificateFiles> {
    item.fields(|f| {
        let cert_file = f.require("cert_file").and_then(|item| item.file());
        let key_file = f.require("key_file").and_then(|item| item.file());
        Some(CertificateFiles { cert_file: cert_file?, key_file: key_file? })
    })
}

/// The directory `data` beside the configuration file, embedded store.
pub(super) fn default_state(root: &Item<'_>) -> State {
    State { data_dir: root.path_of("data"), backend: Backend::Embedded }
}

pub(super) fn state(item: &Item<'_>) -> Option<State> {
    item.fields(|f| {
        let data_dir = match f.take("data_dir") {
            Some(item) => item.string().map(|written| item.path_of(&written)),
            None => Some(item.path_of("data")),
        };
        let backend = match f.take("redis") {
            Some(item) => redis(&item),
            None => Some(Backend::Embedded),
        };
        Some(State { data_dir: data_dir?, backend: backend? })
    })
}

fn redis(item: &Item<'_>) -> Option<Backend> {
    item.fields(|f| {
        let url = f.require("url").and_then(|item| access::redis_url(&item));
        let timeout = f.or("timeout", Duration::from_millis(50), scalar::duration);
        Some(Backend::Redis { url: url?, timeout })
    })
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
