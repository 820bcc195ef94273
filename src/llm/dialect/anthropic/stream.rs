//! The stream machine: Anthropic's events to OpenAI's chunks.
//!
//! Text is copied as the JSON string it arrived as, so it is neither decoded
//! nor encoded again.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{
    STRUCTURED_OUTPUT_TOOL, annotation, answer_id,
    event::{Event, Message},
    finish_reason, is_server_block, usage_object,
};
use crate::{
    config::llm::Api,
    llm::{
        BadUpstream, ChatRequest, StreamFault, Usage,
        patch::Raw,
        refusal::ErrorReport,
        sse::SseEvent,
        stream::{Outgoing, Step},
        usage::AnthropicUsage,
    },
};

pub(crate) struct MessageStream {
    wants_usage: bool,
    structured_output: bool,
    created: u64,
    usage: AnthropicUsage,
    content_bytes: u64,
    /// All of a chunk before its delta; empty until `message_start`.
    head: String,
    /// All of a chunk after its delta.
    tail: &'static str,
    blocks: Vec<(u64, Block)>,
    calls: u64,
    stop_reason: Option<String>,
}

/// An open content block.
enum Block {
    Text,
    Tool {
        index: u64,
        begun: bool,
    },
    /// The tool that stands in for structured output.
    Structured,
    /// Both as JSON strings without their quotes.
    Thinking {
        text: String,
        signature: String,
    },
    Redacted(Value),
    /// Run by the provider, or of a kind not known yet.
    Other,
}

impl MessageStream {
    pub(crate) fn new(request: &ChatRequest) -> Self {
        let tail = if request.wants_usage() { TAIL_WITH_USAGE } else { TAIL };
        Self {
            wants_usage: request.wants_usage(),
            structured_output: request.structured_output,
            created: request.created,
            usage: AnthropicUsage::default(),
            content_bytes: 0,
            head: String::new(),
            tail,
            blocks: Vec::new(),
            calls: 0,
            stop_reason: None,
        }
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage.usage()
    }

    pub(crate) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    pub(crate) fn take(&mut self, event: &SseEvent, out: &mut Outgoing) -> Result<Step, StreamFault> {
        let Some(data) = &event.data else { return Ok(Step::Passed) };
        let not_json = || BadUpstream::bad_stream("the provider sent an event that is not JSON");
        let text = std::str::from_utf8(data).map_err(|_| not_json())?;
        let event: Event<'_> = serde_json::from_str(text).map_err(|_| not_json())?;
        // The `event:` line repeats the type, and some servers leave it out.
        match &*event.kind {
            "message_start" => self.message_start(&event, out),
            "content_block_start" => self.block_start(&event, out),
            "content_block_delta" => self.block_delta(&event, out),
            "content_block_stop" => self.block_stop(event.index, out),
            "message_delta" => {
                self.message_delta(event);
                Ok(Step::Passed)
            }
            "message_stop" => self.message_stop(out),
            "ping" => {
                out.buffer().extend_from_slice(b": ping\n\n");
                Ok(Step::Passed)
            }
            "error" => Err(reported(text)),
            _ if event.error.value().is_some() => Err(reported(text)),
            _ => Ok(Step::Passed),
        }
    }

