//! Providers' refusals: which class they are of, and what the caller is told.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::{error::object, retry::RetrySignals};
use crate::config::llm::Api;

/// What a failed attempt means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// The request is at fault: nobody else would serve it.
    ClientError,
    /// Too long for this model; a larger one may take it.
    ContextExceeded,
    PolicyRefused,
    /// The provider has no such model, or no longer.
    ModelGone,
    /// The key is refused or its account exhausted, until somebody acts.
    KeyDead,
    Throttled,
    Transient,
    /// A stream or body that broke off or is not what it should be.
    BadStream,
}

impl FailureClass {
    /// Whether another provider might serve what this one did not.
    pub fn replaceable(self) -> bool {
        match self {
            Self::ClientError | Self::ContextExceeded | Self::PolicyRefused => false,
            Self::ModelGone | Self::KeyDead | Self::Throttled | Self::Transient | Self::BadStream => true,
        }
    }

    /// Whether it says something of the provider's health.
    pub fn blames_provider(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient | Self::BadStream)
    }
}

/// A refusal, for the gateway and for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRefusal {
    pub class: FailureClass,
    /// For the caller. The gateway's key being refused is a 502, since a 401
    /// would make the caller doubt a key that is in order.
    pub status: u16,
    /// An OpenAI error object. The provider's text is in it only if it holds
    /// nothing that looks like a credential.
    pub body: Bytes,
    pub retry_after: Option<Duration>,
    /// Whether the same provider may be asked again for this request.
    pub retry_same: bool,
}

/// Reads a provider's answer other than 2xx.
pub fn refusal(api: Api, status: u16, headers: &HeaderMap, body: &[u8]) -> UpstreamRefusal {
    let signals = RetrySignals::read(headers);
    let report = ErrorReport::read(body);
    let mut class = report.classify(api, status);
    if signals.should_retry == Some(true) && class == FailureClass::ClientError {
        class = FailureClass::Transient;
    }
    let may_pass =
        matches!(class, FailureClass::Throttled | FailureClass::Transient | FailureClass::BadStream);
    let answer = report.answer(class, status);
    UpstreamRefusal {
        class,
        status: answer.status,
        body: answer.body,
        retry_after: signals.after.filter(|_| may_pass),
        retry_same: may_pass && signals.should_retry != Some(false),
    }
}

/// What an error body says, in whichever of the usual shapes.
#[derive(Debug, Default)]
pub(crate) struct ErrorReport {
    message: String,
    kind: String,
    code: String,
    param: Option<String>,
    /// Codes that stand elsewhere: inner errors, details, a Google status.
    inner: String,
}

struct Answer {
    status: u16,
    body: Bytes,
}

