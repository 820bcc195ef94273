//! The caller's request: one pass over the body for what routing and metering
//! need. The messages are not parsed here; same-dialect providers get them as
//! they are.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;

use super::{LlmError, patch::Raw};

/// What an image or file costs at least, whatever its size in bytes.
const ATTACHMENT_TOKENS: u64 = 1_000;

/// A chat completions request, scanned once.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    body: Bytes,
    model: String,
    stream: bool,
    wants_usage: bool,
    max_output_tokens: Option<u64>,
    choices: u64,
    estimated_input_tokens: u64,
    pub(crate) structured_output: bool,
    pub(crate) created: u64,
}

/// The members that the gateway reads or edits, as text. Nesting is not
/// limited here, but also not recursed into.
#[derive(Deserialize)]
pub(crate) struct Members<'a> {
    #[serde(borrow, default)]
    pub(crate) model: Raw<'a>,
    #[serde(borrow, default)]
    messages: Raw<'a>,
    #[serde(borrow, default)]
    tools: Raw<'a>,
    #[serde(borrow, default)]
    functions: Raw<'a>,
    #[serde(borrow, default)]
    stream: Raw<'a>,
    #[serde(borrow, default)]
    pub(crate) stream_options: Raw<'a>,
    #[serde(borrow, default)]
    pub(crate) max_tokens: Raw<'a>,
    #[serde(borrow, default)]
    pub(crate) max_completion_tokens: Raw<'a>,
    #[serde(borrow, default)]
    n: Raw<'a>,
    #[serde(borrow, default)]
    response_format: Raw<'a>,
}

#[derive(Deserialize)]
pub(crate) struct StreamOptions<'a> {
    #[serde(borrow, default)]
    pub(crate) include_usage: Raw<'a>,
}

impl ChatRequest {
    /// Scans `body`. Fails if it is not a JSON object or if a member that the
    /// gateway reads is missing, has the wrong type or stands there twice.
    pub fn parse(body: Bytes) -> Result<Self, LlmError> {
        let text = std::str::from_utf8(&body).map_err(|_| LlmError::NotJson("not UTF-8".into()))?;
        // An array of values would also pass for the members in order.
        if !text.trim_start().starts_with('{') {
            return Err(LlmError::NotJson("it must start with `{`".into()));
        }
        let members: Members<'_> =
            serde_json::from_str(text).map_err(|error| LlmError::NotJson(error.to_string()))?;
        let model = required(members.model, "model")?;
        let model: String =
            serde_json::from_str(model).map_err(|_| LlmError::invalid("model", "must be a string"))?;
        if model.is_empty() {
            return Err(LlmError::invalid("model", "must not be empty"));
        }
        let messages = required(members.messages, "messages")?;
        if !messages.starts_with('[') {
            return Err(LlmError::invalid("messages", "must be an array"));
        }
        if messages[1..].trim_start().starts_with(']') {
            return Err(LlmError::invalid("messages", "must not be empty"));
        }
        let max_tokens = positive(members.max_tokens, "max_tokens")?;
        let max_completion_tokens = positive(members.max_completion_tokens, "max_completion_tokens")?;
        let extent = [members.messages, members.tools, members.functions];
        Ok(Self {
            model,
            stream: flag(members.stream, "stream")?.unwrap_or(false),
            wants_usage: wants_usage(members.stream_options)?,
            max_output_tokens: max_completion_tokens.or(max_tokens),
            choices: positive(members.n, "n")?.unwrap_or(1),
            estimated_input_tokens: extent.iter().filter_map(|raw| raw.value()).map(estimate).sum(),
            structured_output: members.response_format.value().is_some_and(|t| t.contains("json_schema")),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            body,
        })
    }

    /// The model that the caller named.
    pub fn model(&self) -> &str {
        &self.model
    }

    pub fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the caller asked for the usage chunk at the end of a stream.
    pub fn wants_usage(&self) -> bool {
        self.wants_usage
    }

    /// The caller's limit for each choice.
    pub fn max_output_tokens(&self) -> Option<u64> {
        self.max_output_tokens
    }

    /// How many answers are asked for (`n`); each may use the full output.
    pub fn choices(&self) -> u64 {
        self.choices
    }

    /// A quarter of the bytes of messages and tools, which is near the truth
    /// for text; embedded files count as a flat amount each.
    pub fn estimated_input_tokens(&self) -> u64 {
        self.estimated_input_tokens
    }

    /// The body as received.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The members again, borrowed from the body.
    pub(crate) fn members(&self) -> Result<(&str, Members<'_>), LlmError> {
        let not_json = |error: String| LlmError::NotJson(error);
        let text = std::str::from_utf8(&self.body).map_err(|error| not_json(error.to_string()))?;
        let members = serde_json::from_str(text).map_err(|error| not_json(error.to_string()))?;
        Ok((text, members))
    }
}

fn required<'a>(raw: Raw<'a>, name: &str) -> Result<&'a str, LlmError> {
    raw.value().ok_or_else(|| LlmError::invalid(name, "is missing"))
}

