//! Readers of `routes`. Rules stay text: their language is `route`'s.

use http::Method;

use crate::config::{
    Name,
    reader::{Fields, Item},
    route::{Fields as MatchFields, Matcher, Route, Step},
    scalar::{self, Refusal},
};

use super::{entrypoint::networks, middleware::header, named};

/// In the order of their names.
pub(super) fn routes(item: &Item<'_>) -> Vec<Route> {
    named(item, route).into_values().collect()
}

fn route(name: &Name, item: &Item<'_>) -> Option<Route> {
    let names = &item.context().names;
    item.fields(|f| {
        let matcher = matcher(f);
        let priority = f.take("priority").map(|item| item.parse(scalar::signed));
        let entrypoints = f
            .take("entrypoints")
            .map(|item| item.list(|item| item.reference("entrypoint", &names.entrypoints)))
            .unwrap_or_default();
        let strip = f.take("strip_path").map(|item| strip_path(&item, matcher.as_ref()));
        let chain = f.take("chain").map(|item| item.list(step)).unwrap_or_default();
        let service = f.require("service").and_then(|item| item.reference("service", &names.services));
        Some(Route {
            name: name.clone(),
            matcher: matcher?,
            priority: priority.flatten(),
            entrypoints,
            strip_path: strip.flatten().flatten(),
            chain,
            service: service?,
        })
    })
}

fn matcher(f: &mut Fields<'_>) -> Option<Matcher> {
    match f.only_one(&["rule", "match"])? {
        "rule" => f.require("rule")?.string().map(Matcher::Rule),
        _ => match_fields(&f.require("match")?).map(Matcher::Fields),
    }
}

fn match_fields(item: &Item<'_>) -> Option<MatchFields> {
    let fields = item.fields(|f| {
        Some(MatchFields {
            hosts: f
                .take("hosts")
                .map(|item| item.list(|item| item.parse(scalar::host_pattern)))
                .unwrap_or_default(),
            paths: f.take("paths").map(|item| item.list(|item| item.parse(path))).unwrap_or_default(),
            methods: f.take("methods").map(|item| item.list(|item| item.parse(method))).unwrap_or_default(),
            headers: f.take("headers").map(|item| headers(&item)).unwrap_or_default(),
            query: f.take("query").map(|item| query(&item)).unwrap_or_default(),
            client_ip: f.take("client_ip").map(|item| networks(&item)).unwrap_or_default(),
            sni: f.take("sni").map(|item| item.list(|item| item.parse(scalar::host))).unwrap_or_default(),
        })
    })?;
    if item.named().is_empty() {
        return item.fail("one of hosts, paths, methods, headers, query, client_ip, sni is needed");
    }
    Some(fields)
}

fn path(text: &str) -> scalar::Result<String> {
    let expected = "expected /x by segment, /x* by characters, =/x exactly or ~/x as a regular expression";
    let bare = text.strip_prefix(['=', '~']).unwrap_or(text);
    if bare.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(Refusal::new(expected).suggesting((!bare.is_empty() && bare == text).then(|| format!("/{text}"))))
}

fn method(text: &str) -> scalar::Result<Method> {
    let upper = text.to_ascii_uppercase();
    let method =
        Method::from_bytes(text.as_bytes()).map_err(|_| Refusal::new("expected a method such as GET"))?;
    if upper != text {
        return Err(Refusal::new("methods are written in capitals").suggesting(Some(upper)));
    }
    Ok(method)
}

/// Each key with one value or a list of them; nothing after it: the key is enough.
fn query(item: &Item<'_>) -> Vec<(String, Vec<String>)> {
    item.named().into_iter().map(|(key, item)| (key.to_owned(), values(&item))).collect()
}

fn values(item: &Item<'_>) -> Vec<String> {
    let text = |item: &Item<'_>| item.parse(|text| Ok(text.to_owned()));
    if item.is_list() {
        item.list(text)
    } else if item.is_null() {
        Vec::new()
    } else {
        text(item).into_iter().collect()
    }
}

/// Each header with one value or a list of them.
fn headers(item: &Item<'_>) -> Vec<(http::HeaderName, Vec<String>)> {
    let mut headers = Vec::new();
    for (key, item) in item.named() {
        let values = values(&item);
        match header(key) {
            Ok(name) => headers.push((name, values)),
            Err(refusal) => {
                item.refuse_key::<()>(refusal);
            }
        }
    }
    headers
}

/// The outer `None` is a mistake, the inner one means that nothing is stripped.
fn strip_path(item: &Item<'_>, matcher: Option<&Matcher>) -> Option<Option<String>> {
    let text = item.text()?.value;
    match text.as_str() {
        "false" => Some(None),
        "true" => matched_prefix(item, matcher?).map(Some),
        _ if text.starts_with('/') && text.len() > 1 => Some(Some(text.trim_end_matches('/').to_owned())),
        _ => item.fail("expected a path such as /api, or true"),
    }
}

/// The prefix that `strip_path: true` means, if there is no doubt about it.
fn matched_prefix(item: &Item<'_>, matcher: &Matcher) -> Option<String> {
    let Matcher::Fields(fields) = matcher else {
        return item.fail("true needs match; with a rule write the path, such as /api");
    };
    match fields.paths.as_slice() {
        [path] if path.starts_with('/') => {
            let prefix = path.strip_suffix('*').unwrap_or(path).trim_end_matches('/');
            Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty())
        }
        _ => None,
    }
    .or_else(|| item.fail("true needs match.paths with exactly one prefix; write the path, such as /api"))
}

fn step(item: &Item<'_>) -> Option<Step> {
    let names = &item.context().names;
    let text = item.text()?;
    let name = text.value.as_str();
    if let Some(plugin) = name.strip_prefix("plugin:") {
        let write = |name: &str| format!("plugin:{name}");
        return item.resolve("plugin", &text, plugin, &names.plugins, write).map(Step::Plugin);
    }
    let known = |names: &[String]| names.iter().any(|known| known == name);
    if known(&names.plugins) && !known(&names.middlewares) {
        let refusal = Refusal::new(format!("no middleware named \"{name}\", but a plugin"));
        return item.refuse(refusal.suggesting(Some(format!("plugin:{name}"))));
    }
    item.resolve("middleware", &text, name, &names.middlewares, str::to_owned).map(Step::Middleware)
}
