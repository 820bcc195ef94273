//! The accept loop of one door: who comes in, who is shed, and what happens
//! when there is nothing to accept with.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use pingora::apps::HttpServerApp;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use super::{
    FrontEvents,
    front::{Front, Policy},
    ticket::{Clients, House, Ticket},
};
use crate::telemetry::Shed;

/// Out of descriptors: accepting again at once would spin. Doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Between two lines of the log on failing accepts.
const QUIET: Duration = Duration::from_secs(10);

/// What every door shares.
pub(super) struct Building<A> {
    pub(super) app: Arc<A>,
    pub(super) events: Arc<dyn FrontEvents>,
    pub(super) house: Arc<House>,
    /// While `false`, clients wait in the backlog.
    pub(super) accepting: Arc<watch::Sender<bool>>,
}

impl<A> Clone for Building<A> {
    fn clone(&self) -> Self {
        Self {
            app: self.app.clone(),
            events: self.events.clone(),
            house: self.house.clone(),
            accepting: self.accepting.clone(),
        }
    }
}

/// Accepts for one door and waits for its connections. Dropped, it cuts them.
pub(super) struct Doorman<A> {
    building: Building<A>,
    policy: Arc<ArcSwap<Policy>>,
    clients: Arc<Clients>,
    closing: watch::Receiver<bool>,
    inside: JoinSet<()>,
    trouble: Trouble,
}

impl<A> Doorman<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    pub(super) fn new(
        building: Building<A>,
        policy: Arc<ArcSwap<Policy>>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let clients = Arc::default();
        Self { building, policy, clients, closing, inside: JoinSet::new(), trouble: Trouble::default() }
    }

    /// Until the door closes and everybody has left.
    pub(super) async fn work(mut self, listener: Arc<TcpListener>) {
        let mut accepting = self.building.accepting.subscribe();
        loop {
            let open = *accepting.borrow_and_update();
            tokio::select! {
                biased;
                _ = self.closing.changed() => break,
                Ok(()) = accepting.changed() => {}
                Some(_) = self.inside.join_next() => {}
                accepted = listener.accept(), if open => match accepted {
                    Ok((tcp, peer)) => {
                        self.trouble.over();
                        self.admit(tcp, peer);
                    }
                    Err(error) => {
                        let pause = self.failed(&error);
                        tokio::select! {
                            _ = self.closing.changed() => break,
                            () = sleep(pause) => {}
                        }
                    }
                },
            }
        }
        drop(listener);
        while self.inside.join_next().await.is_some() {}
    }

    fn failed(&mut self, error: &io::Error) -> Duration {
        let entrypoint = self.policy.load().entrypoint.clone();
        self.building.events.accept_failed(&entrypoint);
        // The client gave up while it waited: says nothing about us.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
            return Duration::ZERO;
        }
        let (pause, silent) = self.trouble.again(Instant::now());
        if let Some(unsaid) = silent {
            tracing::warn!(%error, entrypoint = &*entrypoint, unsaid, "cannot accept; clients wait");
        }
        pause
    }

    fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let policy = self.policy.load_full();
        // On a socket for both families an IPv4 client comes as `::ffff:a.b.c.d`.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let full = if self.inside.len() >= policy.limits.max_connections {
            Some(Shed::Entrypoint)
        } else {
            self.building.house.is_full().then_some(Shed::Process)
        };
        if let Some(why) = full {
            // Closed, not queued: a client that is refused goes elsewhere, one
            // that waits in the backlog times out.
            return self.building.events.connection_shed(&policy.entrypoint, why);
        }
        // Small SSE chunks would wait some 40 ms for an acknowledgement.
        if tcp.set_nodelay(true).is_err() {
            return;
        }
        let ticket = Ticket::new(
            &self.building.house,
            &self.building.events,
            policy.entrypoint.clone(),
            &self.clients,
            policy.limits.max_connections_per_client,
        );
        let front = Front {
            app: self.building.app.clone(),
            events: self.building.events.clone(),
            policy,
            closing: self.closing.clone(),
            ticket,
        };
        self.inside.spawn(front.serve(tcp, peer));
    }
}

/// Failing accepts in a row: how long to pause, and when to speak of it.
#[derive(Default)]
struct Trouble {
    pause: Duration,
    spoke: Option<Instant>,
    unsaid: u64,
}

impl Trouble {
    fn over(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// The pause, and how many went unsaid if it is time to speak again.
    fn again(&mut self, now: Instant) -> (Duration, Option<u64>) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        if self.spoke.is_some_and(|spoke| now.saturating_duration_since(spoke) < QUIET) {
            self.unsaid += 1;
            return (self.pause, None);
        }
        self.spoke = Some(now);
        (self.pause, Some(std::mem::take(&mut self.unsaid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_accepts_pause_longer_and_are_told_now_and_then() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.again(start), (FIRST_PAUSE, Some(0)));
        for _ in 0..99 {
            assert_eq!(trouble.again(start + QUIET / 2).1, None);
        }
        assert_eq!(trouble.again(start + QUIET), (LONGEST_PAUSE, Some(99)));
        trouble.over();
        assert_eq!(trouble.again(start + QUIET), (FIRST_PAUSE, None));
    }
}
