//! Connections passed on as bytes: by SNI, ended or not, in turn, to their ends.

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_fakes::{Authority, Origin, certificates::ServerCertificate, refusing_address};

use crate::harness::{
    Client, Gateway, eventually,
    gateway::metric,
    wire::{Backend, Wire},
};

/// A TCP service with these targets.
fn tcp(targets: &[&Backend]) -> Value {
    let targets: Vec<String> = targets.iter().map(|backend| backend.address().to_string()).collect();
    json!({"tcp": {"targets": targets}})
}

/// Every connection on `web` goes to one backend.
fn all_to(backend: &Backend) -> Value {
    json!({
        "services": {"db": tcp(&[backend])},
        "streams": {"all": {"hosts": ["*"], "entrypoints": ["web"], "service": "db"}},
    })
}

/// One entrypoint `secure` for HTTP with the name a.test and for streams.
struct Secured {
    gateway: Gateway,
    authority: Authority,
    /// Of the backend, not of the gateway.
    backend_authority: Authority,
    backend_certificate: ServerCertificate,
    passed: Backend,
    ended: Backend,
    _origin: Origin,
}

async fn secured() -> Secured {
    let (passed, ended, origin) =
        (Backend::start().await, Backend::start().await, Origin::start("alpha").await);
    let directory: TempDir = tempfile::tempdir().expect("a temporary directory");
    let (authority, backend_authority) = (Authority::new().unwrap(), Authority::new().unwrap());
    let certificate = authority.certify(&["a.test", "ended.test"]).unwrap();
    certificate.write(directory.path(), "web").unwrap();
    let backend_certificate = backend_authority.certify(&["db.test", "x.db.test"]).unwrap();
    let gateway = Gateway::in_directory(
        directory,
        json!({
            "entrypoints": {"secure": {
                "address": "127.0.0.1:0",
                "tls": {"certificates": [{"cert_file": "web.crt", "key_file": "web.key"}]},
            }},
            "services": {
                "echo": {"targets": [{"url": origin.url()}]},
                "passed": tcp(&[&passed]),
                "ended": tcp(&[&ended]),
            },
            "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
            "streams": {
                "passed": {
                    "rule": "HostSNI(`db.test`) || HostSNI(`*.db.test`)",
                    "entrypoints": ["secure", "web"],
                    "service": "passed",
                },
                "ended": {
                    "hosts": ["ended.test"],
                    "entrypoints": ["secure"],
                    "tls": "terminate",
                    "service": "ended",
                },
            },
        }),
    )
    .await;
    Secured { gateway, authority, backend_authority, backend_certificate, passed, ended, _origin: origin }
}

impl Secured {
    /// To the backend's own TLS by a name, and back.
    async fn reach_backend(&self, entrypoint: &str, name: &str) {
        let client = Wire::connect(self.gateway.address(entrypoint)).await;
        let serve = async {
            let mut wire = self.passed.accept().await.accept_tls(&self.backend_certificate).await;
            wire.hear("ping").await;
            wire.say("pong").await;
            wire.finish().await;
        };
        let ask = async {
            let mut wire =
                client.tls(name, self.backend_authority.pem()).await.expect("the backend's certificate");
            wire.say("ping").await;
            assert_eq!(wire.rest().await, "pong");
        };
        tokio::join!(serve, ask);
    }
}

#[tokio::test]
async fn names_lead_to_the_backend_with_its_own_certificate() {
    let secured = secured().await;

    for name in ["db.test", "x.db.test"] {
        secured.reach_backend("secure", name).await;
    }

    let record = secured.gateway.access_record(|record| record["sni"] == "x.db.test").await;
    assert_eq!((&record["stream"], &record["service"]), (&json!("passed"), &json!("passed")), "{record}");
    assert_eq!((&record["entrypoint"], &record["protocol"]), (&json!("secure"), &json!("TLS")), "{record}");
    assert_eq!(record["target"], secured.passed.address().to_string(), "{record}");
    assert!(record["request_bytes"].as_u64() > Some(100), "{record}");
    assert!(record["response_bytes"].as_u64() > Some(100), "{record}");
    assert!(record.get("fault").is_none() && record.get("tls_version").is_none(), "{record}");
}

