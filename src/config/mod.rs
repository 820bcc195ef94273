//! Text becomes types here, all or nothing. Names no other room.

pub mod admin;
pub mod consumer;
pub mod entrypoint;
pub mod llm;
pub mod middleware;
pub mod plugin;
pub mod route;
pub mod service;
pub mod state;
pub mod stream;
pub mod tls;
pub mod value;

mod error;
mod load;
mod read;
mod reader;
mod scalar;
mod substitute;
mod suggest;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;

pub use error::{ConfigError, ConfigErrors};
pub use load::Loaded;
pub use suggest::nearest;
pub use value::{ByteSize, Name, Networks, Secret};

/// A whole, checked configuration. Every name in it resolves.
#[derive(Debug, Clone)]
pub struct Config {
    pub entrypoints: BTreeMap<Name, entrypoint::Entrypoint>,
    /// Sources of certificates, by name.
    pub resolvers: BTreeMap<Name, tls::Resolver>,
    pub admin: Option<admin::Admin>,
    pub state: state::State,
    pub services: BTreeMap<Name, service::Service>,
    pub middlewares: BTreeMap<Name, middleware::Middleware>,
    pub plugins: BTreeMap<Name, plugin::Plugin>,
    pub consumers: BTreeMap<Name, consumer::Consumer>,
    /// Ordered by name; `route::Table` orders them by priority.
    pub routes: Vec<route::Route>,
    /// Ordered by name.
    pub streams: Vec<stream::Stream>,
}
