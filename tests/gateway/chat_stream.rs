//! Streamed chat completions: order, usage, fallback before and honesty after the
//! first content.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_fakes::{Answer, Provider};

use crate::harness::{
    Gateway, eventually,
    llm::{ask_streamed, ask_weather, llm, llm_with, streamed_text, two_candidates},
};

const THINKING: &str = include_str!("../fakes/recorded/anthropic_stream_thinking.sse");
const CACHE_READ: &str = include_str!("../fakes/recorded/anthropic_stream_cache_read.sse");
const OPENAI: &str = include_str!("../fakes/recorded/openai_stream.sse");

async fn plain() -> (Gateway, Provider, Provider) {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;
    (gateway, openai, anthropic)
}

async fn events(gateway: &Gateway, body: &Value) -> Vec<Value> {
    let stream = gateway.chat(body).stream().await;
    assert_eq!(stream.status, 200);
    assert!(stream.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    stream.json_events().await
}

#[tokio::test]
async fn a_stream_of_the_same_dialect_is_forwarded_with_usage_and_terminator() {
    let (gateway, _openai, _anthropic) = plain().await;

    let events = events(&gateway, &ask_streamed("gpt")).await;

    assert_eq!(streamed_text(&events), "Hello from the OpenAI-style provider.");
    assert_eq!(events.last(), Some(&json!("[DONE]")));
    assert_eq!(events[events.len() - 2]["usage"]["total_tokens"], 17);
}

#[tokio::test]
async fn usage_that_only_the_gateway_asked_for_is_not_forwarded() {
    let (gateway, openai, _anthropic) = plain().await;
    let mut body = ask_streamed("gpt");
    body.as_object_mut().unwrap().shift_remove("stream_options");

    let events = events(&gateway, &body).await;

    assert_eq!(openai.requests()[0].json()["stream_options"]["include_usage"], true);
    assert!(events.iter().all(|event| event["choices"] != json!([])), "{events:?}");
    let record = gateway.access_record(|record| record["llm"]["model"] == "gpt").await;
    assert_eq!(record["llm"]["output_tokens"], 5, "{record}");
}

#[tokio::test]
async fn a_recorded_stream_survives_any_split() {
    let (gateway, openai, _anthropic) = plain().await;
    openai.next(Answer::events(OPENAI)).next(Answer::events(OPENAI).byte_by_byte());

    let whole = events(&gateway, &ask_streamed("gpt")).await;
    let split = events(&gateway, &ask_streamed("gpt")).await;

    assert_eq!(whole, split);
    assert_eq!(streamed_text(&whole), "\"This is a test.\"");
}

#[tokio::test]
async fn an_anthropic_stream_is_translated() {
    let (gateway, _openai, _anthropic) = plain().await;

    let events = events(&gateway, &ask_streamed("claude")).await;

    assert!(!streamed_text(&events).is_empty());
    assert_eq!(events.last(), Some(&json!("[DONE]")));
    assert!(events[..events.len() - 1].iter().all(|event| event["object"] == "chat.completion.chunk"));
    let usage = &events[events.len() - 2]["usage"];
    assert_eq!(usage["prompt_tokens"], 10, "{usage}");
}

#[tokio::test]
async fn recorded_anthropic_streams_survive_any_split() {
    let (gateway, _openai, anthropic) = plain().await;

    for recording in [THINKING, CACHE_READ] {
        anthropic.next(Answer::events(recording)).next(Answer::events(recording).byte_by_byte());
        let whole = streamed_text(&events(&gateway, &ask_streamed("claude")).await);
        let split = streamed_text(&events(&gateway, &ask_streamed("claude")).await);
        assert!(!whole.is_empty());
        assert_eq!(whole, split);
    }
    let cached = gateway.access_record(|record| record["llm"]["input_tokens"] == 11 + 1031).await;
    assert_eq!(cached["llm"]["model"], "claude");
}

#[tokio::test]
async fn a_streamed_tool_call_looks_the_same_from_either_upstream() {
    let (gateway, _openai, _anthropic) = plain().await;

    for model in ["gpt", "claude"] {
        let mut body = ask_weather(model);
        body["stream"] = json!(true);
        let events = events(&gateway, &body).await;
        let calls: Vec<&Value> =
            events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]).collect();
        let names: Vec<&str> = calls.iter().filter_map(|call| call["function"]["name"].as_str()).collect();
        assert_eq!(names, ["get_weather"], "{model}");
        let finish = events.iter().find_map(|event| event["choices"][0]["finish_reason"].as_str());
        assert_eq!(finish, Some("tool_calls"), "{model}");
    }
}

