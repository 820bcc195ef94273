//! Routes, services, plugins; loading a plugin version.

use serde::Serialize;
use tollgate_sdk::{
    host::{Control, ControlError},
    http::{BodyError, Problem, Request, Response},
};

const MAX_COMPONENT_BYTES: usize = 16 * 1024 * 1024;
const COMPONENT_TYPE: &str = "application/wasm";

pub(crate) fn serve(request: Request, control: &impl Control) -> Response {
    let request_id = request.request_id().to_owned();
    answer(request, control).unwrap_or_else(|problem| problem.into_response(&request_id))
}

fn answer(request: Request, control: &impl Control) -> Result<Response, Problem> {
    Problem::unless_operator(&request)?;
    let segments = request.segments();
    let segments: Vec<_> = segments.iter().map(String::as_str).collect();
    match (segments.as_slice(), request.method.as_str()) {
        ([], "GET") => Ok(Response::json(200, &INDEX)),
        (["routes"], "GET") => document(control.routes()),
        (["services"], "GET") => document(control.services()),
        (["plugins"], "GET") => document(control.plugins()),
        ([] | ["routes" | "services" | "plugins"], _) => Err(Problem::method_not_allowed("GET")),
        (["plugins", name, "versions"], "POST") => load(request, name, control),
        (["plugins", _, "versions"], _) => Err(Problem::method_not_allowed("POST")),
        _ => Err(Problem::not_found()),
    }
}

fn document(json: Result<String, ControlError>) -> Result<Response, Problem> {
    Ok(Response::whole(200, "application/json", json.map_err(failure)?))
}

fn load(request: Request, name: &str, control: &impl Control) -> Result<Response, Problem> {
    let content_type = request.header("content-type").unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(COMPONENT_TYPE) {
        let detail = format!("send the component as {COMPONENT_TYPE}");
        return Err(Problem::new(415, "unsupported-media-type", detail));
    }
    let component = request.body.read(MAX_COMPONENT_BYTES).map_err(|error| match error {
        BodyError::TooLarge => Problem::new(
            413,
            "body-too-large",
            format!("a component has at most {MAX_COMPONENT_BYTES} bytes"),
        ),
        BodyError::Broken => Problem::from(error),
    })?;
    let version = control.load_plugin(name, &component).map_err(failure)?;
    Ok(Response::whole(201, "application/json", version))
}

fn failure(error: ControlError) -> Problem {
    match error {
        ControlError::Denied => Problem::forbidden("the plugin is not granted this control verb"),
        ControlError::NotFound => Problem::new(404, "not-found", "there is no plugin of this name"),
        ControlError::Invalid(reason) => Problem::new(422, "invalid-component", reason),
        ControlError::Unavailable(reason) => Problem::new(503, "overloaded", reason),
    }
}

#[derive(Serialize)]
struct Index {
    endpoints: &'static [Entry],
}

#[derive(Serialize)]
struct Entry {
    method: &'static str,
    path: &'static str,
    does: &'static str,
}

const fn entry(method: &'static str, path: &'static str, does: &'static str) -> Entry {
    Entry { method, path, does }
}

/// Of the whole admin entrypoint: other paths are served by the plugins that
/// own them and by the gateway itself.
const INDEX: Index = Index {
    endpoints: &[
        entry("GET", "/api/v1/routes", "routes in service"),
        entry("GET", "/api/v1/services", "services in service"),
        entry("GET", "/api/v1/plugins", "plugins with version, digest, state and counters"),
        entry("POST", "/api/v1/plugins/{name}/versions", "put a new version of a plugin in service"),
        entry("GET", "/api/v1/credits", "balances of all accounts (metering)"),
        entry("GET", "/api/v1/credits/{account}", "balance of one account (metering)"),
        entry("POST", "/api/v1/credits/{account}", "add credit once per id (metering)"),
        entry("GET", "/api/v1/usage", "booked requests, newest first (metering)"),
        entry("GET", "/api/v1/byok/keys", "handles of callers' own keys (byok)"),
        entry("PUT", "/api/v1/byok/keys", "store a caller's own key (byok)"),
        entry("DELETE", "/api/v1/byok/keys/{provider}", "remove a caller's own key (byok)"),
        entry("GET", "/healthz", "whether the process lives"),
        entry("GET", "/readyz", "whether it serves"),
        entry("GET", "/metrics", "metrics in Prometheus text"),
    ],
};

#[cfg(test)]
mod tests;
