//! Chat completions in one piece, in both upstream dialects, with fallback.

use serde_json::{Value, json};
use tollgate_fakes::{Answer, Provider, refusing_address};

use crate::harness::{
    CALLER_KEY, Gateway,
    llm::{ANTHROPIC_KEY, OPENAI_KEY, ask, ask_weather, llm, llm_with, two_candidates},
};

async fn with_first(openai: &Provider, first_url: &str) -> Gateway {
    let anthropic = Provider::anthropic().await;
    Gateway::given(llm_with(openai, &anthropic, two_candidates(first_url))).await
}

async fn plain() -> (Gateway, Provider, Provider) {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;
    (gateway, openai, anthropic)
}

#[track_caller]
fn assert_openai_error(error: &Value, code: &str) {
    assert!(error["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    assert!(error["error"]["type"].is_string(), "{error}");
    assert_eq!(error["error"]["code"], code, "{error}");
}

#[tokio::test]
async fn an_openai_upstream_gets_the_request_with_the_platforms_key() {
    let (gateway, openai, _anthropic) = plain().await;

    let mut body = ask("gpt");
    body["x_unknown"] = json!({"kept": [1.50, "as it is"]});
    let reply = gateway.chat(&body).send().await.expect(200).json();

    assert_eq!(reply["choices"][0]["message"]["content"], "Hello from the OpenAI-style provider.");
    let seen = &openai.requests()[0];
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
    assert_eq!(seen.json()["model"], "gpt-4o-mini");
    assert_eq!(seen.json()["x_unknown"], body["x_unknown"]);
    assert!(!String::from_utf8_lossy(&seen.body).contains(CALLER_KEY));
}

#[tokio::test]
async fn an_anthropic_upstream_is_translated_both_ways() {
    let (gateway, _openai, anthropic) = plain().await;

    let reply = gateway.chat(&ask("claude")).send().await.expect(200).json();

    assert_eq!(reply["object"], "chat.completion");
    let message = &reply["choices"][0]["message"];
    assert!(
        message["content"].as_str().is_some_and(|text| text.starts_with("Sure, here's a joke")),
        "{reply}"
    );
    assert!(reply["usage"]["total_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{reply}");
    let seen = &anthropic.requests()[0];
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(seen.header("x-api-key"), Some(ANTHROPIC_KEY));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.json()["max_tokens"], 100);
}

#[tokio::test]
async fn a_tool_call_looks_the_same_from_either_upstream() {
    let (gateway, _openai, anthropic) = plain().await;

    for model in ["gpt", "claude"] {
        let reply = gateway.chat(&ask_weather(model)).send().await.expect(200).json();
        let choice = &reply["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{reply}");
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!(call["function"]["name"], "get_weather", "{reply}");
        let arguments = call["function"]["arguments"].as_str().expect("arguments are text");
        assert!(serde_json::from_str::<Value>(arguments).expect("JSON").is_object());
    }
    let sent = &anthropic.requests()[0].json()["tools"][0];
    assert_eq!(sent["input_schema"]["properties"]["city"]["type"], "string");
}

#[tokio::test]
async fn both_prefixes_serve_chat_and_models() {
    let (gateway, _openai, _anthropic) = plain().await;
    let under = |path: &str| gateway.request("GET", path).bearer(CALLER_KEY).send();

    for path in ["/v1/models", "/api/v1/llm/models"] {
        let list = under(path).await.expect(200).json();
        assert_eq!(list["object"], "list");
        let ids: Vec<&str> =
            list["data"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
        assert_eq!(ids, ["claude", "gpt"], "{path}");
    }
    let chat = gateway.request("POST", "/api/v1/llm/chat/completions").bearer(CALLER_KEY).json(&ask("gpt"));
    assert_eq!(chat.send().await.status, 200);
}

#[tokio::test]
async fn mistakes_are_told_in_the_callers_dialect() {
    let (gateway, openai, _anthropic) = plain().await;

    let unknown = gateway.chat(&ask("no-such-model")).send().await.expect(404);
    let no_key = gateway.request("POST", "/v1/chat/completions").json(&ask("gpt")).send().await.expect(401);
    let no_json = gateway.chat(&json!(null)).body("{not json").send().await.expect(400);

    assert_openai_error(&unknown.json(), "model_not_found");
    assert_openai_error(&no_key.json(), "invalid_api_key");
    assert!(no_json.json()["error"]["message"].is_string());
    assert!(openai.requests().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let limit = json!({"services": {"llm": {"llm": {"limits": {"max_body": "1KiB"}}}}});
    let gateway = Gateway::given(llm_with(&openai, &anthropic, limit)).await;

    let mut body = ask("gpt");
    body["messages"][0]["content"] = json!("x".repeat(4096));
    gateway.chat(&body).send().await.expect(413);

    assert!(openai.requests().is_empty());
}

#[tokio::test]
async fn a_throttled_provider_is_replaced_by_the_next() {
    let (openai, flaky) = (Provider::openai().await, Provider::flaky().await);
    let gateway = with_first(&openai, &flaky.url()).await;

    let reply = gateway.chat(&ask("chain")).send().await.expect(200);

    assert!(reply.text().contains("OpenAI-style"));
    assert!(!flaky.requests().is_empty());
    let record = gateway.access_record(|record| record["llm"]["model"] == "chain").await;
    assert_eq!(record["llm"]["provider"], "openai", "{record}");
    assert!(record["llm"]["attempts"].as_u64().is_some_and(|attempts| attempts >= 2), "{record}");
}

#[tokio::test]
async fn a_failing_provider_is_replaced_by_the_next() {
    let (openai, first) = (Provider::openai().await, Provider::openai().await);
    for _ in 0..4 {
        first.next(Answer::status(503).json(&json!({"error": {"message": "overloaded"}})));
    }
    let gateway = with_first(&openai, &first.url()).await;

    gateway.chat(&ask("chain")).send().await.expect(200);

    assert_eq!(openai.requests().len(), 1);
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_replaced_by_the_next() {
    let openai = Provider::openai().await;
    let gateway = with_first(&openai, &format!("http://{}/v1", refusing_address().await)).await;

    gateway.chat(&ask("chain")).send().await.expect(200);

    assert_eq!(openai.requests().len(), 1);
}

#[tokio::test]
async fn a_mistake_of_the_caller_is_not_tried_elsewhere() {
    let (openai, first) = (Provider::openai().await, Provider::openai().await);
    let recorded = include_str!("../fakes/recorded/openai_400.json");
    first.next(Answer::status(400).json(&serde_json::from_str(recorded).unwrap()));
    let gateway = with_first(&openai, &first.url()).await;

    let reply = gateway.chat(&ask("chain")).send().await.expect(400);

    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("Unsupported parameter"));
    assert!(openai.requests().is_empty());
}

#[tokio::test]
async fn when_all_candidates_fail_the_refusal_is_passed_on() {
    let (openai, anthropic) = (Provider::flaky().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;

    let reply = gateway.chat(&ask("gpt")).send().await.expect(429);

    assert_eq!(reply.header("retry-after"), "1");
    assert!(reply.json()["error"]["message"].is_string());
}
