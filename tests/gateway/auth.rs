//! Who is asking.

use serde_json::{Value, json};
use tollgate_fakes::Origin;

use crate::harness::{CALLER_KEY, Gateway};

fn guarded(origin: &Origin, policy: &Value) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "middlewares": {"key": {"api_key": policy}},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "chain": ["key"], "service": "echo"}},
    })
}

#[tokio::test]
async fn no_key_or_an_unknown_one_is_refused_before_the_origin() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(guarded(&origin, &json!({}))).await;

    let missing = gateway.get("/").await.expect(401);
    let unknown = gateway.request("GET", "/").bearer("tg_unknown").send().await.expect(401);

    assert_eq!(missing.header("content-type"), "application/problem+json");
    assert!(missing.headers.contains_key("www-authenticate"));
    assert!(!unknown.text().contains("tg_unknown"));
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn a_key_is_taken_from_either_header_and_hidden_from_the_origin() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(guarded(&origin, &json!({}))).await;

    let bearer = gateway.request("GET", "/").bearer(CALLER_KEY).send().await.expect(200);
    let plain = gateway.request("GET", "/").header("x-api-key", CALLER_KEY).send().await.expect(200);

    for reply in [bearer, plain] {
        assert!(!reply.text().contains(CALLER_KEY), "the origin sees the key: {}", reply.text());
    }
    gateway.access_record(|record| record["caller"] == "alice").await;
}

#[tokio::test]
async fn a_key_stays_when_it_is_not_to_be_hidden() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(guarded(&origin, &json!({"hide": false}))).await;

    let reply = gateway.request("GET", "/").header("x-api-key", CALLER_KEY).send().await;

    assert_eq!(reply.expect(200).json()["headers"]["x-api-key"], CALLER_KEY);
}
