//! Which certificates a configuration wants: names of resolvers and hosts of
//! routes, less what certificate files cover.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::certificate::covers;
use crate::{
    config::{
        Config, Name,
        entrypoint::ADMIN,
        stream::StreamTls,
        tls::{Acme, Challenge, EntrypointTls},
    },
    route,
};

/// One certificate to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) resolver: Name,
    /// In lower case, as configured; never empty.
    pub(super) names: Vec<String>,
    /// The same for the same authority and names on every node and in every run.
    pub(super) id: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) wanted: Vec<Wanted>,
    /// Names that get no certificate, and why.
    pub(super) left_out: Vec<(String, &'static str)>,
}

impl Plan {
    /// `in_files` tells the names of an entrypoint's certificate files.
    pub(super) fn of(config: &Config, in_files: impl Fn(&EntrypointTls) -> BTreeSet<String>) -> Self {
        let mut plan = Self::default();
        // The lists first: they decide which names share a certificate.
        for (name, acme) in used(config) {
            for names in &acme.domains {
                plan.want(name, acme, names.clone());
            }
        }
        for (entrypoint, tls, resolver, acme) in secured(config) {
            let covered = in_files(tls);
            for host in hosts_on(config, entrypoint, &mut plan) {
                if !covered.iter().any(|pattern| covers(pattern, &host)) {
                    plan.want(resolver, acme, vec![host]);
                }
            }
        }
        plan
    }

    fn want(&mut self, resolver: &Name, acme: &Acme, names: Vec<String>) {
        let held = |name: &String| self.wanted.iter().flat_map(|w| &w.names).any(|own| covers(own, name));
        if names.iter().all(held) {
            return;
        }
        if let Some(name) = names.iter().find(|name| unfit(name)) {
            return self.leave_out(name.clone(), "no authority certifies this kind of name");
        }
        let wildcard = names.iter().find(|name| name.starts_with("*."));
        if let (Some(name), false) = (wildcard, matches!(acme.challenge, Challenge::Dns01 { .. })) {
            return self.leave_out(name.clone(), "a wildcard needs dns-01");
        }
        let id = id(&acme.directory, &names);
        self.wanted.push(Wanted { resolver: resolver.clone(), names, id });
    }

    fn leave_out(&mut self, name: String, reason: &'static str) {
        if !self.left_out.iter().any(|(known, _)| *known == name) {
            self.left_out.push((name, reason));
        }
    }
}

/// Resolvers that an entrypoint with TLS names, each once.
fn used(config: &Config) -> impl Iterator<Item = (&Name, &Acme)> {
    let named: BTreeSet<&Name> = secured(config).map(|(_, _, resolver, _)| resolver).collect();
    named.into_iter().filter_map(|name| Some((name, &config.resolvers.get(name)?.acme)))
}

fn secured(config: &Config) -> impl Iterator<Item = (&Name, &EntrypointTls, &Name, &Acme)> {
    config.entrypoints.iter().filter_map(|(entrypoint, settings)| {
        let tls = settings.tls.as_ref()?;
        let resolver = tls.resolver.as_ref()?;
        Some((entrypoint, tls, resolver, &config.resolvers.get(resolver)?.acme))
    })
}

/// What routes and streams that end TLS here are for, sorted.
fn hosts_on(config: &Config, entrypoint: &Name, plan: &mut Plan) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    for route in &config.routes {
        let here = route.entrypoints.contains(entrypoint)
            || (route.entrypoints.is_empty() && entrypoint.as_str() != ADMIN);
        if !here {
            continue;
        }
        hosts.extend(route::hosts(route));
        if route::names_hosts_by_pattern(route) {
            plan.leave_out(
                format!("the patterns of route {}", route.name),
                "only exact hosts get certificates",
            );
        }
    }
    for stream in &config.streams {
        if stream.tls == StreamTls::Terminate && stream.entrypoints.contains(entrypoint) {
            hosts.extend(stream.hosts.iter().filter(|host| *host != "*").cloned());
        }
    }
    hosts
}

/// Addresses and single labels.
fn unfit(name: &str) -> bool {
    !name.contains('.') || name.parse::<std::net::IpAddr>().is_ok() || name.contains(':')
}

fn id(directory: &str, names: &[String]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let text = format!("{directory}\n{}", sorted.join("\n"));
    hex::encode(&Sha256::digest(text)[..16])
}

#[cfg(test)]
mod tests;