#[tokio::test]
async fn other_names_stay_with_http() {
    let secured = secured().await;

    for http2 in [false, true] {
        let client = Client::new(secured.gateway.address("secure"), "GET", "/").host("a.test");
        let client = client.tls(secured.authority.pem());
        let reply = if http2 { client.http2() } else { client }.send().await;
        assert_eq!(reply.expect(200).json()["name"], "alpha");
    }
}

#[tokio::test]
async fn a_plain_entrypoint_sorts_tls_from_http() {
    let secured = secured().await;

    secured.reach_backend("web", "db.test").await;

    assert_eq!(secured.gateway.get("/").await.expect(200).json()["name"], "alpha");
    let reply = secured.gateway.request("GET", "/").http2().send().await;
    assert_eq!(reply.expect(200).json()["name"], "alpha");
}

#[tokio::test]
async fn ended_tls_is_passed_on_as_what_is_inside() {
    let secured = secured().await;

    let client = Wire::connect(secured.gateway.address("secure")).await;
    let mut client =
        client.tls("ended.test", secured.authority.pem()).await.expect("the gateway's certificate");
    let mut backend = secured.ended.accept().await;
    client.say("ping").await;
    assert_eq!(backend.hear("ping").await, "ping");
    client.finish().await;
    assert_eq!(backend.rest().await, "", "the client's end arrives");
    backend.say("pong").await;
    drop(backend);

    assert_eq!(client.rest().await, "pong");
    let record = secured.gateway.access_record(|record| record["stream"] == "ended").await;
    assert_eq!(record["tls_version"], "TLSv1.3", "{record}");
    assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&json!(4), &json!(4)), "{record}");
}

