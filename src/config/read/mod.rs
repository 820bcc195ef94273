//! The sections of a configuration file, one reader each. A reader takes every
//! key that it knows before it gives up, so that all mistakes are found at once.

mod access;
mod entrypoint;
mod llm;
mod middleware;
mod plugin;
mod route;
mod service;
mod state;
mod stream;
mod tls;

use std::collections::BTreeMap;

use super::{Config, Name, reader::Fields, reader::Item, scalar::Refusal};

/// The whole file; absent sections have their defaults.
pub(super) fn config(root: &Item<'_>) -> Option<Config> {
    root.fields(|f| {
        version(f);
        let tls = f.take("tls").and_then(|item| tls::section(&item)).unwrap_or_default();
        let entrypoints =
            section(f, "entrypoints", |name, item| entrypoint::entrypoint(name, item, &tls.options));
        let admin = f.take("admin").and_then(|item| access::admin(&item));
        let state = match f.take("state") {
            Some(item) => state::state(&item),
            None => Some(state::default_state(root)),
        };
        let services = section(f, "services", service::service);
        let middlewares = section(f, "middlewares", middleware::middleware);
        let plugins = section(f, "plugins", plugin::plugin);
        let consumers = section(f, "consumers", access::consumer);
        let routes = f.take("routes").map(|item| route::routes(&item)).unwrap_or_default();
        let streams = f.take("streams").map(|item| stream::streams(&item)).unwrap_or_default();
        access::unique_keys(f, &consumers);
        entrypoint::unique_addresses(f, &entrypoints, admin.as_ref());
        entrypoint::redirects_end(f, &entrypoints);
        stream::services_fit(f, &services);
        stream::tls_ends(f, &streams, &entrypoints);
        Some(Config {
            entrypoints,
            resolvers: tls.resolvers,
            admin,
            state: state?,
            services,
            middlewares,
            plugins,
            consumers,
            routes,
            streams,
        })
    })
}

fn version(f: &mut Fields<'_>) {
    if let Some(item) = f.require("version") {
        item.parse(|text| match text {
            "1" => Ok(()),
            _ => Err(Refusal::new("the only known version is 1").suggesting(Some("1"))),
        });
    }
}

/// A mapping of names to whatever `read` makes of their values.
fn section<'a, T>(
    f: &mut Fields<'a>,
    key: &'static str,
    read: impl Fn(&Name, &Item<'a>) -> Option<T>,
) -> BTreeMap<Name, T> {
    f.take(key).map(|item| named(&item, read)).unwrap_or_default()
}

fn named<'a, T>(item: &Item<'a>, read: impl Fn(&Name, &Item<'a>) -> Option<T>) -> BTreeMap<Name, T> {
    let mut values = BTreeMap::new();
    for (key, item) in item.named() {
        match key.parse::<Name>() {
            Ok(name) => {
                if let Some(value) = read(&name, &item) {
                    values.insert(name, value);
                }
            }
            Err(message) => {
                item.fail_key::<()>(message);
            }
        }
    }
    values
}
