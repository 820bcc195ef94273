//! The conversation: OpenAI's messages to Anthropic's alternating turns.

use serde_json::{Value, json};

use crate::llm::LlmError;

#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) system: Vec<Value>,
    pub(super) turns: Vec<Value>,
    /// A system message stood behind others and was moved to the front.
    pub(super) moved_system: bool,
    /// The last turn with tool calls lacks the thinking that led to them.
    pub(super) calls_without_thinking: bool,
}

pub(super) fn convert(messages: &Value) -> Result<Turns, LlmError> {
    let mut turns = Turns::default();
    for (at, message) in messages.as_array().into_iter().flatten().enumerate() {
        let path = format!("messages[{at}]");
        match message["role"].as_str() {
            Some("system" | "developer") => turns.system(message, &path)?,
            Some("user") => {
                let blocks = content(&message["content"], &format!("{path}.content"))?;
                turns.add("user", blocks);
            }
            Some("assistant") => turns.assistant(message, &path)?,
            Some("tool") => turns.tool_result(message, &path)?,
            Some("function") => {
                return Err(LlmError::unsupported(format!("{path}.role"), "`function` is not supported"));
            }
            _ => return Err(LlmError::invalid(format!("{path}.role"), "is not a known role")),
        }
    }
    turns.trim_prefill();
    if turns.turns.is_empty() {
        return Err(LlmError::invalid("messages", "must hold a message with content"));
    }
    Ok(turns)
}

impl Turns {
    fn system(&mut self, message: &Value, path: &str) -> Result<(), LlmError> {
        self.moved_system |= !self.turns.is_empty();
        let path = format!("{path}.content");
        let blocks = content(&message["content"], &path)?;
        if blocks.iter().any(|block| block["type"] != "text") {
            return Err(LlmError::invalid(path, "of a system message must be text"));
        }
        self.system.extend(blocks);
        Ok(())
    }

    fn assistant(&mut self, message: &Value, path: &str) -> Result<(), LlmError> {
        // They go back byte for byte: the signature covers them.
        let thinking = message["thinking_blocks"].as_array().into_iter().flatten();
        let mut blocks: Vec<Value> = thinking.filter(|block| is_signed(block)).cloned().collect();
        let thought = !blocks.is_empty();
        blocks.extend(content(&message["content"], &format!("{path}.content"))?);
        if let Some(refusal) = message["refusal"].as_str() {
            blocks.extend(text_block(refusal, &Value::Null));
        }
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (at, call) in calls.iter().enumerate() {
            blocks.push(tool_use(call, &format!("{path}.tool_calls[{at}]"))?);
        }
        if !calls.is_empty() {
            self.calls_without_thinking = !thought;
        }
        self.add("assistant", blocks);
        Ok(())
    }

    fn tool_result(&mut self, message: &Value, path: &str) -> Result<(), LlmError> {
        let Some(id) = message["tool_call_id"].as_str() else {
            return Err(LlmError::invalid(format!("{path}.tool_call_id"), "must be a string"));
        };
        let mut block = json!({"type": "tool_result", "tool_use_id": tool_id(id)});
        let result = content(&message["content"], &format!("{path}.content"))?;
        if !result.is_empty() {
            block["content"] = result.into();
        }
        for extension in ["is_error", "cache_control"] {
            if !message[extension].is_null() {
                block[extension] = message[extension].clone();
            }
        }
        self.add("user", vec![block]);
        Ok(())
    }

    /// Consecutive messages of one role are one turn. In a user's turn the
    /// tool results come first; the API refuses them behind text.
    fn add(&mut self, role: &str, blocks: Vec<Value>) {
        if blocks.is_empty() {
            return;
        }
        let last = self.turns.last_mut().filter(|turn| turn["role"] == role);
        let Some(Value::Array(turn)) = last.and_then(|turn| turn.get_mut("content")) else {
            self.turns.push(json!({"role": role, "content": blocks}));
            return;
        };
        for block in blocks {
            let is_result = |block: &Value| block["type"] == "tool_result";
            let at = if is_result(&block) {
                turn.iter().take_while(|block| is_result(block)).count()
            } else {
                turn.len()
            };
            turn.insert(at, block);
        }
    }

    /// A trailing assistant message is the start of the answer, which may not
    /// end with white space.
    fn trim_prefill(&mut self) {
        let Some(turn) = self.turns.last_mut().filter(|turn| turn["role"] == "assistant") else { return };
        if let Some(block) = turn["content"].as_array_mut().and_then(|blocks| blocks.last_mut())
            && let Some(text) = block["text"].as_str()
        {
            block["text"] = text.trim_end().into();
        }
    }
}

/// Thinking of another provider has no signature, and the API refuses it.
fn is_signed(block: &Value) -> bool {
    match block["type"].as_str() {
        Some("thinking") => block["signature"].as_str().is_some_and(|signature| !signature.is_empty()),
        Some("redacted_thinking") => block["data"].is_string(),
        _ => false,
    }
}

