//! HTTP/1 on a plaintext entrypoint: pass through, keep alive, refuse.

use std::time::Duration;

use super::world::{Raw, World, plain};
use crate::config::entrypoint::Timeouts;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_passes_and_the_relay_knows_where_it_came_in() {
    let world = World::plain().await;
    let mut client = Raw::connect(world.address("web")).await;
    client.say(GET).await;
    let answer = client.hear("GET /a ").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-entrypoint: web\r\n"), "{answer}");
    let own = format!("\r\nx-peer: {}\r\n", client.0.local_addr().unwrap());
    assert!(answer.contains(&own), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_requests_with_and_without_bodies() {
    let world = World::plain().await;
    let mut client = Raw::connect(world.address("web")).await;
    let body = "x".repeat(100_000);
    for _ in 0..2 {
        client.say(GET).await;
        client.hear("GET /a ").await;
        client
            .say(format!("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        client.hear(&format!("POST /b {body}")).await;
        client
            .say("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .await;
        client.hear("POST /c abc").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let world = World::plain().await;
    let mut client = Raw::connect(world.address("web")).await;
    client.say("PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await;
    assert!(client.hear("\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    client.say("abc").await;
    // The engine ends a connection that it told to go on.
    assert!(client.rest().await.ends_with("PUT /a abc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_checked() {
    let world = World::plain().await;
    let mut client = Raw::connect(world.address("web")).await;
    let post = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    client.say(format!("{GET}{post}{GET}TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    client.hear("GET /a ").await;
    client.hear("POST /b abc").await;
    client.hear("GET /a ").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_are_refused_with_a_problem_and_the_connection_closed() {
    let world = World::plain().await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(5000));
    let endless = format!("GET /{}", "y".repeat(5000));
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (&long, 431),
        (&endless, 414),
    ];
    for (head, status) in cases {
        let mut client = Raw::connect(world.address("web")).await;
        client.say(head).await;
        let answer = client.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:.40}: {answer}");
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
        assert!(answer.contains(&format!("\"status\":{status}")), "{answer}");
        world.events.wait_for(&format!("refused web {status}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_request_passes_the_same_checks() {
    let world = World::plain().await;
    let mut client = Raw::connect(world.address("web")).await;
    client.say(GET).await;
    client.hear("GET /a ").await;
    client.say("\r\nGET / HTTP/1.1\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_answered_with_408() {
    let world = World::new().await;
    let mut entrypoint = plain();
    entrypoint.timeouts = Timeouts { header: Duration::from_millis(200), ..entrypoint.timeouts };
    world.open(&[("web", entrypoint)]).await;
    let mut client = Raw::connect(world.address("web")).await;
    client.say("GET / HTTP/1.1\r\nHost:").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_without_a_word() {
    let world = World::new().await;
    let mut entrypoint = plain();
    entrypoint.timeouts = Timeouts { idle: Duration::from_millis(100), ..entrypoint.timeouts };
    world.open(&[("web", entrypoint)]).await;
    let mut client = Raw::connect(world.address("web")).await;
    client.say(GET).await;
    client.hear("GET /a ").await;
    assert_eq!(client.rest().await, "");
}
