//! Who a request is from: the PROXY protocol in and out, forwarded headers,
//! and redirects that mind them.

use serde_json::{Value, json};
use tollgate_fakes::{Authority, Origin};

use crate::harness::{
    Client, Gateway, Reply,
    gateway::metric,
    wire::{Backend, Wire},
};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13\xc0\x00\x02\x01\xc6\x33\x64\x07\x12\x67\x01\xbb\x04\x00\x04junk";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";

fn to(origin: &Origin) -> Value {
    json!({
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    })
}

/// Balancers on the loopback address announce their clients.
async fn announced(origin: &Origin) -> Gateway {
    let mut config = to(origin);
    config["entrypoints"]["web"]["proxy_protocol"] = json!(["127.0.0.0/8"]);
    config["entrypoints"]["web"]["timeouts"] = json!({"handshake": "400ms"});
    Gateway::given(config).await
}

/// What the origin was sent, from a whole response.
fn seen(response: &str) -> Value {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{response}");
    let start = body.find('{').unwrap_or_else(|| panic!("no JSON: {response}"));
    let end = body.rfind('}').unwrap_or_else(|| panic!("no JSON: {response}"));
    serde_json::from_str(&body[start..=end]).unwrap()
}

#[tokio::test]
async fn a_balancer_tells_who_the_client_is() {
    let origin = Origin::start("alpha").await;
    let gateway = announced(&origin).await;

    for (header, client) in [
        (V1, "192.0.2.1"),
        (V2, "192.0.2.1"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1"),
    ] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.say([header, GET.as_bytes()].concat()).await;
        let told = seen(&wire.rest().await);
        assert_eq!(told["headers"]["x-forwarded-for"], client);
        assert_eq!(told["headers"]["x-real-ip"], client);
    }
    gateway.access_record(|record| record["client"] == "2001:db8::1").await;
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte_before_http1_and_http2() {
    let origin = Origin::start("alpha").await;
    let mut config = to(&origin);
    config["entrypoints"]["web"]["proxy_protocol"] = json!(["127.0.0.0/8"]);
    let gateway = Gateway::given(config).await;

    for header in [V1, V2] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.0.set_nodelay(true).unwrap();
        for byte in header.iter().chain(GET.as_bytes()) {
            wire.say([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(seen(&wire.rest().await)["headers"]["x-forwarded-for"], "192.0.2.1");
    }
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let origin = Origin::start("alpha").await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    authority.certify(&["a.test"]).unwrap().write(directory.path(), "a").unwrap();
    let mut config = to(&origin);
    config["entrypoints"]["web"] = json!({
        "address": "127.0.0.1:0",
        "proxy_protocol": ["127.0.0.1"],
        "tls": {"certificates": [{"cert_file": "a.crt", "key_file": "a.key"}]},
    });
    let gateway = Gateway::in_directory(directory, config).await;

    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.say(V2).await;
    let mut wire = wire.tls("a.test", authority.pem()).await.unwrap();
    wire.say(GET).await;

    let told = seen(&wire.rest().await);
    assert_eq!(told["headers"]["x-forwarded-for"], "192.0.2.1");
    assert_eq!(told["headers"]["x-forwarded-proto"], "https");
    assert_eq!(told["headers"]["x-forwarded-port"], "443");
}

#[tokio::test]
async fn nobody_else_may_send_one() {
    let origin = Origin::start("alpha").await;
    let mut config = to(&origin);
    config["entrypoints"]["web"]["proxy_protocol"] = json!(["192.0.2.0/24"]);
    let gateway = Gateway::given(config).await;

    for header in [V1, V2] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.say([header, GET.as_bytes()].concat()).await;
        let answer = wire.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    gateway.get("/").await.expect(200);
    assert_eq!(origin.hits(), 1);
}

#[tokio::test]
async fn a_missing_malformed_or_slow_header_closes_and_is_counted() {
    let origin = Origin::start("alpha").await;
    let gateway = announced(&origin).await;

    let cases: [&[u8]; 5] = [
        GET.as_bytes(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00",
        b"PROXY TCP4 192.0",
        b"",
    ];
    for bytes in cases {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.say(bytes).await;
        assert_eq!(wire.rest().await, "", "{}", bytes.escape_ascii());
    }
    let mut check = Wire::connect(gateway.address("web")).await;
    check.finish().await;
    assert_eq!(check.rest().await, "", "a balancer's health check");

    let refused = metric(&gateway, "tollgate_proxy_headers_refused_total{entrypoint=\"web\"}").await;
    assert_eq!(refused, Some(5), "the health check does not count");
    assert_eq!(origin.hits(), 0);
}

/// Answers one request of a connection and returns its bytes.
async fn answer(wire: &mut Wire) -> String {
    let head = wire.hear("\r\n\r\n").await;
    wire.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    head
}

#[tokio::test]
async fn targets_that_want_it_are_told_the_client_and_clients_share_no_connection() {
    let backend = Backend::start().await;
    let gateway = Gateway::given(json!({
        "services": {"echo": {
            "targets": [{"url": format!("http://{}", backend.address())}],
            "proxy_protocol": "v1",
        }},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await;
    let to = gateway.address("web");
    let get = "GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n";

    let (mut first, mut second) = (Wire::connect(to).await, Wire::connect(to).await);
    first.say(get).await;
    let mut at_first = backend.accept().await;
    let head = answer(&mut at_first).await;
    let line =
        |wire: &Wire| format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", wire.address().port(), to.port());
    assert!(head.starts_with(&format!("{}GET /x ", line(&first))), "{head}");
    first.hear("\r\n\r\nok").await;
    // The pooled connection would be there, but is somebody else's.
    second.say(get).await;
    let mut at_second = backend.accept().await;
    let head = answer(&mut at_second).await;
    assert!(head.starts_with(&line(&second)), "{head}");
    second.hear("\r\n\r\nok").await;
    // Its own client gets it again, without another header.
    first.say(get).await;
    let head = answer(&mut at_first).await;
    assert!(head.starts_with("GET /x "), "{head}");
    first.hear("\r\n\r\nok").await;
}

#[tokio::test]
async fn upgrades_tell_the_client_as_well() {
    let backend = Backend::start().await;
    let gateway = Gateway::given(json!({
        "services": {"echo": {
            "targets": [{"url": format!("http://{}", backend.address())}],
            "proxy_protocol": "v2",
        }},
        "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await;

    let mut client = Wire::connect(gateway.address("web")).await;
    client
        .say("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n\r\n")
        .await;
    let head = backend.accept().await.hear("\r\n\r\n\0\r\nQUIT\n!").await;

    assert_eq!(head, "\r\n\r\n\0\r\nQUIT\n!");
}

async fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> Value {
    let client = gateway.request("GET", "/").host("a.test");
    let client = headers.iter().fold(client, |client, (name, value)| client.header(name, value));
    client.send().await.expect(200).json()
}

#[tokio::test]
async fn strangers_claims_are_replaced() {
    let origin = Origin::start("alpha").await;
    let gateway = Gateway::given(to(&origin)).await;

    let told = ask(
        &gateway,
        &[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-port", "444"),
            ("x-forwarded-prefix", "/evil"),
            ("x-real-ip", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("x_forwarded_for", "192.0.2.1"),
            ("connection", "x-forwarded-for, x-real-ip"),
        ],
    )
    .await;

    let headers = &told["headers"];
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "{headers}");
    assert_eq!(headers["x-forwarded-proto"], "http", "{headers}");
    assert_eq!(headers["x-forwarded-host"], "a.test", "{headers}");
    assert_eq!(headers["x-forwarded-port"], "80", "{headers}");
    assert_eq!(headers["x-real-ip"], "127.0.0.1", "{headers}");
    assert_eq!(headers["forwarded"], "for=127.0.0.1;host=\"a.test\";proto=http", "{headers}");
    assert!(headers.get("x-forwarded-prefix").is_none(), "{headers}");
    assert!(headers.get("x_forwarded_for").is_none(), "{headers}");
    gateway.access_record(|record| record["client"] == "127.0.0.1").await;
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_as_far_as_the_chain_is_trusted() {
    let origin = Origin::start("alpha").await;
    let mut config = to(&origin);
    config["entrypoints"]["web"]["trusted_proxies"] = json!(["127.0.0.0/8", "10.0.0.0/8"]);
    config["services"]["nowhere"] = json!({"targets": [{"url": "http://127.0.0.1:1"}]});
    config["routes"]["mine"] = json!({
        "rule": "ClientIP(`192.0.2.1`) && Path(`/mine`)", "service": "nowhere",
    });
    let gateway = Gateway::given(config).await;

    let chain = ("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.1.2.3");
    let told =
        ask(&gateway, &[chain, ("x-forwarded-proto", "https"), ("x-forwarded-host", "www.test")]).await;

    let headers = &told["headers"];
    assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 192.0.2.1, 10.1.2.3, 127.0.0.1", "{headers}");
    assert_eq!(headers["x-forwarded-proto"], "https", "{headers}");
    assert_eq!(headers["x-forwarded-host"], "www.test", "{headers}");
    assert_eq!(headers["x-forwarded-port"], "443", "{headers}");
    assert_eq!(headers["x-real-ip"], "192.0.2.1", "{headers}");
    gateway.access_record(|record| record["client"] == "192.0.2.1").await;
    // Rules see the peer, as in Traefik.
    gateway.request("GET", "/mine").header(chain.0, chain.1).send().await.expect(200);
}

#[tokio::test]
async fn trust_is_for_whom_the_balancer_names_and_not_for_the_balancer() {
    let origin = Origin::start("alpha").await;
    let mut config = to(&origin);
    config["entrypoints"]["web"]["proxy_protocol"] = json!(["127.0.0.0/8"]);
    config["entrypoints"]["web"]["trusted_proxies"] = json!(["127.0.0.0/8", "10.0.0.0/8"]);
    let gateway = Gateway::given(config).await;
    let get = GET.replace("host:", "x-forwarded-for: 198.51.100.9\r\nhost:");

    for (named, client) in [("192.0.2.1", "192.0.2.1"), ("10.0.0.7", "198.51.100.9")] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.say(format!("PROXY TCP4 {named} 198.51.100.7 1 80\r\n{get}")).await;
        assert_eq!(seen(&wire.rest().await)["headers"]["x-real-ip"], client);
    }
}

#[tokio::test]
async fn limits_count_the_client_and_not_the_proxy() {
    let origin = Origin::start("alpha").await;
    let mut config = to(&origin);
    config["entrypoints"]["web"]["trusted_proxies"] = json!(["127.0.0.0/8"]);
    config["middlewares"] = json!({"one": {"rate_limit": {"limit": "1/hour", "by": "address"}}});
    config["routes"]["all"]["chain"] = json!(["one"]);
    let gateway = Gateway::given(config).await;
    let from = |client: &str| gateway.request("GET", "/").header("x-forwarded-for", client);

    assert_eq!(from("192.0.2.1").send().await.status, 200);
    assert_eq!(from("192.0.2.1").send().await.status, 429);
    assert_eq!(from("192.0.2.2").send().await.status, 200);
}

/// `web` redirects to `secure`.
async fn redirecting(origin: &Origin, trusted: Option<Value>) -> (Gateway, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    authority.certify(&["a.test"]).unwrap().write(directory.path(), "a").unwrap();
    let mut config = to(origin);
    config["entrypoints"] = json!({
        "web": {"address": "127.0.0.1:0", "redirect_to": "secure"},
        "secure": {
            "address": "127.0.0.1:0",
            "tls": {"certificates": [{"cert_file": "a.crt", "key_file": "a.key"}]},
        },
    });
    if let Some(trusted) = trusted {
        config["entrypoints"]["web"]["trusted_proxies"] = trusted;
    }
    (Gateway::in_directory(directory, config).await, authority)
}

async fn sent_to(gateway: &Gateway, method: &'static str, http2: bool) -> Reply {
    let client = gateway.request(method, "/x%2Fy?z=%20").host("a.test:8080");
    let client = if http2 { client.http2() } else { client };
    client.header("x-forwarded-proto", "https").send().await
}

#[tokio::test]
async fn an_entrypoint_sends_its_clients_to_another_one() {
    let origin = Origin::start("alpha").await;
    let (gateway, authority) = redirecting(&origin, None).await;
    let expected = format!("https://a.test:{}/x%2Fy?z=%20", gateway.address("secure").port());

    for (method, status) in [("GET", 301), ("HEAD", 301), ("POST", 308), ("DELETE", 308)] {
        for http2 in [false, true] {
            let reply = sent_to(&gateway, method, http2).await.expect(status);
            assert_eq!(reply.header("location"), expected);
        }
    }

    assert_eq!(origin.hits(), 0);
    let there = Client::new(gateway.address("secure"), "GET", "/x%2Fy?z=%20").host("a.test");
    there.tls(authority.pem()).send().await.expect(200);
}

#[tokio::test]
async fn what_a_trusted_proxy_got_over_tls_is_not_redirected_in_circles() {
    let origin = Origin::start("alpha").await;
    let (gateway, _) = redirecting(&origin, Some(json!(["127.0.0.1"]))).await;

    sent_to(&gateway, "GET", false).await.expect(200);

    let plain = gateway.request("GET", "/").header("x-forwarded-proto", "http").send().await;
    plain.expect(301);
}
