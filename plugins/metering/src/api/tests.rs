//! Who may see and change what.

use serde_json::{Value, json};
use tollgate_sdk::{http::ResponseBody, testing::MemoryLedger};

use super::*;

fn operator(method: &str, target: &str) -> Request {
    Request::new(method, target)
        .with_header("tollgate-role", "operator")
        .with_header("tollgate-request-id", "r1")
}

fn caller(method: &str, target: &str) -> Request {
    Request::new(method, target).with_header("tollgate-role", "caller").with_header("tollgate-tenant", "team")
}

fn ledger() -> MemoryLedger {
    MemoryLedger::default().with_balance("team", 10_000_000_000, 1, 2).with_balance("other", 5, 0, 0)
}

fn ask(request: Request, ledger: &MemoryLedger) -> (u16, Value) {
    let response = serve(request, ledger);
    let ResponseBody::Whole(body) = response.body else { panic!("expected a whole body") };
    (response.status, serde_json::from_slice(&body).unwrap())
}

fn row(account: &str) -> UsageRow {
    UsageRow {
        request_id: "r1".to_owned(),
        unix_ms: 7,
        account: account.to_owned(),
        caller: "k1".to_owned(),
        route: "llm".to_owned(),
        model: "demo".to_owned(),
        provider: "openai".to_owned(),
        input_tokens: 10,
        output_tokens: 5,
        cost_nano_usd: None,
        amount_nano_usd: 1_500,
        ending: "complete".to_owned(),
        attempts: 1,
    }
}

#[test]
fn an_operator_sees_all_accounts() {
    let (status, body) = ask(operator("GET", "/api/v1/credits"), &ledger());
    assert_eq!(status, 200);
    assert_eq!(body["accounts"].as_array().unwrap().len(), 2);
    let team = json!({
        "account": "team", "credited_usd": "10.000000000", "spent_usd": "0.000000001",
        "held_usd": "0.000000002", "available_usd": "9.999999997",
    });
    assert_eq!(body["accounts"][1], team);
}

#[test]
fn a_caller_sees_only_its_own() {
    let (status, body) = ask(caller("GET", "/credits"), &ledger());
    assert_eq!((status, body["accounts"].as_array().unwrap().len()), (200, 1));
    assert_eq!(body["accounts"][0]["account"], "team");
    assert_eq!(ask(caller("GET", "/credits/team"), &ledger()).0, 200);
    assert_eq!(ask(caller("GET", "/credits/other"), &ledger()).0, 403);
    assert_eq!(ask(caller("GET", "/usage?account=other"), &ledger()).0, 403);
    assert_eq!(ask(Request::new("GET", "/credits"), &ledger()).0, 403);
    let nameless = Request::new("GET", "/credits").with_header("tollgate-role", "caller");
    assert_eq!(ask(nameless, &ledger()).0, 403);
}

#[test]
fn a_credit_is_added_once() {
    let ledger = ledger();
    let post = || {
        operator("POST", "/api/v1/credits/new%20team")
            .with_body(r#"{"id":"c1","amount_usd":"2.50","note":"welcome"}"#)
    };
    let (status, body) = ask(post(), &ledger);
    assert_eq!((status, &body["added"], &body["available_usd"]), (201, &json!(true), &json!("2.500000000")));
    assert_eq!(body["account"], "new team");
    let (status, body) = ask(post(), &ledger);
    assert_eq!((status, &body["added"], &body["available_usd"]), (200, &json!(false), &json!("2.500000000")));
}

#[test]
fn only_operators_add_credit_and_only_well_formed() {
    let good = r#"{"id":"c1","amount_usd":"2.50"}"#;
    assert_eq!(ask(caller("POST", "/credits/team").with_body(good), &ledger()).0, 403);
    for bad in [
        "",
        "{}",
        r#"{"id":"","amount_usd":"1"}"#,
        r#"{"id":"c1","amount_usd":"-1"}"#,
        r#"{"id":"c1","amount_usd":"1","currency":"EUR"}"#,
    ] {
        assert_eq!(ask(operator("POST", "/credits/team").with_body(bad), &ledger()).0, 400, "{bad}");
    }
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    assert_eq!(ask(operator("POST", "/credits/team").with_body(large), &ledger()).0, 413);
}

#[test]
fn usage_is_filtered_and_limited() {
    let ledger = MemoryLedger { rows: vec![row("team"), row("other"), row("team")], ..ledger() };
    assert_eq!(ask(operator("GET", "/usage"), &ledger).1["usage"].as_array().unwrap().len(), 3);
    assert_eq!(ask(operator("GET", "/usage?account=other"), &ledger).1["usage"].as_array().unwrap().len(), 1);
    let (_, body) = ask(caller("GET", "/usage?limit=1"), &ledger);
    assert_eq!(body["usage"].as_array().unwrap().len(), 1);
    assert_eq!(body["usage"][0]["amount_usd"], "0.000001500");
    assert_eq!(body["usage"][0]["cost_usd"], Value::Null);
    for bad in ["0", "1001", "x"] {
        assert_eq!(ask(operator("GET", &format!("/usage?limit={bad}")), &ledger).0, 400, "{bad}");
    }
}

#[test]
fn errors_are_problem_documents() {
    let response = serve(operator("DELETE", "/credits"), &ledger());
    assert!(response.headers.contains(&("allow".to_owned(), "GET".to_owned())));
    assert!(response.headers.contains(&("content-type".to_owned(), "application/problem+json".to_owned())));
    let (status, body) = ask(operator("GET", "/nothing"), &ledger());
    assert_eq!(
        (status, &body["type"], &body["request_id"]),
        (404, &json!("urn:tollgate:problem:not-found"), &json!("r1"))
    );
    let broken = MemoryLedger { failure: Some(LedgerError::Unavailable), ..MemoryLedger::default() };
    assert_eq!(ask(operator("GET", "/credits"), &broken).0, 503);
}
