//! OpenAI chat completions and all that are compatible: nothing is translated,
//! a few members are edited where they stand.

mod chunk;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    config::llm::Api,
    llm::{
        BadUpstream, ChatRequest, LlmError, Reply, UpstreamRequest,
        chat::{Members, StreamOptions},
        patch::{Patch, Raw, span_of},
        refusal::ErrorReport,
        usage::OpenAiUsage,
    },
};

pub(crate) use chunk::ChunkStream;

pub(crate) fn request(
    request: &ChatRequest,
    model: &str,
    ceiling: Option<u64>,
) -> Result<UpstreamRequest, LlmError> {
    let (text, members) = request.members()?;
    let start = text.find('{').map_or(0, |brace| brace + 1);
    let mut patch = Patch::default();
    if model != request.model()
        && let Some(span) = members.model.span(text)
    {
        patch.replace(span, serde_json::Value::from(model).to_string());
    }
    if request.stream() {
        ask_for_usage(&mut patch, text, start, &members)?;
    }
    if let Some(ceiling) = ceiling {
        lower_limits(&mut patch, text, start, &members, ceiling, model);
    }
    let accept = if request.stream() { "text/event-stream" } else { "application/json" };
    Ok(UpstreamRequest {
        path: "/chat/completions",
        headers: vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::ACCEPT, HeaderValue::from_static(accept)),
        ],
        body: patch.apply(request.body()),
        dropped: Vec::new(),
    })
}