impl ErrorReport {
    /// `{"error":{…}}`, `{"error":"…"}`, the bare object of older vLLM,
    /// `{"detail":…}`, any of them in an array; else no report at all (HTML).
    pub(crate) fn read(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(Value::Array(mut list)) if !list.is_empty() => Self::of(&list.swap_remove(0)),
            Ok(value) => Self::of(&value),
            Err(_) => Self::default(),
        }
    }

    pub(crate) fn of(value: &Value) -> Self {
        let error = match &value["error"] {
            Value::String(message) => {
                return Self { message: message.clone(), code: word(&value["code"]), ..Self::default() };
            }
            error @ Value::Object(_) => error,
            _ => value,
        };
        let message = [&error["message"], &value["message"], &value["detail"]];
        let details = ["/innererror/code", "/details/error_code", "/status", "/metadata/error_type"];
        let mut inner: Vec<_> =
            details.iter().filter_map(|at| error.pointer(at)).map(word).filter(|w| !w.is_empty()).collect();
        if let Some(list) = error["details"].as_array() {
            inner.extend(list.iter().map(|detail| word(&detail["reason"])));
        }
        Self {
            message: message.iter().find_map(|text| text.as_str()).unwrap_or_default().to_owned(),
            kind: word(&error["type"]),
            code: word(&error["code"]),
            param: error["param"].as_str().map(str::to_owned),
            inner: inner.join(" "),
        }
    }

    /// Like [`Self::classify`], for an error that came with status 200.
    pub(crate) fn classify_in_band(&self, api: Api) -> FailureClass {
        let status = match (self.code.parse(), self.kind.as_str()) {
            (Ok(status @ 400..=599), _) => status,
            (_, "authentication_error") => 401,
            (_, "billing_error") => 402,
            (_, "permission_error") => 403,
            (_, "not_found_error") => 404,
            (_, "request_too_large") => 413,
            (_, "rate_limit_error") => 429,
            (_, "overloaded_error") => 529,
            (_, "timeout_error") => 504,
            (_, "api_error" | "server_error") => 500,
            _ => 0,
        };
        match self.classify(api, status) {
            // The request was accepted, so it is the answer that went wrong.
            FailureClass::ClientError => FailureClass::BadStream,
            class => class,
        }
    }

    /// The table of classes, most specific sign first.
    pub(crate) fn classify(&self, api: Api, status: u16) -> FailureClass {
        let text = self.message.to_ascii_lowercase();
        let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if self.is(DEAD_KEY_CODES) || says(DEAD_KEY_TEXTS) {
            FailureClass::KeyDead
        } else if self.is(CONTEXT_CODES) || (matches!(status, 0 | 400..=428) && says(CONTEXT_TEXTS)) {
            FailureClass::ContextExceeded
        } else if self.is(POLICY_CODES) || (status == 403 && says(&["moderation", "flagged"])) {
            FailureClass::PolicyRefused
        } else if self.is(MODEL_CODES) || status == 410 || (status == 404 && self.names_model(api, &text)) {
            FailureClass::ModelGone
        } else if self.is(&["tool_use_failed"]) {
            // The model's mistake, not the caller's: Groq's own advice is to retry.
            FailureClass::Transient
        } else {
            self.classify_by_status(status, &text)
        }
    }

    fn classify_by_status(&self, status: u16, text: &str) -> FailureClass {
        let overloaded = || text.contains("overloaded") || self.is(&["overloaded_error", "overloaded"]);
        match status {
            401..=403 | 412 => FailureClass::KeyDead,
            429 | 498 | 529 => FailureClass::Throttled,
            500..=599 if overloaded() => FailureClass::Throttled,
            408 | 409 | 425 | 500..=599 => FailureClass::Transient,
            400..=499 => FailureClass::ClientError,
            _ => FailureClass::BadStream,
        }
    }

    fn is(&self, codes: &[&str]) -> bool {
        let given = [&self.code, &self.kind].into_iter().map(String::as_str).chain(self.inner.split(' '));
        given.into_iter().any(|code| codes.iter().any(|known| code.eq_ignore_ascii_case(known)))
    }

    fn names_model(&self, api: Api, text: &str) -> bool {
        match api {
            // "model: claude-…" is the whole message.
            Api::Anthropic => text.starts_with("model:") || text.contains("model "),
            Api::OpenAi => text.contains("model"),
        }
    }

    fn answer(&self, class: FailureClass, status: u16) -> Answer {
        let (status, kind, code, fallback) = match class {
            // The gateway chose path and method, so these are not the caller's.
            FailureClass::ClientError if status == 405 => {
                (502, "upstream_error", "upstream_rejected", "the provider refused the request")
            }
            FailureClass::ClientError => {
                (status, "invalid_request_error", shown_code(&self.code), "the provider refused the request")
            }
            FailureClass::ContextExceeded => (
                400,
                "invalid_request_error",
                "context_length_exceeded",
                "the request exceeds the model's context",
            ),
            FailureClass::PolicyRefused => (
                400,
                "invalid_request_error",
                "content_policy_violation",
                "the provider's content policy refused the request",
            ),
            FailureClass::ModelGone => {
                (404, "invalid_request_error", "model_not_found", "the provider does not have this model")
            }
            FailureClass::KeyDead => (
                502,
                "upstream_error",
                "upstream_credentials",
                "the provider refused the gateway's credentials",
            ),
            FailureClass::Throttled if matches!(status, 429 | 498) => {
                (429, "rate_limit_error", "rate_limit_exceeded", "the provider limits the rate of requests")
            }
            FailureClass::Throttled => (503, "upstream_error", "overloaded", "the provider is overloaded"),
            FailureClass::Transient => (
                match status {
                    503 => 503,
                    408 | 504 | 524 => 504,
                    _ => 502,
                },
                "upstream_error",
                "upstream_unavailable",
                "the provider failed",
            ),
            FailureClass::BadStream => {
                (502, "upstream_error", "upstream_broken", "the provider's answer is broken")
            }
        };
        // What the provider says about its keys and accounts is not the caller's.
        let told = if class == FailureClass::KeyDead { None } else { safe_text(&self.message) };
        let param = self.param.as_deref().filter(|_| kind == "invalid_request_error");
        let param = param.and_then(safe_text);
        let message = told.as_deref().unwrap_or(fallback);
        Answer { status, body: object(kind, Some(code), message, param.as_deref(), None) }
    }

    /// The text, if it may be shown.
    pub(crate) fn shown(&self) -> Option<String> {
        safe_text(&self.message)
    }
}