/// A string, null or an array of parts, as blocks.
fn content(content: &Value, path: &str) -> Result<Vec<Value>, LlmError> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(text_block(text, &Value::Null).into_iter().collect()),
        Value::Array(parts) => {
            let mut blocks = Vec::with_capacity(parts.len());
            for (at, part) in parts.iter().enumerate() {
                blocks.extend(block(part, &format!("{path}[{at}]"))?);
            }
            Ok(blocks)
        }
        _ => Err(LlmError::invalid(path, "must be a string or an array")),
    }
}

/// The API refuses text blocks without visible text.
fn text_block(text: &str, cache_control: &Value) -> Option<Value> {
    if text.trim().is_empty() {
        return None;
    }
    let mut block = json!({"type": "text", "text": text});
    if !cache_control.is_null() {
        block["cache_control"] = cache_control.clone();
    }
    Some(block)
}

fn block(part: &Value, path: &str) -> Result<Option<Value>, LlmError> {
    let mut block = match part["type"].as_str() {
        Some("text") => {
            let text = part["text"].as_str();
            let text = text.ok_or_else(|| LlmError::invalid(format!("{path}.text"), "must be a string"))?;
            return Ok(text_block(text, &part["cache_control"]));
        }
        Some("refusal") => {
            return Ok(text_block(part["refusal"].as_str().unwrap_or_default(), &Value::Null));
        }
        Some("image_url") => image(&part["image_url"], &format!("{path}.image_url"))?,
        Some("file") => document(&part["file"], &format!("{path}.file"))?,
        _ => return Err(LlmError::unsupported(format!("{path}.type"), "is not supported with this model")),
    };
    if !part["cache_control"].is_null() {
        block["cache_control"] = part["cache_control"].clone();
    }
    Ok(Some(block))
}

/// Images by address are fetched by the provider, never by the gateway.
fn image(image: &Value, path: &str) -> Result<Value, LlmError> {
    let url = image["url"].as_str().or(image.as_str()).unwrap_or_default();
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(json!({"type": "image", "source": {"type": "url", "url": url}}));
    }
    let param = format!("{path}.url");
    let Some((media, data)) = data_uri(url) else {
        return Err(LlmError::invalid(param, "must be an http(s) or a base64 data address"));
    };
    if !["image/jpeg", "image/png", "image/gif", "image/webp"].contains(&media) {
        return Err(LlmError::unsupported(param, "must be a JPEG, PNG, GIF or WebP image"));
    }
    Ok(json!({"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}))
}

fn document(file: &Value, path: &str) -> Result<Value, LlmError> {
    let Some((media, data)) = file["file_data"].as_str().and_then(data_uri) else {
        return Err(LlmError::unsupported(format!("{path}.file_data"), "must be a base64 data address"));
    };
    if media != "application/pdf" {
        return Err(LlmError::unsupported(format!("{path}.file_data"), "must be a PDF document"));
    }
    let mut block =
        json!({"type": "document", "source": {"type": "base64", "media_type": media, "data": data}});
    if let Some(name) = file["filename"].as_str() {
        block["title"] = name.into();
    }
    Ok(block)
}

/// Media type and data of `data:TYPE[;…];base64,DATA`.
fn data_uri(uri: &str) -> Option<(&str, &str)> {
    let (head, data) = uri.strip_prefix("data:")?.split_once(',')?;
    let head = head.strip_suffix(";base64")?;
    Some((head.split(';').next()?, data))
}

fn tool_use(call: &Value, path: &str) -> Result<Value, LlmError> {
    if call["type"].as_str().is_some_and(|kind| kind != "function") {
        return Err(LlmError::unsupported(format!("{path}.type"), "must be `function`"));
    }
    let text = |at: &str, name: &str| {
        let value = call.pointer(at).and_then(Value::as_str);
        value.ok_or_else(|| LlmError::invalid(format!("{path}.{name}"), "must be a string"))
    };
    let id = text("/id", "id")?;
    let name = text("/function/name", "function.name")?;
    let arguments = match &call["function"]["arguments"] {
        Value::Null => "",
        _ => text("/function/arguments", "function.arguments")?,
    };
    let input = if arguments.trim().is_empty() { Ok(json!({})) } else { serde_json::from_str(arguments) };
    match input {
        Ok(input @ Value::Object(_)) => {
            Ok(json!({"type": "tool_use", "id": tool_id(id), "name": name, "input": input}))
        }
        // Sending `{}` instead would make the model believe it had called so.
        _ => Err(LlmError::invalid(format!("{path}.function.arguments"), "is not a JSON object")),
    }
}

/// Ids may hold letters, digits, `_` and `-` only; others are spelt in hex, so
/// that different ids stay different.
fn tool_id(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !id.is_empty() && id.chars().all(plain) && !id.starts_with("hex-") {
        return id.to_owned();
    }
    format!("hex-{}", hex::encode(id))
}