/// Usage is always asked for, since it is what gets billed; the caller's other
/// stream options stay.
fn ask_for_usage(
    patch: &mut Patch<'_>,
    text: &str,
    start: usize,
    members: &Members<'_>,
) -> Result<(), LlmError> {
    let Some(span) = members.stream_options.span(text) else {
        patch.insert(start, r#""stream_options":{"include_usage":true},"#);
        return Ok(());
    };
    let Some(given) = members.stream_options.value() else {
        patch.replace(span, r#"{"include_usage":true}"#);
        return Ok(());
    };
    let options: StreamOptions<'_> =
        serde_json::from_str(given).map_err(|_| LlmError::invalid("stream_options", "must be an object"))?;
    match options.include_usage.span(text) {
        Some(_) if options.include_usage.value() == Some("true") => {}
        Some(span) => patch.replace(span, "true"),
        None => {
            let empty = given[1..].trim_start().starts_with('}');
            let comma = if empty { "" } else { "," };
            patch.insert(span.start + 1, format!(r#""include_usage":true{comma}"#));
        }
    }
    Ok(())
}

fn lower_limits(
    patch: &mut Patch<'_>,
    text: &str,
    start: usize,
    members: &Members<'_>,
    ceiling: u64,
    model: &str,
) {
    let limits = [members.max_completion_tokens, members.max_tokens];
    if limits.iter().all(|limit| limit.value().is_none()) {
        let (name, given) = if wants_completion_limit(model) {
            ("max_completion_tokens", members.max_completion_tokens)
        } else {
            ("max_tokens", members.max_tokens)
        };
        match given.span(text) {
            Some(null) => patch.replace(null, ceiling.to_string()),
            None => patch.insert(start, format!(r#""{name}":{ceiling},"#)),
        }
        return;
    }
    for limit in limits {
        let given = limit.value().and_then(|number| number.parse::<u64>().ok());
        if given.is_some_and(|given| given > ceiling)
            && let Some(span) = limit.span(text)
        {
            patch.replace(span, ceiling.to_string());
        }
    }
}

/// OpenAI's reasoning models refuse `max_tokens`, while some compatible servers
/// know nothing else; the name is the only sign there is.
fn wants_completion_limit(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let number =
        |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>();
    let is_o = name.strip_prefix('o').is_some_and(|rest| number(rest).is_ok());
    is_o || name.strip_prefix("gpt-").is_some_and(|rest| number(rest).is_ok_and(|major| major >= 5))
}

#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow, default)]
    id: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
    #[serde(borrow, default)]
    usage: Raw<'a>,
    #[serde(borrow, default)]
    x_groq: Raw<'a>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    tool_calls: Option<Vec<&'a RawValue>>,
}

/// A tool call, whole or its first fragment, as far as its id matters.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    id: Raw<'a>,
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize, Default)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Raw<'a>,
    #[serde(borrow, default)]
    arguments: Raw<'a>,
}

#[derive(Deserialize)]
struct GroqExtra<'a> {
    #[serde(borrow, default)]
    usage: Raw<'a>,
}

pub(crate) fn reply(request: &ChatRequest, body: &Bytes) -> Result<Reply, BadUpstream> {
    let not_an_answer = || BadUpstream::bad_stream("the provider's answer is not a chat completion");
    let text = std::str::from_utf8(body).map_err(|_| not_an_answer())?;
    let completion: Completion<'_> = match serde_json::from_str(text) {
        Ok(completion) => completion,
        // `choices` is absent from most error bodies, or they are arrays.
        Err(_) => return Err(in_band_fault(text).unwrap_or_else(not_an_answer)),
    };
    if completion.error.value().is_some() {
        return Err(in_band_fault(text).unwrap_or_else(not_an_answer));
    }
    let Some(choices) = completion.choices else {
        return Err(in_band_fault(text).unwrap_or_else(not_an_answer));
    };
    let mut seen = OpenAiUsage::default();
    observe_usage(&mut seen, completion.x_groq, completion.usage);
    let mut patch = Patch::default();
    for (at, choice) in choices.iter().enumerate() {
        let calls = choice.message.as_ref().and_then(|message| message.tool_calls.as_deref());
        for (index, call) in calls.unwrap_or_default().iter().enumerate() {
            let index = index as u64;
            name_call(&mut patch, text, call, || call_id(request, completion.id, at as u64, index));
        }
    }
    let finish = choices.first().and_then(|choice| choice.finish_reason.clone());
    Ok(Reply { body: patch.apply(body), usage: seen.usage(), finish })
}

fn observe_usage(seen: &mut OpenAiUsage, x_groq: Raw<'_>, usage: Raw<'_>) {
    if let Some(extra) = x_groq.value()
        && let Ok(GroqExtra { usage }) = serde_json::from_str(extra)
        && let Some(usage) = usage.value()
    {
        seen.observe(usage);
    }
    if let Some(usage) = usage.value() {
        seen.observe(usage);
    }
}

/// Gives a tool call an id if it has none, as calls of Google's compatible
/// endpoint do: the caller has to name it when it sends the result.
fn name_call(patch: &mut Patch<'_>, text: &str, call: &RawValue, id: impl FnOnce() -> String) {
    let is_object = call.get().strip_prefix('{').is_some_and(|rest| !rest.trim_start().starts_with('}'));
    if !is_object {
        return;
    }
    let Ok(parsed) = serde_json::from_str::<Call<'_>>(call.get()) else { return };
    match (parsed.id.span(text), parsed.id.value()) {
        (Some(span), None | Some("\"\"")) => patch.replace(span, format!("\"{}\"", id())),
        (None, _) => {
            let at = span_of(call.get(), text).start + 1;
            patch.insert(at, format!("\"id\":\"{}\",", id()));
        }
        _ => {}
    }
}

/// Unique as far as the provider's answer id is, and the same however often
/// the answer is read.
fn call_id(request: &ChatRequest, answer: Raw<'_>, choice: u64, index: u64) -> String {
    let answer: String =
        answer.value().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    let answer = if answer.is_empty() { request.created.to_string() } else { answer };
    format!("call_{answer}_{choice}_{index}")
}

/// The error that a body or event with status 200 reports, if it does.
fn in_band_fault(text: &str) -> Option<BadUpstream> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let value = value.as_array().and_then(|list| list.first()).unwrap_or(&value);
    let is_error = !value["error"].is_null() || value["object"] == "error" || !value["detail"].is_null();
    if !is_error {
        return None;
    }
    let report = ErrorReport::of(value);
    let class = report.classify_in_band(Api::OpenAi);
    Some(BadUpstream::reported(class, &report))
}

#[cfg(test)]
mod tests;