const DEAD_KEY_CODES: &[&str] = &[
    "insufficient_quota",
    "invalid_api_key",
    "API_KEY_INVALID",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "account_deactivated",
    "enforced_spend_limit_reached",
];
const DEAD_KEY_TEXTS: &[&str] = &[
    "exceeded your current quota",
    "credit balance is too low",
    "api key not valid",
    "insufficient credits",
];
const CONTEXT_CODES: &[&str] = &["context_length_exceeded", "model_context_window_exceeded"];
const CONTEXT_TEXTS: &[&str] = &[
    "prompt is too long",
    "maximum context length",
    "exceeds the maximum number of tokens",
    "context window",
    "context length",
    "input is too long",
    "reduce the length of the messages",
];
const POLICY_CODES: &[&str] =
    &["content_policy_violation", "content_filter", "ResponsibleAIPolicyViolation", "content_policy"];
const MODEL_CODES: &[&str] = &["model_not_found", "model_decommissioned", "DeploymentNotFound"];

/// Codes that are passed to callers, as constants so that nothing else is.
fn shown_code(code: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "unsupported_parameter",
        "unsupported_value",
        "invalid_value",
        "invalid_type",
        "missing_required_parameter",
        "unknown_parameter",
        "string_above_max_length",
        "array_above_max_length",
        "invalid_image_url",
        "invalid_json_schema",
    ];
    KNOWN.iter().find(|known| **known == code).copied().unwrap_or("upstream_rejected")
}

/// A code as text, whether it is a word or a number.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

const LONGEST_TEXT: usize = 1_000;

/// A provider's text for the caller: cut to a reasonable length, and refused
/// altogether if it is empty or any part of it looks like a credential.
pub(crate) fn safe_text(text: &str) -> Option<String> {
    if text.trim().is_empty() || holds_credential(text) {
        return None;
    }
    let shown = text.chars().filter(|c| !c.is_control() || *c == '\n').take(LONGEST_TEXT);
    Some(shown.collect())
}

fn holds_credential(text: &str) -> bool {
    const PREFIXES: &[&str] =
        &["sk-", "sk_", "gsk_", "hf_", "aiza", "fw_", "tgp_", "xai-", "pplx-", "r8_", "eyj", "akia", "ghp_"];
    const LABELS: &[&str] = &["bearer ", "basic ", "key=", "token=", "x-api-key:", "authorization:"];
    let lower = text.to_ascii_lowercase();
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '.');
    let labelled = LABELS.iter().any(|label| {
        lower.match_indices(label).any(|(at, _)| {
            lower[at + label.len()..].trim_start().chars().take_while(|c| token(*c)).count() >= 8
        })
    });
    let mut words = lower.split(|c| !token(c));
    labelled
        || words.any(|word| {
            let prefixed =
                PREFIXES.iter().any(|prefix| word.starts_with(prefix) && word.len() >= prefix.len() + 4);
            prefixed || word.split(['-', '_', '.']).any(is_random)
        })
}

/// A long run of letters and digits mixed, as keys without a prefix are.
fn is_random(run: &str) -> bool {
    run.len() >= 32 && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests;
