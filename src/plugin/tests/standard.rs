//! The standard plugins as they are embedded, over a real store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::{
    config::{
        ByteSize,
        plugin::{ControlVerb, Grants, LedgerGrant, Limits, Module, OnError, Plugin},
        state::{Backend, State},
    },
    plugin::{
        Body, BodyError, HostServices, Plugins,
        api::{AdmissionVerdict, Attempt, Caller, Candidate, Credential, LlmRequest, Price, RefusalReason},
    },
    state::{self, Secrets},
    telemetry::Metrics,
};

use super::support::Nothing;

const KEY: &str = "sk-secret-value-1234";

struct Gateway {
    plugins: Arc<Plugins>,
    _data: tempfile::TempDir,
}

impl Gateway {
    async fn with_standard_plugins() -> Self {
        let data = tempfile::tempdir().unwrap();
        let state = State { data_dir: data.path().to_owned(), backend: Backend::Embedded };
        let store = state::open(&state, None).await.unwrap().store;
        let secrets = Secrets::open(store.clone(), data.path()).await.unwrap();
        let services = HostServices { store, secrets, inspect: Arc::new(Nothing), metrics: Metrics::new() };
        let plugins = Plugins::new(services, None).unwrap();
        let grants = |grants: Grants| Grants { log: true, ..grants };
        let configured = BTreeMap::from([
            standard("metering", grants(Grants { ledger: LedgerGrant::Write, ..Grants::default() })),
            standard("byok", grants(Grants { secrets: vec!["byok".to_owned()], ..Grants::default() })),
            standard("fallback", grants(Grants::default())),
            standard(
                "admin",
                grants(Grants {
                    control: vec![ControlVerb::Read, ControlVerb::LoadPlugin],
                    ..Grants::default()
                }),
            ),
        ]);
        plugins.apply(&configured).await.unwrap();
        Self { plugins, _data: data }
    }

    fn version(&self, name: &str) -> Arc<crate::plugin::Version> {
        self.plugins.slot(name).unwrap().current()
    }

    async fn operator(&self, plugin: &str, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "admin.test")
            .header("tollgate-role", "operator")
            .header("tollgate-request-id", "r1")
            .header("content-type", "application/wasm");
        let body = Full::new(body.into()).map_err(BodyError::from).boxed_unsync();
        let response = self.version(plugin).serve(request.body(body).unwrap()).await.unwrap();
        read(response).await
    }
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
}

fn standard(name: &str, grants: Grants) -> (crate::config::Name, Plugin) {
    let limits = Limits {
        memory: ByteSize(32 << 20),
        time_per_call: Duration::from_millis(500),
        instances: 4,
        calls_per_instance: 10_000,
    };
    let plugin = Plugin {
        module: Module::Embedded(name.parse().unwrap()),
        sha256: None,
        on_error: OnError::Reject,
        grants,
        limits,
        config: "null".to_owned(),
    };
    (name.parse().unwrap(), plugin)
}

fn caller() -> Caller {
    Caller { id: "k1".to_owned(), tenant: "team".to_owned(), tier: "free".to_owned() }
}

