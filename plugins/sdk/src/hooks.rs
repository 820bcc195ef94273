//! What a plugin implements: [`Plugin`] and one trait per hook interface.

use serde::de::DeserializeOwned;

use crate::{
    Edit, EndSummary, LlmRequest, Refusal, RequestHead, RequestVerdict, ResponseHead, Subscription,
    admission::AdmissionVerdict,
    credentials::{Attempt, Credential},
    http::{Request, Response},
    planner::{FailedAttempt, NextStep},
    settlement::{Booking, Outcome},
};

/// One instance of a plugin. It serves one call at a time and may be replaced
/// between any two calls: what must last belongs in a host interface.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Called once per instance, before any hook, inside the time limit of a
    /// call. `config` is the plugin's `config` section as JSON, `null` if
    /// absent. An error refuses the version at load and is shown to the operator.
    fn configure(config: &str) -> Result<Self, String>;

    /// What the hooks of this instance want to be given.
    fn subscription(&self) -> Subscription {
        Subscription {
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            on_response: false,
            on_end: false,
        }
    }
}

/// A step of a route's chain. `on_response` and `on_end` are called only if
/// [`Plugin::subscription`] asks for them.
pub trait HttpFilter: Plugin {
    fn on_request(&self, _request: RequestHead) -> RequestVerdict {
        RequestVerdict::Pass
    }

    fn on_response(&self, _response: ResponseHead) -> Vec<Edit> {
        Vec::new()
    }

    fn on_end(&self, _summary: EndSummary) {}
}

/// Who pays for an LLM request, and how much is set aside.
pub trait Admission: Plugin {
    fn admit(&self, request: LlmRequest) -> AdmissionVerdict;
}

/// Which provider is asked, and which next.
pub trait Planner: Plugin {
    /// Indices into the request's candidates, in the order to try.
    fn plan(&self, request: LlmRequest) -> Result<Vec<u32>, Refusal>;

    /// `failed` has every failure so far, the latest last; never empty.
    fn after_failure(&self, request: LlmRequest, failed: Vec<FailedAttempt>) -> NextStep;
}

/// Which key goes with an attempt.
pub trait Credentials: Plugin {
    fn credential_for(&self, attempt: Attempt) -> Result<Credential, Refusal>;
}

/// What is booked for an LLM request.
pub trait Settlement: Plugin {
    fn settle(&self, request: LlmRequest, outcome: Outcome) -> Booking;
}

/// A whole HTTP service.
pub trait Endpoint: Plugin {
    fn serve(&self, request: Request) -> Response;
}

/// Reads a plugin's config. An absent one is read as the empty object, so a
/// type whose fields all have defaults needs no config.
pub fn parse_config<T: DeserializeOwned>(config: &str) -> Result<T, String> {
    let config = if config.trim() == "null" { "{}" } else { config };
    // serde would also read a struct from an array, field by field.
    if !config.trim_start().starts_with('{') {
        return Err("config must be a mapping".to_owned());
    }
    serde_json::from_str(config).map_err(|error| error.to_string())
}
