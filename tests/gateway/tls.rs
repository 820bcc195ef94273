//! TLS of the front: which certificate and which options a name gets, who may
//! come in, and what a flood of bad handshakes does.

mod clients;
mod peer;

use std::time::Duration;

use rustls::{HandshakeKind, NamedGroup, crypto::aws_lc_rs::kx_group, pki_types::CertificateDer, version};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tollgate_fakes::Origin;

use crate::harness::{
    Gateway,
    gateway::{binary, replace},
};
use clients::resume;
use peer::{Authority, Issued, Peer};

/// Everything but the gateway itself.
struct Scene {
    directory: TempDir,
    servers: Authority,
    clients: Authority,
    origin: Origin,
}

impl Scene {
    async fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
            origin: Origin::start("alpha").await,
        }
    }

    /// A certificate for `names`, in files.
    fn certificate(&self, file: &str, names: &[&str]) -> (Value, Issued) {
        let issued = self.servers.issue(file, names);
        (issued.files(self.directory.path(), file), issued)
    }

    fn client_auth(&self, mode: &str) -> Value {
        json!({"client_auth": {"mode": mode, "ca_files": [self.clients.file(&self.directory, "clients.pem")]}})
    }

    fn peer(&self) -> Peer {
        Peer::trusting(&self.servers)
    }

    /// Entrypoints with these `tls`, each leading to the origin.
    async fn open(self, entrypoints: Value) -> (Gateway, Peer, Authority, Origin) {
        let mut given = json!({
            "entrypoints": {},
            "services": {"echo": {"targets": [{"url": self.origin.url()}]}},
            "routes": {"all": {"rule": "PathPrefix(`/`)", "service": "echo"}},
        });
        for (name, tls) in entrypoints.as_object().unwrap() {
            given["entrypoints"][name] = json!({"address": "127.0.0.1:0", "tls": tls});
        }
        let peer = self.peer();
        (Gateway::in_directory(self.directory, given).await, peer, self.clients, self.origin)
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

async fn metric(gateway: &Gateway, series: &str) -> Option<f64> {
    let metrics = gateway.admin("GET", "/metrics").send().await.expect(200).text();
    let line =
        metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
    line.map(|value| value.parse().unwrap())
}

async fn failures(gateway: &Gateway, entrypoint: &str, reason: &str) -> f64 {
    let series =
        format!("tollgate_tls_handshake_errors_total{{entrypoint=\"{entrypoint}\",reason=\"{reason}\"}}");
    metric(gateway, &series).await.unwrap_or_default()
}

/// The client may know of a failure before it is counted.
async fn until_failures(gateway: &Gateway, entrypoint: &str, reason: &str, count: f64) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let counted = failures(gateway, entrypoint, reason).await;
        if counted >= count {
            return;
        }
        assert!(std::time::Instant::now() < until, "{reason}: {counted} of {count}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let scene = Scene::new().await;
    let (default_files, default) = scene.certificate("default", &["default.test"]);
    let (exact_files, exact) = scene.certificate("exact", &["a.wild.test", "b.test"]);
    let (wild_files, wild) = scene.certificate("wild", &["*.wild.test"]);
    let files = json!([default_files, wild_files, exact_files]);
    let (gateway, peer, _, _origin) = scene
        .open(json!({
            "web": {"certificates": files},
            "strict": {"certificates": files, "options": {"sni_strict": true}},
        }))
        .await;
    let (web, strict) = (gateway.address("web"), gateway.address("strict"));

    for (name, expected) in
        [("a.wild.test", &exact), ("A.Wild.Test", &exact), ("x.wild.test", &wild), ("b.test", &exact)]
    {
        assert_eq!(shown(&peer.connect(web, name).await.unwrap()), expected.der, "{name}");
        assert_eq!(shown(&peer.connect(strict, name).await.unwrap()), expected.der, "{name}");
    }
    assert_eq!(shown(&peer.connect_unnamed(web, "default.test").await.unwrap()), default.der);
    for unknown in ["x.y.wild.test", "wild.test", "elsewhere.test"] {
        let told = peer.connect(web, unknown).await.unwrap_err().to_string();
        assert!(told.contains("not valid for name"), "{unknown} gets the default certificate: {told}");
        let told = peer.connect(strict, unknown).await.unwrap_err().to_string();
        assert!(told.contains("UnrecognisedName"), "{unknown}: {told}");
    }
    peer.connect_unnamed(strict, "default.test").await.unwrap_err();
    until_failures(&gateway, "strict", "unknown-name", 4.0).await;
    until_failures(&gateway, "web", "refused-by-client", 3.0).await;
}

#[tokio::test]
async fn versions_suites_and_protocols_are_those_of_the_host() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("all", &["modern.test", "old.test", "plain.test", "default.test"]);
    let old_suites =
        ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
    let (gateway, peer, _, _origin) = scene
        .open(json!({"web": {"certificates": [files], "hosts": {
            "modern.test": {"min_version": "1.3", "cipher_suites": ["TLS_AES_128_GCM_SHA256"]},
            "old.test": {"max_version": "1.2", "cipher_suites": old_suites},
            "plain.test": {"alpn": ["http/1.1"]},
        }}}))
        .await;
    let web = gateway.address("web");
    let agreed = async |peer: &Peer, host: &str| {
        let stream = peer.connect(web, host).await?;
        let session = stream.get_ref().1;
        let suite = session.negotiated_cipher_suite().unwrap().suite();
        let alpn = String::from_utf8(session.alpn_protocol().unwrap_or_default().to_vec()).unwrap();
        std::io::Result::Ok((session.protocol_version().unwrap(), suite.as_str().unwrap(), alpn))
    };

    let (version, suite, _) = agreed(&peer, "modern.test").await.unwrap();
    assert_eq!((version, suite), (rustls::ProtocolVersion::TLSv1_3, "TLS13_AES_128_GCM_SHA256"));
    agreed(&peer.clone().version(&version::TLS12), "modern.test").await.unwrap_err();
    until_failures(&gateway, "web", "version", 1.0).await;
    agreed(&peer.clone().suites(&["TLS13_AES_256_GCM_SHA384"]), "modern.test").await.unwrap_err();
    until_failures(&gateway, "web", "cipher", 1.0).await;
    // The operator's order, whatever the client prefers.
    let reversed = peer.clone().suites(&[old_suites[1], old_suites[0]]);
    assert_eq!(agreed(&reversed, "old.test").await.unwrap().1, old_suites[0]);

    let both = peer.clone().alpn(&[b"http/1.1", b"h2"]);
    assert_eq!(agreed(&both, "default.test").await.unwrap().2, "h2");
    assert_eq!(agreed(&both, "plain.test").await.unwrap().2, "http/1.1");
    assert_eq!(agreed(&peer.clone().alpn(&[]), "default.test").await.unwrap().2, "");
    agreed(&peer.clone().alpn(&[b"h2"]), "plain.test").await.unwrap_err();
    until_failures(&gateway, "web", "protocol", 1.0).await;
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_by_default() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("all", &["a.test", "classic.test"]);
    let (gateway, peer, _, _origin) = scene
        .open(json!({"web": {"certificates": [files], "hosts": {"classic.test": {"curves": ["secp256r1"]}}}}))
        .await;
    let web = gateway.address("web");
    let group = async |peer: &Peer, host: &str| {
        let stream = peer.connect(web, host).await.unwrap();
        stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
    };

    let browser = peer.clone().groups(&[kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1]);
    assert_eq!(group(&browser, "a.test").await, NamedGroup::X25519MLKEM768);
    assert_eq!(group(&peer.clone().groups(&[kx_group::X25519]), "a.test").await, NamedGroup::X25519);
    assert_eq!(group(&browser.clone().version(&version::TLS12), "a.test").await, NamedGroup::X25519);
    assert_eq!(group(&browser, "classic.test").await, NamedGroup::secp256r1);
}

