//! How an OpenAI-style provider answers when nothing is scripted.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{Answer, Seen};

const WORDS: [&str; 5] = ["Hello", " from", " the", " OpenAI-style", " provider."];
const CREATED: u64 = 1_700_000_000;

pub(crate) fn answer(seen: &Seen) -> Answer {
    match seen.path.rsplit_once("/v1") {
        Some((_, "/models")) => Answer::status(200).json(&json!({"object": "list", "data": [
            {"id": "gpt-4o-mini", "object": "model", "created": CREATED, "owned_by": "openai"},
        ]})),
        Some((_, "/chat/completions")) if seen.json()["messages"].is_array() => {
            if seen.streams() {
                stream(seen)
            } else {
                whole(seen)
            }
        }
        Some((_, "/chat/completions")) => {
            error(400, "you must provide a messages parameter", "invalid_request_error")
        }
        _ => error(404, "Unknown request URL", "invalid_request_error"),
    }
}

fn error(status: u16, message: &str, kind: &str) -> Answer {
    Answer::status(status).json(&json!({"error": {
        "message": message, "type": kind, "param": null, "code": null,
    }}))
}

fn usage() -> Value {
    json!({
        "prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    })
}

fn tool(seen: &Seen) -> (String, &'static str) {
    let name = seen.json()["tools"][0]["function"]["name"].as_str().unwrap_or("get_weather").to_owned();
    (name, r#"{"city":"Paris"}"#)
}

fn whole(seen: &Seen) -> Answer {
    let (message, finish) = if seen.wants_tool() {
        let (name, arguments) = tool(seen);
        let call = json!({"id": "call_weather", "type": "function",
            "function": {"name": name, "arguments": arguments}});
        (json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]}), "tool_calls")
    } else {
        (json!({"role": "assistant", "content": WORDS.concat(), "refusal": null}), "stop")
    };
    Answer::status(200).header("x-request-id", "req_fake").json(&json!({
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": CREATED,
        "model": seen.json()["model"],
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
        "usage": usage(),
        "system_fingerprint": "fp_fake",
    }))
}

fn stream(seen: &Seen) -> Answer {
    let (mut deltas, finish) = if seen.wants_tool() {
        let (name, arguments) = tool(seen);
        let (first, second) = arguments.split_at(7);
        let start = json!({"tool_calls": [{"index": 0, "id": "call_weather", "type": "function",
            "function": {"name": name, "arguments": ""}}]});
        let part = |text: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]});
        (vec![start, part(first), part(second)], "tool_calls")
    } else {
        (WORDS.iter().map(|word| json!({"content": word})).collect(), "stop")
    };
    deltas.insert(0, json!({"role": "assistant", "content": "", "refusal": null}));
    let mut body = String::new();
    for delta in deltas {
        push(&mut body, seen, &json!([{"index": 0, "delta": delta, "finish_reason": null}]), &Value::Null);
    }
    push(&mut body, seen, &json!([{"index": 0, "delta": {}, "finish_reason": finish}]), &Value::Null);
    if seen.json()["stream_options"]["include_usage"] == json!(true) {
        push(&mut body, seen, &json!([]), &usage());
    }
    body.push_str("data: [DONE]\n\n");
    Answer::events(body)
}

fn push(body: &mut String, seen: &Seen, choices: &Value, usage: &Value) {
    let mut chunk = json!({
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": seen.json()["model"],
        "choices": choices,
    });
    if seen.json()["stream_options"]["include_usage"] == json!(true) {
        chunk["usage"] = usage.clone();
    }
    let _ = write!(body, "data: {chunk}\n\n");
}
