//! Admin: the operator's API over the gateway's own documents.

use serde::Deserialize;
use tollgate_sdk::{
    Endpoint, Plugin,
    host::Gateway,
    http::{Request, Response},
};

mod api;

/// There is nothing to configure; a config that says otherwise is a mistake.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {}

impl Plugin for Admin {
    fn configure(config: &str) -> Result<Self, String> {
        tollgate_sdk::parse_config(config)
    }
}

impl Endpoint for Admin {
    fn serve(&self, request: Request) -> Response {
        api::serve(request, &Gateway)
    }
}

tollgate_sdk::export!(Admin: endpoint);
