//! A caller's own provider key: sealed, used, shown nowhere.

use serde_json::{Value, json};
use tollgate_fakes::Provider;

use crate::harness::{
    Gateway, Reply,
    llm::{OPENAI_KEY, ask, llm},
};

const OWN_KEY: &str = "sk-alices-own-canary-0123456789";

async fn plain() -> (Gateway, Provider, Provider) {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;
    (gateway, openai, anthropic)
}

async fn keep(gateway: &Gateway) -> Reply {
    let body = json!({"tenant": "alice", "provider": "openai", "key": OWN_KEY});
    let reply = gateway.admin("POST", "/api/v1/byok/keys").json(&body).send().await;
    assert!((200..300).contains(&reply.status), "{} {}", reply.status, reply.text());
    reply
}

async fn used_key(gateway: &Gateway, openai: &Provider) -> String {
    gateway.chat(&ask("gpt")).send().await.expect(200);
    openai.requests().last().unwrap().header("authorization").unwrap().to_owned()
}

#[tokio::test]
async fn the_callers_own_key_replaces_the_platforms() {
    let (gateway, openai, _anthropic) = plain().await;

    let before = used_key(&gateway, &openai).await;
    keep(&gateway).await;
    let after = used_key(&gateway, &openai).await;

    assert_eq!(before, format!("Bearer {OPENAI_KEY}"));
    assert_eq!(after, format!("Bearer {OWN_KEY}"));
}

#[tokio::test]
async fn a_removed_key_is_used_no_more() {
    let (gateway, openai, _anthropic) = plain().await;
    keep(&gateway).await;

    let removed = gateway.admin("DELETE", "/api/v1/byok/keys/openai?tenant=alice").send().await;

    assert!((200..300).contains(&removed.status), "{}", removed.text());
    assert_eq!(used_key(&gateway, &openai).await, format!("Bearer {OPENAI_KEY}"));
}

#[tokio::test]
async fn a_key_is_never_shown_or_written_in_plain() {
    let (gateway, openai, _anthropic) = plain().await;

    let kept = keep(&gateway).await;
    let list = gateway.admin("GET", "/api/v1/byok/keys").send().await.expect(200);
    used_key(&gateway, &openai).await;

    assert!(list.text().contains("openai"));
    for text in [kept.text(), list.text(), gateway.output_text()] {
        assert!(!text.contains(OWN_KEY), "{text}");
    }
    assert_no_file_contains(gateway.directory(), OWN_KEY);
}

#[tokio::test]
async fn a_key_survives_a_restart() {
    let (gateway, openai, _anthropic) = plain().await;
    keep(&gateway).await;

    let gateway = gateway.restart().await;

    assert_eq!(used_key(&gateway, &openai).await, format!("Bearer {OWN_KEY}"));
    let list: Value = gateway.admin_json("/api/v1/byok/keys").await;
    assert!(list.to_string().contains("6789"), "the hint is the last four characters: {list}");
}

fn assert_no_file_contains(directory: &std::path::Path, needle: &str) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            assert_no_file_contains(&path, needle);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{} holds the key in plain", path.display());
        }
    }
}
