//! All that requests read, compiled from a `Config` and swapped whole.
//! Counters, balancing state and plugin versions live outside it, by name, so
//! that a reload forgets nothing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{Shared, redirect::Redirects};
use crate::{
    auth::ApiKeys,
    config::{
        self, Config, Name,
        consumer::KeyHash,
        llm::{Candidate, Llm, Provider},
        middleware::{self, Middleware},
        route::Step as ConfigStep,
        service::{Service, UpstreamTimeouts},
    },
    limit::Policy,
    plugin::{Hooks, Slot, Staged},
    route::{RouteError, Table},
    telemetry::{ModelMetrics, ProviderMetrics, RateLimitMetrics, RouteMetrics},
    upstream::Cluster,
};

pub struct Snapshot {
    /// Counts up with every applied configuration.
    pub generation: u64,
    pub config: Arc<Config>,
    pub(super) table: Table,
    pub(super) redirects: Redirects,
    /// Same indices as the table's.
    pub(super) routes: Vec<Arc<CompiledRoute>>,
    pub(super) api_keys: ApiKeys,
    pub(super) admin: Option<AdminDoor>,
    /// Counts requests that no route matched.
    pub(super) unmatched: Arc<RouteMetrics>,
}

pub(super) struct CompiledRoute {
    pub(super) name: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) strip_path: Option<String>,
    pub(super) chain: Vec<Step>,
    pub(super) lane: Lane,
    pub(super) metrics: Arc<RouteMetrics>,
}

pub(super) enum Step {
    RequestId(middleware::RequestId),
    RateLimit(RateLimitStep),
    ApiKey(middleware::ApiKey),
    Plugin(Arc<Slot>),
}

pub(super) struct RateLimitStep {
    pub(super) policy: Policy,
    pub(super) by: middleware::LimitBy,
    pub(super) metrics: Arc<RateLimitMetrics>,
}

pub(super) enum Lane {
    Http(Arc<Cluster>),
    Llm(Arc<LlmService>),
    Endpoint(Arc<Slot>),
}

/// An LLM service with its names resolved.
pub(super) struct LlmService {
    pub(super) models: BTreeMap<String, ResolvedModel>,
    pub(super) limits: config::llm::LlmLimits,
    pub(super) timeouts: config::llm::LlmTimeouts,
}

pub(super) struct ResolvedModel {
    pub(super) candidates: Vec<ResolvedCandidate>,
    pub(super) metrics: Arc<ModelMetrics>,
}

pub(super) struct ResolvedCandidate {
    pub(super) provider: Arc<ResolvedProvider>,
    pub(super) candidate: Candidate,
    /// `provider/model`, the key of its health.
    pub(super) health_key: Arc<str>,
}

pub(super) struct ResolvedProvider {
    pub(super) name: Arc<str>,
    pub(super) config: Provider,
    pub(super) timeouts: UpstreamTimeouts,
    /// Keeps connections of different services apart in the pool.
    pub(super) group: String,
    pub(super) host_header: String,
    pub(super) metrics: Arc<ProviderMetrics>,
}

pub(super) struct AdminDoor {
    pub(super) token: KeyHash,
    /// Longest prefix first.
    pub(super) endpoints: Vec<(String, Arc<Slot>)>,
    pub(super) metrics: Arc<RouteMetrics>,
}

/// Why a valid configuration cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("plugin \"{0}\" is not loaded")]
    PluginNotLoaded(Name),
    #[error("routes.{route}.chain: both \"{first}\" and \"{second}\" export {hook}; one decides")]
    TwoDeciders { route: Name, hook: &'static str, first: String, second: String },
    #[error("routes.{route}.chain: plugin \"{plugin}\" exports no hook that a chain can use")]
    NoHook { route: Name, plugin: Name },
    #[error("plugin \"{0}\" does not export wasi:http/incoming-handler")]
    NotAnEndpoint(Name),
}

