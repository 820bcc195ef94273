//! The map of a whole answer.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{STRUCTURED_OUTPUT_TOOL, annotation, answer_id, finish_reason, is_server_block, usage_object};
use crate::{
    config::llm::Api,
    llm::{BadUpstream, ChatRequest, Reply, refusal::ErrorReport, usage::AnthropicUsage},
};

pub(crate) fn reply(request: &ChatRequest, body: &[u8]) -> Result<Reply, BadUpstream> {
    let not_an_answer = || BadUpstream::bad_stream("the provider's answer is not a message");
    let message: Value = serde_json::from_slice(body).map_err(|_| not_an_answer())?;
    if message["type"] == "error" || !message["error"].is_null() {
        let report = ErrorReport::of(&message);
        return Err(BadUpstream::reported(report.classify_in_band(Api::Anthropic), &report));
    }
    let blocks = message["content"].as_array().ok_or_else(not_an_answer)?;
    let mut seen = AnthropicUsage::default();
    seen.observe(&message["usage"].to_string());
    let usage = seen.usage();

    let mut answer = Answer::default();
    blocks.iter().for_each(|block| answer.take(block, request.structured_output));
    let stop_reason = message["stop_reason"].as_str();
    let mut finish = finish_reason(stop_reason);
    if finish == "tool_calls" && answer.calls.is_empty() {
        // The only call was the one that stands in for structured output.
        finish = "stop";
    }
    let mut completion = json!({
        "id": answer_id(message["id"].as_str().unwrap_or_default()),
        "object": "chat.completion",
        "created": request.created,
        "model": message["model"],
        "choices": [{
            "index": 0,
            "message": answer.message(),
            "logprobs": null,
            "finish_reason": finish,
            "provider_finish_reason": stop_reason,
        }],
    });
    if let Some(usage) = &usage {
        completion["usage"] = usage_object(usage);
    }
    Ok(Reply { body: Bytes::from(completion.to_string()), usage, finish: Some(finish.to_owned()) })
}

#[derive(Default)]
struct Answer {
    text: Option<String>,
    reasoning: String,
    thinking: Vec<Value>,
    calls: Vec<Value>,
    annotations: Vec<Value>,
    server_blocks: Vec<Value>,
}

impl Answer {
    fn take(&mut self, block: &Value, structured: bool) {
        match block["type"].as_str().unwrap_or_default() {
            "text" => {
                let text = block["text"].as_str().unwrap_or_default();
                self.text.get_or_insert_default().push_str(text);
                let citations = block["citations"].as_array().into_iter().flatten();
                self.annotations.extend(citations.map(annotation));
            }
            "tool_use" if structured && block["name"] == STRUCTURED_OUTPUT_TOOL => {
                self.text.get_or_insert_default().push_str(&block["input"].to_string());
            }
            "tool_use" => self.calls.push(json!({
                "id": block["id"],
                "type": "function",
                "function": {"name": block["name"], "arguments": block["input"].to_string()},
            })),
            "thinking" => {
                self.reasoning.push_str(block["thinking"].as_str().unwrap_or_default());
                self.thinking.push(block.clone());
            }
            "redacted_thinking" => self.thinking.push(block.clone()),
            // The provider ran these itself; the caller has nothing to do.
            kind if is_server_block(kind) => self.server_blocks.push(block.clone()),
            _ => {}
        }
    }

    fn message(self) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), self.text.into());
        message.insert("refusal".into(), Value::Null);
        if !self.reasoning.is_empty() {
            message.insert("reasoning_content".into(), self.reasoning.into());
        }
        let lists = [
            ("thinking_blocks", self.thinking),
            ("tool_calls", self.calls),
            ("annotations", self.annotations),
            ("server_tool_blocks", self.server_blocks),
        ];
        for (name, list) in lists {
            if !list.is_empty() {
                message.insert(name.into(), list.into());
            }
        }
        Value::Object(message)
    }
}
