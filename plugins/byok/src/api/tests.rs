//! Keys go in and never come out; nobody reaches another tenant's.

use tollgate_sdk::{http::ResponseBody, testing::MemorySecrets};

use super::*;

const KEY: &str = "sk-secret-value-1234";

fn operator(method: &str, target: &str) -> Request {
    Request::new(method, target).with_header("tollgate-role", "operator")
}

fn caller(method: &str, target: &str) -> Request {
    Request::new(method, target).with_header("tollgate-role", "caller").with_header("tollgate-tenant", "team")
}

fn ask(request: Request, secrets: &MemorySecrets) -> (u16, String) {
    let response = serve(request, secrets);
    let ResponseBody::Whole(body) = response.body else { panic!("expected a whole body") };
    (response.status, String::from_utf8(body).unwrap())
}

fn body(tenant: &str, provider: &str, key: &str) -> String {
    format!(r#"{{"tenant":"{tenant}","provider":"{provider}","key":"{key}"}}"#)
}

#[test]
fn a_caller_stores_lists_and_removes_its_key() {
    let secrets = MemorySecrets::default();
    let new = format!(r#"{{"provider":"openai","key":"{KEY}"}}"#);
    let (status, stored) = ask(caller("PUT", "/api/v1/byok/keys").with_body(new), &secrets);
    assert_eq!(status, 201);
    assert!(stored.contains(r#""handle":"byok/team/openai""#) && stored.contains(r#""hint":"1234""#));
    let (status, listed) = ask(caller("GET", "/byok/keys"), &secrets);
    assert_eq!(status, 200);
    assert!(listed.contains("byok/team/openai"));
    assert!(!stored.contains(KEY) && !listed.contains(KEY));
    assert_eq!(secrets.values.borrow()["byok/team/openai"], KEY);
    assert_eq!(ask(caller("DELETE", "/byok/keys/openai"), &secrets).0, 204);
    assert_eq!(ask(caller("DELETE", "/byok/keys/openai"), &secrets).0, 404);
}

#[test]
fn an_operator_names_the_tenant() {
    let secrets = MemorySecrets::default();
    for tenant in ["team", "other"] {
        let request = operator("POST", "/byok/keys").with_body(body(tenant, "openai", KEY));
        assert_eq!(ask(request, &secrets).0, 201);
    }
    let nameless = format!(r#"{{"provider":"openai","key":"{KEY}"}}"#);
    assert_eq!(ask(operator("POST", "/byok/keys").with_body(nameless), &secrets).0, 400);
    assert!(ask(operator("GET", "/byok/keys"), &secrets).1.contains("byok/other/openai"));
    assert!(!ask(operator("GET", "/byok/keys?tenant=team"), &secrets).1.contains("other"));
    assert_eq!(ask(operator("DELETE", "/byok/keys/openai"), &secrets).0, 400);
    assert_eq!(ask(operator("DELETE", "/byok/keys/openai?tenant=other"), &secrets).0, 204);
}

#[test]
fn a_caller_never_reaches_another_tenant() {
    let secrets = MemorySecrets::default();
    secrets.seal(SCOPE, "other", "openai", KEY).unwrap();
    assert!(!ask(caller("GET", "/byok/keys"), &secrets).1.contains("other"));
    assert_eq!(ask(caller("GET", "/byok/keys?tenant=other"), &secrets).0, 403);
    let foreign = caller("PUT", "/byok/keys").with_body(body("other", "openai", KEY));
    assert_eq!(ask(foreign, &secrets).0, 403);
    assert_eq!(ask(caller("DELETE", "/byok/keys/openai?tenant=other"), &secrets).0, 403);
    assert_eq!(ask(Request::new("GET", "/byok/keys"), &secrets).0, 403);
    assert_eq!(secrets.values.borrow().len(), 1);
}

#[test]
fn names_and_keys_are_checked() {
    let secrets = MemorySecrets::default();
    let long = "k".repeat(4097);
    for bad in [
        body("team", "../other", KEY),
        body("team", "", KEY),
        body("team/x", "openai", KEY),
        body("team", "openai", "short"),
        body("team", "openai", "has a space in it"),
        body("team", "openai", "k\\u00e4seschl\\u00fcssel"),
        body("team", "openai", &long),
    ] {
        assert_eq!(ask(operator("PUT", "/byok/keys").with_body(bad.as_str()), &secrets).0, 400, "{bad}");
    }
    assert!(secrets.values.borrow().is_empty());
}

#[test]
fn a_refusal_never_quotes_the_key() {
    let secrets = MemorySecrets::default();
    for bad in [format!(r#"{{"key":"{KEY}" oops"#), format!(r#"{{"{KEY}":1}}"#), format!("\"{KEY}\"")] {
        let (status, answer) = ask(operator("PUT", "/byok/keys").with_body(bad), &secrets);
        assert_eq!(status, 400);
        assert!(!answer.contains(KEY));
    }
}
