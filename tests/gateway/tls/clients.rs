//! Who may come in, what is known of them, and what a connection made for one
//! host may do for another.

use std::net::SocketAddr;

use rustls::{HandshakeKind, version};
use serde_json::{Value, json};

use super::{
    Scene,
    peer::{Authority, Peer, get},
    until_failures,
};
use crate::harness::{
    Gateway,
    guests::{guest, header_filter},
};

#[tokio::test]
async fn client_certificates_are_asked_for_host_by_host() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("all", &["open.test", "asks.test", "closed.test"]);
    let (request, require) = (scene.client_auth("request"), scene.client_auth("require"));
    let (gateway, peer, clients, _origin) = scene
        .open(json!({"web": {"certificates": [files], "hosts": {"asks.test": request, "closed.test": require}}}))
        .await;
    let web = gateway.address("web");
    let known = peer.clone().showing(&clients.issue("robot, inc", &["robot.test"]));
    let stranger = peer.clone().showing(&Authority::new("others").issue("robot", &["robot.test"]));

    for version in [&version::TLS13, &version::TLS12] {
        let [nobody, known, stranger] = [&peer, &known, &stranger].map(|peer| peer.clone().version(version));
        for host in ["open.test", "asks.test"] {
            let reply = nobody.get(web, host, host).await.unwrap().expect(200);
            assert!(!reply.text().contains("tollgate-client"), "a forged identity passed: {}", reply.text());
        }
        nobody.get(web, "closed.test", "closed.test").await.unwrap_err();
        known.get(web, "asks.test", "asks.test").await.unwrap().expect(200);
        let reply = known.get(web, "closed.test", "closed.test").await.unwrap().expect(200);
        assert!(!reply.text().contains("robot"), "the upstream learns of the client: {}", reply.text());
        stranger.get(web, "open.test", "open.test").await.unwrap().expect(200);
        stranger.get(web, "asks.test", "asks.test").await.unwrap_err();
        stranger.get(web, "closed.test", "closed.test").await.unwrap_err();
    }

    until_failures(&gateway, "web", "no-certificate", 2.0).await;
    until_failures(&gateway, "web", "bad-certificate", 4.0).await;
    let record = gateway.access_record(|record| record["host"] == "closed.test").await;
    assert!(record["client_certificate"].as_str().unwrap().contains("CN=robot\\, inc"), "{record}");
    let record = gateway.access_record(|record| record["host"] == "open.test").await;
    assert!(record.get("client_certificate").is_none(), "{record}");
}

#[tokio::test]
async fn plugins_learn_who_the_client_is() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("all", &["a.test"]);
    let tls = json!({"certificates": [files], "options": scene.client_auth("request")});
    let peer = scene.peer();
    let known = peer.clone().showing(&scene.clients.issue("robot", &["robot.test"]));
    let gateway = Gateway::in_directory(
        scene.directory,
        json!({
            "entrypoints": {"web": {"address": "127.0.0.1:0", "tls": tls}},
            "services": {"echo": {"targets": [{"url": scene.origin.url()}]}, "endpoint": {"plugin": "endpoint"}},
            "plugins": {
                "mine": {"module": header_filter("1")},
                "endpoint": {"module": guest("echo-endpoint"), "config": {}},
            },
            "routes": {
                "filtered": {"rule": "Host(`a.test`)", "chain": ["plugin:mine"], "service": "echo"},
                "endpoint": {"rule": "Host(`endpoint.test`)", "service": "endpoint"},
            },
        }),
    )
    .await;
    let web = gateway.address("web");

    let filtered = known.get(web, "a.test", "a.test").await.unwrap().expect(200).json();
    assert!(filtered["headers"]["x-plugin-client"].as_str().unwrap().starts_with("CN=robot"), "{filtered}");
    let seen = known.get(web, "a.test", "endpoint.test").await.unwrap().expect(200).text();
    for part in
        ["tollgate-client-cert-subject", "CN=robot", "tollgate-client-cert-fingerprint", "DNS:robot.test"]
    {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(!seen.contains("forged"), "{seen}");
    let unknown = peer.get(web, "a.test", "a.test").await.unwrap().expect(200).json();
    assert!(unknown["headers"].get("x-plugin-client").is_none(), "{unknown}");
    let seen = peer.get(web, "a.test", "endpoint.test").await.unwrap().expect(200).text();
    assert!(!seen.contains("client-cert"), "{seen}");
}

