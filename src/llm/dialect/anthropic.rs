//! Anthropic Messages: everything is translated, both ways.

mod event;
mod messages;
mod model;
mod reply;
mod request;
mod stream;

pub(crate) use reply::reply;
pub(crate) use request::request;
pub(crate) use stream::MessageStream;

use serde_json::{Value, json};

use crate::llm::Usage;

/// Stands in for `response_format` with models that have no output format: a
/// forced call of this tool, whose input is unwrapped into content.
const STRUCTURED_OUTPUT_TOOL: &str = "json_tool_call";

/// Anthropic's reason in OpenAI's words.
fn finish_reason(stop_reason: Option<&str>) -> &'static str {
    match stop_reason {
        Some("tool_use") => "tool_calls",
        // `pause_turn` and `compaction` are cut answers that may be continued.
        Some("max_tokens" | "model_context_window_exceeded" | "pause_turn" | "compaction") => "length",
        Some("refusal") => "content_filter",
        _ => "stop",
    }
}

/// The caller's id of an answer.
fn answer_id(message_id: &str) -> String {
    format!("chatcmpl-{}", message_id.strip_prefix("msg_").unwrap_or(message_id))
}

/// OpenAI's totals and details from disjoint parts.
fn usage_object(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.total_input(),
        "completion_tokens": usage.total_output(),
        "total_tokens": usage.total_input().saturating_add(usage.total_output()),
        "prompt_tokens_details": {
            "cached_tokens": usage.input_cache_read,
            "cache_write_tokens": usage.input_cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.output_reasoning},
    })
}

/// A citation as an annotation: with an address, OpenAI's form; else verbatim.
fn annotation(citation: &Value) -> Value {
    match citation["url"].as_str() {
        Some(url) => json!({"type": "url_citation", "url_citation": {
            "url": url,
            "title": citation["title"],
            "cited_text": citation["cited_text"],
        }}),
        None => json!({"type": "citation", "citation": citation}),
    }
}

fn is_server_block(kind: &str) -> bool {
    kind == "server_tool_use" || kind.ends_with("_tool_result")
}
