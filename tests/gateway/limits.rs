//! Requests per window, told in both header families.

use serde_json::{Value, json};
use tollgate_fakes::Origin;

use crate::harness::{CALLER_KEY, Gateway, gateway::key_hash};

fn limited(origin: &Origin, limit: &Value, chain: &Value) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "middlewares": {"few": {"rate_limit": limit}, "key": {"api_key": {}}},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "chain": chain, "service": "echo"}},
    })
}

#[tokio::test]
async fn the_request_over_the_limit_is_told_when_to_come_back() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(limited(&origin, &json!({"limit": "2/min"}), &json!(["few"]))).await;

    let first = gateway.get("/").await.expect(200);
    gateway.get("/").await.expect(200);
    let refused = gateway.get("/").await.expect(429);

    assert_eq!(first.header("x-ratelimit-limit-minute"), "2");
    assert_eq!(first.header("x-ratelimit-remaining-minute"), "1");
    assert_eq!(first.header("ratelimit-remaining"), "1");
    assert!(first.headers.contains_key("ratelimit") && first.headers.contains_key("ratelimit-policy"));
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused.json()["status"], 429);
    assert_eq!(origin.hits(), 2);
}

#[tokio::test]
async fn a_header_family_can_be_left_out() {
    let origin = Origin::start("alpha").await;
    let limit = json!({"limit": "2/min", "headers": ["ietf"]});
    let gateway = Gateway::given(limited(&origin, &limit, &json!(["few"]))).await;

    let reply = gateway.get("/").await;

    assert!(reply.headers.contains_key("ratelimit-policy"));
    assert!(!reply.headers.contains_key("x-ratelimit-limit-minute"));
}

#[tokio::test]
async fn every_caller_has_an_own_counter() {
    let origin = Origin::start("alpha").await;
    let limit = json!({"limit": "1/min", "by": "consumer"});
    let mut config = limited(&origin, &limit, &json!(["key", "few"]));
    config["consumers"] = json!({"bob": {"api_keys": [key_hash("bobs_key")]}});
    let gateway = Gateway::given(config).await;
    let ask = |key| gateway.request("GET", "/").bearer(key).send();

    assert_eq!(ask(CALLER_KEY).await.status, 200);
    assert_eq!(ask("bobs_key").await.status, 200);
    assert_eq!(ask(CALLER_KEY).await.status, 429);
    assert_eq!(ask("bobs_key").await.status, 429);
}

#[tokio::test]
async fn an_edit_elsewhere_does_not_forget_what_was_counted() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(limited(&origin, &json!({"limit": "1/min"}), &json!(["few"]))).await;
    gateway.get("/").await.expect(200);

    gateway.edit_config(|config| {
        config["routes"]["new"] = json!({"rule": "Path(`/new`)", "priority": 1000, "service": "echo"});
    });
    crate::harness::gateway::until_answers(&gateway, "/new", 200).await;

    assert_eq!(gateway.get("/").await.status, 429);
}
