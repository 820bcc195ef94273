//! Good and bad configurations, and every file that is shipped.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    middleware::{LimitBy, Middleware},
    plugin::{ControlVerb, LedgerGrant, Module, OnError},
    route::{Matcher, Step},
    service::Service,
    state::Backend,
    *,
};

mod good;
mod mistakes;
mod shipped;

fn no_env(_: &str) -> Option<String> {
    None
}

fn parse(text: &str) -> Result<Loaded, ConfigErrors> {
    Config::parse(text, Path::new("/etc/tollgate/edge.yaml"), &no_env)
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}")).config
}

/// `line:column: path: message; …` of each mistake.
fn mistakes(text: &str) -> Vec<String> {
    let errors = parse(text).expect_err("has mistakes");
    errors.iter().map(|error| error.to_string().replace("/etc/tollgate/edge.yaml:", "")).collect()
}
