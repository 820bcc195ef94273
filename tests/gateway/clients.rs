//! The official Python packages against the gateway and against the fakes.

use std::{path::Path, process::Command};

use serde_json::json;
use tollgate_fakes::{Answer, Provider};

use crate::harness::{
    CALLER_KEY, Gateway,
    llm::{llm_with, outside},
};

/// The interpreter that `cargo xtask test` prepares.
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("TOLLGATE_CLIENT_PYTHON").ok();
    if python.is_none() {
        eprintln!("SKIPPED: no Python with the client packages; cargo xtask test prepares one");
    }
    python
}

pub(crate) async fn passes(python: String, script: &str, environment: Vec<(&'static str, String)>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let run = move || Command::new(python).arg(script).envs(environment).output();
    let output = tokio::task::spawn_blocking(run).await.expect("the thread ends").expect("python runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(" passed, 0 failed"), "{text}");
}

#[tokio::test]
async fn the_openai_package_works_against_the_gateway() {
    let Some(python) = python() else { return };
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let (throttled, failing) = (Provider::flaky().await, Provider::openai().await);
    for _ in 0..16 {
        failing
            .next(Answer::status(500).json(&json!({"error": {"message": "boom", "type": "server_error"}})));
    }
    let gateway = Gateway::given(llm_with(
        &openai,
        &anthropic,
        json!({"services": {"llm": {"llm": {
            "providers": {
                "throttled": {"api": "openai", "url": throttled.url(), "key": outside("sk-x")},
                "failing": {"api": "openai", "url": failing.url(), "key": outside("sk-x")},
            },
            "models": {
                "throttled": {"provider": "throttled", "name": "m", "price": {"input": "1", "output": "1"}},
                "failing": {"provider": "failing", "name": "m", "price": {"input": "1", "output": "1"}},
            },
        }}}}),
    ))
    .await;

    let url = format!("http://{}/v1", gateway.address("web"));
    passes(python, "test_openai.py", vec![("BASE_URL", url), ("API_KEY", CALLER_KEY.to_owned())]).await;
}

#[tokio::test]
async fn the_anthropic_package_understands_the_replayed_provider() {
    let Some(python) = python() else { return };
    let anthropic = Provider::anthropic().await;

    passes(python, "test_anthropic.py", vec![("BASE_URL", format!("http://{}", anthropic.address()))]).await;
}