#[tokio::test]
async fn a_star_takes_everything_even_before_the_client_speaks() {
    let backend = Backend::start().await;
    let gateway = Gateway::given(all_to(&backend)).await;

    let mut client = Wire::connect(gateway.address("web")).await;
    let mut server = backend.accept().await;
    server.say("220 ready\r\n").await;
    assert_eq!(client.hear("\n").await, "220 ready\r\n");
    client.say("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(server.hear("\r\n\r\n").await, "GET / HTTP/1.1\r\n\r\n");
    drop(server);

    assert_eq!(client.rest().await, "");
    drop(client);
    let record = gateway.access_record(|record| record["stream"] == "all").await;
    assert_eq!((&record["client"], &record["protocol"]), (&json!("127.0.0.1"), &json!("TCP")), "{record}");
    eventually_metric(&gateway, "tollgate_streams_open{service=\"db\"}", 0).await;
    assert_eq!(metric(&gateway, "tollgate_streams_total{service=\"db\"}").await, Some(1));
    assert_eq!(
        metric(&gateway, "tollgate_stream_bytes_total{from=\"client\",service=\"db\"}").await,
        Some(18)
    );
    assert_eq!(
        metric(&gateway, "tollgate_stream_bytes_total{from=\"target\",service=\"db\"}").await,
        Some(11)
    );
}

async fn eventually_metric(gateway: &Gateway, name: &str, value: u64) {
    for _ in 0..500 {
        if metric(gateway, name).await == Some(value) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} never was {value}, but {:?}", metric(gateway, name).await);
}

#[tokio::test]
async fn each_side_ends_when_it_wants() {
    let backend = Backend::start().await;
    let gateway = Gateway::given(all_to(&backend)).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    let mut server = backend.accept().await;

    client.say("question").await;
    client.finish().await;
    assert_eq!(server.rest().await, "question");
    server.say("a long answer").await;
    server.finish().await;

    assert_eq!(client.rest().await, "a long answer");
}

#[tokio::test]
async fn more_than_any_buffer_holds_arrives_whole() {
    let backend = Backend::start().await;
    let gateway = Gateway::given(all_to(&backend)).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    let mut server = backend.accept().await;
    let much = "0123456789abcdef".repeat(1 << 18);

    let (heard, ()) = tokio::join!(server.rest(), async {
        client.say(&much).await;
        client.finish().await;
    });

    assert!(heard == much, "{} of {} bytes", heard.len(), much.len());
}

#[tokio::test]
async fn dead_targets_are_passed_over() {
    let backend = Backend::start().await;
    let mut config = all_to(&backend);
    let targets = [refusing_address().await.to_string(), backend.address().to_string()];
    config["services"]["db"]["tcp"]["targets"] = json!(targets);
    let gateway = Gateway::given(config).await;

    for _ in 0..4 {
        let mut client = Wire::connect(gateway.address("web")).await;
        backend.accept().await.say("hello").await;
        assert_eq!(client.rest().await, "hello");
    }

    assert_eq!(metric(&gateway, "tollgate_upstream_connect_errors_total{service=\"db\"}").await, Some(2));
}

#[tokio::test]
async fn without_a_live_target_the_connection_closes() {
    let backend = Backend::start().await;
    let mut config = all_to(&backend);
    config["services"]["db"]["tcp"]["targets"] = json!([refusing_address().await.to_string()]);
    let gateway = Gateway::given(config).await;

    assert_eq!(Wire::connect(gateway.address("web")).await.rest().await, "");

    let record = gateway.access_record(|record| record["stream"] == "all").await;
    assert_eq!(record["fault"], "upstream-connect", "{record}");
    assert!(record.get("target").is_none(), "{record}");
    let failures = "tollgate_stream_failures_total{reason=\"upstream-connect\",service=\"db\"}";
    assert_eq!(metric(&gateway, failures).await, Some(1));
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let backend = Backend::start().await;
    let mut config = all_to(&backend);
    config["services"]["db"]["tcp"]["idle"] = json!("300ms");
    let gateway = Gateway::given(config).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    let mut server = backend.accept().await;

    client.say("last words").await;

    assert_eq!(client.rest().await, "");
    assert_eq!(server.rest().await, "last words");
    let record = gateway.access_record(|record| record["stream"] == "all").await;
    assert_eq!(record["fault"], "idle", "{record}");
    assert!(record["duration_ms"].as_f64() >= Some(300.0), "{record}");
}

#[tokio::test]
async fn a_reload_leads_new_connections_elsewhere_and_leaves_open_ones() {
    let (old, new) = (Backend::start().await, Backend::start().await);
    let mut gateway = Gateway::given(all_to(&old)).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    let mut server = old.accept().await;

    gateway.edit_config(|config| config["services"]["db"] = tcp(&[&new]));
    gateway.logged(|line| line["message"] == "configuration applied").await;

    let mut other = Wire::connect(gateway.address("web")).await;
    new.accept().await.say("new").await;
    assert_eq!(other.rest().await, "new");
    client.say("still").await;
    assert_eq!(server.hear("still").await, "still");
    server.say("here").await;
    drop(server);
    assert_eq!(client.rest().await, "here");

    gateway.edit_config(|config| config["streams"] = json!({}));
    eventually("the stream is gone", || {
        let applied = gateway.log().iter().filter(|line| line["message"] == "configuration applied").count();
        (applied == 2).then_some(())
    })
    .await;
    assert_eq!(gateway.get("/").await.status, 404);
}

#[tokio::test]
async fn a_drain_waits_for_connections_and_cuts_what_stays() {
    let backend = Backend::start().await;
    let mut config = all_to(&backend);
    config["entrypoints"]["web"]["timeouts"] = json!({"drain": "2s"});
    let mut gateway = Gateway::given(config).await;
    let mut first = Wire::connect(gateway.address("web")).await;
    let mut at_first = backend.accept().await;
    let mut stays = Wire::connect(gateway.address("web")).await;
    let mut at_stays = backend.accept().await;

    gateway.terminate();

    let web = gateway.address("web");
    eventually("the port is closed", || std::net::TcpStream::connect(web).is_err().then_some(())).await;
    first.say("last words").await;
    first.finish().await;
    assert_eq!(at_first.rest().await, "last words");
    at_first.say("bye").await;
    drop(at_first);
    assert_eq!(first.rest().await, "bye");
    at_stays.say("still here").await;
    assert_eq!(stays.rest().await, "still here", "cut at the end of the drain");
    assert_eq!(gateway.exit().await.code(), Some(0));
    let records = gateway.access_records();
    let faults = |bytes: u64| -> Vec<&Value> {
        records
            .iter()
            .filter(|record| record["response_bytes"] == bytes)
            .map(|record| &record["fault"])
            .collect()
    };
    assert_eq!(faults(3), [&Value::Null], "{records:?}");
    assert_eq!(faults(10), ["cut"], "{records:?}");
}

#[tokio::test]
async fn streams_count_among_the_connections() {
    let backend = Backend::start().await;
    let mut config = all_to(&backend);
    config["entrypoints"]["web"]["limits"] = json!({"max_connections": 1});
    let gateway = Gateway::given(config).await;
    let mut first = Wire::connect(gateway.address("web")).await;
    let mut server = backend.accept().await;

    assert_eq!(Wire::connect(gateway.address("web")).await.rest().await, "");

    server.say("on").await;
    assert_eq!(first.hear("on").await, "on");
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_closed() {
    let secured = {
        let mut secured = secured().await;
        secured.gateway.edit_config(|config| {
            config["entrypoints"]["secure"]["timeouts"] = json!({"handshake": "300ms"});
        });
        secured.gateway.logged(|line| line["message"] == "configuration applied").await;
        secured
    };

    let mut silent = Wire::connect(secured.gateway.address("secure")).await;
    let mut slow = Wire::connect(secured.gateway.address("secure")).await;
    slow.say([22, 3, 1, 1, 0, 1, 0, 0]).await;

    assert_eq!(silent.rest().await, "");
    assert_eq!(slow.rest().await, "");
}

#[tokio::test]
async fn targets_learn_the_client_by_the_proxy_protocol() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let mut config = all_to(&one);
    config["services"]["db"]["tcp"]["proxy_protocol"] = json!("v1");
    config["entrypoints"]["second"] = json!({"address": "127.0.0.1:0", "proxy_protocol": ["127.0.0.0/8"]});
    config["services"]["two"] = tcp(&[&two]);
    config["services"]["two"]["tcp"]["proxy_protocol"] = json!("v2");
    config["streams"]["second"] = json!({"hosts": ["*"], "entrypoints": ["second"], "service": "two"});
    let gateway = Gateway::given(config).await;

    let mut client = Wire::connect(gateway.address("web")).await;
    client.say("x").await;
    let (from, to) = (client.address(), gateway.address("web"));
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nx", from.port(), to.port());
    assert_eq!(one.accept().await.hear("x").await, expected);

    // Told by one balancer, told on to the next.
    let mut client = Wire::connect(gateway.address("second")).await;
    client.say("PROXY TCP4 192.0.2.1 198.51.100.7 258 443\r\nx").await;
    let mut heard = [0; 29];
    let mut server = two.accept().await;
    tokio::io::AsyncReadExt::read_exact(&mut server.0, &mut heard).await.unwrap();
    let rest = [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 0xbb, b'x'];
    assert_eq!(heard[..], [b"\r\n\r\n\0\r\nQUIT\n", &rest[..]].concat()[..]);
    drop((client, server));
    let record = gateway.access_record(|record| record["stream"] == "second").await;
    assert_eq!(record["client"], "192.0.2.1", "{record}");
}
