//! Which certificate answers which name, and the handshake itself.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{Acceptor, ProducesTickets},
};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    certificates::{self, Certificate, CertificateError},
    socket::Socket,
};
use crate::{
    config::tls::{CertificateFiles, EntrypointTls},
    proxy::TlsInfo,
};

/// A TLS record: alert, fatal, unrecognized_name. Sent before any
/// configuration is chosen, hence by hand.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What outlives a reload, so that sessions resume across one.
pub(super) struct TlsBasis {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

impl TlsBasis {
    pub(super) fn new() -> Result<Self, rustls::Error> {
        Ok(Self { provider: Arc::new(aws_lc_rs::default_provider()), tickets: aws_lc_rs::Ticketer::new()? })
    }
}

/// The certificates of one entrypoint, by name.
pub(super) struct TlsPolicy {
    exact: HashMap<String, Arc<ServerConfig>>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Arc<ServerConfig>>,
    /// Absent when a client must name what it wants.
    default: Option<Arc<ServerConfig>>,
}

impl TlsPolicy {
    /// Reads all files. The first of two certificates for one name wins.
    pub(super) fn load(basis: &TlsBasis, tls: &EntrypointTls) -> Result<Self, CertificateError> {
        let mut policy = Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None };
        for (index, files) in tls.certificates.iter().enumerate() {
            let first = index == 0 && !tls.options.sni_strict;
            let certificate = certificates::load(files, first)?;
            let names = certificate.names.clone();
            let config = Arc::new(server_config(basis, certificate, files)?);
            for name in names {
                match name.strip_prefix("*.") {
                    Some(rest) => policy.wildcard.entry(rest.to_owned()).or_insert_with(|| config.clone()),
                    None => policy.exact.entry(name).or_insert_with(|| config.clone()),
                };
            }
            if first {
                policy.default = Some(config);
            }
        }
        if policy.default.is_none() && policy.exact.is_empty() && policy.wildcard.is_empty() {
            return Err(CertificateError::None);
        }
        Ok(policy)
    }

    /// Exact name, then a wildcard for one more label, then the default.
    fn choose(&self, sni: Option<&str>) -> Option<&Arc<ServerConfig>> {
        let named = sni.and_then(|name| {
            self.exact.get(name).or_else(|| {
                let (_, rest) = name.split_once('.')?;
                self.wildcard.get(rest)
            })
        });
        named.or(self.default.as_ref())
    }
}

fn server_config(
    basis: &TlsBasis,
    certificate: Certificate,
    files: &CertificateFiles,
) -> Result<ServerConfig, CertificateError> {
    let unusable = |source| CertificateError::Unusable {
        cert_file: files.cert_file.clone(),
        key_file: files.key_file.clone(),
        source,
    };
    let mut config = ServerConfig::builder_with_provider(basis.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificate.chain, certificate.key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = basis.tickets.clone();
    Ok(config)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    TimedOut,
    /// The client gave up, was not speaking TLS, or shares nothing with us.
    Failed,
    UnknownName,
}

impl HandshakeFailure {
    /// Metric label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Failed => "failed",
            Self::UnknownName => "unknown-name",
        }
    }
}

/// A finished handshake; `http2` if ALPN chose it.
pub(super) struct Secured {
    pub(super) stream: TlsStream<Socket>,
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

/// The whole handshake within `deadline`.
pub(super) async fn handshake(
    policy: &TlsPolicy,
    socket: Socket,
    inside: Inside,
    deadline: Duration,
) -> Result<Secured, HandshakeFailure> {
    timeout(deadline, negotiate(policy, socket, inside)).await.unwrap_or(Err(HandshakeFailure::TimedOut))
}

async fn negotiate(policy: &TlsPolicy, socket: Socket, inside: Inside) -> Result<Secured, HandshakeFailure> {
    let failed = |_: io::Error| HandshakeFailure::Failed;
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(failed)?;
    let sni = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let Some(config) = policy.choose(sni.as_deref()).cloned() else {
        start.io.write_all(&UNRECOGNIZED_NAME).await.map_err(failed)?;
        start.io.shutdown().await.map_err(failed)?;
        return Err(HandshakeFailure::UnknownName);
    };
    let config = match inside {
        Inside::Http => config,
        Inside::Bytes => {
            let mut config = (*config).clone();
            config.alpn_protocols.clear();
            Arc::new(config)
        }
    };
    let stream = start.into_stream(config).await.map_err(failed)?;
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    let cipher =
        session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    let http2 = session.alpn_protocol() == Some(b"h2");
    Ok(Secured { info: TlsInfo { version, cipher, sni: sni.map(Arc::from) }, stream, http2 })
}
