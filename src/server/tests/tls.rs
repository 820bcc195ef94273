//! Certificates that come at run time, challenges, kinds of keys.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
    version,
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::world::{World, anyone, secure, tls_connect};
use crate::{
    config::{
        entrypoint::Entrypoint,
        tls::{ClientAuth, EntrypointTls, TlsOptions, TlsVersion},
    },
    server::{CertificateError, tls_options},
};

fn certified(names: &[&str]) -> (String, String, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
}

/// Whatever is shown, by a client that trusts anything.
async fn shown(address: SocketAddr, name: &str) -> std::io::Result<CertificateDer<'static>> {
    let stream = reach(address, name, |_| {}).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone())
}

async fn reach(
    address: SocketAddr,
    name: &str,
    change: impl FnOnce(&mut ClientConfig),
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = anyone(aws_lc_rs::default_provider(), &[&version::TLS13, &version::TLS12]);
    change(&mut config);
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// An entrypoint whose certificates all come at run time.
fn resolved() -> Entrypoint {
    let mut entrypoint = secure(Vec::new(), false);
    entrypoint.tls =
        entrypoint.tls.map(|tls| EntrypointTls { resolver: Some("acme".parse().unwrap()), ..tls });
    entrypoint
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inserted_certificate_serves_the_next_handshake() {
    let world = World::new().await;
    world.open(&[("tls", resolved())]).await;
    let address = world.address("tls");
    assert!(shown(address, "a.test").await.is_err());
    world.events.wait_for("handshake tls unknown-name").await;

    let (chain, key, first) = certified(&["a.test", "*.w.test"]);
    let names = ["A.test".to_owned(), "*.w.test".to_owned()];
    world.certificates.insert(&names, chain.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(shown(address, "a.test").await.unwrap(), first);
    assert_eq!(shown(address, "x.w.test").await.unwrap(), first);
    assert!(shown(address, "x.y.w.test").await.is_err());
    assert_eq!(world.certificates.names(), ["*.w.test", "a.test"]);
    assert!(world.certificates.not_after("a.test").is_some());
    world.events.wait_for("certificates * [\"*.w.test\", \"a.test\"]").await;

    let (chain, key, second) = certified(&["a.test"]);
    world.certificates.insert(&["a.test".to_owned()], chain.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(shown(address, "a.test").await.unwrap(), second);
    assert_eq!(shown(address, "x.w.test").await.unwrap(), first);
    world.certificates.remove(&names);
    assert!(shown(address, "a.test").await.is_err());
    assert_eq!(world.certificates.not_after("a.test"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_win_over_inserted_certificates() {
    let world = World::new().await;
    let (files, from_file) = world.certificate("a", &["a.test", "*.w.test"]);
    world.open(&[("tls", secure(vec![files], false))]).await;
    let (chain, key, inserted) = certified(&["a.test", "x.w.test", "b.test"]);
    let names = ["a.test", "x.w.test", "b.test"].map(str::to_owned);
    world.certificates.insert(&names, chain.as_bytes(), key.as_bytes()).unwrap();
    for (name, expected) in [("a.test", &from_file), ("x.w.test", &from_file), ("b.test", &inserted)] {
        assert_eq!(shown(world.address("tls"), name).await.unwrap(), *expected, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_serve_is_not_inserted() {
    let world = World::new().await;
    let (chain, _, _) = certified(&["a.test"]);
    let (_, other_key, _) = certified(&["a.test"]);
    let (good, key, _) = certified(&["a.test", "*.w.test"]);
    let insert = |names: &[&str], chain: &str, key: &str| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        world.certificates.insert(&names, chain.as_bytes(), key.as_bytes())
    };
    assert!(matches!(insert(&["a.test"], &chain, &other_key), Err(CertificateError::Unusable(_))));
    assert!(matches!(insert(&["a.test"], "", &key), Err(CertificateError::Empty)));
    assert!(matches!(insert(&["a.test"], &good, "no key"), Err(CertificateError::NotPem(_))));
    for name in ["b.test", "w.test", "x.y.w.test", "*.test"] {
        assert!(matches!(insert(&["a.test", name], &good, &key), Err(CertificateError::NotFor(_))), "{name}");
    }
    assert!(world.certificates.names().is_empty());
    insert(&["x.w.test"], &good, &key).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_with_its_certificate_alone() {
    let world = World::new().await;
    let (files, served) = world.certificate("a", &["a.test"]);
    world.open(&[("tls", secure(vec![files], false))]).await;
    let address = world.address("tls");
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&[7; 32])];
    let key = rcgen::KeyPair::generate().unwrap();
    let challenge = params.self_signed(&key).unwrap();
    world
        .certificates
        .tls_alpn_challenge("A.test", challenge.pem().as_bytes(), key.serialize_pem().as_bytes())
        .unwrap();
    let validate = |name: &'static str| {
        reach(address, name, |config| config.alpn_protocols = vec![b"acme-tls/1".to_vec()])
    };

    let mut stream = validate("a.test").await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert_eq!(&session.peer_certificates().unwrap()[0], challenge.der());
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);

    assert_eq!(shown(address, "a.test").await.unwrap(), served);
    assert!(validate("b.test").await.is_err());
    let both = reach(address, "a.test", |config| {
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"acme-tls/1".to_vec()];
    });
    assert_eq!(both.await.unwrap().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    world.certificates.remove_challenge("a.test");
    assert!(validate("a.test").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_certificates_a_client_gets_the_one_it_understands() {
    let world = World::new().await;
    let (elliptic, elliptic_der) = world.certificate("ec", &["a.test"]);
    let (rsa, rsa_der) = world.certificate_with("rsa", &["a.test"], &rcgen::PKCS_RSA_SHA256);
    world.open(&[("tls", secure(vec![elliptic, rsa], false))]).await;
    let address = world.address("tls");
    assert_eq!(shown(address, "a.test").await.unwrap(), elliptic_der);

    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let old =
        reach(address, "a.test", |config| *config = anyone(provider, &[&version::TLS12])).await.unwrap();
    assert_eq!(old.get_ref().1.peer_certificates().unwrap()[0], rsa_der);
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_outlive_a_reload() {
    let world = World::new().await;
    let (files, _) = world.certificate("a", &["a.test"]);
    let entrypoint = secure(vec![files], false);
    world.open(&[("tls", entrypoint.clone())]).await;
    let address = world.address("tls");
    let config = Arc::new(anyone(aws_lc_rs::default_provider(), &[&version::TLS12]));
    let kind = || async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let stream = TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
        stream.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(kind().await, rustls::HandshakeKind::Full);
    world.open(&[("tls", entrypoint)]).await;
    assert_eq!(kind().await, rustls::HandshakeKind::Resumed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_certificate_is_complete() {
    let world = World::new().await;
    let (files, der) = world.certificate("a", &["a.test"]);
    world.open(&[("tls", secure(vec![files], true))]).await;
    tls_connect(world.address("tls"), "a.test", &der, b"h2").await.unwrap();
}

#[test]
fn options_that_cannot_work_are_refused() {
    let options = |min_version, max_version, suites: &[&str], curves: &[&str]| TlsOptions {
        min_version,
        max_version,
        cipher_suites: suites.iter().map(|name| (*name).to_owned()).collect(),
        curves: curves.iter().map(|name| (*name).to_owned()).collect(),
        ..TlsOptions::default()
    };
    let (v12, v13) = (TlsVersion::V12, TlsVersion::V13);
    let (old, new) = ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384");
    for good in [
        options(v12, v13, &[old], &[]),
        options(v12, v12, &[old, new], &[]),
        options(v13, v13, &["tls_aes_256_gcm_sha384", old], &["x25519mlkem768"]),
        options(v12, v13, &[], &["SECP384R1"]),
    ] {
        assert!(tls_options::compile(&good).is_ok(), "{good:?}");
    }
    for (bad, told) in [
        (options(v12, v12, &[new], &[]), "TLS 1.2: add one, or allow TLS 1.3"),
        (options(v12, v13, &[new], &[]), "TLS 1.2: add one, or set min_version \"1.3\""),
        (options(v13, v13, &[old], &[]), "none of the cipher suites is one of TLS 1.3"),
        (options(v12, v13, &[], &["X25519MLKEM768"]), "none of the curves"),
        (
            options(v12, v13, &["RC4"], &[]),
            "unknown cipher suite \"RC4\"; known are TLS_AES_256_GCM_SHA384, ",
        ),
        (options(v12, v13, &[], &["X2551"]), "unknown curve \"X2551\", did you mean \"X25519\""),
    ] {
        let error = tls_options::compile(&bad).err().unwrap().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn equal_demands_have_equal_policies() {
    let directory = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, certified(&["ca.test"]).0).unwrap();
        file
    };
    let (one, other) = (authority("one.pem"), authority("other.pem"));
    let policy = |client_auth| {
        tls_options::compile(&TlsOptions { client_auth, ..TlsOptions::default() }).unwrap().client_policy
    };
    let request = |file: &std::path::PathBuf| policy(ClientAuth::Request { ca_files: vec![file.clone()] });
    let require = |file: &std::path::PathBuf| policy(ClientAuth::Require { ca_files: vec![file.clone()] });
    let all = [policy(ClientAuth::None), request(&one), request(&other), require(&one), require(&other)];
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(require(&one), all[3]);
    let before = require(&one);
    std::fs::copy(&other, &one).unwrap();
    assert_ne!(require(&one), before, "another authority in the same file");
}
