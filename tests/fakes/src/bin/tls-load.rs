//! Opens TLS 1.3 connections to a server, closes them when the server has sent
//! its session tickets, and counts them. Prints one line of JSON.
//!
//! `tls-load ADDRESS SECONDS full|resumed x25519|x25519mlkem768`
//!
//! It trusts any certificate and checks no signature, so that the server's side
//! is the one that is measured.

use std::{
    env,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Connections that are being opened at any time.
const AT_ONCE: u16 = 16;
/// For one connection, from its SYN to its end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest run that is accepted.
const LONGEST: f64 = 60.0;

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    full: u64,
    resumed: u64,
    failed: u64,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the line of JSON is this program's result")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, seconds, mode, group] = arguments.as_slice() else {
        bail!("usage: tls-load ADDRESS SECONDS full|resumed x25519|x25519mlkem768");
    };
    let address: SocketAddr = address.parse()?;
    let seconds: f64 = seconds.parse()?;
    if !(0.0..=LONGEST).contains(&seconds) {
        bail!("at most {LONGEST} seconds");
    }
    let resumes = match mode.as_str() {
        "full" => false,
        "resumed" => true,
        other => bail!("neither full nor resumed: {other}"),
    };
    let group = match group.as_str() {
        "x25519" => aws_lc_rs::kx_group::X25519,
        "x25519mlkem768" => aws_lc_rs::kx_group::X25519MLKEM768,
        other => bail!("unknown group: {other}"),
    };
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(seconds);
    let mut clients = JoinSet::new();
    for number in 0..AT_ONCE {
        clients.spawn(Client::new(address, group, resumes, number)?.run(end));
    }
    let mut all = Count::default();
    while let Some(count) = clients.join_next().await {
        let count = count?;
        all.full += count.full;
        all.resumed += count.resumed;
        all.failed += count.failed;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let Count { full, resumed, failed } = all;
    println!("{}", json!({"full": full, "resumed": resumed, "failed": failed, "seconds": elapsed}));
    Ok(())
}

/// One connection after another.
struct Client {
    address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
    tickets: Arc<Tickets>,
    number: u16,
    opened: u16,
}

impl Client {
    fn new(
        address: SocketAddr,
        group: &'static dyn SupportedKxGroup,
        resumes: bool,
        number: u16,
    ) -> anyhow::Result<Self> {
        let provider = CryptoProvider { kx_groups: vec![group], ..aws_lc_rs::default_provider() };
        let tickets = Arc::new(Tickets { resumes, ..Tickets::default() });
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        config.resumption = Resumption::store(tickets.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost")?;
        Ok(Self {
            address,
            name,
            connector: TlsConnector::from(Arc::new(config)),
            tickets,
            number,
            opened: 0,
        })
    }

    async fn run(mut self, end: Instant) -> Count {
        let mut count = Count::default();
        while Instant::now() < end {
            match timeout(PATIENCE, self.once()).await {
                Ok(Ok(HandshakeKind::Resumed)) => count.resumed += 1,
                Ok(Ok(_)) => count.full += 1,
                Ok(Err(_)) | Err(_) => count.failed += 1,
            }
        }
        count
    }

    async fn once(&mut self) -> anyhow::Result<HandshakeKind> {
        let tcp = self.open().await?;
        self.tickets.fresh.store(false, Ordering::Relaxed);
        let mut stream = self.connector.connect(self.name.clone(), tcp).await?;
        let kind = stream.get_ref().1.handshake_kind().context("no handshake")?;
        self.await_ticket(&mut stream).await?;
        stream.shutdown().await?;
        Ok(kind)
    }

    /// The side that closes keeps the port for a minute, and a minute holds more
    /// connections than one address has ports: the clients take turns over many.
    async fn open(&mut self) -> io::Result<TcpStream> {
        let [high, low] = self.opened.to_be_bytes();
        self.opened = self.opened.wrapping_add(1);
        let socket = TcpSocket::new_v4()?;
        if self.address.ip().is_loopback() {
            let [_, number] = self.number.to_be_bytes();
            socket.bind(SocketAddr::from(([127, 1 + number, high, low.max(1)], 0)))?;
        }
        let tcp = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// Tickets follow the handshake; without one the next connection resumes nothing.
    async fn await_ticket(&self, stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
        poll_fn(|context| {
            let mut bytes = [0; 16];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
            if self.tickets.fresh.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            read.map(|outcome| outcome.and(Err(io::ErrorKind::UnexpectedEof.into())))
        })
        .await
    }
}

/// The last ticket of one client, handed out only where sessions are to be resumed.
#[derive(Debug, Default)]
struct Tickets {
    last: Mutex<Option<Tls13ClientSessionValue>>,
    fresh: AtomicBool,
    resumes: bool,
}

impl Tickets {
    fn last(&self) -> MutexGuard<'_, Option<Tls13ClientSessionValue>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        *self.last() = Some(value);
        self.fresh.store(true, Ordering::Relaxed);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.last().take();
        ticket.filter(|_| self.resumes)
    }
}

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
