//! The process and its listeners: bounds on connections, doors that come and
//! go, signals, the service manager.

use std::{
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    process::Command,
};
use tollgate_fakes::Origin;

use crate::harness::{Client, Gateway, eventually, eventually_asking, gateway::until_answers};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

fn echo(origin: &Origin) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    })
}

fn with(origin: &Origin, over: Value) -> Value {
    let mut config = echo(origin);
    crate::harness::gateway::lay_over(&mut config, over);
    config
}

async fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(source.parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether a request on this connection is answered; a shed one is closed unheard.
async fn is_served(stream: &mut TcpStream) -> bool {
    let mut head = [0; 12];
    stream.write_all(GET).await.is_ok()
        && stream.read_exact(&mut head).await.is_ok()
        && head.starts_with(b"HTTP/1.1 200")
}

async fn metric(gateway: &Gateway, series: &str) -> f64 {
    let text = gateway.admin("GET", "/metrics").send().await.expect(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in {text}"))
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The binary, started by a shell that does `first`.
fn by_shell(first: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_tollgate")]);
    shell.stdin(Stdio::null());
    shell
}

#[tokio::test]
async fn a_client_has_only_so_many_connections_and_others_are_served() {
    let origin = Origin::start("alpha").await;
    let limits = json!({"entrypoints": {"web": {"limits": {"max_connections_per_client": 2}}}});
    let gateway = Gateway::given(with(&origin, limits)).await;
    let web = gateway.address("web");
    let mut greedy = [connect_from("127.0.0.2:0", web).await, connect_from("127.0.0.2:0", web).await];
    for connection in &mut greedy {
        assert!(is_served(connection).await);
    }

    assert!(!is_served(&mut connect_from("127.0.0.2:0", web).await).await, "a third is closed");
    assert!(is_served(&mut connect_from("127.0.0.3:0", web).await).await, "others are served");
    let shed = "tollgate_connections_shed_total{bound=\"client\",entrypoint=\"web\"}";
    assert!(metric(&gateway, shed).await >= 1.0);

    drop(greedy);
    eventually_asking("there is room again", async || {
        is_served(&mut connect_from("127.0.0.2:0", web).await).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn entrypoints_come_move_and_go_under_open_streams() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(echo(&origin)).await;
    let mut on_web = gateway.request("GET", "/sse?n=40&every=50").stream().await;
    on_web.event().await.unwrap();
    let (first, second) = (free_address(), free_address());

    gateway.edit_config(|config| config["entrypoints"]["more"] = json!({"address": first.to_string()}));
    let at = |address| move |gateway: &Gateway| gateway.listening().get("more") == Some(&address);
    eventually("the new entrypoint listens", || at(first)(&gateway).then_some(())).await;
    let mut on_more = Client::new(first, "GET", "/sse?n=40&every=50").stream().await;
    on_more.event().await.unwrap();

    gateway.edit_config(|config| config["entrypoints"]["more"] = json!({"address": second.to_string()}));
    eventually("it has moved", || at(second)(&gateway).then_some(())).await;
    Client::new(second, "GET", "/").send().await.expect(200);
    eventually("the old address is closed", || std::net::TcpStream::connect(first).is_err().then_some(()))
        .await;

    gateway.edit_config(|config| drop(config["entrypoints"].as_object_mut().unwrap().remove("more")));
    eventually("it is gone", || std::net::TcpStream::connect(second).is_err().then_some(())).await;
    gateway.get("/").await.expect(200);
    assert_eq!(on_more.events().await.len(), 39, "the stream of the moved entrypoint");
    assert_eq!(on_web.events().await.len(), 39, "the stream of the untouched entrypoint");
}

#[tokio::test]
async fn an_address_that_is_taken_leaves_all_as_it_was() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(echo(&origin)).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    gateway.edit_config(|config| {
        config["entrypoints"]["more"] = json!({"address": address});
        config["routes"]["all"]["rule"] = json!("Path(`/only`)");
    });

    gateway.logged(|line| line["level"] == "ERROR" && line.to_string().contains(&address)).await;
    assert!(!gateway.listening().contains_key("more"));
    gateway.get("/elsewhere").await.expect(200);
}

#[tokio::test]
async fn a_file_that_a_refused_configuration_names_is_followed() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(echo(&origin)).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let rule = elsewhere.path().join("rule");

    gateway.edit_config(|config| {
        config["routes"]["all"]["rule"] = json!(format!("${{file:{}}}", rule.display()));
    });
    gateway.logged(|line| line["level"] == "ERROR" && line.to_string().contains("rule")).await;
    gateway.get("/").await.expect(200);

    // Until it is followed; the first write may come before that.
    eventually_asking("the file is read", async || {
        std::fs::write(&rule, "Path(`/only`)").unwrap();
        (gateway.get("/").await.status == 404).then_some(())
    })
    .await;
    gateway.get("/only").await.expect(200);
}

#[tokio::test]
async fn a_file_that_sighup_brought_in_is_followed() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(echo(&origin)).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let rule = elsewhere.path().join("rule");
    std::fs::write(&rule, "Path(`/first`)").unwrap();
    gateway.edit_config(|config| {
        config["routes"]["all"]["rule"] = json!(format!("${{file:{}}}", rule.display()));
    });
    gateway.signal(Signal::HUP);
    until_answers(&gateway, "/first", 200).await;

    eventually_asking("the file is read", async || {
        std::fs::write(&rule, "Path(`/second`)").unwrap();
        (gateway.get("/second").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let origin = Origin::start("alpha").await;
    let mut gateway = Gateway::given(echo(&origin)).await;
    let mut stream = gateway.request("GET", "/sse?n=1000&every=100").stream().await;
    stream.event().await.unwrap();
    gateway.terminate();
    gateway.logged(|line| line["message"] == "draining").await;

    let asked = Instant::now();
    gateway.terminate();

    assert_eq!(gateway.exit().await.code(), Some(1));
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?}", asked.elapsed());
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_used() {
    let origin = Origin::start("alpha").await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut launch = by_shell("exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web");
    launch.stdin(Stdio::from(OwnedFd::from(socket)));
    // Connects before the gateway is there wait in the backlog.
    let mut early = TcpStream::connect(address).await.unwrap();

    let gateway = Gateway::launched(tempfile::tempdir().unwrap(), echo(&origin), launch).await;

    assert_eq!(gateway.address("web"), address);
    assert!(is_served(&mut early).await);
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let origin = Origin::start("alpha").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = || {
        let mut text = [0; 4096];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut launch = by_shell("true");
    launch.env("NOTIFY_SOCKET", &path);

    let gateway = Gateway::launched(directory, echo(&origin), launch).await;
    assert!(told().starts_with("READY=1\n"));

    gateway.signal(Signal::HUP);
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(told().starts_with("READY=1\n"));

    let heir = gateway.upgrade().await;
    let both = [told(), told()];
    assert!(both.contains(&format!("MAINPID={}", heir.as_raw_nonzero())), "{both:?}");
    assert!(both.iter().any(|text| text.starts_with("READY=1\n")), "{both:?}");

    kill_process(heir, Signal::TERM).unwrap();
    assert!(told().starts_with("STOPPING=1\n"), "and nothing from the process before");
}

#[tokio::test]
async fn connections_are_bounded_by_the_descriptors_there_are() {
    let origin = Origin::start("alpha").await;
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::launched(directory, echo(&origin), by_shell("ulimit -n 128")).await;
    let web = gateway.address("web");

    // (128 - 64) / 2
    let mut open = Vec::new();
    let mut served = 0;
    for _ in 0..60 {
        let mut stream = TcpStream::connect(web).await.unwrap();
        served += usize::from(is_served(&mut stream).await);
        open.push(stream);
    }
    assert_eq!(served, 32);
    drop(open);

    until_answers_again(&gateway).await;
    let shed = "tollgate_connections_shed_total{bound=\"process\",entrypoint=\"web\"}";
    assert!(metric(&gateway, shed).await >= 28.0);
    assert_eq!(metric(&gateway, "process_max_fds").await, 128.0);
    assert!(metric(&gateway, "process_open_fds").await > 10.0);
}

#[tokio::test]
async fn without_descriptors_clients_wait_and_nothing_spins() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(echo(&origin)).await;
    let web = gateway.address("web");
    let before = getrlimit(Resource::Nofile);
    let limit = |current| {
        prlimit(Some(gateway.pid()), Resource::Nofile, Rlimit { current, maximum: before.maximum }).unwrap();
    };

    limit(Some(8));
    let mut waiting = TcpStream::connect(web).await.unwrap();
    waiting.write_all(GET).await.unwrap();
    let told = gateway.logged(|line| line["message"] == "cannot accept; clients wait").await;
    assert_eq!(told["entrypoint"], "web");
    let mut head = [0; 12];
    let nothing = tokio::time::timeout(Duration::from_secs(2), waiting.read_exact(&mut head)).await;
    assert!(nothing.is_err(), "nothing can be accepted");
    limit(before.maximum);

    waiting.read_exact(&mut head).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    // Pauses grow from 5 to 500 ms; 2 s without any would be many thousands.
    let failed = metric(&gateway, "tollgate_accept_errors_total{entrypoint=\"web\"}").await;
    assert!((2.0..50.0).contains(&failed), "{failed} failed accepts");
    let lines = gateway.log().iter().filter(|line| line["message"] == "cannot accept; clients wait").count();
    assert!(lines <= 2, "{lines} lines");
}

async fn until_answers_again(gateway: &Gateway) {
    eventually_asking("there is room again", async || {
        let answer = gateway.request("GET", "/").try_stream().await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
}
