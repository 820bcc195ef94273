//! The least that pingora can do between a client and an origin: the floor that
//! `cargo xtask bench` measures the gateway against.
//!
//! `bare_pingora LISTEN LISTEN_TLS CERT_FILE KEY_FILE TARGET`; addresses are `host:port`.

use std::env;

use async_trait::async_trait;
use pingora::{
    apps::HttpServerOptions,
    listeners::tls::TlsSettings,
    prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service},
};

struct Bare {
    target: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.target.as_str(), false, String::new())))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, listen_tls, certificate, key, target] = arguments.as_slice() else {
        anyhow::bail!("usage: bare_pingora LISTEN LISTEN_TLS CERT_FILE KEY_FILE TARGET");
    };
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare { target: target.clone() });
    if let Some(app) = proxy.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        app.server_options = Some(options);
    }
    proxy.add_tcp(listen);
    let mut tls = TlsSettings::intermediate(certificate, key)?;
    tls.enable_h2();
    proxy.add_tls_with_settings(listen_tls, None, tls);
    server.add_service(proxy);
    server.run_forever();
}
