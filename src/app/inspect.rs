//! What operators see of the running configuration. Keys are never part of it.

use std::sync::{Arc, OnceLock, Weak};

use serde_json::{Value, json};

use crate::{
    acme::{Acme, Status},
    config::{
        route::{Matcher, Route, Step},
        service::{Service, Target},
    },
    plugin::Inspect,
    proxy::{Shared, Snapshot},
};

/// The plugin host is built before what it shows; `show` closes the circle.
#[derive(Default)]
pub(super) struct View {
    shared: OnceLock<Weak<Shared>>,
    acme: OnceLock<Weak<Acme>>,
}

impl View {
    pub(super) fn show(&self, shared: &Arc<Shared>) {
        let _ = self.shared.set(Arc::downgrade(shared));
    }

    pub(super) fn show_certificates(&self, acme: &Arc<Acme>) {
        let _ = self.acme.set(Arc::downgrade(acme));
    }

    /// Those got by ACME: until when, when renewed, and what stands against it.
    fn certificates(&self) -> Vec<Status> {
        self.acme.get().and_then(Weak::upgrade).map(|acme| acme.status()).unwrap_or_default()
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.shared.get()?.upgrade()?.snapshot()
    }
}

impl Inspect for View {
    fn routes(&self) -> String {
        let Some(snapshot) = self.snapshot() else { return r#"{"routes":[]}"#.to_owned() };
        let routes: Vec<Value> = snapshot.config.routes.iter().map(route).collect();
        json!({ "generation": snapshot.generation, "routes": routes }).to_string()
    }

    fn services(&self) -> String {
        let Some(snapshot) = self.snapshot() else { return r#"{"services":[]}"#.to_owned() };
        let services: Vec<Value> =
            snapshot.config.services.iter().map(|(name, kind)| service(name.as_str(), kind)).collect();
        json!({ "services": services, "certificates": self.certificates() }).to_string()
    }
}

fn route(route: &Route) -> Value {
    let chain: Vec<String> = route
        .chain
        .iter()
        .map(|step| match step {
            Step::Middleware(name) => name.to_string(),
            Step::Plugin(name) => format!("plugin:{name}"),
        })
        .collect();
    let matcher = match &route.matcher {
        Matcher::Rule(rule) => json!({ "rule": rule }),
        Matcher::Fields(fields) => json!({ "match": {
            "hosts": fields.hosts,
            "paths": fields.paths,
            "methods": fields.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
            "headers": fields.headers.iter().map(|(name, values)| (name.to_string(), json!(values)))
                .collect::<serde_json::Map<_, _>>(),
        } }),
    };
    let mut shown = json!({
        "name": route.name.as_str(),
        "priority": crate::route::priority(route),
        "entrypoints": route.entrypoints.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "strip_path": route.strip_path,
        "chain": chain,
        "service": route.service.as_str(),
    });
    if let (Value::Object(shown), Value::Object(matcher)) = (&mut shown, matcher) {
        shown.extend(matcher);
    }
    shown
}

fn service(name: &str, service: &Service) -> Value {
    match service {
        Service::Http(http) => json!({
            "name": name,
            "kind": "http",
            "targets": http.targets.iter().map(url).collect::<Vec<_>>(),
        }),
        Service::Tcp(tcp) => json!({
            "name": name,
            "kind": "tcp",
            "targets": tcp.targets.iter().map(|t| format!("tcp://{}:{}", t.host, t.port)).collect::<Vec<_>>(),
        }),
        Service::Plugin(plugin) => json!({ "name": name, "kind": "plugin", "plugin": plugin.as_str() }),
        Service::Llm(llm) => {
            let providers: Vec<Value> = llm
                .providers
                .iter()
                .map(|(name, provider)| {
                    json!({
                        "name": name.as_str(),
                        "api": format!("{:?}", provider.api).to_lowercase(),
                        "url": format!("{}{}", url(&provider.target), provider.base_path),
                        "platform_key": provider.key.is_some(),
                    })
                })
                .collect();
            let models: Vec<Value> = llm
                .models
                .iter()
                .map(|(name, model)| {
                    let candidates = model.candidates.iter().map(|c| format!("{}/{}", c.provider, c.model));
                    json!({ "name": name, "candidates": candidates.collect::<Vec<_>>() })
                })
                .collect();
            json!({ "name": name, "kind": "llm", "providers": providers, "models": models })
        }
    }
}

fn url(target: &Target) -> String {
    let scheme = if target.tls { "https" } else { "http" };
    format!("{scheme}://{}:{}", target.host, target.port)
}
