//! Two gateways on one Redis: one balance, one ledger.

use serde_json::{Value, json};
use tollgate_fakes::Provider;

use crate::harness::{
    Gateway, eventually_asking,
    llm::{ask, llm_with, outside},
    redis::Redis,
};

/// Waits until the books show so much spent on the account `alice`.
async fn until_spent(gateway: &Gateway, usd: &str) -> Value {
    eventually_asking("the books show it", async || {
        let books = gateway.admin_json("/api/v1/credits/alice").await;
        (books["spent_usd"] == usd).then_some(books)
    })
    .await
}

#[tokio::test]
async fn two_gateways_share_the_books() {
    let Some(redis) = Redis::start().await else { return };
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let config = || {
        let state = json!({"state": {"redis": {"url": outside(&redis.url()), "timeout": "2s"}}});
        llm_with(&openai, &anthropic, state)
    };
    let (one, two) = (Gateway::given(config()).await, Gateway::given(config()).await);

    one.chat(&ask("gpt")).send().await.expect(200);
    two.chat(&ask("gpt")).send().await.expect(200);

    for gateway in [&one, &two] {
        let books = until_spent(gateway, "0.000044000").await;
        // Both read the same opening credit, which is booked once.
        assert_eq!(books["credited_usd"], "10.000000000");
    }
    let rows = one.admin_json("/api/v1/usage").await;
    assert_eq!(rows["usage"].as_array().map(Vec::len), Some(2), "{rows}");
}
