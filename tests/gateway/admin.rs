//! The operator's door.

use serde_json::{Value, json};
use tollgate_fakes::Provider;

use crate::harness::{
    CALLER_KEY, Client, Gateway,
    llm::{ask, llm},
};

async fn plain() -> (Gateway, Provider, Provider) {
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let gateway = Gateway::given(llm(&openai, &anthropic)).await;
    (gateway, openai, anthropic)
}

/// Lists come bare or as the only member of an object.
fn rows(answer: &Value) -> &Vec<Value> {
    let list = answer.as_array();
    list.or_else(|| answer.as_object()?.values().find_map(Value::as_array)).expect("a list")
}

#[tokio::test]
async fn the_token_is_required_and_a_callers_key_is_none() {
    let (gateway, _openai, _anthropic) = plain().await;
    let door = gateway.address("admin");

    for path in ["/api/v1/routes", "/api/v1/plugins", "/api/v1/usage", "/api/v1/byok/keys"] {
        assert_eq!(Client::new(door, "GET", path).send().await.status, 401, "{path}");
        assert_eq!(Client::new(door, "GET", path).bearer(CALLER_KEY).send().await.status, 401, "{path}");
        assert_eq!(gateway.admin("GET", path).send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_admin_door_is_not_on_the_data_plane() {
    let (gateway, _openai, _anthropic) = plain().await;

    assert_eq!(gateway.get("/api/v1/routes").await.status, 404);
    assert_eq!(gateway.get("/metrics").await.status, 404);
}

#[tokio::test]
async fn routes_services_and_plugins_are_listed() {
    let (gateway, _openai, _anthropic) = plain().await;
    gateway.chat(&ask("gpt")).send().await.expect(200);

    let routes = gateway.admin_json("/api/v1/routes").await;
    let services = gateway.admin_json("/api/v1/services").await;
    let plugins = gateway.admin_json("/api/v1/plugins").await;

    assert!(
        rows(&routes).iter().any(|route| route["name"] == "llm" && route["service"] == "llm"),
        "{routes}"
    );
    assert!(services.to_string().contains("openai"), "{services}");
    assert!(!services.to_string().contains("canary"), "a key is shown: {services}");
    let metering = rows(&plugins).iter().find(|plugin| plugin["name"] == "metering").expect("metering");
    assert_eq!(metering["version"], 1);
    assert_eq!(metering["state"], "serving");
    assert_eq!(metering["sha256"].as_str().map(str::len), Some(64));
    assert!(metering["calls"].as_u64().is_some_and(|calls| calls >= 2), "{metering}");
    assert_eq!(metering["traps"], 0);
}

#[tokio::test]
async fn what_is_no_component_is_refused_and_the_old_version_stays() {
    let (gateway, _openai, _anthropic) = plain().await;
    let path = "/api/v1/plugins/metering/versions";

    let upload = gateway.admin("POST", path).header("content-type", "application/wasm").body("not wasm");
    let refused = upload.send().await;

    assert!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text());
    let unknown =
        gateway.admin("POST", "/api/v1/plugins/nobody/versions").header("content-type", "application/wasm");
    let unknown = unknown.body("not wasm").send().await;
    assert_eq!(unknown.status, 404);
    gateway.chat(&ask("gpt")).send().await.expect(200);
}

#[tokio::test]
async fn health_readiness_and_metrics_are_native() {
    let (gateway, _openai, _anthropic) = plain().await;
    gateway.chat(&ask("gpt")).send().await.expect(200);
    let door = gateway.address("admin");

    for path in ["/healthz", "/readyz"] {
        assert_eq!(Client::new(door, "GET", path).send().await.status, 200, "{path}");
    }
    let metrics = gateway.admin("GET", "/metrics").send().await.expect(200).text();
    assert!(metrics.lines().any(|line| line.starts_with("tollgate_") && line.contains("llm")), "{metrics}");
}

#[tokio::test]
async fn an_unknown_path_is_a_404() {
    let (gateway, _openai, _anthropic) = plain().await;

    let reply = gateway.admin("GET", "/api/v1/nonsense").send().await;

    assert_eq!(reply.status, 404);
    assert_eq!(reply.json()["status"], json!(404));
}
