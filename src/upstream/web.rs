//! Requests of the gateway itself to authorities and hooks that the operator
//! names: rare, small, each on a connection of its own, each with a deadline.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, crypto,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Whole answers only, and none of those asked for is long.
const MAX_ANSWER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("{}: {source}", file.display())]
    Authority { file: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("not an http or https URL")]
    Url,
    #[error("cannot connect to {host}: {source}")]
    Connect { host: String, source: io::Error },
    #[error("no whole answer: {0}")]
    Broken(String),
    #[error("no answer in time")]
    TimedOut,
}

/// A client for HTTP/1.1, over TLS for `https`. Follows no redirects.
#[derive(Clone)]
pub struct Web {
    tls: TlsConnector,
}

impl Web {
    /// Trusts the system's authorities and those of `ca_file`. Blocks on files.
    ///
    /// # Errors
    /// When `ca_file` cannot be read. A system without authorities is none: then
    /// only those of `ca_file` are trusted.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, WebError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().unwrap_or_default());
        if let Some(file) = ca_file {
            let unreadable = |source| WebError::Authority { file: file.to_owned(), source };
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?)?;
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends a request with an absolute URL and waits for the whole answer, of
    /// whatever status, at most 1 MiB, within `deadline` over all.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        deadline: Duration,
    ) -> Result<Response<Bytes>, WebError> {
        timeout(deadline, self.exchange(request)).await.unwrap_or(Err(WebError::TimedOut))
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, WebError> {
        let uri = request.uri().clone();
        let (host, secure) = match (uri.host(), uri.scheme_str()) {
            (Some(host), Some("https")) => (host, true),
            (Some(host), Some("http")) => (host, false),
            _ => return Err(WebError::Url),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let unreachable = |source| WebError::Connect { host: host.to_owned(), source };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await.map_err(unreachable)?;
        let request = origin_form(request, &uri)?;
        if secure {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| WebError::Url)?;
            talk(self.tls.connect(name, tcp).await.map_err(unreachable)?, request).await
        } else {
            talk(tcp, request).await
        }
    }
}

/// Path and query in the request line, the authority in `Host` (RFC 9112 section 3.2.1).
fn origin_form(request: Request<Bytes>, uri: &Uri) -> Result<Request<Full<Bytes>>, WebError> {
    let (mut head, body) = request.into_parts();
    let authority = uri.authority().ok_or(WebError::Url)?;
    // Credentials in a URL never go on the wire as a host.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    head.headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|_| WebError::Url)?);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    head.uri = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    Ok(Request::from_parts(head, Full::new(body)))
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| WebError::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| WebError::Broken(error.to_string()))?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before its last answer is read.
        _ = connection => exchange.await,
    }
}
