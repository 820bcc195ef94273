//! BYOK: callers bring their own provider keys. A tenant that has a key for a
//! provider always uses it; keys are sealed by the host and never read here.

use serde::Deserialize;
use tollgate_sdk::{
    Credentials, Endpoint, Plugin, Refusal,
    credentials::{Attempt, Credential},
    host::Gateway,
    http::{Request, Response},
};

mod api;
mod choice;

/// Scope of the sealed secrets; the grant names it.
const SCOPE: &str = "byok";

/// There is nothing to configure; a config that says otherwise is a mistake.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Byok {}

impl Plugin for Byok {
    fn configure(config: &str) -> Result<Self, String> {
        tollgate_sdk::parse_config(config)
    }
}

impl Credentials for Byok {
    fn credential_for(&self, attempt: Attempt) -> Result<Credential, Refusal> {
        choice::credential_for(&attempt, &Gateway)
    }
}

impl Endpoint for Byok {
    fn serve(&self, request: Request) -> Response {
        api::serve(request, &Gateway)
    }
}

tollgate_sdk::export!(Byok: credentials, endpoint);
