//! Certificates from an authority that really looks and really issues.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tollgate_fakes::{AcmeServer, Authority, Origin, Refusal};

use crate::harness::{Client, Gateway, gateway::lay_over, llm::outside, redis::Redis};

const PATIENCE: Duration = Duration::from_secs(60);

/// `a.test` on a plain entrypoint and one with TLS, certified by `server`.
fn config(server: &AcmeServer, origin: &Origin, acme: Value) -> Value {
    let mut resolver = json!({"directory": server.directory(), "email": "ops@a.test"});
    lay_over(&mut resolver, acme);
    json!({
        "entrypoints": {"secure": {"address": "127.0.0.1:0", "tls": {"resolver": "test"}}},
        "tls": {"resolvers": {"test": {"acme": resolver}}},
        "services": {"app": {"targets": [{"url": origin.url()}]}},
        "routes": {"app": {"rule": "Host(`a.test`)", "service": "app"}},
    })
}

async fn origin() -> Origin {
    Origin::start("hello").await
}

/// A handshake that ends well; the certificate is the first of the chain.
async fn handshake(at: SocketAddr, name: &str, authority: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(at).await?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned())?, stream).await?)
}

async fn served(at: SocketAddr, name: &str, authority: &str) -> Option<Vec<u8>> {
    let stream = handshake(at, name, authority).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

/// Waits for a valid certificate of this name, another one than `not`.
async fn until_served(gateway: &Gateway, name: &str, authority: &str, not: Option<&[u8]>) -> Vec<u8> {
    let until = Instant::now() + PATIENCE;
    loop {
        match served(gateway.address("secure"), name, authority).await {
            Some(certificate) if Some(certificate.as_slice()) != not => return certificate,
            _ => assert!(Instant::now() < until, "no certificate for {name}: {}", gateway.output_text()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn metric(gateway: &Gateway, line: &str) -> bool {
    let text = gateway.admin("GET", "/metrics").send().await.expect(200).text();
    text.lines().any(|found| found == line)
}

#[tokio::test]
async fn http_01_certifies_a_route_and_a_restart_keeps_it() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    let mut config = config(&server, &origin, json!({}));
    lay_over(
        &mut config,
        json!({"entrypoints": {"web": {"address": "127.0.0.1:0", "redirect_to": "secure"}}}),
    );
    let gateway = Gateway::given(config).await;
    let secure = gateway.address("secure");
    assert!(served(secure, "a.test", server.authority_pem()).await.is_none(), "no certificate yet");

    server.look_for_http_at(&[gateway.address("web")]);
    let first = until_served(&gateway, "a.test", server.authority_pem(), None).await;

    let reply = Client::new(secure, "GET", "/x").host("a.test").tls(server.authority_pem()).send().await;
    assert_eq!(reply.expect(200).json()["name"], "hello");
    assert_eq!(server.orders().len(), 1);
    assert!(served(secure, "b.test", server.authority_pem()).await.is_none(), "nobody's name");
    assert!(metric(&gateway, "tollgate_acme_orders_total{outcome=\"issued\",resolver=\"test\"} 1").await);
    let unknown = gateway.request("GET", "/.well-known/acme-challenge/unknown").host("a.test").send().await;
    assert_ne!(unknown.text(), "unknown", "left to the routes");

    let gateway = gateway.restart().await;
    let again = served(gateway.address("secure"), "a.test", server.authority_pem()).await;
    assert_eq!(again.as_deref(), Some(first.as_slice()), "{}", gateway.output_text());
    assert_eq!((server.orders().len(), server.accounts()), (1, 1));
    assert_nothing_in_the_clear(&gateway);
}

/// Neither keys in the store nor anything of them in the log.
fn assert_nothing_in_the_clear(gateway: &Gateway) {
    let needles = ["PRIVATE KEY", "key_pkcs8"];
    for entry in fs::read_dir(gateway.directory().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(!needles.iter().any(|needle| text.contains(needle)), "{}", path.display());
        }
    }
    assert!(!needles.iter().any(|needle| gateway.output_text().contains(needle)));
}

#[tokio::test]
async fn tls_alpn_01_certifies_over_the_entrypoint_itself() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    let gateway = Gateway::given(config(&server, &origin, json!({"challenge": "tls-alpn-01"}))).await;
    server.look_for_tls_at(&[gateway.address("secure")]);

    until_served(&gateway, "a.test", server.authority_pem(), None).await;

    assert_eq!(server.orders().len(), 1);
}

#[tokio::test]
async fn dns_01_certifies_a_wildcard_by_a_command() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    let zone = tempfile::tempdir().unwrap();
    server.look_for_txt_in(zone.path());
    // Two names of one certificate have one record with two values.
    let script = r#"case $1 in present) echo "$3" >> "$0/$2";; *) echo "$2" >> "$0/cleaned";; esac"#;
    let hook = json!({"exec": ["sh", "-c", script, zone.path()], "propagation": "10ms"});
    let acme = json!({"challenge": {"dns-01": hook}, "domains": [["a.test", "*.a.test"]]});
    let gateway = Gateway::given(config(&server, &origin, acme)).await;

    let one = until_served(&gateway, "a.test", server.authority_pem(), None).await;
    let other = until_served(&gateway, "b.a.test", server.authority_pem(), None).await;

    assert_eq!(one, other);
    assert_eq!(
        server.orders().iter().map(|order| order.names.clone()).collect::<Vec<_>>(),
        [["a.test", "*.a.test"]]
    );
    let cleaned = fs::read_to_string(zone.path().join("cleaned")).unwrap();
    assert_eq!(cleaned, "_acme-challenge.a.test\n".repeat(2));
}

#[tokio::test]
async fn dns_01_by_a_webhook_with_an_external_account() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    server.require_external_account("kid-1", b"an hmac key of the authority");
    let url = server.txt_hook();
    let hook = json!({"webhook": {"url": url, "bearer": outside("hook-canary")}, "propagation": "10ms"});
    let hmac = outside(&BASE64_URL_SAFE_NO_PAD.encode("an hmac key of the authority"));
    let acme = json!({
        "challenge": {"dns-01": hook},
        "external_account": {"key_id": "kid-1", "hmac_key": hmac},
    });
    let gateway = Gateway::given(config(&server, &origin, acme)).await;

    until_served(&gateway, "a.test", server.authority_pem(), None).await;

    let calls = server.hook_calls();
    let actions: Vec<&str> = calls.iter().filter_map(|call| call["action"].as_str()).collect();
    assert_eq!(actions, ["present", "cleanup"]);
    assert!(calls.iter().all(|call| call["authorization"] == "Bearer hook-canary"));
    assert!(calls.iter().all(|call| call["fqdn"] == "_acme-challenge.a.test"));
    assert!(!gateway.output_text().contains("hook-canary"));
}

