//! `/byok/keys`: keys go in, handles and hints come out.

use serde::{Deserialize, Serialize};
use tollgate_sdk::{
    host::{SecretInfo, Secrets, SecretsError},
    http::{Problem, Request, Response, Role},
};

use crate::SCOPE;

const MAX_BODY_BYTES: usize = 16 * 1024;
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=4096;
const MAX_NAME_BYTES: usize = 64;

pub(crate) fn serve(request: Request, secrets: &impl Secrets) -> Response {
    let request_id = request.request_id().to_owned();
    answer(request, secrets).unwrap_or_else(|problem| problem.into_response(&request_id))
}

fn answer(request: Request, secrets: &impl Secrets) -> Result<Response, Problem> {
    let segments = request.segments();
    let segments: Vec<_> = segments.iter().map(String::as_str).collect();
    match (segments.as_slice(), request.method.as_str()) {
        (["byok", "keys"], "GET") => list(&request, secrets),
        (["byok", "keys"], "PUT" | "POST") => store(request, secrets),
        (["byok", "keys"], _) => Err(Problem::method_not_allowed("GET, POST, PUT")),
        (["byok", "keys", provider], "DELETE") => remove(&request, provider, secrets),
        (["byok", "keys", _], _) => Err(Problem::method_not_allowed("DELETE")),
        _ => Err(Problem::not_found()),
    }
}

fn list(request: &Request, secrets: &impl Secrets) -> Result<Response, Problem> {
    let wanted = request.parameter("tenant");
    let owner = match request.role() {
        Role::Operator => wanted,
        Role::Caller | Role::Anonymous => Some(tenant_of(request, wanted)?),
    };
    let keys = secrets.list(SCOPE, owner.as_deref()).map_err(failure)?;
    Ok(Response::json(200, &Keys { keys: keys.into_iter().map(Key::from).collect() }))
}

fn store(request: Request, secrets: &impl Secrets) -> Result<Response, Problem> {
    // The body is named first because reading it consumes the request.
    let Request { headers, body, .. } = request;
    let body = body.read(MAX_BODY_BYTES)?;
    // The parser's message may quote the body, and with it the key.
    let new: NewKey = serde_json::from_slice(&body)
        .map_err(|_| Problem::bad_request("the body must be {\"tenant\"?, \"provider\", \"key\"}"))?;
    let request = Request { headers, ..Request::new("PUT", "/") };
    let tenant = tenant_of(&request, new.tenant)?;
    check_name("provider", &new.provider)?;
    check_key(&new.key)?;
    let handle = secrets.seal(SCOPE, &tenant, &new.provider, &new.key).map_err(failure)?;
    let stored = secrets.list(SCOPE, Some(&tenant)).map_err(failure)?;
    let stored = stored.into_iter().find(|info| info.handle == handle);
    let stored = stored.ok_or_else(|| Problem::unavailable("the key was not kept"))?;
    Ok(Response::json(201, &Key::from(stored)))
}

fn remove(request: &Request, provider: &str, secrets: &impl Secrets) -> Result<Response, Problem> {
    let tenant = tenant_of(request, request.parameter("tenant"))?;
    check_name("provider", provider)?;
    if secrets.remove(&format!("{SCOPE}/{tenant}/{provider}")).map_err(failure)? {
        Ok(Response::empty(204))
    } else {
        Err(Problem::new(404, "not-found", "there is no such key"))
    }
}

/// Whose key it is about: the named tenant's for an operator, the caller's own
/// otherwise.
fn tenant_of(request: &Request, named: Option<String>) -> Result<String, Problem> {
    let tenant = match (request.role(), named) {
        (Role::Operator, Some(named)) => named,
        (Role::Operator, None) => return Err(Problem::bad_request("name the tenant")),
        (Role::Caller, None) => request.tenant().to_owned(),
        (Role::Caller, Some(named)) if named == request.tenant() => named,
        (Role::Caller, Some(_)) => return Err(Problem::forbidden("these are another tenant's keys")),
        (Role::Anonymous, _) => return Err(Problem::forbidden("this needs a key or the admin token")),
    };
    check_name("tenant", &tenant)?;
    Ok(tenant)
}

/// Names become parts of a handle, so a `/` in them could name another's key.
fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err(Problem::bad_request(format!(
        "the {what} must have 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` or `-`"
    )))
}

fn check_key(key: &str) -> Result<(), Problem> {
    if KEY_BYTES.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Problem::bad_request(format!(
        "the key must have {} to {} printable characters without spaces",
        KEY_BYTES.start(),
        KEY_BYTES.end()
    )))
}

fn failure(error: SecretsError) -> Problem {
    match error {
        SecretsError::Denied => Problem::forbidden("the plugin is not granted these secrets"),
        SecretsError::Invalid => Problem::bad_request("the gateway refuses this name or key"),
        SecretsError::Unavailable => Problem::unavailable("the store does not answer"),
    }
}

/// No `Debug`: it holds a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    tenant: Option<String>,
    provider: String,
    key: String,
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    handle: String,
    tenant: String,
    provider: String,
    /// The last four characters.
    hint: String,
    created_unix_ms: u64,
}

impl From<SecretInfo> for Key {
    fn from(info: SecretInfo) -> Self {
        Self {
            handle: info.handle,
            tenant: info.owner,
            provider: info.name,
            hint: info.hint,
            created_unix_ms: info.created_unix_ms,
        }
    }
}

#[cfg(test)]
mod tests;
