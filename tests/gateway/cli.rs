//! The command line and its exit codes.

use std::process::Output;

use serde_json::json;

use crate::harness::{Gateway, gateway::binary};

async fn run(arguments: &[&str]) -> Output {
    binary().args(arguments).output().await.expect("the binary starts")
}

#[tokio::test]
async fn alone_it_prints_help() {
    let output = run(&[]).await;

    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(help.contains("check") && help.contains("run"), "{help}");
}

#[tokio::test]
async fn bad_usage_exits_with_2() {
    assert_eq!(run(&["no-such-command"]).await.status.code(), Some(2));
    assert_eq!(run(&["run"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn check_accepts_a_good_file_and_names_every_problem_of_a_bad_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    let path = file.to_str().unwrap();

    std::fs::write(&file, "version: 1\nentrypoints:\n  web: { address: \"127.0.0.1:0\" }\n").unwrap();
    assert_eq!(run(&["check", path]).await.status.code(), Some(0));

    let routes = "routes:\n  a: { rule: \"Path(`/a`)\", service: nowhere }\n  b: { rule: \"Path(`/b`)\", service: gone }\n";
    std::fs::write(&file, format!("version: 1\n{routes}")).unwrap();
    let told = refusal(path).await;
    for problem in ["nowhere", "gone", "gateway.yaml:3", "gateway.yaml:4"] {
        assert!(told.contains(problem), "{problem} is not told: {told}");
    }
}

#[tokio::test]
async fn check_refuses_a_rule_that_does_not_parse() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    let service = "services: { echo: { targets: [{ url: \"http://127.0.0.1:1\" }] } }";
    let route = "routes: { odd: { rule: \"Bad(`x`)\", service: echo } }";
    std::fs::write(&file, format!("version: 1\n{service}\n{route}\n")).unwrap();

    let told = refusal(file.to_str().unwrap()).await;

    assert!(told.contains("odd") && told.contains("Bad"), "{told}");
}

#[tokio::test]
async fn check_refuses_routes_between_which_nobody_could_say_who_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    let service = "services: { echo: { targets: [{ url: \"http://127.0.0.1:1\" }] } }";
    let routes = "routes:\n  one: { rule: \"Host(`a.x`)\", priority: 5, service: echo }\n  \
                  two: { rule: \"PathPrefix(`/a`)\", priority: 5, service: echo }";
    std::fs::write(&file, format!("version: 1\n{service}\n{routes}\n")).unwrap();

    let told = refusal(file.to_str().unwrap()).await;

    assert!(told.contains("one") && told.contains("two") && told.contains("priority 5"), "{told}");
}

#[tokio::test]
async fn explain_names_the_route_its_service_and_what_came_close() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    let config = "version: 1
entrypoints: { web: { address: \"127.0.0.1:0\" } }
services: { items: { targets: [{ url: \"http://10.0.0.1:9000\" }] } }
middlewares: { ids: { request_id: {} } }
routes:
  write: { rule: \"Host(`a.x`) && PathPrefix(`/v2`) && Method(`POST`)\", service: items }
  read: { rule: \"Host(`a.x`) && PathPrefix(`/v2`)\", strip_path: /v2, chain: [ids], service: items }
";
    std::fs::write(&file, config).unwrap();
    let path = file.to_str().unwrap();

    let output = run(&["explain", "--config", path, "GET", "http://a.x/v2/list"]).await;

    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let parts =
        ["route read", "ids (request_id)", "/list to one of 10.0.0.1:9000", "write, but not Method(`POST`)"];
    for part in parts {
        assert!(told.contains(part), "{part} is not told: {told}");
    }

    let nowhere = run(&["explain", "--config", path, "GET", "http://b.x/"]).await;
    assert!(String::from_utf8_lossy(&nowhere.stdout).contains("no route: 404"), "{nowhere:?}");
    assert_eq!(run(&["explain", "--config", path, "GET", "nonsense"]).await.status.code(), Some(2));
}

/// What `check` says about a file that it refuses.
async fn refusal(path: &str) -> String {
    let output = run(&["check", path]).await;
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{text}");
    text
}

#[tokio::test]
async fn a_missing_file_is_told() {
    let output = run(&["check", "/nonexistent/gateway.yaml"]).await;

    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/gateway.yaml"));
}

#[tokio::test]
async fn a_bad_configuration_does_not_start() {
    let refused =
        Gateway::refused(json!({"routes": {"a": {"rule": "Path(`/a`)", "service": "nowhere"}}})).await;

    assert_eq!(refused.code, Some(2));
    assert!(refused.output.contains("nowhere"), "{}", refused.output);
}

#[tokio::test]
async fn a_taken_port_is_a_failure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let refused = Gateway::refused(json!({"entrypoints": {"web": {"address": address}}})).await;

    assert_eq!(refused.code, Some(1));
    assert!(refused.output.contains(&address), "{}", refused.output);
}
