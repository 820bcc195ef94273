//! The end: open requests finish, new ones are not accepted, the exit code is 0.

use serde_json::json;
use tollgate_fakes::{Origin, Provider};

use crate::harness::{
    Gateway, eventually,
    llm::{ask_streamed, llm},
};

#[tokio::test]
async fn a_terminated_gateway_finishes_what_it_began() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await;
    let mut stream = gateway.request("GET", "/sse?n=10&every=100").stream().await;
    stream.event().await.expect("an open stream");

    gateway.terminate();

    let web = gateway.address("web");
    eventually("the port is closed", || std::net::TcpStream::connect(web).is_err().then_some(())).await;
    assert_eq!(stream.events().await.len(), 9);
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(gateway.access_records().iter().any(|record| record["path"] == "/sse"), "the record is lost");
}

#[tokio::test]
async fn what_was_used_before_the_end_is_in_the_books_after_it() {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;
    gateway.chat(&ask_streamed("gpt")).stream().await.events().await;

    let gateway = gateway.restart().await;

    let rows = gateway.admin_json("/api/v1/usage").await;
    assert_eq!(rows["usage"].as_array().map(Vec::len), Some(1), "{rows}");
}
