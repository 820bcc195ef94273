//! Reads two headers and sets one. The value comes from the config, so that
//! tests can tell one version from another.

use serde::Deserialize;
use tollgate_sdk::{
    Edit, EndSummary, HttpFilter, Plugin, RequestHead, RequestVerdict, ResponseHead, Subscription, edit,
};

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
            request_headers: vec!["user-agent".to_owned(), "accept".to_owned()],
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
        RequestVerdict::Edit(vec![
            edit::set("x-plugin-version", &self.version),
            edit::set("x-plugin-seen", if seen == 2 { "both" } else { "not both" }),
        ])
    }

    fn on_response(&self, _response: ResponseHead) -> Vec<Edit> {
        vec![edit::set("x-plugin-version", &self.version)]
    }

    fn on_end(&self, _summary: EndSummary) {}
}

tollgate_sdk::export!(HeaderFilter: http_filter);