/// The kind of the second of two connections.
async fn again(
    peer: &Peer,
    first: (SocketAddr, &str),
    second: (SocketAddr, &str),
) -> anyhow::Result<HandshakeKind> {
    peer.get(first.0, first.1, first.1).await?.expect(200);
    resume(peer, second).await
}

pub(super) async fn resume(
    peer: &Peer,
    (address, host): (SocketAddr, &str),
) -> anyhow::Result<HandshakeKind> {
    let stream = peer.connect(address, host).await?;
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    get(stream, host).await?.expect(200);
    Ok(kind)
}

#[tokio::test]
async fn a_session_resumes_only_where_it_was_made() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("all", &["open.test", "closed.test"]);
    let require = scene.client_auth("require");
    // The same name with and without a demand for certificates.
    let (gateway, peer, clients, _origin) = scene
        .open(json!({
            "web": {"certificates": [files], "hosts": {"closed.test": require}},
            "lax": {"certificates": [files]},
        }))
        .await;
    let (web, lax) = (gateway.address("web"), gateway.address("lax"));
    let known = clients.issue("robot", &["robot.test"]);

    for version in [&version::TLS13, &version::TLS12] {
        let fresh = || peer.clone().version(version).resuming();
        let kind = again(&fresh(), (web, "open.test"), (web, "open.test")).await.unwrap();
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
        let kind = again(&fresh(), (web, "open.test"), (lax, "open.test")).await.unwrap();
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}: one policy, two entrypoints");

        again(&fresh(), (web, "open.test"), (web, "closed.test")).await.unwrap_err();
        again(&fresh(), (lax, "closed.test"), (web, "closed.test")).await.unwrap_err();

        let robot = peer.clone().version(version).showing(&known).resuming();
        let kind = again(&robot, (web, "closed.test"), (web, "closed.test")).await.unwrap();
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
    }
    let records = gateway.access_records();
    let unproved = |record: &&Value| record["host"] == "closed.test" && record["entrypoint"] == "web";
    assert!(records.iter().filter(unproved).all(|record| record.get("client_certificate").is_some()));
    assert!(records.iter().any(|record| unproved(&record)));
}

#[tokio::test]
async fn a_connection_made_for_another_host_is_misdirected() {
    let scene = Scene::new().await;
    let names = ["open.test", "also.test", "closed.test", "closed2.test", "other.test", "h1.test"];
    let (files, _) = scene.certificate("all", &names);
    let require = scene.client_auth("require");
    let (gateway, peer, clients, _origin) = scene
        .open(json!({
            "web": {"certificates": [files], "hosts": {
                "closed.test": require, "closed2.test": require,
                "other.test": {"min_version": "1.3"}, "h1.test": {"alpn": ["http/1.1"]},
            }},
            "strict": {"certificates": [files], "options": {"sni_strict": true}},
        }))
        .await;
    let (web, strict) = (gateway.address("web"), gateway.address("strict"));
    let known = peer.clone().showing(&clients.issue("robot", &["robot.test"]));

    for alpn in [b"h2".as_slice(), b"http/1.1"] {
        let (peer, known) = (peer.clone().alpn(&[alpn]), known.clone().alpn(&[alpn]));
        for (host, status) in [
            ("also.test", 200),
            ("ALSO.test:443", 200),
            ("h1.test", 200),
            ("elsewhere.test", 200),
            ("closed.test", 421),
            ("CLOSED.test", 421),
            ("closed.test.", 421),
            ("closed.test:443", 421),
            ("other.test", 421),
        ] {
            let reply = peer.get(web, "open.test", host).await.unwrap();
            assert_eq!(reply.status, status, "{host}: {}", reply.text());
        }
        known.get(web, "closed.test", "closed2.test").await.unwrap().expect(200);
        let reply = known.get(web, "closed.test", "open.test").await.unwrap().expect(421);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.json()["type"], "urn:tollgate:problem:misdirected");
        peer.get(strict, "open.test", "also.test").await.unwrap().expect(200);
        peer.get(strict, "open.test", "elsewhere.test").await.unwrap().expect(421);
    }
    let unnamed = peer.connect_unnamed(web, "open.test").await.unwrap();
    get(unnamed, "closed.test").await.unwrap().expect(421);
}
