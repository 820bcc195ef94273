//! Certificates from Pebble, Let's Encrypt's test server, over HTTPS.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tollgate_fakes::{Authority, Origin};

use crate::harness::{Client, Gateway, eventually};

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `None`, and a line that says so, where it is not installed.
fn start(program: &str, arguments: &[&str], directory: &Path) -> Option<Running> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env("PEBBLE_VA_NOSLEEP", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        eprintln!("SKIPPED: {program} not on PATH");
        return None;
    };
    Some(Running(child))
}

/// Free a moment ago: Pebble must know the gateway's ports, and the other way round.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
}

#[tokio::test]
async fn pebble_certifies_over_http_and_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    authority.certify(&["localhost", "127.0.0.1"]).unwrap().write(directory.path(), "pebble").unwrap();
    let [listen, management, web, secure, dns, control] = std::array::from_fn(|_| free());
    let config = json!({"pebble": {
        "listenAddress": listen.to_string(), "managementListenAddress": management.to_string(),
        "certificate": "pebble.crt", "privateKey": "pebble.key",
        "httpPort": web.port(), "tlsPort": secure.port(), "ocspResponderURL": "",
        "externalAccountBindingRequired": false,
    }});
    fs::write(directory.path().join("pebble.json"), config.to_string()).unwrap();
    let (dns, control) = (dns.to_string(), control.to_string());
    let names = [
        "-dns01",
        &dns,
        "-management",
        &control,
        "-defaultIPv4",
        "127.0.0.1",
        "-defaultIPv6",
        "",
        "-http01",
        "",
        "-https01",
        "",
        "-tlsalpn01",
        "",
    ];
    let Some(_names) = start("pebble-challtestsrv", &names, directory.path()) else { return };
    let arguments = ["-config", "pebble.json", "-dnsserver", &dns];
    let Some(_pebble) = start("pebble", &arguments, directory.path()) else { return };
    eventually("pebble listens", || {
        [listen, management].iter().all(|at| TcpStream::connect(at).is_ok()).then_some(())
    })
    .await;

    let origin = Origin::start("hello").await;
    let ca = directory.path().join("ca.pem");
    let resolver = |challenge| {
        let directory = format!("https://localhost:{}/dir", listen.port());
        json!({"acme": {"directory": directory, "ca_file": ca, "challenge": challenge}})
    };
    let gateway = Gateway::given(json!({
        "entrypoints": {
            "web": {"address": web.to_string()},
            "secure": {"address": secure.to_string(), "tls": {"resolver": "over-http"}},
            "other": {"address": "127.0.0.1:0", "tls": {"resolver": "over-tls"}},
        },
        "tls": {"resolvers": {"over-http": resolver("http-01"), "over-tls": resolver("tls-alpn-01")}},
        "services": {"app": {"targets": [{"url": origin.url()}]}},
        "routes": {
            "a": {"rule": "Host(`a.test`)", "service": "app", "entrypoints": ["secure"]},
            "b": {"rule": "Host(`b.test`)", "service": "app", "entrypoints": ["other"]},
        },
    }))
    .await;

    let root = Client::new(management, "GET", "/roots/0").host("localhost").tls(authority.pem());
    let root = root.send().await.expect(200).text();
    for (entrypoint, name) in [("secure", "a.test"), ("other", "b.test")] {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let request = Client::new(gateway.address(entrypoint), "GET", "/").host(name).tls(&root);
            if request.try_stream().await.is_ok_and(|answer| answer.status == 200) {
                break;
            }
            assert!(Instant::now() < until, "no certificate for {name}: {}", gateway.output_text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
