//! Which request goes where, and what is said when none fits.

use serde_json::{Value, json};
use tollgate_fakes::{Origin, refusing_address};

use crate::harness::{Gateway, Reply};

fn routes(origin: &Origin, routes: &Value) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "middlewares": {"ids": {"request_id": {}}},
        "routes": routes,
    })
}

#[track_caller]
fn assert_problem(reply: &Reply, status: u16, kind: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().is_some_and(|text| text.ends_with(kind)), "{problem}");
    assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
}

async fn rule_gateway(origin: &Origin, rule: &str) -> Gateway {
    Gateway::given(routes(origin, &json!({"only": {"rule": rule, "service": "echo"}}))).await
}

#[tokio::test]
async fn a_rule_by_host_and_path_prefix_matches_both_or_nothing() {
    let origin = Origin::start("alpha").await;
    let gateway = rule_gateway(&origin, "Host(`a.test`) && PathPrefix(`/api`)").await;

    let matching = gateway.request("GET", "/api/x").host("A.test:80").send().await;
    let other_host = gateway.request("GET", "/api/x").host("b.test").send().await;
    let other_path = gateway.request("GET", "/other").host("a.test").send().await;

    assert_eq!(matching.expect(200).json()["path"], "/api/x");
    assert_eq!(other_host.status, 404);
    assert_eq!(other_path.status, 404);
}

#[tokio::test]
async fn a_rule_may_say_or_not_method_header_and_exact_path() {
    let origin = Origin::start("alpha").await;
    let rule = "(Path(`/one`) || Path(`/two`)) && !Method(`DELETE`) && Header(`x-stage`, `beta`)";
    let gateway = rule_gateway(&origin, rule).await;
    let ask = |method, path, stage: &str| gateway.request(method, path).header("x-stage", stage).send();

    assert_eq!(ask("GET", "/one", "beta").await.status, 200);
    assert_eq!(ask("POST", "/two", "beta").await.status, 200);
    assert_eq!(ask("GET", "/one/more", "beta").await.status, 404);
    assert_eq!(ask("DELETE", "/one", "beta").await.status, 404);
    assert_eq!(ask("GET", "/one", "stable").await.status, 404);
}

#[tokio::test]
async fn match_fields_do_what_a_rule_does() {
    let origin = Origin::start("alpha").await;
    let fields = json!({"hosts": ["*.a.test"], "paths": ["/api"], "methods": ["GET"]});
    let gateway =
        Gateway::given(routes(&origin, &json!({"only": {"match": fields, "service": "echo"}}))).await;
    let ask = |method, host, path| gateway.request(method, path).host(host).send();

    assert_eq!(ask("GET", "x.a.test", "/api/y").await.status, 200);
    assert_eq!(ask("GET", "x.a.test", "/apiary").await.status, 404);
    assert_eq!(ask("GET", "a.test", "/api").await.status, 404);
    assert_eq!(ask("POST", "x.a.test", "/api").await.status, 404);
}

#[tokio::test]
async fn the_longer_rule_wins() {
    let (short, long) = (Origin::start("short").await, Origin::start("long").await);
    let gateway = Gateway::given(json!({
        "services": {
            "short": {"targets": [{"url": short.url()}]},
            "long": {"targets": [{"url": long.url()}]},
        },
        "routes": {
            "a": {"rule": "PathPrefix(`/`)", "service": "short"},
            "b": {"rule": "PathPrefix(`/api/v1`)", "service": "long"},
        },
    }))
    .await;

    assert_eq!(gateway.get("/api/v1/x").await.json()["name"], "long");
    assert_eq!(gateway.get("/api").await.json()["name"], "short");
}

#[tokio::test]
async fn strip_path_removes_the_prefix_before_the_origin() {
    let origin = Origin::start("alpha").await;
    let route = json!({"rule": "PathPrefix(`/app`)", "strip_path": "/app", "service": "echo"});
    let gateway = Gateway::given(routes(&origin, &json!({"app": route}))).await;

    let reply = gateway.get("/app/page?q=1").await.expect(200).json();

    assert_eq!(reply["path"], "/page");
    assert_eq!(reply["query"], "q=1");
}

#[tokio::test]
async fn no_route_is_a_404_problem_with_the_request_id() {
    let origin = Origin::start("alpha").await;
    let gateway = rule_gateway(&origin, "Path(`/only`)").await;

    let reply = gateway.get("/nothing").await;

    assert_problem(&reply, 404, "no-route");
    let id = reply.json()["request_id"].clone();
    gateway.access_record(|record| record["request_id"] == id && record["status"] == 404).await;
}

#[tokio::test]
async fn a_refused_connection_is_a_502_problem() {
    let url = format!("http://{}", refusing_address().await);
    let gateway = Gateway::given(json!({
        "services": {"gone": {"targets": [{"url": url}]}},
        "routes": {"gone": {"rule": "PathPrefix(`/`)", "service": "gone"}},
    }))
    .await;

    assert_problem(&gateway.get("/").await, 502, "upstream-connect");
}

#[tokio::test]
async fn a_silent_origin_is_a_504_problem() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(json!({
        "services": {"slow": {"targets": [{"url": origin.url()}], "timeouts": {"first_byte": "200ms"}}},
        "routes": {"slow": {"rule": "PathPrefix(`/`)", "service": "slow"}},
    }))
    .await;

    assert_problem(&gateway.get("/slow?ms=30000").await, 504, "upstream-timeout");
}

#[tokio::test]
async fn the_request_id_reaches_origin_and_client_and_is_ours() {
    let origin = Origin::start("alpha").await;
    let route = json!({"rule": "PathPrefix(`/`)", "chain": ["ids"], "service": "echo"});
    let gateway = Gateway::given(routes(&origin, &json!({"all": route}))).await;

    let reply = gateway.request("GET", "/").header("x-request-id", "chosen-by-client").send().await;

    let id = reply.header("x-request-id").to_owned();
    assert!(!id.is_empty() && id != "chosen-by-client");
    assert_eq!(reply.json()["headers"]["x-request-id"], id);
}