/// An open connection with requests to come.
struct Open(SendRequest<Empty<Bytes>>);

impl Open {
    async fn new(gateway: &Gateway, authority: &str) -> Self {
        let stream = handshake(gateway.address("secure"), "a.test", authority).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn get(&mut self) -> u16 {
        self.0.ready().await.expect("the connection lives");
        let request = http::Request::get("/").header("host", "a.test").body(Empty::new()).unwrap();
        let response = self.0.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        response.into_body().collect().await.expect("a whole body");
        status
    }
}

/// A certificate in the last third of its life but for a moment.
fn nearly_due(server: &AcmeServer) {
    server.issue_for(Duration::from_secs(60), Duration::from_secs(31));
}

#[tokio::test]
async fn renewal_near_the_end_leaves_open_connections_alone() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    nearly_due(&server);
    let gateway = Gateway::given(config(&server, &origin, json!({}))).await;
    server.look_for_http_at(&[gateway.address("web")]);
    let first = until_served(&gateway, "a.test", server.authority_pem(), None).await;
    let mut open = Open::new(&gateway, server.authority_pem()).await;
    assert_eq!(open.get().await, 200);
    server.issue_for(Duration::ZERO, Duration::from_secs(90 * 86_400));

    until_served(&gateway, "a.test", server.authority_pem(), Some(&first)).await;

    assert_eq!(open.get().await, 200);
    assert_eq!(server.orders().len(), 2);
}