fn request(price: Option<Price>, cooling: bool) -> LlmRequest {
    let candidate = |provider: &str, cooling| Candidate {
        provider: provider.to_owned(),
        model: "m".to_owned(),
        price,
        max_output_tokens: Some(1_000),
        cooling,
    };
    LlmRequest {
        request_id: "r1".to_owned(),
        caller: caller(),
        route: "llm".to_owned(),
        model: "demo".to_owned(),
        stream: false,
        estimated_input_tokens: 100,
        max_output_tokens: None,
        candidates: vec![candidate("openai", cooling), candidate("anthropic", false)],
        unix_ms: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metering_credits_and_holds() {
    let gateway = Gateway::with_standard_plugins().await;
    let credit = || r#"{"id":"c1","amount_usd":"0.01"}"#;
    let (status, body) = gateway.operator("metering", "POST", "/api/v1/credits/team", credit()).await;
    assert_eq!((status, &body["available_usd"]), (201, &json!("0.010000000")));
    let (status, body) = gateway.operator("metering", "POST", "/api/v1/credits/team", credit()).await;
    assert_eq!((status, &body["available_usd"]), (200, &json!("0.010000000")));
    let (status, body) = gateway.operator("metering", "GET", "/api/v1/credits", "").await;
    assert_eq!((status, &body["accounts"][0]["account"]), (200, &json!("team")));
    assert_eq!(gateway.operator("metering", "GET", "/api/v1/usage", "").await, (200, json!({ "usage": [] })));

    let price = Price { input: 1_000_000, input_cache_read: 0, input_cache_write: 0, output: 20_000_000 };
    let verdict = gateway.version("metering").admit(&request(Some(price), false)).await.unwrap();
    let AdmissionVerdict::Hold(hold) = verdict else { panic!("{verdict:?}") };
    // 0.01 USD less 120 input tokens leave 494 output tokens of the 1,000.
    assert_eq!((hold.max_output_tokens, hold.amount_nano_usd), (Some(494), 120_000 + 494 * 20_000));
    let verdict = gateway.version("metering").admit(&request(None, false)).await.unwrap();
    assert!(
        matches!(verdict, AdmissionVerdict::Refuse(refusal) if refusal.reason == RefusalReason::Forbidden)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn byok_uses_what_was_stored() {
    let gateway = Gateway::with_standard_plugins().await;
    let attempt = Attempt {
        request_id: "r1".to_owned(),
        caller: caller(),
        provider: "openai".to_owned(),
        model: "m".to_owned(),
    };
    let before = gateway.version("byok").credential_for(&attempt).await.unwrap().unwrap();
    assert!(matches!(before, Credential::Platform));
    let new = json!({ "tenant": "team", "provider": "openai", "key": KEY }).to_string();
    let (status, stored) = gateway.operator("byok", "PUT", "/api/v1/byok/keys", new).await;
    assert_eq!(
        (status, &stored["hint"], &stored["handle"]),
        (201, &json!("1234"), &json!("byok/team/openai"))
    );
    let after = gateway.version("byok").credential_for(&attempt).await.unwrap().unwrap();
    assert!(matches!(after, Credential::Secret(handle) if handle == "byok/team/openai"));
    let (_, listed) = gateway.operator("byok", "GET", "/api/v1/byok/keys", "").await;
    assert!(!listed.to_string().contains(KEY));
    let (status, _) = gateway.operator("byok", "DELETE", "/api/v1/byok/keys/openai?tenant=team", "").await;
    assert_eq!(status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_puts_resting_candidates_last() {
    let gateway = Gateway::with_standard_plugins().await;
    let planned = gateway.version("fallback").plan(&request(None, true)).await.unwrap().unwrap();
    assert_eq!(planned, [1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_shows_and_loads_plugins() {
    let gateway = Gateway::with_standard_plugins().await;
    let (status, plugins) = gateway.operator("admin", "GET", "/api/v1/plugins", "").await;
    assert_eq!(status, 200, "{plugins}");
    let (status, problem) =
        gateway.operator("admin", "POST", "/api/v1/plugins/fallback/versions", "not wasm").await;
    assert_eq!((status, &problem["request_id"]), (422, &json!("r1")));
    let next = crate::plugin::embedded("fallback").unwrap();
    // The same behaviour under another digest: an empty custom section is added.
    let next = [next, &[0, 2, 1, b'x']].concat();
    let (status, loaded) = gateway.operator("admin", "POST", "/api/v1/plugins/fallback/versions", next).await;
    assert_eq!((status, &loaded["version"]), (201, &json!(2)), "{loaded}");
    assert_eq!(gateway.operator("admin", "POST", "/api/v1/plugins/none/versions", "x").await.0, 404);
}
