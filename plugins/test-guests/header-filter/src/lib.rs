//! Reads two headers and sets one. The value comes from the config, so that
//! tests can tell one version from another.

use serde::Deserialize;
use tollgate_sdk::{
    Edit, EndSummary, HttpFilter, Plugin, RequestHead, RequestVerdict, ResponseHead, Subscription, edit,
};

/// Subject of the client's certificate.
const CLIENT: &str = "tollgate-client-cert-subject";

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HeaderFilter {
    /// Value of `x-plugin-version`.
    version: String,
}

impl Default for HeaderFilter {
    fn default() -> Self {
        Self { version: option_env!("PLUGIN_VERSION").unwrap_or("1").to_owned() }
    }
}

impl Plugin for HeaderFilter {
    fn configure(config: &str) -> Result<Self, String> {
        tollgate_sdk::parse_config(config)
    }

    fn subscription(&self) -> Subscription {
        Subscription {
            request_headers: ["user-agent", "accept", CLIENT].map(str::to_owned).to_vec(),
            response_headers: vec!["content-type".to_owned()],
            on_response: true,
            on_end: false,
        }
    }
}

impl HttpFilter for HeaderFilter {
    fn on_request(&self, request: RequestHead) -> RequestVerdict {
        let seen = usize::from(request.header("user-agent").is_some())
            + usize::from(request.header("accept").is_some());
        let mut edits = vec![
            edit::set("x-plugin-version", &self.version),
            edit::set("x-plugin-seen", if seen == 2 { "both" } else { "not both" }),
        ];
        edits.extend(request.header(CLIENT).map(|subject| edit::set("x-plugin-client", subject)));
        RequestVerdict::Edit(edits)
    }

    fn on_response(&self, _response: ResponseHead) -> Vec<Edit> {
        vec![edit::set("x-plugin-version", &self.version)]
    }

    fn on_end(&self, _summary: EndSummary) {}
}

tollgate_sdk::export!(HeaderFilter: http_filter);