#[tokio::test]
async fn the_authority_may_ask_for_an_early_renewal() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    server.advise(true);
    let gateway = Gateway::given(config(&server, &origin, json!({}))).await;
    server.look_for_http_at(&[gateway.address("web")]);

    let served = |line: &Value| line["message"] == "certificate in service";
    crate::harness::eventually("two certificates", || {
        (gateway.log().iter().filter(|line| served(line)).count() == 2).then_some(())
    })
    .await;

    let orders = server.orders();
    assert_eq!(orders.len(), 2);
    assert!(orders[0].replaces.is_none() && orders[1].replaces.is_some(), "{orders:?}");
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_certificate_and_says_why() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    nearly_due(&server);
    let mut config = config(&server, &origin, json!({}));
    let admin = json!({"on_error": "reject", "grants": {"log": true, "control": ["read"]}});
    lay_over(&mut config, json!({"plugins": {"admin": admin}}));
    let gateway = Gateway::given(config).await;
    server.look_for_http_at(&[gateway.address("web")]);
    let first = until_served(&gateway, "a.test", server.authority_pem(), None).await;

    let (kind, detail) = ("rateLimited", "too many certificates already issued");
    server.refuse(Some(Refusal { status: 429, kind, detail, retry_after: Some(7200) }));

    let line = gateway
        .logged(|line| line["message"].as_str().unwrap_or("").starts_with("no certificate was issued"))
        .await;
    assert!(line["error"].as_str().unwrap().contains(detail), "{line}");
    let wait = line["retry_in_seconds"].as_u64().unwrap();
    assert!((7100..=8000).contains(&wait), "{line}");
    assert_eq!(served(gateway.address("secure"), "a.test", server.authority_pem()).await, Some(first));
    assert!(
        metric(&gateway, "tollgate_acme_orders_total{outcome=\"rate-limited\",resolver=\"test\"} 1").await
    );
    let shown = gateway.admin_json("/api/v1/services").await;
    let certificate = &shown["certificates"][0];
    assert_eq!(certificate["names"], json!(["a.test"]), "{shown}");
    assert!(certificate["problem"].as_str().unwrap().contains(detail), "{shown}");
    assert!(certificate["not_after"].is_u64() && certificate["next_attempt"].is_u64(), "{shown}");
}

#[tokio::test]
async fn an_unproved_name_is_told_with_the_authoritys_words() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    let gateway = Gateway::given(config(&server, &origin, json!({}))).await;
    // The origin answers there, and knows of no challenge.
    server.look_for_http_at(&[origin.address()]);

    let line = gateway
        .logged(|line| line["message"].as_str().unwrap_or("").starts_with("no certificate was issued"))
        .await;

    assert!(line["error"].as_str().unwrap().contains("a.test"), "{line}");
    assert!(line["error"].as_str().unwrap().contains("another key authorization"), "{line}");
    assert!(metric(&gateway, "tollgate_acme_orders_total{outcome=\"failed\",resolver=\"test\"} 1").await);
}

/// The directories of nodes that share a sealing key, as operators must give them.
fn nodes(count: usize) -> Vec<TempDir> {
    let directories = (0..count).map(|_| tempfile::tempdir().unwrap());
    directories
        .inspect(|directory| {
            let data = directory.path().join("data");
            fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
            let key = data.join("sealing.key");
            fs::write(&key, [7; 32]).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        })
        .collect()
}

async fn start_together(directories: Vec<TempDir>, config: &Value) -> Vec<Gateway> {
    let starting: Vec<_> = directories
        .into_iter()
        .map(|directory| tokio::spawn(Gateway::in_directory(directory, config.clone())))
        .collect();
    let mut gateways = Vec::new();
    for gateway in starting {
        gateways.push(gateway.await.unwrap());
    }
    gateways
}

