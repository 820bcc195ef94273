//! One record per request, and never a prompt or a key in it.

use serde_json::json;
use tollgate_fakes::{Answer, Origin, Provider};

use crate::harness::{
    ADMIN_TOKEN, CALLER_KEY, Gateway,
    llm::{ANTHROPIC_KEY, OPENAI_KEY, ask, ask_streamed, llm},
};

#[tokio::test]
async fn a_proxied_request_leaves_one_record() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await;

    let reply = gateway.request("POST", "/bytes?n=5000").body("four").send().await.expect(200);

    let record = gateway.access_record(|record| record["route"] == "all").await;
    assert!(record["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{record}");
    assert_eq!(record["method"], "POST", "{record}");
    assert_eq!(record["path"], "/bytes", "{record}");
    assert_eq!(record["service"], "echo", "{record}");
    assert_eq!(record["status"], 200, "{record}");
    assert!(record.to_string().contains(&origin.address().to_string()), "no target: {record}");
    assert!(record["response_bytes"].as_u64() >= Some(reply.body.len() as u64), "{record}");
    assert!(record["duration_ms"].is_f64(), "{record}");
    assert_eq!(gateway.access_records().len(), 1);
}

#[tokio::test]
async fn a_chat_completion_says_what_it_used() {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;

    gateway.chat(&ask_streamed("gpt")).stream().await.events().await;

    let record = gateway.access_record(|record| record["llm"]["model"] == "gpt").await;
    assert_eq!(record["caller"], "alice", "{record}");
    let record = &record["llm"];
    assert_eq!(record["provider"], "openai", "{record}");
    assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&json!(12), &json!(5)));
    assert_eq!(record["cost_usd"], "0.000022", "{record}");
    assert_eq!(record["attempts"], 1, "{record}");
    assert!(record["ttft_ms"].is_f64(), "{record}");
}

#[tokio::test]
async fn no_prompt_no_answer_and_no_key_is_ever_written() {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;
    let mut body = ask("gpt");
    body["messages"][0]["content"] = json!("canary-of-the-prompt");
    openai.next(
        Answer::status(500).json(&json!({"error": {"message": "canary-of-the-provider sk-leaked-canary"}})),
    );
    openai.next(
        Answer::status(401).json(&json!({"error": {"message": "Incorrect API key: sk-leaked-canary"}})),
    );

    let mut answers = String::new();
    for _ in 0..3 {
        answers += &gateway.chat(&body).send().await.text();
    }
    body["model"] = json!("claude");
    gateway.chat(&body).send().await.expect(200);
    gateway.access_record(|record| record["llm"]["model"] == "claude").await;

    let output = gateway.output_text();
    let secrets =
        ["canary-of-the-prompt", CALLER_KEY, ADMIN_TOKEN, OPENAI_KEY, ANTHROPIC_KEY, "sk-leaked-canary"];
    for secret in secrets {
        assert!(!output.contains(secret), "{secret} is in the output");
    }
    assert!(!output.contains("Hello from the OpenAI-style"), "an answer is in the output");
    assert!(!answers.contains("sk-leaked-canary"), "{answers}");
}
