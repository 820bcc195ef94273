//! All routes, compiled. Built once per configuration, read without locks.

use std::{borrow::Cow, cmp::Reverse, net::IpAddr};

use http::{HeaderMap, Method};
use thiserror::Error;

use super::{
    canonical,
    condition::Head,
    conflict::conflicts,
    expression::Expression,
    fields,
    index::{Index, Rank},
    priority::priority,
    rule,
};
use crate::config::{
    Name,
    route::{Matcher, Route},
};

/// What of a request decides its route.
pub struct RequestView<'a> {
    pub entrypoint: &'a str,
    /// The raw authority; empty if the request has none.
    pub host: &'a str,
    /// As received, still encoded.
    pub path: &'a str,
    /// Matched as it is; else dot segments and their like are resolved first.
    pub exact_path: bool,
    /// Without the `?`.
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// The peer of the connection, or whom the PROXY protocol names; never an
    /// address from a header.
    pub client: IpAddr,
    /// What the TLS client asked for, in lower case; none in plaintext.
    pub sni: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub enum RouteError {
    #[error("route {route}: rule `{rule}`, byte {offset}: {reason}")]
    Rule { route: Name, rule: String, offset: usize, reason: String },
    #[error("route {route}: {field} `{value}`: {reason}")]
    Field { route: Name, field: &'static str, value: String, reason: String },
    #[error(
        "routes {first} and {second} match the same requests with the same priority {priority}; give one a higher `priority`"
    )]
    Conflict { first: Name, second: Name, priority: i64 },
}

/// Routes with no entrypoints of their own are not for operators.
const ADMIN: &str = "admin";

pub struct Table {
    /// In order of priority; a [`Rank`] is a position here.
    entries: Vec<Entry>,
    index: Index,
}

pub(super) struct Entry {
    /// Position in the routes the table was built from.
    pub(super) route: usize,
    pub(super) expression: Expression,
    /// Empty means all but [`ADMIN`].
    entrypoints: Box<[Name]>,
}

impl Table {
    /// Compiles all routes, or reports everything that is wrong with them.
    /// Two of equal priority on a common entrypoint that match the same requests
    /// are an error. Where that cannot be told, as with patterns, they are
    /// ordered by name, so that a reload changes nothing.
    pub fn build(routes: &[Route]) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let mut entries: Vec<Entry> = Vec::with_capacity(routes.len());
        for (at, route) in routes.iter().enumerate() {
            match compile(route) {
                Ok(expression) => {
                    entries.push(Entry {
                        route: at,
                        expression,
                        entrypoints: route.entrypoints.as_slice().into(),
                    });
                }
                Err(error) => errors.push(error),
            }
        }
        entries.sort_by_cached_key(|entry| {
            let route = &routes[entry.route];
            (Reverse(priority(route)), route.name.clone())
        });
        errors.extend(conflicts(&entries, routes));
        if !errors.is_empty() {
            return Err(errors);
        }
        let index = Index::build((0..).zip(entries.iter().map(|entry| &entry.expression)));
        Ok(Self { entries, index })
    }

    /// The position, in the routes given to [`Table::build`], of the first route
    /// in order of priority that matches. Allocates only for a host or path that
    /// is not canonical. Costs about as much as the routes that share the host
    /// and a prefix of the path, see `benches/route_lookup.rs`.
    pub fn lookup(&self, view: &RequestView<'_>) -> Option<usize> {
        let host = canonical::host(view.host);
        let path = canonical_path(view);
        let head = head(view, &host, &path);
        let matches = |rank| {
            let entry = self.entry(rank);
            entry.is_on(view.entrypoint) && entry.expression.matches(&head)
        };
        self.index.first(&host, &path, matches).map(|rank| self.entry(rank).route)
    }

    /// How a request fares with every route, in order of priority: the first
    /// that matches is the one that [`Table::lookup`] finds. For people, not
    /// for requests: it looks at all routes.
    pub fn explain(&self, routes: &[Route], view: &RequestView<'_>) -> Vec<Verdict> {
        let host = canonical::host(view.host);
        let path = canonical_path(view);
        let head = head(view, &host, &path);
        let verdict = |entry: &Entry| {
            let mut unmet = entry.expression.unmet(&head);
            if !entry.is_on(view.entrypoint) {
                unmet.push(format!("is not on entrypoint {}", view.entrypoint));
            }
            Verdict { route: entry.route, priority: priority(&routes[entry.route]), unmet }
        };
        self.entries.iter().map(verdict).collect()
    }

    fn entry(&self, rank: Rank) -> &Entry {
        &self.entries[rank as usize]
    }
}

/// A route and what of it a request does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The position in the routes given to [`Table::build`].
    pub route: usize,
    pub priority: i64,
    /// Empty if the route matches.
    pub unmet: Vec<String>,
}

fn canonical_path<'a>(view: &RequestView<'a>) -> Cow<'a, [u8]> {
    if view.exact_path { canonical::decoded_path(view.path) } else { canonical::routing_path(view.path) }
}

fn head<'a>(view: &RequestView<'a>, host: &'a str, path: &'a [u8]) -> Head<'a> {
    Head {
        host,
        path,
        query: view.query,
        method: view.method,
        headers: view.headers,
        client: view.client,
        sni: view.sni,
    }
}

impl Entry {
    fn is_on(&self, entrypoint: &str) -> bool {
        if self.entrypoints.is_empty() {
            return entrypoint != ADMIN;
        }
        self.entrypoints.iter().any(|name| name.as_str() == entrypoint)
    }

    pub(super) fn shares_entrypoint(&self, other: &Self) -> bool {
        match (self.entrypoints.is_empty(), other.entrypoints.is_empty()) {
            (true, true) => true,
            (true, false) => other.entrypoints.iter().any(|name| self.is_on(name.as_str())),
            _ => self.entrypoints.iter().any(|name| other.is_on(name.as_str())),
        }
    }
}

pub(super) fn compile(route: &Route) -> Result<Expression, RouteError> {
    match &route.matcher {
        Matcher::Rule(text) => rule::parse(text).map_err(|error| RouteError::Rule {
            route: route.name.clone(),
            rule: text.clone(),
            offset: error.offset,
            reason: error.reason,
        }),
        Matcher::Fields(fields) => fields::compile(fields).map_err(|error| RouteError::Field {
            route: route.name.clone(),
            field: error.field,
            value: error.value,
            reason: error.reason,
        }),
    }
}

#[cfg(test)]
mod tests;
