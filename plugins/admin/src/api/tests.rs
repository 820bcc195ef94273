//! Operators only, and each refusal with its own status.

use serde_json::Value;
use tollgate_sdk::{http::ResponseBody, testing::MemoryControl};

use super::*;

fn operator(method: &str, target: &str) -> Request {
    Request::new(method, target).with_header("tollgate-role", "operator")
}

fn upload(name: &str) -> Request {
    operator("POST", &format!("/api/v1/plugins/{name}/versions"))
        .with_header("content-type", "application/wasm")
}

fn ask(request: Request, control: &MemoryControl) -> (u16, Value) {
    let response = serve(request, control);
    let ResponseBody::Whole(body) = response.body else { panic!("expected a whole body") };
    (response.status, serde_json::from_slice(&body).unwrap())
}

#[test]
fn documents_are_passed_on() {
    for what in ["routes", "services", "plugins"] {
        let (status, body) = ask(operator("GET", &format!("/api/v1/{what}")), &MemoryControl::default());
        assert_eq!(status, 200);
        assert!(body[what].is_array());
    }
    let (status, body) = ask(operator("GET", "/api/v1/"), &MemoryControl::default());
    assert_eq!(status, 200);
    assert!(body["endpoints"].as_array().unwrap().len() > 10);
}

#[test]
fn only_operators_are_answered() {
    let control = MemoryControl::default();
    assert_eq!(ask(Request::new("GET", "/api/v1/routes"), &control).0, 403);
    let caller = Request::new("POST", "/api/v1/plugins/a/versions")
        .with_header("tollgate-role", "caller")
        .with_header("content-type", "application/wasm");
    assert_eq!(ask(caller, &control).0, 403);
    assert!(control.loaded.borrow().is_empty());
}

#[test]
fn a_version_is_loaded() {
    let control = MemoryControl::default();
    let (status, body) = ask(upload("metering").with_body(vec![0; 70_000]), &control);
    assert_eq!((status, body["version"].as_u64()), (201, Some(2)));
    assert_eq!(*control.loaded.borrow(), [("metering".to_owned(), 70_000)]);
}

#[test]
fn refused_loads_say_why() {
    let cases = [
        (ControlError::NotFound, 404),
        (ControlError::Invalid("imports ledger, which is not granted".to_owned()), 422),
        (ControlError::Denied, 403),
        (ControlError::Unavailable("busy".to_owned()), 503),
    ];
    for (failure, expected) in cases {
        let control = MemoryControl { failure: Some(failure), ..MemoryControl::default() };
        assert_eq!(ask(upload("a").with_body("x"), &control).0, expected);
    }
    let control = MemoryControl {
        failure: Some(ControlError::Invalid("imports ledger".to_owned())),
        ..MemoryControl::default()
    };
    assert_eq!(ask(upload("a").with_body("x"), &control).1["detail"], "imports ledger");
}

#[test]
fn only_components_of_bounded_size_are_read() {
    let control = MemoryControl::default();
    let plain = operator("POST", "/api/v1/plugins/a/versions").with_header("content-type", "text/plain");
    assert_eq!(ask(plain, &control).0, 415);
    assert_eq!(ask(operator("POST", "/api/v1/plugins/a/versions"), &control).0, 415);
    assert_eq!(ask(upload("a").with_body(vec![0; MAX_COMPONENT_BYTES + 1]), &control).0, 413);
    assert!(control.loaded.borrow().is_empty());
}

#[test]
fn other_methods_and_paths_are_told_apart() {
    let control = MemoryControl::default();
    assert_eq!(ask(operator("DELETE", "/api/v1/routes"), &control).0, 405);
    assert_eq!(ask(operator("GET", "/api/v1/plugins/a/versions"), &control).0, 405);
    assert_eq!(ask(operator("GET", "/api/v1/nothing"), &control).0, 404);
    assert_eq!(ask(operator("GET", "/api/v10/routes"), &control).0, 404);
}
