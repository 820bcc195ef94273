//! The least that pingora can do between a client and an origin: the floor that
//! `cargo xtask bench` measures the gateway against.
//!
//! `bare_pingora LISTEN TARGET`, both `host:port`.

use std::env;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service};

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
    let [listen, target] = arguments.as_slice() else {
        anyhow::bail!("usage: bare_pingora LISTEN TARGET");
    };
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare { target: target.clone() });
    proxy.add_tcp(listen);
    server.add_service(proxy);
    server.run_forever();
}
