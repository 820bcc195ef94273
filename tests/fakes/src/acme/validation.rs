//! The authority's own look at a name: over HTTP, TLS or in the table of TXT records.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Book, State};

const PATIENCE: Duration = Duration::from_secs(30);
/// id-pe-acmeIdentifier, and a DER octet string of 32 bytes (RFC 8737 section 3).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";
const OCTETS: [u8; 2] = [4, 32];

pub(super) async fn look(
    state: &State,
    kind: &str,
    name: &str,
    token: &str,
    key_authorization: &str,
) -> anyhow::Result<()> {
    let digest = Sha256::digest(key_authorization);
    let look = async {
        match kind {
            "http-01" => {
                for at in known(state, |book| &book.http_ports).await {
                    over_http(at, name, token, key_authorization).await?;
                }
                Ok(())
            }
            "tls-alpn-01" => {
                for at in known(state, |book| &book.tls_ports).await {
                    over_tls(at, name, &digest).await?;
                }
                Ok(())
            }
            _ => in_dns(state, name, &BASE64_URL_SAFE_NO_PAD.encode(digest)),
        }
    };
    tokio::time::timeout(PATIENCE, look).await.context("took too long")?
}

/// A gateway on port 0 is known only once it listens.
async fn known(state: &State, ports: fn(&Book) -> &Vec<SocketAddr>) -> Vec<SocketAddr> {
    loop {
        let known = ports(&state.book()).clone();
        if !known.is_empty() {
            return known;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn over_http(at: SocketAddr, name: &str, token: &str, expected: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200"), "{name} answered {status:?}");
    ensure!(body.trim_end() == expected, "{name} answered with another key authorization");
    Ok(())
}

async fn over_tls(at: SocketAddr, name: &str, digest: &[u8]) -> anyhow::Result<()> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let stream = TcpStream::connect(at).await?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned())?, stream).await?;
    let session = stream.get_ref().1;
    ensure!(session.alpn_protocol() == Some(b"acme-tls/1"), "acme-tls/1 was not agreed on");
    let certificate =
        session.peer_certificates().and_then(|chain| chain.first()).context("no certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)?;
    let names = parsed.subject_alternative_name()?.context("no names")?;
    let [x509_parser::extensions::GeneralName::DNSName(own)] = names.value.general_names.as_slice() else {
        anyhow::bail!("not exactly one name")
    };
    ensure!(own.eq_ignore_ascii_case(name), "a certificate for {own}");
    let extension =
        parsed.extensions().iter().find(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER);
    let extension = extension.context("no acmeIdentifier")?;
    ensure!(extension.critical, "acmeIdentifier is not critical");
    ensure!(extension.value.strip_prefix(&OCTETS) == Some(digest), "another key authorization");
    Ok(())
}

fn in_dns(state: &State, name: &str, expected: &str) -> anyhow::Result<()> {
    let fqdn = format!("_acme-challenge.{name}");
    let book = state.book();
    let in_table = book.txt.get(&fqdn).is_some_and(|values| values.contains(expected));
    let file = book.txt_files.as_ref().and_then(|files| std::fs::read_to_string(files.join(&fqdn)).ok());
    let in_file = file.is_some_and(|text| text.lines().any(|line| line == expected));
    ensure!(in_table || in_file, "no such TXT record at {fqdn}");
    Ok(())
}

/// Challenge certificates are signed by nobody.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
