//! One accept loop for all fakes: HTTP/1.1 and HTTP/2 on one port, without TLS
//! by prior knowledge, with TLS by ALPN.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::certificates::ServerCertificate;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A running server; dropping it closes the port and every connection.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `handler` on a free loopback port.
pub(crate) async fn serve<H, F>(handler: H) -> Listening
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    listen(None, handler).await
}

/// The same behind TLS; `protocols` are offered by ALPN.
pub(crate) async fn serve_tls<H, F>(
    certificate: &ServerCertificate,
    protocols: &[&str],
    handler: H,
) -> anyhow::Result<Listening>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Ok(listen(Some(acceptor(certificate, protocols)?), handler).await)
}

fn acceptor(certificate: &ServerCertificate, protocols: &[&str]) -> anyhow::Result<TlsAcceptor> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let chain = vec![CertificateDer::from_pem_slice(certificate.certificate_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn listen<H, F>(tls: Option<TlsAcceptor>, handler: H) -> Listening
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback address has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    Listening { address, task: tokio::spawn(accept(listener, tls, handler)) }
}

async fn accept<H, F>(listener: TcpListener, tls: Option<TlsAcceptor>, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Small events must leave at once.
                let _ = stream.set_nodelay(true);
                let (tls, handler) = (tls.clone(), handler.clone());
                connections.spawn(async move {
                    match tls {
                        None => talk(stream, handler).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(stream, handler).await;
                            }
                        }
                    }
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn talk<S, H, F>(stream: S, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// An address on which every connection is refused.
pub async fn refusing_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback address has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

pub(crate) fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    let builder = Response::builder().status(status).header("content-type", "application/json");
    builder.body(whole(value.to_string())).expect("status and header are valid")
}
