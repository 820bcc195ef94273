//! Edits of the file apply by themselves; broken ones change nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_fakes::Origin;

use crate::harness::{Client, Gateway, eventually, gateway::until_answers, guests::header_filter};

fn plain(origin: &Origin) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"one": {"rule": "Path(`/one`)", "service": "echo"}},
    })
}

#[tokio::test]
async fn an_edit_applies_within_a_second() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(plain(&origin)).await;
    assert_eq!(gateway.get("/two").await.status, 404);

    let edited = Instant::now();
    gateway
        .edit_config(|config| config["routes"]["two"] = json!({"rule": "Path(`/two`)", "service": "echo"}));
    until_answers(&gateway, "/two", 200).await;

    assert!(edited.elapsed() < Duration::from_secs(1), "took {:?}", edited.elapsed());
    assert_eq!(gateway.get("/one").await.status, 200);
}

#[tokio::test]
async fn a_broken_edit_is_told_with_file_and_line_and_changes_nothing() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(plain(&origin)).await;

    gateway.write_raw_config("version: 1\nroutes:\n  one:\n    rule: Path(`/one`)\n    servise: echo\n");

    let told = gateway.logged(|line| line["level"] == "ERROR" && line.to_string().contains("servise")).await;
    let text = told.to_string();
    assert!(text.contains("gateway.yaml"), "no file: {text}");
    assert!(text.contains("gateway.yaml:5") || told["line"] == 5, "no line: {text}");
    assert_eq!(gateway.get("/one").await.status, 200);
}

#[tokio::test]
async fn after_a_broken_edit_a_good_one_applies() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(plain(&origin)).await;
    gateway.write_raw_config("routes: [");
    gateway.logged(|line| line["level"] == "ERROR").await;

    gateway
        .edit_config(|config| config["routes"]["two"] = json!({"rule": "Path(`/two`)", "service": "echo"}));

    until_answers(&gateway, "/two", 200).await;
}

#[tokio::test]
async fn entrypoints_open_and_close_with_the_file() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(plain(&origin)).await;

    gateway.edit_config(|config| config["entrypoints"]["more"] = json!({"address": "127.0.0.1:0"}));
    let more = eventually("the new entrypoint", || gateway.listening().get("more").copied()).await;
    assert_eq!(Client::new(more, "GET", "/one").send().await.status, 200);

    gateway.edit_config(|config| drop(config["entrypoints"].as_object_mut().unwrap().shift_remove("more")));
    eventually("the entrypoint is closed", || std::net::TcpStream::connect(more).is_err().then_some(()))
        .await;
    assert_eq!(gateway.get("/one").await.status, 200);
}

#[tokio::test]
async fn a_request_in_flight_ends_on_the_configuration_it_began_with() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"all": {"rule": "PathPrefix(`/old`)", "service": "echo"}},
    }))
    .await;

    let mut stream = gateway.request("GET", "/old/sse?n=20&every=100").stream().await;
    stream.event().await.expect("an open stream");
    gateway.edit_config(|config| {
        config["routes"] = json!({"new": {"rule": "PathPrefix(`/new`)", "service": "echo"}})
    });
    until_answers(&gateway, "/new", 200).await;

    assert_eq!(gateway.get("/old").await.status, 404);
    assert_eq!(stream.events().await.len(), 19);
}

#[tokio::test]
async fn a_refused_edit_neither_books_nor_swaps() {
    let origin = Origin::start("alpha").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = plain(&origin);
    config["plugins"] = json!({
        "mine": {"module": header_filter("1")},
        "metering": {"grants": {"log": true, "ledger": "write"}},
        "admin": {"grants": {"log": true, "control": ["read", "load-plugin"]}},
    });
    let mut gateway = Gateway::given(config).await;
    let upload =
        gateway.admin("POST", "/api/v1/plugins/mine/versions").header("content-type", "application/wasm");
    upload.body(std::fs::read(header_filter("2")).unwrap()).send().await.expect(201);
    let before = gateway.admin_json("/api/v1/plugins").await;

    gateway.edit_config(|config| {
        config["consumers"]["newcomer"] = json!({"opening_credit": "7.00"});
        config["plugins"]["mine"]["config"] = json!({"changed": true});
        config["entrypoints"]["taken"] = json!({"address": taken.local_addr().unwrap().to_string()});
    });
    gateway.logged(|line| line["level"] == "ERROR").await;

    let accounts = gateway.admin_json("/api/v1/credits").await;
    assert!(!accounts.to_string().contains("newcomer"), "{accounts}");
    let sha256 = |plugins: &Value| plugins.to_string().matches("\"sha256\"").count();
    let after = gateway.admin_json("/api/v1/plugins").await;
    assert_eq!(sha256(&after), sha256(&before));
    let version = |plugins: &Value| {
        let list = plugins["plugins"].as_array().or(plugins.as_array()).expect("plugins").clone();
        list.into_iter().find(|plugin| plugin["name"] == "mine").map(|plugin| plugin["version"].clone())
    };
    assert_eq!(version(&after), Some(json!(2)));
}
