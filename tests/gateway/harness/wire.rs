//! Both ends of connections that say exactly what they are told, byte by byte.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tollgate_fakes::certificates::ServerCertificate;

/// Generous, because a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection; every wait is bounded.
#[derive(Debug)]
pub(crate) struct Wire<S = TcpStream>(pub(crate) S);

/// A target that accepts when it is told to.
#[derive(Debug)]
pub(crate) struct Backend(TcpListener);

impl Backend {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("the loopback address has a free port"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }

    pub(crate) async fn accept(&self) -> Wire {
        Wire(bounded(self.0.accept()).await.expect("a connection").0)
    }
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(bounded(TcpStream::connect(address)).await.expect("a listener"))
    }

    /// Where the other end sees this one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a connected socket has an address")
    }

    /// Speaks TLS from here on and trusts this authority only.
    pub(crate) async fn tls(
        self,
        name: &str,
        authority_pem: &str,
    ) -> std::io::Result<Wire<client::TlsStream<TcpStream>>> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).expect("PEM"))
            .expect("a certificate");
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        bounded(TlsConnector::from(Arc::new(config)).connect(name, self.0)).await.map(Wire)
    }

    /// Answers a TLS handshake with this certificate.
    pub(crate) async fn accept_tls(
        self,
        certificate: &ServerCertificate,
    ) -> Wire<server::TlsStream<TcpStream>> {
        let chain =
            vec![CertificateDer::from_pem_slice(certificate.certificate_pem.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).expect("PEM");
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        Wire(bounded(TlsAcceptor::from(Arc::new(config)).accept(self.0)).await.expect("a handshake"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        bounded(self.0.write_all(bytes.as_ref())).await.expect("an open connection");
        bounded(self.0.flush()).await.expect("an open connection");
    }

    /// Until what was heard ends with `end`.
    #[track_caller]
    pub(crate) fn hear(&mut self, end: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let mut heard = Vec::new();
            while !heard.ends_with(end.as_bytes()) {
                let byte = bounded(self.0.read_u8()).await;
                let so_far = String::from_utf8_lossy(&heard).into_owned();
                heard.push(byte.unwrap_or_else(|error| panic!("{caller}: {error} after {so_far:?}")));
            }
            String::from_utf8_lossy(&heard).into_owned()
        }
    }

    /// No more will be said from this end.
    pub(crate) async fn finish(&mut self) {
        bounded(self.0.shutdown()).await.expect("an open connection");
    }

    /// To the end, which may be a reset.
    pub(crate) async fn rest(&mut self) -> String {
        let mut heard = Vec::new();
        let _ = bounded(self.0.read_to_end(&mut heard)).await;
        String::from_utf8_lossy(&heard).into_owned()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("the other end says something in time")
}
