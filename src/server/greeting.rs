//! The start of a connection: who it is from, whether a stream takes it, TLS.
//! All of it within one handshake deadline.

use std::{net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use pingora::apps::HttpServerApp;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    client_hello::{self, Opening},
    connection::{Connection, Transport},
    front::Front,
    incoming::Incoming,
    passage::Passage,
    proxy_protocol::{self, Header},
    streams::Way,
    tls::{self, Inside},
};
use crate::proxy::Arrival;

/// Who serves a connection that has been greeted.
pub(super) enum Greeted {
    Http(Connection),
    Stream(Passage, Box<dyn Transport>),
}

/// `opening` is as far as anybody looked.
struct Choice {
    way: Option<Arc<Way>>,
    opening: Opening,
}

/// The PROXY protocol header that had to come did not.
enum Unannounced {
    /// Closed without a word, as the health checks of balancers do.
    Left,
    Refused,
}

impl<A> Front<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// `None`: closed, and counted where that says something.
    pub(super) async fn greet(&mut self, tcp: TcpStream, peer: SocketAddr) -> Option<Greeted> {
        let deadline = Instant::now() + self.policy.timeouts.handshake;
        let mut socket = Incoming::new(tcp);
        let arrival = self.arrive(&mut socket, peer, deadline).await?;
        // A client behind a proxy is counted once the proxy has named it.
        if !self.ticket.admit(arrival.peer.ip()) {
            return None;
        }
        let Choice { way, opening } = self.choose(&mut socket, deadline).await?;
        let Some(way) = way else { return self.to_http(socket, arrival, deadline).await };
        let (tls, sni) = match opening {
            Opening::Tls { sni, .. } => (true, sni),
            Opening::Other => (false, None),
        };
        if !way.terminate {
            let passage = Passage::new(way, self.events.clone(), arrival, tls, sni);
            return Some(Greeted::Stream(passage, Box::new(socket)));
        }
        let (client, arrival, _) = self.end_tls(socket, arrival, Inside::Bytes, deadline).await?;
        let passage = Passage::new(way, self.events.clone(), arrival, tls, sni);
        Some(Greeted::Stream(passage, client))
    }

    /// The stream that takes the connection, if one does.
    async fn choose(&mut self, socket: &mut Incoming, deadline: Instant) -> Option<Choice> {
        let Some(streams) = &self.policy.streams else {
            return Some(Choice { way: None, opening: Opening::Other });
        };
        if let Some(way) = streams.unseen() {
            return Some(Choice { way: Some(way.clone()), opening: Opening::Other });
        }
        let opening = tokio::select! {
            biased;
            _ = self.closing.changed() => return None,
            opening = timeout_at(deadline, client_hello::opening(socket)) => opening.ok()?.ok()?,
        };
        Some(Choice { way: streams.choose(&opening).cloned(), opening })
    }

    async fn to_http(&self, socket: Incoming, arrival: Arrival, deadline: Instant) -> Option<Greeted> {
        let id = socket.as_raw_fd();
        let (transport, arrival, http2) = match self.policy.tls {
            Some(_) => self.end_tls(socket, arrival, Inside::Http, deadline).await?,
            None => (Box::new(socket) as Box<dyn Transport>, arrival, false),
        };
        Connection::new(transport, id, arrival, http2).ok().map(Greeted::Http)
    }

    /// Where the connection is from: the socket's peer, or, where that is a
    /// listed balancer, whom it says.
    async fn arrive(
        &mut self,
        socket: &mut Incoming,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Option<Arrival> {
        let local = socket.local_addr().ok()?;
        let entrypoint = self.policy.entrypoint.clone();
        let own = Arrival { entrypoint, peer, via: None, local, tls: None };
        if !self.policy.proxy_protocol.contains(peer.ip()) {
            return Some(own);
        }
        let header = tokio::select! {
            biased;
            _ = self.closing.changed() => return None,
            header = timeout_at(deadline, announced(socket)) => {
                header.unwrap_or(Err(Unannounced::Refused))
            }
        };
        match header {
            Ok(Header::Own) => Some(Arrival { via: Some(peer), ..own }),
            Ok(Header::Client { source, destination }) => {
                Some(Arrival { peer: source, via: Some(peer), local: destination, ..own })
            }
            Err(Unannounced::Left) => None,
            Err(Unannounced::Refused) => {
                tracing::debug!(entrypoint = &*own.entrypoint, %peer, "no valid PROXY protocol header");
                self.events.proxy_header_refused(&own.entrypoint);
                None
            }
        }
    }

    async fn end_tls(
        &self,
        socket: Incoming,
        arrival: Arrival,
        inside: Inside,
        deadline: Instant,
    ) -> Option<(Box<dyn Transport>, Arrival, bool)> {
        let policy = self.policy.tls.as_ref()?;
        let left = deadline.saturating_duration_since(Instant::now());
        match tls::handshake(policy, socket, inside, left).await {
            Ok(secured) => {
                let secured = secured?;
                let arrival = Arrival { tls: Some(secured.info), ..arrival };
                Some((Box::new(secured.stream), arrival, secured.http2))
            }
            Err(failure) => {
                let (entrypoint, peer) = (&*arrival.entrypoint, arrival.peer);
                tracing::debug!(entrypoint, %peer, reason = failure.label(), "handshake failed");
                self.events.handshake_failed(entrypoint, failure.label());
                None
            }
        }
    }
}

/// Takes the header off the socket. Cancel safe, since nothing is kept here.
async fn announced(socket: &mut Incoming) -> Result<Header, Unannounced> {
    loop {
        match proxy_protocol::parse(socket.ahead()) {
            Err(_) => return Err(Unannounced::Refused),
            Ok(Some((header, length))) => {
                socket.drop_ahead(length);
                return Ok(header);
            }
            Ok(None) => {}
        }
        let silent = socket.ahead().is_empty();
        match socket.look().await {
            Ok(read) if read > 0 => {}
            Ok(_) | Err(_) if silent => return Err(Unannounced::Left),
            _ => return Err(Unannounced::Refused),
        }
    }
}
