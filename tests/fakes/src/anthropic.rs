//! How an Anthropic-style provider answers when nothing is scripted: with
//! recordings of the real one (`recorded/README.md`).

use serde_json::{Value, json};

use crate::{Answer, Seen};

const MESSAGE: &str = include_str!("../recorded/anthropic_message.json");
const TOOL: &str = include_str!("../recorded/anthropic_tool.json");
const STREAM: &str = include_str!("../recorded/anthropic_stream.sse");
const STREAM_TOOL: &str = include_str!("../recorded/anthropic_stream_tool.sse");
/// The tool of the caller's that was recorded in `STREAM_TOOL`.
const RECORDED_TOOL: &str = "pelican_name_generator";

pub(crate) fn answer(seen: &Seen) -> Answer {
    if !seen.path.ends_with("/v1/messages") {
        return error(404, "not_found_error", "Not found");
    }
    if seen.header("x-api-key").is_none() && seen.header("authorization").is_none() {
        return error(401, "authentication_error", "x-api-key header is required");
    }
    if seen.header("anthropic-version").is_none() {
        return error(400, "invalid_request_error", "anthropic-version: header is required");
    }
    let body = seen.json();
    if !body["max_tokens"].is_u64() || !body["messages"].is_array() {
        return error(400, "invalid_request_error", "max_tokens: Field required");
    }
    let recorded = match (seen.streams(), seen.wants_tool()) {
        (false, false) => return Answer::replay(MESSAGE, "application/json"),
        (false, true) => return Answer::replay(TOOL, "application/json"),
        (true, false) => STREAM.to_owned(),
        (true, true) => STREAM_TOOL.replace(RECORDED_TOOL, first_tool(&body)),
    };
    Answer::events(recorded)
}

fn first_tool(body: &Value) -> &str {
    body["tools"][0]["name"].as_str().unwrap_or(RECORDED_TOOL)
}

fn error(status: u16, kind: &str, message: &str) -> Answer {
    Answer::status(status).json(&json!({"type": "error", "error": {"type": kind, "message": message}}))
}