impl Snapshot {
    /// Compiles routes, chains and services against staged plugins; puts nothing in service.
    pub(super) fn compile(
        shared: &Shared,
        plugins: &Staged<'_>,
        config: Arc<Config>,
        generation: u64,
    ) -> Result<Self, Vec<CompileError>> {
        let mut errors = Vec::new();
        let table = Table::build(&config.routes).map_err(|found| {
            errors.extend(found.into_iter().map(CompileError::from));
        });
        let mut lanes = BTreeMap::new();
        for (name, service) in &config.services {
            match compile_lane(shared, plugins, name, service) {
                Ok(Some(lane)) => drop(lanes.insert(name.clone(), lane)),
                // Takes connections; no route leads there.
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        let routes = config
            .routes
            .iter()
            .filter_map(|route| compile_route(shared, plugins, &config, route, &lanes, &mut errors))
            .map(Arc::new)
            .collect();
        let admin =
            config.admin.as_ref().and_then(|admin| compile_admin(shared, plugins, admin, &mut errors));
        match (table, errors.is_empty()) {
            (Ok(table), true) => Ok(Self {
                generation,
                table,
                redirects: Redirects::of(&config),
                routes,
                api_keys: ApiKeys::build(&config.consumers),
                admin,
                unmatched: shared.metrics.route("", ""),
                config,
            }),
            _ => Err(errors),
        }
    }

    /// Where the entrypoints listen, for redirects to ports that the system chose.
    pub fn learn_addresses(&mut self, addresses: &BTreeMap<Name, SocketAddr>) {
        self.redirects.learn(addresses);
    }
}

fn compile_route(
    shared: &Shared,
    plugins: &Staged<'_>,
    config: &Config,
    route: &config::route::Route,
    lanes: &BTreeMap<Name, Lane>,
    errors: &mut Vec<CompileError>,
) -> Option<CompiledRoute> {
    let mut chain = Vec::with_capacity(route.chain.len());
    let mut deciders = Vec::new();
    for step in &route.chain {
        match step {
            ConfigStep::Middleware(name) => {
                chain.push(compile_middleware(shared, name, config.middlewares.get(name)?))
            }
            ConfigStep::Plugin(name) => match plugins.find(name.as_str()) {
                Some((slot, hooks)) => {
                    deciders.push((name, hooks));
                    chain.push(Step::Plugin(slot));
                }
                None => errors.push(CompileError::PluginNotLoaded(name.clone())),
            },
        }
    }
    let lane = lanes.get(&route.service)?.share();
    check_deciders(route, &lane, &deciders, errors);
    Some(CompiledRoute {
        name: route.name.shared(),
        service: route.service.shared(),
        strip_path: route.strip_path.clone(),
        chain,
        lane,
        metrics: shared.metrics.route(route.name.as_str(), route.service.as_str()),
    })
}

fn compile_middleware(shared: &Shared, name: &Name, middleware: &Middleware) -> Step {
    match middleware {
        Middleware::RequestId(step) => Step::RequestId(step.clone()),
        Middleware::ApiKey(step) => Step::ApiKey(step.clone()),
        Middleware::RateLimit(limit) => Step::RateLimit(RateLimitStep {
            policy: Policy::new(name, limit),
            by: limit.by.clone(),
            metrics: shared.metrics.rate_limit(name.as_str()),
        }),
    }
}

/// A chain has at most one plugin for each LLM decision, or it would be
/// unclear who pays or who is asked.
fn check_deciders(
    route: &config::route::Route,
    lane: &Lane,
    plugins: &[(&Name, Hooks)],
    errors: &mut Vec<CompileError>,
) {
    let mut deciders: BTreeMap<&'static str, &Name> = BTreeMap::new();
    for (plugin, hooks) in plugins {
        let decisions = [
            ("admission", hooks.admission),
            ("planner", hooks.planner),
            ("credentials", hooks.credentials),
            ("settlement", hooks.settlement),
        ];
        let decides = matches!(lane, Lane::Llm(_)) && decisions.iter().any(|(_, exported)| *exported);
        if !hooks.filter && !decides {
            errors.push(CompileError::NoHook { route: route.name.clone(), plugin: (*plugin).clone() });
        }
        for (hook, _) in decisions.iter().filter(|(_, exported)| *exported && decides) {
            if let Some(first) = deciders.insert(hook, plugin) {
                let (first, second) = (first.to_string(), plugin.to_string());
                errors.push(CompileError::TwoDeciders { route: route.name.clone(), hook, first, second });
            }
        }
    }
}

fn compile_lane(
    shared: &Shared,
    plugins: &Staged<'_>,
    name: &Name,
    service: &Service,
) -> Result<Option<Lane>, CompileError> {
    Ok(Some(match service {
        Service::Http(http) => Lane::Http(shared.clusters.cluster(name, http)),
        Service::Llm(llm) => Lane::Llm(Arc::new(compile_llm(shared, name, llm))),
        Service::Plugin(plugin) => Lane::Endpoint(endpoint(plugins, plugin)?),
        Service::Tcp(_) => return Ok(None),
    }))
}

fn endpoint(plugins: &Staged<'_>, plugin: &Name) -> Result<Arc<Slot>, CompileError> {
    let (slot, hooks) =
        plugins.find(plugin.as_str()).ok_or_else(|| CompileError::PluginNotLoaded(plugin.clone()))?;
    if hooks.endpoint { Ok(slot) } else { Err(CompileError::NotAnEndpoint(plugin.clone())) }
}

fn compile_llm(shared: &Shared, name: &Name, llm: &Llm) -> LlmService {
    let timeouts = UpstreamTimeouts {
        connect: llm.timeouts.connect,
        first_byte: llm.timeouts.first_token,
        idle: llm.timeouts.inter_token,
    };
    let providers: BTreeMap<&Name, Arc<ResolvedProvider>> = llm
        .providers
        .iter()
        .map(|(provider, config)| {
            let default_port = if config.target.tls { 443 } else { 80 };
            let host_header = if config.target.port == default_port {
                config.target.host.clone()
            } else {
                format!("{}:{}", config.target.host, config.target.port)
            };
            let group = format!("{name}/{provider}");
            (
                provider,
                Arc::new(ResolvedProvider {
                    name: provider.shared(),
                    config: config.clone(),
                    timeouts,
                    group,
                    host_header,
                    metrics: shared.metrics.provider(provider.as_str()),
                }),
            )
        })
        .collect();
    let resolve = |candidate: &Candidate| {
        let provider = providers.get(&candidate.provider)?.clone();
        let health_key = format!("{}/{}", candidate.provider, candidate.model).into();
        Some(ResolvedCandidate { provider, candidate: candidate.clone(), health_key })
    };
    let models = llm
        .models
        .iter()
        .map(|(model, entry)| {
            let candidates = entry.candidates.iter().filter_map(resolve).collect();
            (model.clone(), ResolvedModel { candidates, metrics: shared.metrics.model(model) })
        })
        .collect();
    LlmService { models, limits: llm.limits, timeouts: llm.timeouts }
}

fn compile_admin(
    shared: &Shared,
    plugins: &Staged<'_>,
    admin: &config::admin::Admin,
    errors: &mut Vec<CompileError>,
) -> Option<AdminDoor> {
    let mut endpoints = Vec::new();
    for (prefix, plugin) in &admin.endpoints {
        match endpoint(plugins, plugin) {
            Ok(slot) => endpoints.push((prefix.clone(), slot)),
            Err(error) => errors.push(error),
        }
    }
    Some(AdminDoor { token: admin.token, endpoints, metrics: shared.metrics.route("admin", "admin") })
}

impl Lane {
    fn share(&self) -> Self {
        match self {
            Self::Http(cluster) => Self::Http(cluster.clone()),
            Self::Llm(service) => Self::Llm(service.clone()),
            Self::Endpoint(slot) => Self::Endpoint(slot.clone()),
        }
    }
}