#[tokio::test]
async fn content_arrives_while_the_provider_still_sends() {
    let (gateway, openai, _anthropic) = plain().await;
    openai.next(Answer::events(OPENAI).per_event(Duration::from_millis(100)));

    let arrivals = gateway.chat(&ask_streamed("gpt")).stream().await.events().await;

    let spread = arrivals.last().unwrap().0 - arrivals[0].0;
    assert!(spread > Duration::from_millis(200), "all events came within {spread:?}");
}

async fn with_first(openai: &Provider, first: &Provider) -> Gateway {
    let anthropic = Provider::anthropic().await;
    Gateway::given(llm_with(openai, &anthropic, two_candidates(&first.url()))).await
}

#[tokio::test]
async fn before_the_first_content_another_provider_takes_over() {
    let (openai, first) = (Provider::openai().await, Provider::openai().await);
    // Only the role has been said: nothing is committed.
    for _ in 0..4 {
        first.next(Answer::events(OPENAI).reset_after(1));
    }
    let gateway = with_first(&openai, &first).await;

    let events = events(&gateway, &ask_streamed("chain")).await;

    assert_eq!(streamed_text(&events), "Hello from the OpenAI-style provider.");
    assert_eq!(events.last(), Some(&json!("[DONE]")));
}

#[tokio::test]
async fn after_the_first_content_a_break_is_told_in_the_stream() {
    let (openai, first) = (Provider::openai().await, Provider::openai().await);
    first.next(Answer::events(OPENAI).per_event(Duration::from_millis(20)).reset_after(3));
    let gateway = with_first(&openai, &first).await;

    let events = events(&gateway, &ask_streamed("chain")).await;

    // A reset may overtake the last event that was sent before it.
    assert!(streamed_text(&events).starts_with("\"This"), "{events:?}");
    assert_eq!(events.last().unwrap()["error"]["code"], "stream_interrupted", "{events:?}");
    assert!(!events.contains(&json!("[DONE]")));
    assert!(openai.requests().is_empty());
}

#[tokio::test]
async fn a_silent_provider_is_replaced_when_the_first_token_is_late() {
    let (openai, first) = (Provider::openai().await, Provider::openai().await);
    for _ in 0..4 {
        first.next(Answer::hang());
    }
    let anthropic = Provider::anthropic().await;
    let mut over = two_candidates(&first.url());
    over["services"]["llm"]["llm"]["timeouts"] = json!({"first_token": "300ms"});
    let gateway = Gateway::given(llm_with(&openai, &anthropic, over)).await;

    let events = events(&gateway, &ask_streamed("chain")).await;

    assert_eq!(streamed_text(&events), "Hello from the OpenAI-style provider.");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_upstream_call_and_is_settled_once() {
    let (gateway, openai, _anthropic) = plain().await;
    openai.next(Answer::events(OPENAI).hang_after(3));

    let mut stream = gateway.chat(&ask_streamed("gpt")).stream().await;
    stream.event().await.expect("an open stream");
    drop(stream);

    eventually("the upstream call ends", || (openai.cancelled() == 1).then_some(())).await;
    gateway.access_record(|record| record["llm"]["ending"] == "cancelled").await;
    let rows = gateway.admin_json("/api/v1/usage").await;
    let rows = rows["usage"].as_array().expect("rows");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["ending"], "cancelled");
}
