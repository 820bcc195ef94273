//! A rule, the chain that its requests pass, the service that they reach.

use super::{Name, Networks};

#[derive(Debug, Clone)]
pub struct Route {
    pub name: Name,
    pub matcher: Matcher,
    /// Higher wins. Explicit, else computed by `route::priority`.
    pub priority: Option<i64>,
    /// Empty means every entrypoint except the admin one.
    pub entrypoints: Vec<Name>,
    pub strip_path: Option<String>,
    pub chain: Vec<Step>,
    pub service: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    /// Traefik v3 rule language, verbatim.
    Rule(String),
    Fields(Fields),
}

/// Every given field must match; within a field any value may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Exact, or `*.` for one more label.
    pub hosts: Vec<String>,
    /// `/x` by segment, `/x*` raw prefix, `=/x` exact, `~/x` anchored regex.
    pub paths: Vec<String>,
    pub methods: Vec<http::Method>,
    /// Header name and the values of which one must be present.
    pub headers: Vec<(http::HeaderName, Vec<String>)>,
    /// Key and the values of which one must be present; no values: the key is
    /// enough.
    pub query: Vec<(String, Vec<String>)>,
    /// The peer of the connection, never a forwarded address.
    pub client_ip: Networks,
    /// Names that the TLS client asked for: exact, or `*.` for one more label.
    /// A plaintext request has none.
    pub sni: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Middleware(Name),
    Plugin(Name),
}
