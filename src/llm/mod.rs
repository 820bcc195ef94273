//! The LLM dialects, without any I/O: bytes and values in, bytes and values out.
//!
//! Callers speak OpenAI chat completions; providers speak that or Anthropic
//! Messages. A body is scanned once ([`ChatRequest`]), mapped to the provider
//! ([`upstream_request`]), and what comes back is mapped to the caller:
//! [`reply`] for a whole answer, [`Stream`] for events, [`refusal`] for errors.
//!
//! Two things are kept as the provider sent them: the model name in replies, so
//! that callers can see what answered, and every member this gateway does not
//! know, as long as both sides speak the same dialect.

mod chat;
mod dialect;
mod error;
mod patch;
mod refusal;
mod retry;
mod sse;
mod stream;
mod usage;

#[cfg(test)]
mod golden;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde_json::json;

use crate::config::llm::Api;

pub use chat::ChatRequest;
pub use error::{BadUpstream, LlmError, StreamFault, error_body, in_band_error};
pub use refusal::{FailureClass, UpstreamRefusal, refusal};
pub use sse::{SseEvent, SseParser};
pub use stream::{Stream, StreamState, StreamStep};
pub use usage::Usage;

/// What to send to a provider, apart from its address and the credential.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    /// After the provider's base path.
    pub path: &'static str,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// Members of the caller's request that the provider's dialect cannot
    /// express; members that the gateway does not know appear as `other`.
    pub dropped: Vec<&'static str>,
}

/// A whole answer in the caller's dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub body: Bytes,
    /// Absent when the provider reported none.
    pub usage: Option<Usage>,
    /// `finish_reason` of the first choice.
    pub finish: Option<String>,
}

/// Maps the caller's request to a provider's dialect, for the provider's `model`.
///
/// `max_output_tokens` is a ceiling: a larger limit of the caller is lowered to
/// it, and a caller without a limit gets it.
pub fn upstream_request(
    api: Api,
    request: &ChatRequest,
    model: &str,
    max_output_tokens: Option<u64>,
) -> Result<UpstreamRequest, LlmError> {
    match api {
        Api::OpenAi => dialect::openai::request(request, model, max_output_tokens),
        Api::Anthropic => dialect::anthropic::request(request, model, max_output_tokens),
    }
}

/// The header that carries a provider's key; `None` if the key cannot be a header value.
pub fn credential_header(api: Api, key: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match api {
        Api::OpenAi => (header::AUTHORIZATION, format!("Bearer {key}")),
        Api::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
    };
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// Maps a whole 2xx answer to the caller's dialect. An error object inside a
/// 200, and a body that is no answer at all, are [`BadUpstream`].
#[expect(clippy::needless_pass_by_value, reason = "the answer is used up; a borrow would invite a copy")]
pub fn reply(api: Api, request: &ChatRequest, body: Bytes) -> Result<Reply, BadUpstream> {
    match api {
        Api::OpenAi => dialect::openai::reply(request, &body),
        Api::Anthropic => dialect::anthropic::reply(request, &body),
    }
}

/// The OpenAI models list. `created` is in Unix seconds.
pub fn models_body<'a>(models: impl Iterator<Item = &'a str>, created: u64) -> Bytes {
    let data: Vec<_> = models
        .map(|id| json!({"id": id, "object": "model", "created": created, "owned_by": "tollgate"}))
        .collect();
    Bytes::from(json!({"object": "list", "data": data}).to_string())
}

/// One entry of the models list.
pub fn model_body(id: &str, created: u64) -> Bytes {
    Bytes::from(json!({"id": id, "object": "model", "created": created, "owned_by": "tollgate"}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sensitive_and_must_fit_a_header() {
        let (name, value) = credential_header(Api::OpenAi, "sk-1").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer sk-1"));
        assert!(value.is_sensitive());
        let (name, value) = credential_header(Api::Anthropic, "sk-ant-1").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-api-key", "sk-ant-1"));
        assert!(value.is_sensitive());
        assert!(credential_header(Api::OpenAi, "a\nb").is_none());
    }

    #[test]
    fn models_are_listed() {
        let body: serde_json::Value = serde_json::from_slice(&models_body(["a/b:c"].into_iter(), 7)).unwrap();
        assert_eq!(body["object"], "list");
        assert_eq!(body["data"][0]["id"], "a/b:c");
        assert_eq!(body["data"][0]["created"], 7);
    }
}
