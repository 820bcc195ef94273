//! Components in the chain: what they may do, what happens when they fail, how
//! they are swapped.

use std::path::Path;

use serde_json::{Value, json};
use tollgate_fakes::Origin;

use crate::harness::{
    Gateway, eventually, eventually_asking,
    gateway::replace,
    guests::{guest, header_filter, sha256},
};

/// One route through `plugin:mine`, and the admin plugin to swap it with.
fn with_plugin(origin: &Origin, plugin: &Value) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "plugins": {
            "mine": plugin,
            "admin": {"grants": {"log": true, "control": ["read", "load-plugin"]}},
        },
        "routes": {
            "all": {"rule": "PathPrefix(`/`)", "chain": ["plugin:mine"], "service": "echo"},
            "bare": {"rule": "PathPrefix(`/bare`)", "service": "echo"},
        },
    })
}

fn misbehaving(how: &str, on_error: &str) -> Value {
    json!({
        "module": guest("misbehaving"),
        "on_error": on_error,
        "grants": {"log": true},
        "config": {"how": how, "when": "asked"},
    })
}

async fn version(gateway: &Gateway) -> String {
    gateway.get("/").await.expect(200).header("x-plugin-version").to_owned()
}

async fn until_version(gateway: &Gateway, wanted: &str) {
    let what = format!("version {wanted} serves");
    eventually_asking(&what, async || (version(gateway).await == wanted).then_some(())).await;
}

#[tokio::test]
async fn a_filter_edits_the_request_and_the_response() {
    let origin = Origin::start("alpha").await;
    let plugin = json!({"module": guest("header-filter"), "config": {"version": "seven"}});
    let gateway = Gateway::given(with_plugin(&origin, &plugin)).await;

    let reply = gateway.request("GET", "/").header("accept", "*/*").header("user-agent", "test").send().await;

    assert_eq!(reply.header("x-plugin-version"), "seven");
    let seen = reply.expect(200).json();
    assert_eq!(seen["headers"]["x-plugin-version"], "seven");
    assert_eq!(seen["headers"]["x-plugin-seen"], "both");
    assert_eq!(gateway.get("/bare").await.expect(200).header("x-plugin-version"), "");
}

#[tokio::test]
async fn a_trap_is_a_502_with_the_request_id_and_the_next_request_works() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(with_plugin(&origin, &misbehaving("trap", "reject"))).await;

    let trapped = gateway.request("GET", "/").header("x-misbehave", "1").send().await.expect(502);

    assert_eq!(trapped.header("content-type"), "application/problem+json");
    assert!(trapped.json()["request_id"].is_string());
    assert_eq!(origin.hits(), 0);
    gateway.get("/").await.expect(200);
    let plugins = gateway.admin_json("/api/v1/plugins").await.to_string();
    assert!(plugins.contains("\"traps\":1"), "{plugins}");
}

#[tokio::test]
async fn with_continue_the_request_goes_on_without_the_plugin() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(with_plugin(&origin, &misbehaving("trap", "continue"))).await;

    let reply = gateway.request("GET", "/x").header("x-misbehave", "1").send().await;

    assert_eq!(reply.expect(200).json()["path"], "/x");
    gateway.logged(|line| line["level"] != "INFO" && line.to_string().contains("mine")).await;
}

#[tokio::test]
async fn an_endless_loop_ends_by_its_time_and_hoarding_by_its_memory() {
    let origin = Origin::start("alpha").await;
    for how in ["loop", "hoard", "recurse"] {
        let mut plugin = misbehaving(how, "reject");
        plugin["limits"] = json!({"memory": "8MiB", "time_per_call": "100ms"});
        let gateway = Gateway::given(with_plugin(&origin, &plugin)).await;

        let started = std::time::Instant::now();
        let stopped = gateway.request("GET", "/").header("x-misbehave", "1").send().await;

        assert_eq!(stopped.status, 502, "{how}");
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{how} took {:?}", started.elapsed());
        gateway.get("/").await.expect(200);
    }
}

#[tokio::test]
async fn nonsense_from_a_plugin_never_reaches_the_wire() {
    let origin = Origin::start("alpha").await;
    for how in ["bad-header-name", "bad-header-value", "bad-path", "bad-status"] {
        let gateway = Gateway::given(with_plugin(&origin, &misbehaving(how, "reject"))).await;

        let reply = gateway.request("GET", "/").header("x-misbehave", "1").send().await;

        assert_eq!(reply.status, 502, "{how}");
        gateway.get("/").await.expect(200);
    }
}

