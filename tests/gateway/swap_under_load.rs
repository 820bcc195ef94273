//! Twenty plugin swaps and twenty configuration edits under load, with nothing lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::tungstenite::Message;
use tollgate_fakes::Origin;

use crate::harness::{Client, Gateway, eventually, gateway::until_answers, guests::header_filter};

const SWAPS: usize = 20;
/// Requests served between two swaps.
const PER_ROUND: u64 = 100;
const CLIENTS: usize = 8;
const STREAMS: usize = 10;
/// Between two requests of one client: hundreds per second in all, and the rest
/// of the machine still breathes.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicU64,
    messages: AtomicU64,
}

impl Load {
    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn nothing_is_lost_while_plugins_and_configuration_are_swapped() {
    let origin = Origin::start("alpha").await;
    let mut gateway = loaded_gateway(&origin).await;
    let load = Arc::new(Load::default());
    let tasks = start(&load, gateway.address("web"));
    let started = Instant::now();

    let versions = [header_filter("1"), header_filter("2")].map(|path| std::fs::read(path).unwrap());
    for round in 0..SWAPS {
        let upload = gateway.admin("POST", "/api/v1/plugins/mine/versions");
        let upload = upload.header("content-type", "application/wasm");
        upload.body(versions[(round + 1) % 2].clone()).send().await.expect(201);
        let path = format!("/round/{round}");
        gateway.edit_config(|config| {
            config["routes"]["round"] =
                json!({"rule": format!("Path(`{path}`)"), "priority": 1000, "service": "echo"});
        });
        until_answers(&gateway, &path, 200).await;
        // However slow the machine, each swap and edit has its share of the load.
        let served = load.served.load(Ordering::Relaxed);
        let enough = || (load.served.load(Ordering::Relaxed) >= served + PER_ROUND).then_some(());
        eventually("requests after the swap", enough).await;
    }

    load.stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    let rate = load.served.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    eprintln!("{rate:.0} requests per second while everything was swapped");
    assert!(load.messages.load(Ordering::Relaxed) > 0);
}

/// Paths under `/round/` are unknown until an edit adds them, all else passes the plugin.
async fn loaded_gateway(origin: &Origin) -> Gateway {
    Gateway::given(json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "plugins": {
            "mine": {"module": header_filter("1")},
            "admin": {"grants": {"log": true, "control": ["read", "load-plugin"]}},
        },
        "routes": {"load": {"rule": "PathPrefix(`/load`)", "chain": ["plugin:mine"], "service": "echo"}},
    }))
    .await
}

/// Every task panics at the first failure, which fails the test when it is joined.
fn start(load: &Arc<Load>, address: SocketAddr) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        tasks.spawn(requests(load.clone(), address));
    }
    for _ in 0..STREAMS {
        tasks.spawn(events(load.clone(), address));
        tasks.spawn(messages(load.clone(), address));
    }
    tasks
}

async fn requests(load: Arc<Load>, address: SocketAddr) {
    let stream = TcpStream::connect(address).await.expect("the port is open");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("a connection");
    tokio::spawn(connection);
    while load.runs() {
        sender.ready().await.expect("the connection stays open");
        let request = Request::get("/load/x").header("host", "test").body(Full::<&[u8]>::default());
        let response = sender.send_request(request.expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("x-plugin-version"), "the plugin was left out");
        response.into_body().collect().await.expect("a whole body");
        load.served.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

/// One long stream after the other; each must end complete.
async fn events(load: Arc<Load>, address: SocketAddr) {
    while load.runs() {
        let stream = Client::new(address, "GET", "/load/sse?n=40&every=50").stream().await;
        assert_eq!(stream.events().await.len(), 40);
    }
}

async fn messages(load: Arc<Load>, address: SocketAddr) {
    let url = format!("ws://{address}/load/ws");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("an upgrade");
    while load.runs() {
        socket.send(Message::text("ping")).await.expect("the socket stays open");
        let echoed = socket.next().await.expect("an answer").expect("the socket stays open");
        assert_eq!(echoed, Message::text("ping"));
        load.messages.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE * 5).await;
    }
    socket.close(None).await.expect("the socket stays open");
}
