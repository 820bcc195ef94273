//! The data plane's doors: sockets, TLS by SNI, the checks a request head must
//! pass before the HTTP engine sees it, and the drain.
//!
//! The process runs on its own tokio runtime. The engine is pingora's
//! `HttpProxy`, given one connection (HTTP/2) or one request (HTTP/1) at a time.

mod certificates;
mod chunked;
mod connection;
mod doors;
mod front;
mod head;
mod refusal;
mod tls;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use pingora::{
    apps::HttpServerOptions,
    protocols::http::v2::server::default_h2_options,
    proxy::{HttpProxy, ProxyHttp},
    server::configuration::ServerConf,
};

pub use certificates::CertificateError;
pub use doors::{DoorError, Doors, check};

/// What the front tells about connections that never become requests. Every
/// method has an empty default, and `()` listens to nothing.
pub trait FrontEvents: Send + Sync + 'static {
    fn connection_opened(&self, _entrypoint: &str) {}
    fn connection_closed(&self, _entrypoint: &str) {}
    /// Closed unheard: the entrypoint was at its `max_connections`.
    fn connection_shed(&self, _entrypoint: &str) {}
    /// `reason` is one of a few fixed words, fit for a metric label.
    fn handshake_failed(&self, _entrypoint: &str, _reason: &'static str) {}
    /// The front answered a malformed, oversized or slow head by itself.
    fn refused(&self, _entrypoint: &str, _status: u16) {}
}

impl FrontEvents for () {}

/// The HTTP engine around `proxy`, ready to be given to [`Doors::new`].
///
/// `idle` closes HTTP/2 connections without open streams; HTTP/1 connections
/// follow their entrypoint. Must be called before the first connection, and
/// needs no runtime. `max_retries` bounds the attempts of one request upstream.
pub fn http_proxy<P>(proxy: P, idle: Duration, upstream_pool: usize, max_retries: usize) -> Arc<HttpProxy<P>>
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
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(idle);
    engine.server_options = Some(options);
    engine.h2_options = Some(default_h2_options());
    engine.handle_init_modules();
    Arc::new(engine)
}