#[tokio::test]
async fn three_nodes_on_one_redis_make_one_order() {
    let Some(redis) = Redis::start().await else { return };
    for (challenge, port) in [("http-01", "web"), ("tls-alpn-01", "secure")] {
        let (server, origin) = (AcmeServer::start().await, origin().await);
        let mut config = config(&server, &origin, json!({ "challenge": challenge }));
        lay_over(&mut config, json!({"state": {"redis": {"url": outside(&redis.url()), "timeout": "2s"}}}));
        let gateways = start_together(nodes(3), &config).await;
        let ports: Vec<SocketAddr> = gateways.iter().map(|gateway| gateway.address(port)).collect();
        // Whichever node orders, all must answer.
        server.look_for_http_at(&ports);
        server.look_for_tls_at(&ports);

        let mut certificates = Vec::new();
        for gateway in &gateways {
            certificates.push(until_served(gateway, "a.test", server.authority_pem(), None).await);
        }

        assert!(certificates.iter().all(|certificate| *certificate == certificates[0]), "{challenge}");
        assert_eq!(server.orders().len(), 1, "{challenge}");
        assert_eq!((server.accounts(), server.validations()), (1, 1), "{challenge}");
    }
}

#[tokio::test]
async fn three_nodes_renew_once() {
    let Some(redis) = Redis::start().await else { return };
    let (server, origin) = (AcmeServer::start().await, origin().await);
    server.advise(true);
    let mut config = config(&server, &origin, json!({}));
    lay_over(&mut config, json!({"state": {"redis": {"url": outside(&redis.url()), "timeout": "2s"}}}));
    let gateways = start_together(nodes(3), &config).await;
    let ports: Vec<SocketAddr> = gateways.iter().map(|gateway| gateway.address("web")).collect();
    server.look_for_http_at(&ports);

    crate::harness::eventually("two certificates", || (server.certificates() == 2).then_some(())).await;
    let any = until_served(&gateways[0], "a.test", server.authority_pem(), None).await;
    let until = Instant::now() + PATIENCE;
    loop {
        let mut all = Vec::new();
        for gateway in &gateways {
            all.push(served(gateway.address("secure"), "a.test", server.authority_pem()).await);
        }
        if all.iter().all(|one| one.is_some() && *one == all[0]) {
            break;
        }
        assert!(Instant::now() < until, "the nodes serve different certificates, one of them {any:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    assert_eq!(server.orders().len(), 2);
}

#[tokio::test]
async fn certificates_of_acme_json_are_served_without_an_order() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    let (authority, directory) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
    let certificate = authority.certify(&["a.test", "www.a.test"]).unwrap();
    let file = json!({"letsencrypt": {
        "Account": {"Email": "ops@a.test", "Registration": {"uri": "https://ca.test/acct/1"},
            "PrivateKey": BASE64_STANDARD.encode("not a key that can be used"), "KeyType": "4096"},
        "Certificates": [{
            "domain": {"main": "a.test", "sans": ["www.a.test"]},
            "certificate": BASE64_STANDARD.encode(&certificate.certificate_pem),
            "key": BASE64_STANDARD.encode(&certificate.key_pem),
            "Store": "default",
        }],
    }});
    fs::write(directory.path().join("acme.json"), file.to_string()).unwrap();
    fs::set_permissions(directory.path().join("acme.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let config = config(&server, &origin, json!({"import_acme_json": "acme.json"}));

    let gateway = Gateway::in_directory(directory, config).await;

    assert!(served(gateway.address("secure"), "a.test", authority.pem()).await.is_some());
    gateway.logged(|line| line["message"].as_str().unwrap_or("").contains("make it 0600")).await;
    assert_eq!(server.orders(), []);
    assert_nothing_in_the_clear(&gateway);
}

#[tokio::test]
async fn a_reload_asks_for_new_names_and_forgets_old_ones() {
    let (server, origin) = (AcmeServer::start().await, origin().await);
    let mut gateway = Gateway::given(config(&server, &origin, json!({}))).await;
    server.look_for_http_at(&[gateway.address("web")]);
    until_served(&gateway, "a.test", server.authority_pem(), None).await;

    gateway.edit_config(|config| config["routes"]["app"]["rule"] = json!("Host(`b.test`)"));
    until_served(&gateway, "b.test", server.authority_pem(), None).await;

    assert!(served(gateway.address("secure"), "a.test", server.authority_pem()).await.is_none());
    let names: Vec<Vec<String>> = server.orders().into_iter().map(|order| order.names).collect();
    assert_eq!(names, [["a.test"], ["b.test"]]);
}