    fn message_start(&mut self, event: &Event<'_>, out: &mut Outgoing) -> Result<Step, StreamFault> {
        let message = event.message.value().and_then(|text| serde_json::from_str::<Message<'_>>(text).ok());
        let message =
            message.ok_or_else(|| BadUpstream::bad_stream("the provider's stream has no message"))?;
        if let Some(usage) = message.usage.value() {
            self.usage.observe(usage);
        }
        // Routers that retry inside a stream repeat it; the answer goes on.
        if self.head.is_empty() {
            self.head = format!(
                r#"data: {{"id":{},"object":"chat.completion.chunk","created":{},"model":{},"choices":[{{"index":0,"delta":"#,
                Value::from(answer_id(&message.id)),
                self.created,
                Value::from(&*message.model),
            );
            self.chunk(out, &[r#"{"role":"assistant","content":""}"#])?;
        }
        Ok(Step::Passed)
    }

    fn block_start(&mut self, event: &Event<'_>, out: &mut Outgoing) -> Result<Step, StreamFault> {
        let block = event.content_block.value().unwrap_or("null");
        let block: Value = serde_json::from_str(block).unwrap_or_default();
        let mut step = Step::Passed;
        let opened = match block["type"].as_str().unwrap_or_default() {
            "text" => {
                if block["text"].as_str().is_some_and(|text| !text.is_empty()) {
                    step = self.content(out, "content", &block["text"].to_string())?;
                }
                Block::Text
            }
            "tool_use" if self.structured_output && block["name"] == STRUCTURED_OUTPUT_TOOL => {
                Block::Structured
            }
            "tool_use" => {
                step = Step::Content;
                self.call_start(&block, out)?
            }
            "thinking" => {
                let inner = |name: &str| match &block[name] {
                    Value::String(text) => unquoted(&Value::from(text.as_str()).to_string()).to_owned(),
                    _ => String::new(),
                };
                Block::Thinking { text: inner("thinking"), signature: inner("signature") }
            }
            "redacted_thinking" => Block::Redacted(block),
            kind => {
                if is_server_block(kind) {
                    self.chunk(out, &[&json!({"server_tool_blocks": [block]}).to_string()])?;
                }
                Block::Other
            }
        };
        self.blocks.retain(|(index, _)| *index != event.index);
        self.blocks.push((event.index, opened));
        Ok(step)
    }

    fn call_start(&mut self, block: &Value, out: &mut Outgoing) -> Result<Block, StreamFault> {
        let index = self.calls;
        self.calls += 1;
        let function = json!({"name": block["name"], "arguments": ""});
        let call = json!({"index": index, "id": block["id"], "type": "function", "function": function});
        self.content_bytes += function.to_string().len() as u64;
        self.chunk(out, &[r#"{"tool_calls":["#, &call.to_string(), "]}"])?;
        // Some servers send the whole input in the first event.
        let whole = block["input"].as_object().is_some_and(|input| !input.is_empty());
        if whole {
            self.arguments(out, index, &Value::from(block["input"].to_string()).to_string())?;
        }
        Ok(Block::Tool { index, begun: whole })
    }

    fn block_delta(&mut self, event: &Event<'_>, out: &mut Outgoing) -> Result<Step, StreamFault> {
        let Some(delta) = &event.delta else { return Ok(Step::Passed) };
        let at = self.blocks.iter().position(|(index, _)| *index == event.index);
        match &*delta.kind {
            "text_delta" => self.content(out, "content", string(delta.text)?),
            "thinking_delta" => {
                let json = string(delta.thinking)?;
                if let Some(Block::Thinking { text, .. }) = at.map(|at| &mut self.blocks[at].1) {
                    text.push_str(unquoted(json));
                }
                self.content(out, "reasoning_content", json)
            }
            "signature_delta" => {
                let json = string(delta.signature)?;
                if let Some(Block::Thinking { signature, .. }) = at.map(|at| &mut self.blocks[at].1) {
                    signature.push_str(unquoted(json));
                }
                Ok(Step::Passed)
            }
            "input_json_delta" => self.input_delta(at, string(delta.partial_json)?, out),
            "citations_delta" => {
                let citation = delta.citation.value().unwrap_or("null");
                let citation = serde_json::from_str(citation).unwrap_or_default();
                let delta = json!({"annotations": [annotation(&citation)]});
                self.chunk(out, &[&delta.to_string()])?;
                Ok(Step::Passed)
            }
            _ => Ok(Step::Passed),
        }
    }

    fn input_delta(
        &mut self,
        at: Option<usize>,
        json: &str,
        out: &mut Outgoing,
    ) -> Result<Step, StreamFault> {
        match at.map(|at| &mut self.blocks[at].1) {
            Some(Block::Tool { index, begun }) => {
                if json.len() <= 2 {
                    return Ok(Step::Passed);
                }
                *begun = true;
                let index = *index;
                self.arguments(out, index, json)?;
                Ok(Step::Content)
            }
            Some(Block::Structured) => self.content(out, "content", json),
            Some(_) => Ok(Step::Passed),
            // Dropping it would leave a call with half of its arguments.
            None => Err(BadUpstream::bad_stream("the provider sent a part of an unknown tool call")),
        }
    }

    fn block_stop(&mut self, index: u64, out: &mut Outgoing) -> Result<Step, StreamFault> {
        let Some(at) = self.blocks.iter().position(|(open, _)| *open == index) else {
            return Ok(Step::Passed);
        };
        match self.blocks.swap_remove(at).1 {
            // No argument bytes came: the tool takes none.
            Block::Tool { index, begun: false } => self.arguments(out, index, r#""{}""#)?,
            Block::Thinking { text, signature } => {
                let block = [
                    r#"{"thinking_blocks":[{"type":"thinking","thinking":""#,
                    &text,
                    r#"","signature":""#,
                    &signature,
                    r#""}]}"#,
                ];
                self.chunk(out, &block)?;
            }
            Block::Redacted(block) => {
                self.chunk(out, &[&json!({"thinking_blocks": [block]}).to_string()])?;
            }
            _ => {}
        }
        Ok(Step::Passed)
    }

    fn message_delta(&mut self, event: Event<'_>) {
        if let Some(usage) = event.usage.value() {
            self.usage.observe(usage);
        }
        if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason) {
            self.stop_reason = Some(reason);
        }
    }

    fn message_stop(&mut self, out: &mut Outgoing) -> Result<Step, StreamFault> {
        let mut finish = finish_reason(self.stop_reason.as_deref());
        if finish == "tool_calls" && self.calls == 0 {
            finish = "stop";
        }
        let head = self.head()?.to_owned();
        let buffer = out.buffer();
        let provider = Value::from(self.stop_reason.as_deref()).to_string();
        let usage = if self.wants_usage { r#","usage":null"# } else { "" };
        let last = [
            &*head,
            r#"{},"logprobs":null,"finish_reason":""#,
            finish,
            r#"","provider_finish_reason":"#,
            &provider,
            "}]",
            usage,
            "}\n\n",
        ];
        write(buffer, &last);
        if self.wants_usage {
            let before_choices = head.split(r#""choices":"#).next().unwrap_or_default();
            let usage = usage_object(&self.usage.usage().unwrap_or_default()).to_string();
            write(buffer, &[before_choices, r#""choices":[],"usage":"#, &usage, "}\n\n"]);
        }
        write(buffer, &["data: [DONE]\n\n"]);
        Ok(Step::Done)
    }

    /// Text of any kind, given as a JSON string. Without any it is no content.
    fn content(&mut self, out: &mut Outgoing, member: &str, json: &str) -> Result<Step, StreamFault> {
        if json.len() <= 2 {
            return Ok(Step::Passed);
        }
        self.content_bytes += json.len() as u64 - 2;
        self.chunk(out, &["{\"", member, "\":", json, "}"])?;
        Ok(Step::Content)
    }

    fn arguments(&mut self, out: &mut Outgoing, index: u64, json: &str) -> Result<(), StreamFault> {
        self.content_bytes += json.len() as u64 - 2;
        let index = itoa::Buffer::new().format(index).to_owned();
        self.chunk(
            out,
            &[r#"{"tool_calls":[{"index":"#, &index, r#","function":{"arguments":"#, json, "}}]}"],
        )
    }

    fn chunk(&mut self, out: &mut Outgoing, delta: &[&str]) -> Result<(), StreamFault> {
        let head = self.head()?;
        let buffer = out.buffer();
        buffer.extend_from_slice(head.as_bytes());
        write(buffer, delta);
        buffer.extend_from_slice(self.tail.as_bytes());
        Ok(())
    }

    fn head(&self) -> Result<&str, StreamFault> {
        if self.head.is_empty() {
            return Err(BadUpstream::bad_stream("the provider's stream does not begin with a message"));
        }
        Ok(&self.head)
    }
}

const TAIL: &str = ",\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const TAIL_WITH_USAGE: &str = ",\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";

fn write(buffer: &mut BytesMut, parts: &[&str]) {
    parts.iter().for_each(|part| buffer.extend_from_slice(part.as_bytes()));
}

/// The member's text, which must be a JSON string.
fn string<'a>(raw: Raw<'a>) -> Result<&'a str, StreamFault> {
    match raw.value() {
        None => Ok("\"\""),
        Some(json) if json.starts_with('"') => Ok(json),
        Some(_) => Err(BadUpstream::bad_stream("the provider sent a part that is not text")),
    }
}

fn unquoted(json: &str) -> &str {
    json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json)
}

fn reported(text: &str) -> StreamFault {
    let report = ErrorReport::of(&serde_json::from_str(text).unwrap_or_default());
    BadUpstream::reported(report.classify_in_band(Api::Anthropic), &report)
}

#[cfg(test)]
mod tests;