#[tokio::test]
async fn new_files_serve_the_next_handshake_and_bad_ones_change_nothing() {
    let scene = Scene::new().await;
    let (files, old) = scene.certificate("a", &["a.test"]);
    let new = scene.servers.issue("new", &["a.test"]);
    let (gateway, peer, _, _origin) = scene.open(json!({"web": {"certificates": [files]}})).await;
    let web = gateway.address("web");
    let resuming = peer.clone().resuming();
    resuming.get(web, "a.test", "a.test").await.unwrap().expect(200);
    let mut open = peer.connect(web, "a.test").await.unwrap();
    assert_eq!(shown(&open), old.der);
    let speak = b"GET /status/200 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    open.write_all(speak).await.unwrap();
    heard(&mut open, "\"status\":200}").await;

    new.files(gateway.directory(), "a");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while shown(&peer.connect(web, "a.test").await.unwrap()) != new.der {
        assert!(std::time::Instant::now() < until, "the new certificate never serves");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    open.write_all(speak).await.unwrap();
    heard(&mut open, "\"status\":200}").await;
    assert_eq!(resume(&resuming, (web, "a.test")).await.unwrap(), HandshakeKind::Resumed);
    replace(&gateway.directory().join("a.crt"), b"nonsense");
    let told = gateway.logged(|line| line["level"] == "ERROR" && line.to_string().contains("a.crt")).await;
    assert!(told.to_string().contains("no certificate"), "{told}");
    assert_eq!(shown(&peer.connect(web, "a.test").await.unwrap()), new.der);
}

async fn heard(stream: &mut TlsStream<TcpStream>, end: &str) {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn metrics_tell_when_certificates_end() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("a", &["a.test", "*.b.test"]);
    let (mut gateway, _, _, _origin) =
        scene.open(json!({"web": {"certificates": [files]}, "more": {"certificates": [files]}})).await;
    let end = |entrypoint: &str, name: &str| {
        format!("tollgate_certificate_not_after_seconds{{entrypoint=\"{entrypoint}\",name=\"{name}\"}}")
    };

    for series in [end("web", "a.test"), end("web", "*.b.test"), end("more", "a.test")] {
        assert_eq!(metric(&gateway, &series).await, Some(2_209_075_200.0), "{series}");
    }
    gateway.edit_config(|config| drop(config["entrypoints"].as_object_mut().unwrap().shift_remove("more")));
    gateway.logged(|line| line["message"] == "configuration applied").await;
    assert_eq!(metric(&gateway, &end("more", "a.test")).await, None);
    assert!(metric(&gateway, &end("web", "a.test")).await.is_some());
}

#[tokio::test]
async fn a_flood_of_bad_handshakes_is_counted_and_not_logged() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("a", &["a.test"]);
    let options = json!({"sni_strict": true});
    let (gateway, peer, _, _origin) =
        scene.open(json!({"web": {"certificates": [files], "options": options}})).await;
    let web = gateway.address("web");
    let before = gateway.log().len();

    let mut flood = tokio::task::JoinSet::new();
    for number in 0..500 {
        let peer = peer.clone();
        flood.spawn(async move {
            match number % 5 {
                0 => drop(peer.connect(web, "unknown.test").await),
                1 => drop(
                    peer.version(&version::TLS13).groups(&[kx_group::MLKEM768]).connect(web, "a.test").await,
                ),
                bad => {
                    let mut tcp = TcpStream::connect(web).await.unwrap();
                    let said: &[u8] = match bad {
                        2 => b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
                        3 => b"\x00\x01\x02\x03",
                        _ => b"\x16\x03",
                    };
                    // It may have been closed on us already.
                    let _ = tcp.write_all(said).await;
                    let _ = tcp.shutdown().await;
                    let _ = tcp.read_to_end(&mut Vec::new()).await;
                }
            }
        });
    }
    flood.join_all().await;

    for reason in ["unknown-name", "cipher", "malformed", "not-tls", "closed"] {
        until_failures(&gateway, "web", reason, 100.0).await;
    }
    assert!(gateway.log().len() <= before + 2, "{:?}", &gateway.log()[before..]);
    peer.get(web, "a.test", "a.test").await.unwrap().expect(200);
    let open = "tollgate_connections_open{entrypoint=\"web\"}";
    assert!(metric(&gateway, open).await.unwrap() < 10.0);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_in_time() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("a", &["a.test"]);
    let web = json!({"address": "127.0.0.1:0", "tls": {"certificates": [files]}, "timeouts": {"handshake": "200ms"}});
    let gateway = Gateway::in_directory(scene.directory, json!({"entrypoints": {"web": web}})).await;

    let mut silent = TcpStream::connect(gateway.address("web")).await.unwrap();
    let mut heard = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut heard)).await;

    assert_eq!(closed.expect("closed within the deadline").unwrap(), 0);
    until_failures(&gateway, "web", "timeout", 1.0).await;
}

