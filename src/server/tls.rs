//! The TLS of one entrypoint, and the handshake itself.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    server::{Acceptor, ClientHello},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    certificate::{Certificate, CertificateError},
    certificates::{ACME_TLS, Certificates},
    opening::Opening,
    tls_failure::HandshakeFailure,
    tls_hosts::Hosts,
    tls_options::{self, CompiledOptions, TlsOptionsError},
    tls_sessions::{SessionBook, Sessions},
    x509,
};
use crate::{
    config::tls::{EntrypointTls, TlsOptions},
    proxy::TlsInfo,
};

/// A TLS record: alert, fatal, unrecognized_name. Sent before any
/// configuration is chosen, hence by hand.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The first byte of a TLS connection.
const HANDSHAKE_RECORD: u8 = 22;
/// How long a client that spoke HTTP may take to read why it was refused.
const LINGER: Duration = Duration::from_secs(1);

/// What is wrong with the TLS of an entrypoint.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("options{}: {source}", of.as_deref().map(|name| format!(" of {name}")).unwrap_or_default())]
    Options { of: Option<String>, source: TlsOptionsError },
}

/// What outlives a reload, so that sessions resume across one.
pub(super) struct TlsBasis {
    sessions: SessionBook,
    certificates: Arc<Certificates>,
}

impl TlsBasis {
    pub(super) fn new(certificates: Arc<Certificates>) -> Self {
        Self { sessions: SessionBook::default(), certificates }
    }
}

/// How an entrypoint answers handshakes.
pub(super) struct TlsPolicy {
    hosts: Arc<Hosts>,
    certificates: Arc<Certificates>,
    /// One for each of the distinct options.
    configs: Vec<Arc<ServerConfig>>,
    /// Names and ends of the certificates from files.
    pub(super) ends: Vec<(String, SystemTime)>,
    /// Keeps the sessions for the next reload.
    _sessions: Vec<Arc<Sessions>>,
}

