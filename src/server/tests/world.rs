//! A relay through the engine, an origin, certificates and raw clients.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora::{
    http::ResponseHeader,
    proxy::{HttpProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{
    config::{
        ByteSize, Name,
        entrypoint::{Entrypoint, Limits, Timeouts},
        tls::{CertificateFiles, EntrypointTls, TlsOptions},
    },
    proxy::arrival,
    server::{Certificates, Doors, FrontEvents, http_proxy},
    telemetry::Shed,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Sends everything to the origin and tells the client where it came in.
pub(super) struct Relay {
    origin: SocketAddr,
}

#[async_trait::async_trait]
impl ProxyHttp for Relay {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        (): &mut (),
    ) -> pingora::Result<()> {
        let arrival = session.digest().and_then(arrival).unwrap().clone();
        response.insert_header("x-entrypoint", &*arrival.entrypoint)?;
        response.insert_header("x-peer", arrival.peer.to_string())?;
        if let Some(tls) = arrival.tls {
            response.insert_header("x-tls", tls.version)?;
            response.insert_header("x-sni", tls.sni.as_deref().unwrap_or("-"))?;
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Seen(Mutex<Vec<String>>);

impl Seen {
    fn add(&self, event: String) {
        self.0.lock().unwrap().push(event);
    }

    /// Until `event` was told: the client may learn of it first.
    pub(super) async fn wait_for(&self, event: &str) {
        let told = async {
            while !self.0.lock().unwrap().iter().any(|seen| seen == event) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{event} was never told"));
    }
}

impl FrontEvents for Seen {
    fn connection_shed(&self, entrypoint: &str, why: Shed) {
        self.add(format!("shed {entrypoint} {}", why.label()));
    }
    fn handshake_failed(&self, entrypoint: &str, reason: &'static str) {
        self.add(format!("handshake {entrypoint} {reason}"));
    }
    fn certificates(&self, entrypoint: &str, ends: &[(String, SystemTime)]) {
        let names: Vec<_> = ends.iter().map(|(name, _)| name).collect();
        self.add(format!("certificates {entrypoint} {names:?}"));
    }
    fn refused(&self, entrypoint: &str, status: u16) {
        self.add(format!("refused {entrypoint} {status}"));
    }
}

pub(super) struct World {
    pub(super) doors: Arc<Doors<HttpProxy<Relay>>>,
    pub(super) events: Arc<Seen>,
    pub(super) certificates: Arc<Certificates>,
    /// One message for each request to `/held` that reached the origin.
    pub(super) reached: mpsc::UnboundedReceiver<()>,
    /// Each permit lets one of them go.
    pub(super) gate: Arc<Semaphore>,
    files: tempfile::TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let (tell, reached) = mpsc::unbounded_channel();
        let origin = origin(gate.clone(), tell).await;
        let events = Arc::new(Seen::default());
        let engine = http_proxy(Relay { origin }, 16, 1);
        let certificates = Certificates::new(events.clone());
        let doors = Doors::new(engine, events.clone(), certificates.clone());
        Self { doors, events, certificates, reached, gate, files: tempfile::tempdir().unwrap() }
    }

    pub(super) async fn open(&self, entrypoints: &[(&str, Entrypoint)]) {
        self.doors.apply(&named(entrypoints)).await.unwrap();
    }

    pub(super) fn address(&self, name: &str) -> SocketAddr {
        self.doors.addresses()[name]
    }

    /// A relay with one plaintext entrypoint, `web`.
    pub(super) async fn plain() -> Self {
        let world = Self::new().await;
        world.open(&[("web", plain())]).await;
        world
    }

    /// Writes a new self-signed certificate for `names` into `file`.
    pub(super) fn certificate(
        &self,
        file: &str,
        names: &[&str],
    ) -> (CertificateFiles, CertificateDer<'static>) {
        self.certificate_with(file, names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(super) fn certificate_with(
        &self,
        file: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> (CertificateFiles, CertificateDer<'static>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let path = |end: &str| -> PathBuf { self.files.path().join(format!("{file}.{end}")) };
        std::fs::write(path("crt"), made.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (CertificateFiles { cert_file: path("crt"), key_file: path("key") }, made.der().clone())
    }
}

pub(super) fn named(entrypoints: &[(&str, Entrypoint)]) -> BTreeMap<Name, Entrypoint> {
    entrypoints.iter().map(|(name, entrypoint)| (name.parse().unwrap(), entrypoint.clone())).collect()
}

pub(super) fn plain() -> Entrypoint {
    Entrypoint {
        timeouts: Timeouts {
            handshake: PATIENCE,
            header: PATIENCE,
            body_idle: PATIENCE,
            idle: PATIENCE,
            drain: PATIENCE,
            ..Timeouts::default()
        },
        limits: Limits { max_header: ByteSize(4096), max_connections: 100, ..Limits::default() },
        ..Entrypoint::plain("127.0.0.1:0".parse().unwrap())
    }
}

pub(super) fn secure(certificates: Vec<CertificateFiles>, sni_strict: bool) -> Entrypoint {
    let options = TlsOptions { sni_strict, ..TlsOptions::default() };
    let tls = EntrypointTls { certificates, resolver: None, options, hosts: BTreeMap::new() };
    Entrypoint { tls: Some(tls), ..plain() }
}

/// Answers with method, path and body; `/held` waits at the gate first.
async fn origin(gate: Arc<Semaphore>, reached: mpsc::UnboundedSender<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (gate, reached) = (gate.clone(), reached.clone());
            let service = service_fn(move |request| answer(request, gate.clone(), reached.clone()));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service),
            );
        }
    });
    address
}

async fn answer(
    request: Request<Incoming>,
    gate: Arc<Semaphore>,
    reached: mpsc::UnboundedSender<()>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {} ", request.method(), request.uri().path());
    if request.uri().path() == "/held" {
        reached.send(()).unwrap();
        gate.acquire().await.unwrap().forget();
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Ok(Response::new(Full::new([line.as_bytes(), &body].concat().into())))
}

/// A client that says exactly what it is told.
pub(super) struct Raw(pub(super) TcpStream);

impl Raw {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Until what was heard ends with `end`.
    pub(super) async fn hear(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        let listening = async {
            while !heard.ends_with(end.as_bytes()) {
                let byte = self.0.read_u8().await;
                heard.push(
                    byte.unwrap_or_else(|_| panic!("ended after {:?}", String::from_utf8_lossy(&heard))),
                );
            }
        };
        timeout(PATIENCE, listening).await.unwrap();
        String::from_utf8(heard).unwrap()
    }

    /// To the end of the connection.
    pub(super) async fn rest(&mut self) -> String {
        let mut heard = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut heard)).await.unwrap().unwrap();
        String::from_utf8(heard).unwrap()
    }
}

/// A TLS connection that trusts exactly `trusted`.
pub(super) async fn tls_connect(
    address: SocketAddr,
    name: &str,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// One GET over HTTP/2 on `stream`: head and body.
pub(super) async fn get_http2<S>(stream: S, uri: &str) -> (http::response::Parts, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let (head, body) = timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head, String::from_utf8(body.to_vec()).unwrap())
}

/// A client that trusts anyone.
pub(super) fn anyone(
    provider: CryptoProvider,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ClientConfig {
    let provider = Arc::new(provider);
    rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
        .with_no_client_auth()
}

/// Believes every certificate.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
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
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
