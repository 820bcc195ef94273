//! Money: held before, settled after, once.

use serde_json::{Value, json};
use tollgate_fakes::{Answer, Provider};

use crate::harness::{
    ADMIN_TOKEN, Client, Gateway, eventually_asking,
    gateway::key_hash,
    llm::{ask, ask_streamed, llm, llm_with},
};

const OPENING: &str = "10.000000000";
/// 12 input tokens at 1 USD and 5 output tokens at 2 USD per million.
const COST: &str = "0.000022000";
const NOTHING: &str = "0.000000000";

async fn plain() -> (Gateway, Provider, Provider) {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;
    (gateway, openai, anthropic)
}

async fn usage(gateway: &Gateway) -> Vec<Value> {
    gateway.admin_json("/api/v1/usage").await["usage"].as_array().expect("rows").clone()
}

/// The books of the account `alice`.
async fn account(gateway: &Gateway) -> Value {
    gateway.admin_json("/api/v1/credits/alice").await
}

/// Settlements are written behind the answer.
async fn until_settled(gateway: &Gateway, rows: usize) -> Value {
    eventually_asking("all is settled", async || {
        let books = account(gateway).await;
        let settled = usage(gateway).await.len() == rows && books["held_usd"] == NOTHING;
        settled.then_some(books)
    })
    .await
}

#[tokio::test]
async fn a_call_costs_what_it_used() {
    let (gateway, _openai, _anthropic) = plain().await;

    gateway.chat(&ask("gpt")).send().await.expect(200);

    let books = until_settled(&gateway, 1).await;
    assert_eq!(books["credited_usd"], OPENING);
    assert_eq!(books["spent_usd"], COST);
    let row = &usage(&gateway).await[0];
    assert_eq!(row["model"], "gpt");
    assert_eq!((&row["input_tokens"], &row["output_tokens"]), (&json!(12), &json!(5)));
    assert_eq!(row["ending"], "complete");
}

#[tokio::test]
async fn a_stream_costs_the_same_and_is_booked_once() {
    let (gateway, _openai, _anthropic) = plain().await;

    gateway.chat(&ask_streamed("gpt")).stream().await.events().await;
    gateway.chat(&ask("gpt")).send().await.expect(200);

    let books = until_settled(&gateway, 2).await;
    assert_eq!(books["spent_usd"], "0.000044000");
}

#[tokio::test]
async fn credit_is_held_while_the_call_runs() {
    let (gateway, openai, _anthropic) = plain().await;
    openai.next(Answer::events(include_str!("../fakes/recorded/openai_stream.sse")).hang_after(3));

    let mut stream = gateway.chat(&ask_streamed("gpt")).stream().await;
    stream.event().await.expect("an open stream");
    let during = account(&gateway).await;
    drop(stream);

    assert_ne!(during["held_usd"], NOTHING, "{during}");
    until_settled(&gateway, 1).await;
}

#[tokio::test]
async fn a_refused_call_costs_nothing() {
    let (gateway, openai, _anthropic) = plain().await;
    for _ in 0..4 {
        openai.next(Answer::status(500).json(&json!({"error": {"message": "boom"}})));
    }

    let reply = gateway.chat(&ask("gpt")).send().await;

    assert!(reply.status >= 500, "{}", reply.status);
    let books = until_settled(&gateway, 1).await;
    assert_eq!(books["spent_usd"], NOTHING);
}

#[tokio::test]
async fn an_empty_account_is_refused_before_the_provider() {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let poor =
        json!({"consumers": {"poor": {"api_keys": [key_hash("poor_key")], "opening_credit": "0.000001"}}});
    let gateway = Gateway::given(llm_with(&openai, &anthropic, poor)).await;

    let ask = gateway.request("POST", "/v1/chat/completions").bearer("poor_key").json(&ask("gpt"));
    let reply = ask.send().await.expect(402);

    assert!(reply.json()["error"]["message"].is_string());
    assert!(openai.requests().is_empty());
}

#[tokio::test]
async fn an_operator_adds_credit_once_per_id() {
    let (gateway, _openai, _anthropic) = plain().await;
    let credit = json!({"id": "invoice-1", "amount_usd": "2.50", "note": "thanks"});

    for _ in 0..2 {
        let reply = gateway.admin("POST", "/api/v1/credits/alice").json(&credit).send().await;
        assert!((200..300).contains(&reply.status), "{}", reply.text());
    }

    assert_eq!(account(&gateway).await["credited_usd"], "12.500000000");
}

#[tokio::test]
async fn books_survive_a_restart() {
    let (gateway, _openai, _anthropic) = plain().await;
    gateway.chat(&ask("gpt")).send().await.expect(200);
    until_settled(&gateway, 1).await;

    let gateway = gateway.restart().await;

    let books = account(&gateway).await;
    assert_eq!(books["credited_usd"], OPENING, "the opening credit was booked again");
    assert_eq!(books["spent_usd"], COST);
}

#[tokio::test]
async fn the_books_need_the_token() {
    let (gateway, _openai, _anthropic) = plain().await;
    let address = gateway.address("admin");

    assert_eq!(Client::new(address, "GET", "/api/v1/credits").send().await.status, 401);
    let right = Client::new(address, "GET", "/api/v1/credits").bearer(ADMIN_TOKEN).send().await;
    assert_eq!(right.status, 200);
}