#[tokio::test]
async fn wrong_bytes_a_missing_grant_or_a_refused_config_do_not_start() {
    let origin = Origin::start("alpha").await;
    let cases = [
        (json!({"module": guest("noop-filter"), "sha256": "0".repeat(64)}), "sha256"),
        (json!({"module": guest("ungranted-ledger")}), "ledger"),
        (json!({"module": guest("misbehaving"), "config": {"how": "refuse-config"}}), "refused on purpose"),
        (json!({"module": "/nonexistent/plugin.wasm"}), "/nonexistent/plugin.wasm"),
    ];
    for (plugin, reason) in cases {
        let refused = Gateway::refused(with_plugin(&origin, &plugin)).await;
        assert!(matches!(refused.code, Some(1 | 2)), "{refused:?}");
        assert!(refused.output.contains(reason) && refused.output.contains("mine"), "{}", refused.output);
    }
}

#[tokio::test]
async fn the_same_is_refused_at_a_reload_and_the_old_version_stays() {
    let origin = Origin::start("alpha").await;
    let component = guest("noop-filter");
    let plugin = json!({"module": component, "sha256": sha256(&component)});
    let mut gateway = Gateway::given(with_plugin(&origin, &plugin)).await;

    gateway.edit_config(|config| config["plugins"]["mine"] = json!({"module": guest("ungranted-ledger")}));

    gateway.logged(|line| line["level"] == "ERROR" && line.to_string().contains("ledger")).await;
    gateway.get("/").await.expect(200);
}

#[tokio::test]
async fn a_granted_import_links() {
    let origin = Origin::start("alpha").await;
    let plugin = json!({"module": guest("ungranted-ledger"), "grants": {"ledger": "read"}});
    let gateway = Gateway::given(with_plugin(&origin, &plugin)).await;

    let seen = gateway.get("/").await.expect(200).json();

    assert_eq!(seen["headers"]["x-accounts"], "1", "alice's account");
}

/// The gateway runs on a copy that the test may replace.
async fn on_a_file(origin: &Origin) -> (Gateway, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("mine.wasm");
    std::fs::copy(header_filter("1"), &file).expect("the directory is writable");
    let gateway =
        Gateway::in_directory(directory, with_plugin(origin, &json!({"module": "mine.wasm"}))).await;
    (gateway, file)
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("the component is readable")
}

#[tokio::test]
async fn a_changed_file_serves_new_requests_and_a_broken_one_does_not() {
    let origin = Origin::start("alpha").await;
    let (gateway, file) = on_a_file(&origin).await;
    assert_eq!(version(&gateway).await, "1");

    replace(&file, &bytes(&header_filter("2")));
    until_version(&gateway, "2").await;
    replace(&file, b"not a component");

    gateway.logged(|line| line["level"] == "ERROR" && line.to_string().contains("mine")).await;
    assert_eq!(version(&gateway).await, "2");
}

#[tokio::test]
async fn an_uploaded_version_serves_new_requests_while_old_ones_finish() {
    let origin = Origin::start("alpha").await;
    let (gateway, _file) = on_a_file(&origin).await;
    let mut stream = gateway.request("GET", "/sse?n=20&every=50").stream().await;
    stream.event().await.expect("an open stream");

    let upload =
        gateway.admin("POST", "/api/v1/plugins/mine/versions").header("content-type", "application/wasm");
    let loaded = upload.body(bytes(&header_filter("2"))).send().await.expect(201).json();

    assert_eq!(loaded["version"], 2, "{loaded}");
    assert_eq!(loaded["sha256"], sha256(&header_filter("2")));
    assert_eq!(version(&gateway).await, "2");
    assert_eq!(stream.events().await.len(), 19);
}

#[tokio::test]
async fn a_plugin_can_be_the_service_of_a_route() {
    let gateway = Gateway::given(json!({
        "services": {"made": {"plugin": "endpoint"}},
        "plugins": {"endpoint": {"module": guest("echo-endpoint"), "config": {"some": "config"}}},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "made"}},
    }))
    .await;

    let seen =
        gateway.request("POST", "/x?y=1").header("tollgate-role", "operator").body("four").send().await;
    let streamed = gateway.get("/count?n=4").await.expect(200).text();
    let trapped = gateway.get("/trap").await;

    let seen = seen.expect(200).json();
    assert_eq!((&seen["path"], &seen["body_bytes"]), (&json!("/x"), &json!(4)));
    let spoofed = seen["headers"].to_string().contains(r#"["tollgate-role","operator"]"#);
    assert!(!spoofed, "a client made itself an operator");
    assert_eq!(streamed.matches("data: ").count(), 4);
    assert_eq!(trapped.status, 502);
    eventually("still alive", || Some(())).await;
    gateway.get("/x").await.expect(200);
}

#[tokio::test]
async fn a_version_that_lost_a_hook_is_refused() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(with_plugin(&origin, &json!({"module": header_filter("1")}))).await;

    let upload =
        gateway.admin("POST", "/api/v1/plugins/mine/versions").header("content-type", "application/wasm");
    let refused = upload.body(std::fs::read(guest("echo-endpoint")).unwrap()).send().await.expect(422);

    assert!(refused.text().contains("http-filter"), "{}", refused.text());
    assert_eq!(version(&gateway).await, "1");
}