fn flag(raw: Raw<'_>, name: &str) -> Result<Option<bool>, LlmError> {
    match raw.value() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(LlmError::invalid(name, "must be true or false")),
    }
}

fn positive(raw: Raw<'_>, name: &str) -> Result<Option<u64>, LlmError> {
    let Some(text) = raw.value() else { return Ok(None) };
    match serde_json::from_str::<u64>(text) {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(LlmError::invalid(name, "must be a positive integer")),
    }
}

fn wants_usage(raw: Raw<'_>) -> Result<bool, LlmError> {
    let Some(text) = raw.value() else { return Ok(false) };
    let wrong = || LlmError::invalid("stream_options", "must be an object");
    if !text.starts_with('{') {
        return Err(wrong());
    }
    let options: StreamOptions<'_> = serde_json::from_str(text).map_err(|_| wrong())?;
    Ok(flag(options.include_usage, "stream_options.include_usage")?.unwrap_or(false))
}

fn estimate(json: &str) -> u64 {
    let marker = ";base64,";
    let (mut embedded, mut files) = (0, 0);
    let mut rest = json;
    while let Some(at) = memmem::find(rest.as_bytes(), marker.as_bytes()) {
        rest = &rest[at + marker.len()..];
        let end = memchr::memchr(b'"', rest.as_bytes()).unwrap_or(rest.len());
        rest = &rest[end..];
        embedded += end;
        files += 1;
    }
    ((json.len() - embedded) as u64).div_ceil(4) + files * ATTACHMENT_TOKENS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ChatRequest, LlmError> {
        ChatRequest::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_request_is_scanned() {
        let request = parse(
            r#" {"mod\u0065l":"a\/b","messages":[{"role":"user","content":"hi"}],"stream":true,
            "stream_options":{"include_obfuscation":false,"include_usage":true},"max_tokens":9,
            "max_completion_tokens":7,"n":2,"unknown":{"deep":[[[[]]]]}}"#,
        )
        .unwrap();
        assert_eq!(request.model(), "a/b");
        assert!(request.stream() && request.wants_usage());
        assert_eq!(request.max_output_tokens(), Some(7));
        assert_eq!(request.choices(), 2);
    }

    #[test]
    fn nulls_count_as_absent() {
        let request =
            parse(r#"{"model":"m","messages":[1],"stream":null,"stream_options":null,"max_tokens":null}"#)
                .unwrap();
        assert!(!request.stream() && !request.wants_usage());
        assert_eq!(request.max_output_tokens(), None);
    }

    #[test]
    fn each_error_names_its_member() {
        let cases = [
            (r#"{"messages":[1]}"#, Some("model"), "is missing"),
            (r#"{"model":3,"messages":[1]}"#, Some("model"), "must be a string"),
            (r#"{"model":"","messages":[1]}"#, Some("model"), "must not be empty"),
            (r#"{"model":"m"}"#, Some("messages"), "is missing"),
            (r#"{"model":"m","messages":{}}"#, Some("messages"), "must be an array"),
            (r#"{"model":"m","messages":[ ]}"#, Some("messages"), "must not be empty"),
            (r#"{"model":"m","messages":[1],"stream":"yes"}"#, Some("stream"), "must be true"),
            (r#"{"model":"m","messages":[1],"stream_options":[]}"#, Some("stream_options"), "object"),
            (r#"{"model":"m","messages":[1],"max_tokens":-1}"#, Some("max_tokens"), "positive"),
            (r#"{"model":"m","messages":[1],"max_tokens":1.5}"#, Some("max_tokens"), "positive"),
            (r#"{"model":"m","messages":[1],"n":0}"#, Some("n"), "positive"),
            (r#"{"model":"m","model":"n","messages":[1]}"#, None, "duplicate field `model`"),
            (r#"{"model":"m","messages":[1]} x"#, None, "not a JSON object"),
            ("[]", None, "not a JSON object"),
            ("", None, "not a JSON object"),
        ];
        for (body, param, text) in cases {
            let error = parse(body).unwrap_err();
            assert_eq!(error.param(), param, "{body}");
            assert!(error.to_string().contains(text), "{body}: {error}");
        }
        assert!(ChatRequest::parse(Bytes::from_static(b"{\"model\":\"\xff\"}")).is_err());
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let depth = 200_000;
        let body = format!(r#"{{"model":"m","messages":[{}{}]}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&body).is_ok());
    }

    #[test]
    fn embedded_files_count_flat() {
        let text = parse(&format!(r#"{{"model":"m","messages":["{}"]}}"#, "a".repeat(400))).unwrap();
        assert!((100..110).contains(&text.estimated_input_tokens()));
        let image = parse(&format!(
            r#"{{"model":"m","messages":["data:image/png;base64,{}"]}}"#,
            "a".repeat(400_000)
        ))
        .unwrap();
        assert!((1_000..1_020).contains(&image.estimated_input_tokens()));
    }
}
