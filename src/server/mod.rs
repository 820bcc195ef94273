//! The data plane's doors: sockets, TLS by SNI, the checks a request head must
//! pass before the HTTP engine sees it, and the drain.
//!
//! The process runs on its own tokio runtime. The engine is pingora's
//! `HttpProxy`, given one request at a time.

mod by_name;
mod certificate;
mod certificates;
mod chunked;
mod client_hello;
mod connection;
mod doorman;
mod doors;
mod front;
mod greeting;
mod head;
mod http2;
mod incoming;
mod opening;
mod passage;
mod proxy_protocol;
mod refusal;
mod sockets;
mod streams;
mod ticket;
mod tls;
mod tls_failure;
mod tls_hosts;
mod tls_options;
mod tls_sessions;
mod x509;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use pingora::{
    proxy::{HttpProxy, ProxyHttp},
    server::configuration::ServerConf,
};

pub use certificate::CertificateError;
pub use certificates::Certificates;
pub use doors::{DoorError, Doors, check};
pub use sockets::{Inherited, Socket};
pub use streams::Wanted;
pub use tls::TlsError;
pub use tls_options::TlsOptionsError;

use crate::telemetry::{Shed, StreamMetrics, StreamRecord};

/// What the front tells about connections that never become requests. Every
/// method has an empty default, and `()` listens to nothing.
pub trait FrontEvents: Send + Sync + 'static {
    fn connection_opened(&self, _entrypoint: &str) {}
    fn connection_closed(&self, _entrypoint: &str) {}
    /// Closed unheard, for want of room.
    fn connection_shed(&self, _entrypoint: &str, _why: Shed) {}
    /// The kernel could not hand over a connection, usually for want of descriptors.
    fn accept_failed(&self, _entrypoint: &str) {}
    /// `reason` is one of a few fixed words, fit for a metric label.
    fn handshake_failed(&self, _entrypoint: &str, _reason: &'static str) {}
    /// All names that have a certificate of their own on `entrypoint` from now
    /// on, and when it ends; `*` is every entrypoint. A name may come twice.
    fn certificates(&self, _entrypoint: &str, _ends: &[(String, SystemTime)]) {}
    /// A listed balancer's connection did not begin with a valid PROXY protocol header.
    fn proxy_header_refused(&self, _entrypoint: &str) {}
    /// What counts the connections of a TCP service; asked when a configuration is applied.
    fn stream_metrics(&self, _service: &str) -> Option<Arc<StreamMetrics>> {
        None
    }
    fn stream_ended(&self, _record: &StreamRecord<'_>) {}
    /// The front answered a malformed, oversized or slow head by itself.
    fn refused(&self, _entrypoint: &str, _status: u16) {}
    /// An HTTP/2 connection was ended for what its client did. `reason` is one
    /// of a few fixed words.
    fn http2_cut(&self, _entrypoint: &str, _reason: &'static str) {}
}

impl FrontEvents for () {}

/// The HTTP engine around `proxy`, ready to be given to [`Doors::new`].
///
/// Must be called before the first connection, and needs no runtime.
/// `max_retries` bounds the attempts of one request upstream.
pub fn http_proxy<P>(proxy: P, upstream_pool: usize, max_retries: usize) -> Arc<HttpProxy<P>>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    // The pool is one for all threads: pingora multiplies its size by `threads`.
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: upstream_pool,
        max_retries,
        ..ServerConf::default()
    };
    let mut engine = HttpProxy::new(proxy, Arc::new(conf));
    engine.handle_init_modules();
    Arc::new(engine)
}
