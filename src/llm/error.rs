//! What can be wrong with a caller's request or a provider's answer, and the
//! error objects of the callers' dialect.

use bytes::Bytes;
use serde_json::json;

use super::{FailureClass, refusal::ErrorReport};
use crate::fault::FaultKind;

/// Why a caller's request cannot be served; the text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    #[error("the body is not a JSON object: {0}")]
    NotJson(String),
    /// A member is missing or has the wrong form.
    #[error("`{param}` {problem}")]
    Invalid { param: String, problem: String },
    /// A member is well formed, but the chosen provider's dialect has no equivalent.
    #[error("`{param}` {problem}")]
    Unsupported { param: String, problem: String },
}

impl LlmError {
    pub(crate) fn invalid(param: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { param: param.into(), problem: problem.into() }
    }

    pub(crate) fn unsupported(param: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unsupported { param: param.into(), problem: problem.into() }
    }

    /// The member at fault, as a path such as `messages[2].content`.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::NotJson(_) => None,
            Self::Invalid { param, .. } | Self::Unsupported { param, .. } => Some(param),
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "invalid_json",
            Self::Invalid { .. } => "invalid_request",
            Self::Unsupported { .. } => "unsupported_parameter",
        }
    }

    /// The body of the 400 that answers it.
    pub fn body(&self, request_id: &str) -> Bytes {
        object("invalid_request_error", Some(self.code()), &self.to_string(), self.param(), Some(request_id))
    }
}

/// A provider's answer that cannot be passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadUpstream {
    pub class: FailureClass,
    /// Short and safe to show.
    pub message: String,
}

/// The same inside a stream.
pub type StreamFault = BadUpstream;

impl BadUpstream {
    /// An error that the provider reported inside a 200.
    pub(crate) fn reported(class: FailureClass, report: &ErrorReport) -> Self {
        let told = report.shown().filter(|_| class != FailureClass::KeyDead);
        Self { class, message: told.unwrap_or_else(|| "the provider reported an error".to_owned()) }
    }

    pub(crate) fn bad_stream(message: impl Into<String>) -> Self {
        Self { class: FailureClass::BadStream, message: message.into() }
    }
}

/// An OpenAI error object.
pub(crate) fn object(
    kind: &str,
    code: Option<&str>,
    message: &str,
    param: Option<&str>,
    request_id: Option<&str>,
) -> Bytes {
    let mut body = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    if let Some(id) = request_id.filter(|id| !id.is_empty()) {
        body["request_id"] = id.into();
    }
    Bytes::from(body.to_string())
}

/// The error object for a failure of the gateway's own kinds.
pub fn error_body(kind: FaultKind, message: &str, request_id: &str) -> Bytes {
    let (class, code) = match kind {
        FaultKind::BadRequest | FaultKind::MethodNotAllowed | FaultKind::HttpVersion => {
            ("invalid_request_error", "invalid_request")
        }
        FaultKind::BodyTooLarge => ("invalid_request_error", "request_too_large"),
        FaultKind::Misdirected => ("invalid_request_error", "misdirected_request"),
        FaultKind::Unauthenticated => ("authentication_error", "invalid_api_key"),
        FaultKind::InsufficientCredit => ("insufficient_quota", "insufficient_quota"),
        FaultKind::Forbidden => ("permission_error", "permission_denied"),
        FaultKind::NoRoute => ("invalid_request_error", "not_found"),
        FaultKind::UnknownModel => ("invalid_request_error", "model_not_found"),
        FaultKind::RequestTimeout | FaultKind::ClientClosed => ("invalid_request_error", "request_timeout"),
        FaultKind::RateLimited => ("rate_limit_error", "rate_limit_exceeded"),
        FaultKind::UpstreamConnect => ("upstream_error", "upstream_unreachable"),
        FaultKind::UpstreamBroken => ("upstream_error", "upstream_broken"),
        FaultKind::UpstreamTimeout => ("upstream_error", "upstream_timeout"),
        FaultKind::UpstreamRefused => ("upstream_error", "upstream_refused"),
        FaultKind::PluginFailed => ("server_error", "plugin_failed"),
        FaultKind::StoreUnavailable => ("server_error", "metering_unavailable"),
        FaultKind::Overloaded => ("server_error", "overloaded"),
        FaultKind::Internal => ("server_error", "internal_error"),
    };
    object(class, Some(code), message, None, Some(request_id))
}

/// The event that ends a stream which broke after content had been delivered.
/// No `[DONE]` follows: SDKs take a clean end for a complete answer.
pub fn in_band_error(message: &str) -> Bytes {
    let body = object("upstream_error", Some("stream_interrupted"), message, None, None);
    let mut event = Vec::with_capacity(body.len() + 8);
    event.extend_from_slice(b"data: ");
    event.extend_from_slice(&body);
    event.extend_from_slice(b"\n\n");
    Bytes::from(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_in_band_error_is_one_event_without_terminator() {
        let event = in_band_error("the provider went \"away\"\n");
        let text = std::str::from_utf8(&event).unwrap();
        let data = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        assert!(!data.contains('\n') && !text.contains("[DONE]"));
        let body: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(body["error"]["code"], "stream_interrupted");
        assert_eq!(body["error"]["message"], "the provider went \"away\"\n");
        assert!(body["error"]["param"].is_null());
    }

    #[test]
    fn the_member_at_fault_is_named() {
        let error = LlmError::invalid("messages[2].content", "is missing");
        let body: serde_json::Value = serde_json::from_slice(&error.body("r1")).unwrap();
        assert_eq!(body["error"]["param"], "messages[2].content");
        assert_eq!(body["error"]["message"], "`messages[2].content` is missing");
        assert_eq!(body["request_id"], "r1");
    }
}
