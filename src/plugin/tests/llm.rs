//! The hooks of an LLM request.

use crate::plugin::{
    PluginFault,
    api::{
        AdmissionVerdict, Attempt, Caller, Candidate, Credential, Ending, FailedAttempt, FailureClass,
        LlmRequest, NextStep, Outcome, RefusalReason, Usage,
    },
};

use super::support::{Bench, plugin};

fn caller() -> Caller {
    Caller { id: "ann".to_owned(), tenant: "acme".to_owned(), tier: String::new() }
}

fn candidate(provider: &str) -> Candidate {
    Candidate {
        provider: provider.to_owned(),
        model: "m".to_owned(),
        price: None,
        max_output_tokens: None,
        cooling: false,
    }
}

fn request(model: &str) -> LlmRequest {
    LlmRequest {
        request_id: "r1".to_owned(),
        caller: caller(),
        route: "llm".to_owned(),
        model: model.to_owned(),
        stream: false,
        estimated_input_tokens: 42,
        max_output_tokens: Some(100),
        candidates: vec![candidate("one"), candidate("two")],
        unix_ms: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_holds_waives_or_refuses() {
    let bench = Bench::with(plugin()).await;
    let version = bench.version();
    match version.admit(&request("usual")).await.unwrap() {
        AdmissionVerdict::Hold(hold) => {
            assert_eq!((hold.account.as_str(), hold.amount_nano_usd), ("acme", 42));
            assert_eq!(hold.max_output_tokens, Some(7));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(version.admit(&request("free")).await, Ok(AdmissionVerdict::Unmetered)));
    let refused = version.admit(&request("dear")).await.unwrap();
    assert!(
        matches!(refused, AdmissionVerdict::Refuse(refusal) if refusal.reason == RefusalReason::Forbidden)
    );
    assert_eq!(version.admit(&request("trap")).await.unwrap_err(), PluginFault::Trapped);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planner_orders_and_goes_on() {
    let bench = Bench::with(plugin()).await;
    let version = bench.version();
    assert_eq!(version.plan(&request("usual")).await.unwrap().unwrap(), [1, 0]);
    assert!(version.plan(&request("unplanned")).await.unwrap().is_err());
    assert!(matches!(version.plan(&request("astray")).await, Err(PluginFault::Invalid(_))));

    let failure = FailedAttempt {
        candidate: 1,
        class: FailureClass::Throttled,
        status: 429,
        retry_after_ms: Some(1),
        elapsed_ms: 1,
    };
    let mut failed = vec![failure];
    let request = request("usual");
    assert!(matches!(version.after_failure(&request, &failed).await, Ok(NextStep::Attempt(0))));
    failed.push(failure);
    assert!(matches!(version.after_failure(&request, &failed).await, Ok(NextStep::AttemptAfter((1, 250)))));
    failed.push(failure);
    assert!(matches!(version.after_failure(&request, &failed).await, Ok(NextStep::GiveUp)));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_named_not_shown() {
    let bench = Bench::with(plugin()).await;
    let version = bench.version();
    let attempt = |provider: &str| Attempt {
        request_id: "r1".to_owned(),
        caller: caller(),
        provider: provider.to_owned(),
        model: "m".to_owned(),
    };
    let own = version.credential_for(&attempt("own")).await.unwrap().unwrap();
    assert!(matches!(own, Credential::Secret(handle) if handle == "byok/acme/own"));
    let usual = version.credential_for(&attempt("usual")).await.unwrap().unwrap();
    assert!(matches!(usual, Credential::Platform));
    assert!(version.credential_for(&attempt("none")).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settlement_books_what_the_plugin_says() {
    let bench = Bench::with(plugin()).await;
    let outcome = Outcome {
        ending: Ending::Complete,
        provider: Some("one".to_owned()),
        model: Some("m".to_owned()),
        price: None,
        usage: Usage {
            input: 1,
            input_cache_read: 0,
            input_cache_write: 0,
            output: 5,
            output_reasoning: 0,
            reported: true,
        },
        attempts: 1,
        own_key: false,
        held_nano_usd: 42,
        cost_nano_usd: Some(10),
    };
    let booking = bench.version().settle(&request("usual"), &outcome).await.unwrap();
    assert_eq!((booking.account.as_str(), booking.amount_nano_usd), ("acme", 15));
    assert_eq!(booking.tags, [("model".to_owned(), "usual".to_owned())]);
}