impl TlsPolicy {
    /// Reads all files. The first of two certificates with the same kind of key
    /// wins a name.
    pub(super) fn load(basis: &TlsBasis, tls: &EntrypointTls) -> Result<Self, Vec<TlsError>> {
        let mut errors = Vec::new();
        let mut certificates = Vec::new();
        for (index, files) in tls.certificates.iter().enumerate() {
            let nameless = index == 0 && !tls.options.sni_strict;
            match Certificate::load(basis.certificates.provider(), files, nameless) {
                Ok(certificate) => certificates.push(Arc::new(certificate)),
                Err(error) => errors.push(error.into()),
            }
        }
        if tls.certificates.is_empty() && tls.resolver.is_none() {
            errors.push(CertificateError::None.into());
        }
        let ends = ends(&certificates);
        let (hosts, distinct) = Hosts::new(tls, certificates, basis.certificates.clone());
        let hosts = Arc::new(hosts);
        let (mut configs, mut sessions) = (Vec::new(), Vec::new());
        for options in &distinct {
            match server_config(basis, options, &hosts) {
                Ok((config, own)) => {
                    configs.push(Arc::new(config));
                    sessions.push(own);
                }
                Err(source) => errors.push(TlsError::Options { of: owner(tls, options), source }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { hosts, certificates: basis.certificates.clone(), configs, ends, _sessions: sessions })
    }

    /// `None` refuses the client.
    fn decide(&self, hello: &ClientHello<'_>, sni: Option<&str>) -> Option<Decision> {
        if hello.alpn().is_some_and(|offered| offered.eq([ACME_TLS])) {
            return self.certificates.challenge(sni?).map(Decision::Challenge);
        }
        if !self.hosts.answers(sni) {
            return None;
        }
        self.configs.get(self.hosts.terms(sni).options).cloned().map(Decision::Serve)
    }
}

enum Decision {
    Serve(Arc<ServerConfig>),
    /// The handshake alone is the answer.
    Challenge(Arc<ServerConfig>),
}

fn ends(certificates: &[Arc<Certificate>]) -> Vec<(String, SystemTime)> {
    let each = certificates.iter().flat_map(|own| {
        let nameless = own.names.is_empty().then(|| "-".to_owned());
        own.names.iter().cloned().chain(nameless).map(|name| (name, own.not_after))
    });
    each.collect()
}

/// The name that has these options; none for those of the entrypoint.
fn owner(tls: &EntrypointTls, options: &TlsOptions) -> Option<String> {
    if tls.options == *options {
        return None;
    }
    tls.hosts.iter().find(|(_, own)| *own == options).map(|(name, _)| name.clone())
}

fn server_config(
    basis: &TlsBasis,
    options: &TlsOptions,
    hosts: &Arc<Hosts>,
) -> Result<(ServerConfig, Arc<Sessions>), TlsOptionsError> {
    let CompiledOptions { provider, versions, alpn, own_order, verifier, client_policy } =
        tls_options::compile(options)?;
    let sessions = basis.sessions.of(client_policy).map_err(TlsOptionsError::Unusable)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(TlsOptionsError::Unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(hosts.clone());
    config.alpn_protocols = alpn;
    config.ignore_client_order = own_order;
    config.ticketer = sessions.tickets.clone();
    config.session_storage = sessions.cache.clone();
    Ok((config, sessions))
}

/// A finished handshake; `http2` if ALPN chose it.
pub(super) struct Secured<S> {
    pub(super) stream: TlsStream<Opening<S>>,
    pub(super) info: TlsInfo,
    pub(super) http2: bool,
}

/// What TLS carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    Http,
    /// Something that is passed on: only the two ends know what, so no protocol
    /// is agreed upon by ALPN.
    Bytes,
}

impl Inside {
    fn fitting(self, config: Arc<ServerConfig>) -> Arc<ServerConfig> {
        if self == Self::Http {
            return config;
        }
        let mut config = ServerConfig::clone(&config);
        config.alpn_protocols.clear();
        Arc::new(config)
    }
}

/// The whole handshake within `deadline`. `None`: a challenge was answered, and
/// the connection is closed.
pub(super) async fn handshake<S>(
    policy: &TlsPolicy,
    tcp: S,
    inside: Inside,
    deadline: Duration,
) -> Result<Option<Secured<S>>, HandshakeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(deadline, negotiate(policy, tcp, inside)).await.unwrap_or(Err(HandshakeFailure::TimedOut))
}

async fn negotiate<S>(
    policy: &TlsPolicy,
    tcp: S,
    inside: Inside,
) -> Result<Option<Secured<S>>, HandshakeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut opening = Opening::new(tcp);
    match opening.peek().await?.first() {
        Some(&HANDSHAKE_RECORD) => {}
        Some(_) => return Err(not_tls(opening).await),
        None => return Err(HandshakeFailure::Closed),
    }
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), opening).await?;
    let hello = start.client_hello();
    let sni = hello.server_name().map(str::to_ascii_lowercase);
    match policy.decide(&hello, sni.as_deref()) {
        Some(Decision::Serve(config)) => {
            secured(policy, start.into_stream(inside.fitting(config)).await?, sni).map(Some)
        }
        Some(Decision::Challenge(config)) => {
            start.into_stream(config).await?.shutdown().await?;
            Ok(None)
        }
        None => {
            start.io.write_all(&UNRECOGNIZED_NAME).await?;
            start.io.shutdown().await?;
            Err(HandshakeFailure::UnknownName)
        }
    }
}

fn secured<S>(
    policy: &TlsPolicy,
    stream: TlsStream<Opening<S>>,
    sni: Option<String>,
) -> Result<Secured<S>, HandshakeFailure> {
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    let cipher =
        session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let client = match session.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => {
            let identity = x509::identity(certificate).map_err(|_| HandshakeFailure::BadCertificate)?;
            // A resumed session was verified when it began, not now.
            if identity.not_after < SystemTime::now() {
                return Err(HandshakeFailure::BadCertificate);
            }
            Some(Arc::new(identity))
        }
        None => None,
    };
    let info = TlsInfo { version, cipher, sni: sni.map(Arc::from), client, hosts: policy.hosts.clone() };
    Ok(Secured { stream, info, http2 })
}

/// HTTP that was meant for another port is told so; anything else is closed.
async fn not_tls<S>(mut opening: Opening<S>) -> HandshakeFailure
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const ANSWER: &str = "this port speaks TLS; use https\n";
    let looks_like_http = match opening.peek().await {
        Ok(first) => first.iter().take(3).all(u8::is_ascii_uppercase),
        Err(_) => false,
    };
    if looks_like_http {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        // The client may be gone already.
        let _ = tell(&mut opening, answer.as_bytes()).await;
    }
    HandshakeFailure::NotTls
}

/// Closing with unread input would take the answer back.
async fn tell<S>(opening: &mut Opening<S>, answer: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    opening.write_all(answer).await?;
    opening.shutdown().await?;
    let mut nowhere = tokio::io::sink();
    let _ = timeout(LINGER, tokio::io::copy(opening, &mut nowhere)).await;
    Ok(())
}
