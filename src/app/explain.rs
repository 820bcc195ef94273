//! `tollgate explain`: what would become of a request, without sending one.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use super::{StartError, lines};
use crate::{
    config::{
        Config,
        route::{Matcher, Route, Step},
        service::Service,
    },
    route::{RequestView, Table, Verdict, sanitised_path},
};

/// Routes that came close are listed up to this number.
const MOST_NEAR: usize = 5;

/// A request that somebody asks about.
pub struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    client: IpAddr,
}

impl Request {
    /// `headers` as `Name: value`.
    ///
    /// # Errors
    /// One sentence about the first part that cannot be in a request.
    pub fn parse(method: &str, url: &str, headers: &[String], client: IpAddr) -> Result<Self, String> {
        let method: Method = method.parse().map_err(|_| format!("\"{method}\" is not a method"))?;
        let url = Url::parse(url).map_err(|error| format!("\"{url}\" is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("a URL starts with http:// or https:// and a host".to_owned());
        }
        let mut map = HeaderMap::new();
        for header in headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| format!("\"{header}\" is not NAME: VALUE"))?;
            let name: HeaderName =
                name.trim().parse().map_err(|_| format!("\"{name}\" is not a header name"))?;
            let value = HeaderValue::from_str(value.trim())
                .map_err(|_| format!("the value of {name} cannot be in a header"))?;
            map.append(name, value);
        }
        Ok(Self { method, url, headers: map, client })
    }

    fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// Which route takes the request and why, which came close, what would be done.
pub fn explain(path: &Path, request: &Request, entrypoint: Option<&str>) -> Result<String, StartError> {
    let config = Config::load(path)?.config;
    let table = Table::build(&config.routes).map_err(|errors| StartError::Config(lines(&errors)))?;
    let entrypoint = match entrypoint {
        Some(name) if config.entrypoints.contains_key(name) => name,
        Some(name) => return Err(StartError::Config(format!("no entrypoint named \"{name}\""))),
        None => fitting_entrypoint(&config, &request.url).ok_or_else(|| {
            StartError::Config("no entrypoint fits the URL; name one with --entrypoint".to_owned())
        })?,
    };
    let tls = request.url.scheme() == "https";
    let authority = request.authority();
    let view = RequestView {
        entrypoint,
        host: &authority,
        path: request.url.path(),
        exact_path: !config.entrypoints.get(entrypoint).is_none_or(|entrypoint| entrypoint.path.normalize),
        query: request.url.query(),
        method: &request.method,
        headers: &request.headers,
        client: request.client,
        sni: request.url.domain().filter(|_| tls),
    };
    let verdicts = table.explain(&config.routes, &view);
    Ok(told(&config, &view, &verdicts))
}

/// By scheme and port, else by scheme alone.
fn fitting_entrypoint<'a>(config: &'a Config, url: &Url) -> Option<&'a str> {
    let tls = url.scheme() == "https";
    let fits = || config.entrypoints.iter().filter(|(_, entrypoint)| entrypoint.tls.is_some() == tls);
    fits()
        .find(|(_, entrypoint)| Some(entrypoint.address.port()) == url.port_or_known_default())
        .or_else(|| fits().next())
        .map(|(name, _)| name.as_str())
}

fn told(config: &Config, view: &RequestView<'_>, verdicts: &[Verdict]) -> String {
    let mut text = format!("{} {}{} on {}\n", view.method, view.host, view.path, view.entrypoint);
    let route = |verdict: &Verdict| &config.routes[verdict.route];
    let redirects = config.entrypoints.get(view.entrypoint).and_then(|e| e.redirect_to.as_ref());
    if let Some(target) = redirects {
        let _ = writeln!(text, "redirected to entrypoint {target} before any route");
    }
    let matched = verdicts.iter().find(|verdict| verdict.unmet.is_empty());
    match matched {
        Some(verdict) => {
            let route = route(verdict);
            let _ =
                writeln!(text, "route {} (priority {}): {}", route.name, verdict.priority, matcher(route));
            chain(&mut text, config, route);
            service(&mut text, config, route, view);
        }
        None => {
            let _ = writeln!(text, "no route: 404");
        }
    }
    near(&mut text, config, verdicts, matched);
    text.trim_end().to_owned()
}

fn matcher(route: &Route) -> String {
    match &route.matcher {
        Matcher::Rule(rule) => rule.clone(),
        Matcher::Fields(_) => "every field of its match".to_owned(),
    }
}

fn chain(text: &mut String, config: &Config, route: &Route) {
    for (index, step) in route.chain.iter().enumerate() {
        let step = match step {
            Step::Plugin(name) => format!("plugin:{name}"),
            Step::Middleware(name) => {
                let kind = config.middlewares.get(name).map_or("", |middleware| middleware.kind());
                format!("{name} ({kind})")
            }
        };
        let _ = writeln!(text, "  {}. {step}", index + 1);
    }
}

fn service(text: &mut String, config: &Config, route: &Route, view: &RequestView<'_>) {
    let sent = sanitised_path(view.path);
    let sent = route.strip_path.as_deref().map_or(sent.as_ref(), |prefix| {
        let rest = sent.strip_prefix(prefix).unwrap_or(&sent);
        if rest.is_empty() { "/" } else { rest }
    });
    let what = match config.services.get(&route.service) {
        Some(Service::Http(http)) => {
            let targets: Vec<_> = http.targets.iter().map(|t| format!("{}:{}", t.host, t.port)).collect();
            format!("{sent} to one of {}", targets.join(", "))
        }
        Some(Service::Llm(llm)) => {
            let models: Vec<_> = llm.models.keys().map(String::as_str).collect();
            format!("a model of {}", models.join(", "))
        }
        Some(Service::Plugin(plugin)) => format!("answered by plugin {plugin}"),
        Some(Service::Tcp(_)) | None => return,
    };
    let _ = writeln!(text, "  service {}: {what}", route.service);
}

/// Other routes that match, and those that lack least.
fn near(text: &mut String, config: &Config, verdicts: &[Verdict], matched: Option<&Verdict>) {
    let mut others: Vec<_> = verdicts.iter().filter(|verdict| Some(*verdict) != matched).collect();
    others.sort_by_key(|verdict| verdict.unmet.len());
    for verdict in others.into_iter().take(MOST_NEAR) {
        let name = &config.routes[verdict.route].name;
        let _ = if verdict.unmet.is_empty() {
            writeln!(text, "also matches: {name}, with the lower priority {}", verdict.priority)
        } else {
            writeln!(text, "came close: {name}, but not {}", verdict.unmet.join(", not "))
        };
    }
}
