//! One process takes over from another, and nobody notices.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::process::{Signal, test_kill_process};
use serde_json::{Value, json};
use tokio::{net::TcpStream, process::Command, task::JoinSet};
use tokio_tungstenite::tungstenite::Message;
use tollgate_fakes::{Answer, Origin, Provider};

use crate::harness::{
    Gateway, eventually, eventually_asking,
    llm::{ask, ask_streamed, llm_with},
};

const CLIENTS: u64 = 20;
/// Each client's requests per second: half on connections that are kept, half
/// on new ones.
const EACH: u64 = 50;
const FOR: Duration = Duration::from_secs(4);

fn echo(origin: &Origin) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"load": {"rule": "PathPrefix(`/load`)", "service": "echo"}},
    })
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicU64,
}

type Kept = SendRequest<Full<&'static [u8]>>;

async fn connect(address: SocketAddr) -> Kept {
    let stream = TcpStream::connect(address).await.expect("the port is open");
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

/// Panics at the first failure. A connection is used again unless its last
/// answer said that it closes.
async fn requests(load: Arc<Load>, address: SocketAddr, keep: bool) {
    let mut kept: Option<Kept> = None;
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / EACH));
    while !load.stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let mut sender = match kept.take() {
            Some(sender) => sender,
            None => connect(address).await,
        };
        sender.ready().await.expect("the connection stays open");
        let request = Request::get("/load/x").header("host", "test").body(Full::default()).unwrap();
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let closes = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        response.into_body().collect().await.expect("a whole body");
        load.served.fetch_add(1, Ordering::Relaxed);
        kept = (keep && !closes).then_some(sender);
    }
}

fn start(address: SocketAddr) -> (Arc<Load>, JoinSet<()>) {
    let load = Arc::<Load>::default();
    let tasks = (0..CLIENTS).map(|client| requests(load.clone(), address, client % 2 == 0)).collect();
    (load, tasks)
}

async fn stop((load, mut tasks): (Arc<Load>, JoinSet<()>)) -> u64 {
    load.stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.expect("no request fails");
    }
    load.served.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_a_new_process_takes_over() {
    let origin = Origin::start("alpha").await;
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let mut gateway = Gateway::given(llm_with(&openai, &anthropic, echo(&origin))).await;
    let web = gateway.address("web");
    let started = Instant::now();
    let load = start(web);
    let mut events = gateway.request("GET", "/load/sse?n=60&every=100").stream().await;
    events.event().await.unwrap();
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{web}/load/ws")).await.expect("an upgrade");
    gateway.chat(&ask("gpt")).send().await.expect(200);
    openai.next(Answer::events(STREAM).per_event(Duration::from_millis(700)));
    let mut chat = gateway.chat(&ask_streamed("gpt")).stream().await;
    chat.event().await.unwrap();

    let heir = gateway.upgrade().await;
    let served_before = load.0.served.load(Ordering::Relaxed);
    gateway.chat(&ask("gpt")).send().await.expect(200);
    socket.send(Message::text("ping")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("ping"));
    // The new process has the books, the open hold of the old one included.
    let books = gateway.admin_json("/api/v1/credits/alice").await;
    assert_ne!(books["held_usd"], "0.000000000", "{books}");
    assert!(!chat.events().await.is_empty(), "the chat ends as it should");
    assert_eq!(events.events().await.len(), 59);
    socket.send(Message::text("pong")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("pong"));
    socket.close(None).await.unwrap();
    tokio::time::sleep(FOR.saturating_sub(started.elapsed())).await;

    assert_eq!(gateway.exit().await.code(), Some(0), "the old process has finished");
    test_kill_process(heir).expect("the new process serves");
    let elapsed = started.elapsed();
    let served = stop(load).await;
    assert!(served > served_before, "the new process serves");
    eprintln!("{:.0} requests per second, 0 of {served} failed", served as f64 / elapsed.as_secs_f64());
    let books = eventually_asking("all is settled", async || {
        let books = gateway.admin_json("/api/v1/credits/alice").await;
        (books["held_usd"] == "0.000000000").then_some(books)
    })
    .await;
    let usage = gateway.admin_json("/api/v1/usage").await;
    let rows = usage["usage"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "each call once: {usage}");
    let sum: i64 = rows.iter().map(|row| nano(&row["amount_usd"])).sum();
    assert_eq!(nano(&books["spent_usd"]), sum, "{books} {usage}");
    let metrics = gateway.admin("GET", "/metrics").send().await.expect(200).text();
    assert!(metrics.contains("tollgate_process_generation 1"), "{metrics}");
}

const STREAM: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hel\"},\"finish_reason\":null}]}\n\ndata: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\ndata: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n";

/// `"0.000022000"` in nano-USD.
fn nano(usd: &Value) -> i64 {
    let text = usd.as_str().unwrap_or_else(|| panic!("{usd} is an amount"));
    text.replace('.', "").parse().unwrap()
}

#[tokio::test]
async fn a_new_process_that_does_not_start_leaves_the_old_one_serving() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(echo(&origin)).await;
    gateway.write_raw_config("routes: [");
    gateway.signal(Signal::USR2);
    let told = gateway.logged(|line| line["message"].as_str().is_some_and(is_failure)).await;
    assert!(told["error"].as_str().unwrap().contains("ended (exit status: 2)"), "{told}");
    gateway.get("/load").await.expect(200);

    gateway.edit_config(|_| {});
    gateway.upgrade().await;

    gateway.get("/load").await.expect(200);
    assert_eq!(gateway.exit().await.code(), Some(0));
    gateway.get("/load").await.expect(200);
}

fn is_failure(message: &str) -> bool {
    message.starts_with("not upgraded")
}

#[tokio::test]
async fn the_file_that_took_the_place_of_the_program_is_started() {
    let origin = Origin::start("alpha").await;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("tollgate");
    let place = |target: &Path| {
        let beside = program.with_extension("new");
        std::os::unix::fs::symlink(target, &beside).unwrap();
        std::fs::rename(&beside, &program).unwrap();
    };
    place(Path::new(env!("CARGO_BIN_EXE_tollgate")));
    let mut launch = Command::new(&program);
    launch.stdin(Stdio::null());
    let gone = directory.path().join("broken");
    std::fs::write(&gone, "#!/bin/sh\nexit 77\n").unwrap();
    std::fs::set_permissions(&gone, PermissionsExt::from_mode(0o755)).unwrap();
    let gateway = Gateway::launched(directory, echo(&origin), launch).await;

    place(&gone);
    gateway.signal(Signal::USR2);

    let told = gateway.logged(|line| line["message"].as_str().is_some_and(is_failure)).await;
    assert!(told["error"].as_str().unwrap().contains("77"), "{told}");
    gateway.get("/load").await.expect(200);
    let again = || gateway.log().iter().filter(|line| line["message"] == "upgrading").count();
    gateway.signal(Signal::USR2);
    eventually("it can be tried again", || (again() == 2).then_some(())).await;
}