#[tokio::test]
async fn plain_http_is_told_to_speak_tls() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("a", &["a.test"]);
    let (gateway, _, _, _origin) = scene.open(json!({"web": {"certificates": [files]}})).await;

    let reply = gateway.get("/").await.expect(400);

    assert!(reply.text().contains("https"), "{}", reply.text());
    until_failures(&gateway, "web", "not-tls", 1.0).await;
}

#[tokio::test]
async fn check_finds_options_that_cannot_work() {
    let scene = Scene::new().await;
    let (files, _) = scene.certificate("a", &["a.test"]);
    let entrypoint = |options: Value| json!({"address": "127.0.0.1:0", "tls": {"certificates": [files], "hosts": {"a.test": options}}});
    let config = json!({"version": 1, "entrypoints": {
        "one": entrypoint(json!({"cipher_suites": ["TLS_AES_128_GCM_SHA25"]})),
        "two": entrypoint(json!({"curves": ["X25519MLKEM786"]})),
        "three": entrypoint(json!({"max_version": "1.2", "cipher_suites": ["TLS_AES_128_GCM_SHA256"]})),
        "four": entrypoint(json!({"curves": ["X25519MLKEM768"]})),
        "five": entrypoint(json!({"client_auth": {"mode": "require", "ca_files": ["a.key"]}})),
    }});
    let path = scene.directory.path().join("gateway.yaml");
    std::fs::write(&path, config.to_string()).unwrap();

    let output = binary().arg("check").arg(&path).output().await.unwrap();

    assert!(!output.status.success());
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    for part in [
        "entrypoint one: tls: options of a.test: unknown cipher suite \"TLS_AES_128_GCM_SHA25\", did you mean \
         \"TLS_AES_128_GCM_SHA256\"; known are",
        "entrypoint two: tls: options of a.test: unknown curve \"X25519MLKEM786\", did you mean \"X25519MLKEM768\"; \
         known are X25519MLKEM768, X25519, secp256r1, secp384r1",
        "entrypoint three: tls: options of a.test: none of the cipher suites is one of TLS 1.2",
        "entrypoint four: tls: options of a.test: none of the curves can be used with TLS 1.2",
        "entrypoint five: tls: options of a.test: client_auth: ",
        "a.key: no certificate in it",
    ] {
        assert!(told.contains(part), "{part}\n\nis not in\n\n{told}");
    }
}
