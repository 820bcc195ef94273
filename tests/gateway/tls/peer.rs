//! Authorities, what they sign, and clients that say exactly what they offer.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::{ClientSessionMemoryCache, ClientSessionStore, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::Reply;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    key_pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self, subject: &str, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.not_after = rcgen::date_time_ymd(2040, 1, 2);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { der: certificate.der().clone(), pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// Writes its certificate beside the configuration.
    pub(crate) fn file(&self, directory: &TempDir, name: &str) -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }
}

impl Issued {
    /// Files `NAME.crt` and `NAME.key`, as the configuration names them.
    pub(crate) fn files(&self, directory: &std::path::Path, name: &str) -> Value {
        let (cert, key) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        crate::harness::gateway::replace(&key, self.key_pem.as_bytes());
        crate::harness::gateway::replace(&cert, self.pem.as_bytes());
        json!({"cert_file": cert, "key_file": key})
    }
}

/// A TLS client.
#[derive(Clone)]
pub(crate) struct Peer {
    roots: RootCertStore,
    provider: CryptoProvider,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<&'static [u8]>,
    shows: Option<(CertificateDer<'static>, Vec<u8>)>,
    /// A client resumes only with the very configuration that it began with.
    kept: Option<Arc<ClientConfig>>,
}

impl Peer {
    pub(crate) fn trusting(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        Self {
            roots,
            provider: aws_lc_rs::default_provider(),
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            alpn: vec![b"http/1.1"],
            shows: None,
            kept: None,
        }
    }

    pub(crate) fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// These suites only, in this order.
    pub(crate) fn suites(mut self, names: &[&str]) -> Self {
        let named = |name: &&str| {
            let all = aws_lc_rs::ALL_CIPHER_SUITES.iter();
            *all.clone().find(|suite| suite.suite().as_str() == Some(*name)).unwrap()
        };
        self.provider.cipher_suites = names.iter().map(named).collect();
        self
    }

    pub(crate) fn groups(mut self, groups: &[&'static dyn rustls::crypto::SupportedKxGroup]) -> Self {
        self.provider.kx_groups = groups.to_vec();
        self
    }

    pub(crate) fn alpn(mut self, protocols: &[&'static [u8]]) -> Self {
        self.alpn = protocols.to_vec();
        self
    }

    pub(crate) fn showing(mut self, certificate: &Issued) -> Self {
        let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap();
        self.shows = Some((certificate.der.clone(), key.secret_der().to_vec()));
        self
    }

    /// Keeps sessions and resumes with whatever it has, wherever it is from.
    /// Changes after this one change nothing.
    pub(crate) fn resuming(mut self) -> Self {
        let mut config = self.config(true);
        let sessions = Arc::new(AnyHost(ClientSessionMemoryCache::new(32)));
        config.resumption = Resumption::store(sessions);
        self.kept = Some(Arc::new(config));
        self
    }

    fn config(&self, sni: bool) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.shows {
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.clone()).unwrap();
                builder.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.enable_sni = sni;
        config.resumption = Resumption::disabled();
        config
    }

    pub(crate) async fn connect(&self, address: SocketAddr, host: &str) -> io::Result<TlsStream<TcpStream>> {
        self.connect_with(address, host, true).await
    }

    /// Expects `host` without asking for it.
    pub(crate) async fn connect_unnamed(
        &self,
        address: SocketAddr,
        host: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        self.connect_with(address, host, false).await
    }

    async fn connect_with(
        &self,
        address: SocketAddr,
        host: &str,
        sni: bool,
    ) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let config = self.kept.clone().unwrap_or_else(|| Arc::new(self.config(sni)));
        TlsConnector::from(config).connect(name, tcp).await
    }

    /// `GET /` with this `Host` on a connection of its own for `sni`. With TLS
    /// 1.3 a refused client learns of it here.
    pub(crate) async fn get(&self, address: SocketAddr, sni: &str, host: &str) -> anyhow::Result<Reply> {
        get(self.connect(address, sni).await?, host).await
    }
}

/// `GET /` by whichever protocol was agreed upon.
pub(crate) async fn get(stream: TlsStream<TcpStream>, host: &str) -> anyhow::Result<Reply> {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let body = Full::<Bytes>::default();
    let response = if http2 {
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(Request::get(format!("https://{host}/")).body(body)?).await?
    } else {
        let (mut sender, connection) = conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let forged = ("tollgate-client-cert-subject", "CN=forged");
        let request = Request::get("/").header(header::HOST, host).header(forged.0, forged.1);
        sender.send_request(request.body(body)?).await?
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

/// Every host is one host to it.
#[derive(Debug)]
struct AnyHost(ClientSessionMemoryCache);

fn any() -> ServerName<'static> {
    ServerName::try_from("any.test").unwrap()
}

impl ClientSessionStore for AnyHost {
    fn set_kx_hint(&self, _: ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any())
    }
}
