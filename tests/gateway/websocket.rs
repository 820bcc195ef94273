//! WebSocket through a real client library: sockets that live through reloads,
//! that rest for too long, and upgrades that are none.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future::try_join_all};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};
use tollgate_fakes::Origin;

use crate::harness::{
    Gateway,
    gateway::{lay_over, until_answers},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PATIENCE: Duration = Duration::from_secs(30);

fn through(origin: &Origin, service: &serde_json::Value) -> serde_json::Value {
    let mut config = json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    });
    lay_over(&mut config["services"]["echo"], service.clone());
    config
}

async fn open(gateway: &Gateway) -> anyhow::Result<Socket> {
    Ok(connect_async(format!("ws://{}/echo/ws", gateway.address("web"))).await?.0)
}

async fn echoes(socket: &mut Socket, text: &str) -> anyhow::Result<()> {
    socket.send(Message::text(text)).await?;
    let answer = tokio::time::timeout(PATIENCE, socket.next()).await?;
    let answer = answer.ok_or_else(|| anyhow::anyhow!("the socket is closed"))??;
    anyhow::ensure!(answer.to_text()? == text, "another message came back");
    Ok(())
}

#[tokio::test]
async fn two_hundred_sockets_live_through_twenty_reloads() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(through(&origin, &json!({}))).await;
    let mut sockets = try_join_all((0..200).map(|_| open(&gateway))).await.expect("200 upgrades");

    for reload in 0..20 {
        gateway.edit_config(|config| {
            config["services"]["echo"]["timeouts"] = json!({"first_byte": format!("{}s", 31 + reload)});
            config["routes"]["marker"] = json!({
                "rule": format!("Path(`/reloaded/{reload}`)"), "priority": 1000, "service": "marker",
            });
            config["services"]["marker"] = json!({"targets": [{"url": "http://127.0.0.1:1"}]});
        });
        until_answers(&gateway, &format!("/reloaded/{reload}"), 502).await;
        let text = format!("round {reload}");
        try_join_all(sockets.iter_mut().map(|socket| echoes(socket, &text)))
            .await
            .expect("every socket is alive");
    }
}

#[tokio::test]
async fn a_socket_that_rests_longer_than_the_service_allows_is_closed() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(through(&origin, &json!({"timeouts": {"idle": "500ms"}}))).await;
    let mut socket = open(&gateway).await.expect("an upgrade");
    echoes(&mut socket, "hello").await.expect("an open socket");

    let end = tokio::time::timeout(PATIENCE, socket.next()).await.expect("the gateway closes it");

    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn a_socket_opens_where_ordinary_requests_use_http2() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(through(&origin, &json!({"protocol": "h2"}))).await;

    echoes(&mut open(&gateway).await.expect("an upgrade"), "hello").await.expect("an open socket");

    assert_eq!(gateway.get("/").await.expect(200).json()["version"], "HTTP/2.0");
}

#[tokio::test]
async fn other_upgrades_are_not_taken_up() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(through(&origin, &json!({}))).await;

    for protocol in ["h2c", "TLS/1.0", "tunnel"] {
        let request = gateway.request("GET", "/").header("connection", "upgrade, HTTP2-Settings");
        let request = request.header("upgrade", protocol).header("http2-settings", "AAMAAABkAAQAAP__");
        let seen = request.send().await.expect(200).json();
        assert_eq!(seen["headers"]["upgrade"], json!(null), "{protocol}");
        assert_eq!(seen["headers"]["http2-settings"], json!(null), "{protocol}");
    }
}
