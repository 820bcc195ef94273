//! The configuration of a gateway in front of scripted providers.

use serde_json::{Value, json};
use tollgate_fakes::Provider;

use super::gateway::lay_over;

/// The platform's keys, which no output may ever show.
pub(crate) const OPENAI_KEY: &str = "sk-platform-openai-canary";
pub(crate) const ANTHROPIC_KEY: &str = "sk-ant-platform-canary";

/// Literal credentials are refused, so they come from a variable that is not set.
pub(crate) fn outside(key: &str) -> String {
    format!("${{env:TOLLGATE_TEST_UNSET:-{key}}}")
}

/// Models `gpt` (OpenAI dialect) and `claude` (Anthropic dialect), the whole LLM
/// chain, and the books on the admin door.
pub(crate) fn llm(openai: &Provider, anthropic: &Provider) -> Value {
    json!({
        "services": {"llm": {"llm": {
            "providers": {
                "openai": {"api": "openai", "url": openai.url(), "key": outside(OPENAI_KEY)},
                "anthropic": {"api": "anthropic", "url": anthropic.url(), "key": outside(ANTHROPIC_KEY)},
            },
            "models": {
                "gpt": {"provider": "openai", "name": "gpt-4o-mini", "price": {"input": "1", "output": "2"}},
                "claude": {"provider": "anthropic", "name": "claude-haiku-4-5", "price": {"input": "1", "output": "5"}},
            },
        }}},
        "middlewares": {"ids": {"request_id": {}}, "key": {"api_key": {}}},
        "plugins": {
            "metering": {"on_error": "reject", "grants": {"log": true, "ledger": "write"}},
            "byok": {"on_error": "reject", "grants": {"log": true, "secrets": ["byok"]}},
            "fallback": {"on_error": "reject", "grants": {"log": true}},
            "admin": {"on_error": "reject", "grants": {"log": true, "control": ["read", "load-plugin"]}},
        },
        "routes": {"llm": {
            "rule": "PathPrefix(`/v1/`) || PathPrefix(`/api/v1/llm/`)",
            "chain": ["ids", "key", "plugin:metering", "plugin:byok", "plugin:fallback"],
            "service": "llm",
        }},
    })
}

/// As [`llm`], with `over` laid over it.
pub(crate) fn llm_with(openai: &Provider, anthropic: &Provider, over: Value) -> Value {
    let mut config = llm(openai, anthropic);
    lay_over(&mut config, over);
    config
}

/// A model `chain` that tries a first provider, then OpenAI.
pub(crate) fn two_candidates(first_url: &str) -> Value {
    json!({"services": {"llm": {"llm": {
        "providers": {"first": {"api": "openai", "url": first_url, "key": outside("sk-first-canary")}},
        "models": {"chain": {"candidates": [
            {"provider": "first", "name": "first-model", "price": {"input": "1", "output": "2"}},
            {"provider": "openai", "name": "gpt-4o-mini", "price": {"input": "1", "output": "2"}},
        ]}},
    }}}})
}

pub(crate) fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100})
}

pub(crate) fn ask_streamed(model: &str) -> Value {
    let mut body = ask(model);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body
}

pub(crate) fn ask_weather(model: &str) -> Value {
    let mut body = ask(model);
    body["messages"] = json!([{"role": "user", "content": "How is the weather in Paris?"}]);
    body["tools"] = json!([{"type": "function", "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }}]);
    body
}

/// The text of a whole stream of chunks.
pub(crate) fn streamed_text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}
