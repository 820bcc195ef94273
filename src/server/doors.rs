//! All listeners: opened and closed together, kept across reloads, drained.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    CertificateError, FrontEvents, Wanted,
    front::{Front, Policy},
    streams::StreamTable,
    tls::{TlsBasis, TlsPolicy},
};
use crate::{
    config::{Name, entrypoint::Entrypoint},
    upstream::TcpClusters,
};

/// Connections the kernel holds for us while we are busy.
const BACKLOG: u32 = 4096;
/// Out of descriptors: accepting again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("entrypoint {entrypoint}: cannot listen on {address}: {source}")]
    Bind { entrypoint: Name, address: SocketAddr, source: io::Error },
    #[error("entrypoint {entrypoint}: {source}")]
    Certificate { entrypoint: Name, source: Box<CertificateError> },
    #[error("no key for session tickets: {0}")]
    Tickets(rustls::Error),
}

/// The listeners of the process and what gets their connections.
pub struct Doors<A> {
    building: Building<A>,
    basis: TlsBasis,
    clusters: TcpClusters,
    open: Mutex<Vec<Door>>,
    /// One [`Doors::apply`] or [`Doors::drain`] at a time.
    turn: tokio::sync::Mutex<()>,
}

/// What every door shares.
struct Building<A> {
    app: Arc<A>,
    events: Arc<dyn FrontEvents>,
    connections: Arc<watch::Sender<usize>>,
}

struct Door {
    name: Name,
    /// As configured: port 0 stays 0.
    asked: SocketAddr,
    bound: SocketAddr,
    policy: Arc<ArcSwap<Policy>>,
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Where a wanted entrypoint gets its socket from.
enum Source {
    /// Position among the open doors.
    Kept(usize),
    Bound(TcpListener, SocketAddr),
}

struct Plan {
    name: Name,
    asked: SocketAddr,
    policy: Policy,
    source: Source,
}

/// `true` if none of them had to be cut.
async fn close_all(doors: Vec<Door>, deadline: Duration) -> bool {
    let mut closed: JoinSet<bool> = doors.into_iter().map(|door| door.close(deadline)).collect();
    let mut clean = true;
    while let Some(finished) = closed.join_next().await {
        clean &= finished.unwrap_or(false);
    }
    clean
}

/// Reads every certificate that `entrypoints` names; binds nothing.
pub fn check(entrypoints: &BTreeMap<Name, Entrypoint>) -> Result<(), Vec<DoorError>> {
    let basis = TlsBasis::new().map_err(|error| vec![DoorError::Tickets(error)])?;
    let errors: Vec<_> = entrypoints
        .iter()
        .filter_map(|(name, entrypoint)| {
            Some((name, TlsPolicy::load(&basis, entrypoint.tls.as_ref()?).err()?))
        })
        .map(|(name, source)| DoorError::Certificate { entrypoint: name.clone(), source: Box::new(source) })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

impl<A> Doors<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// No listener yet.
    ///
    /// # Errors
    /// When no key for session tickets can be made (no randomness).
    pub fn new(app: Arc<A>, events: Arc<dyn FrontEvents>) -> io::Result<Arc<Self>> {
        let building = Building { app, events, connections: Arc::new(watch::Sender::new(0)) };
        let basis = TlsBasis::new().map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            building,
            basis,
            clusters: TcpClusters::default(),
            open: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Makes the listeners, and the streams on them, what `wanted` says. Certificates are read and
    /// new addresses bound before anything changes; on any error nothing does.
    ///
    /// An unchanged address keeps its socket and its connections, under a new
    /// name too; new settings hold for new connections. A removed entrypoint
    /// stops accepting at once and drains for its own `timeouts.drain`. Needs a
    /// tokio runtime.
    pub async fn apply(&self, wanted: impl Into<Wanted<'_>>) -> Result<(), Vec<DoorError>> {
        let wanted = wanted.into();
        let _turn = self.turn.lock().await;
        let plans = self.plan(&wanted)?;
        self.clusters.keep(|name| wanted.services.contains_key(name));
        let mut open = self.open.lock();
        let mut before: Vec<Option<Door>> = std::mem::take(&mut *open).into_iter().map(Some).collect();
        for plan in plans {
            let policy = Arc::new(plan.policy);
            match plan.source {
                Source::Bound(listener, bound) => {
                    open.push(self.building.open(plan.name, plan.asked, bound, listener, policy));
                }
                Source::Kept(index) => {
                    let Some(mut door) = before[index].take() else { continue };
                    door.policy.store(policy);
                    door.name = plan.name;
                    open.push(door);
                }
            }
        }
        for door in before.into_iter().flatten() {
            let patience = door.policy.load().timeouts.drain;
            tokio::spawn(door.close(patience));
        }
        Ok(())
    }

    /// Real addresses, with the ports that were chosen for port 0.
    pub fn addresses(&self) -> BTreeMap<Name, SocketAddr> {
        self.open.lock().iter().map(|door| (door.name.clone(), door.bound)).collect()
    }

    /// Open connections on all entrypoints, removed ones included.
    pub fn connections(&self) -> usize {
        *self.building.connections.borrow()
    }

    /// Closes all doors but the one named `last`, as [`Doors::drain`] does: what
    /// tells balancers of the drain must itself stay reachable meanwhile.
    pub async fn drain_before(&self, last: &str, deadline: Duration) -> bool {
        let _turn = self.turn.lock().await;
        let doors: Vec<Door> = {
            let mut open = self.open.lock();
            let (kept, closing) =
                std::mem::take(&mut *open).into_iter().partition(|door| door.name.as_str() == last);
            *open = kept;
            closing
        };
        close_all(doors, deadline).await
    }

    /// Stops accepting, lets open requests finish, closes. Connections that
    /// wait for a request are closed at once; what is still open after
    /// `deadline` is cut. `true` if nothing had to be cut. Afterwards there are
    /// no listeners; [`Doors::apply`] may open new ones.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let _turn = self.turn.lock().await;
        let doors = std::mem::take(&mut *self.open.lock());
        let until = Instant::now() + deadline;
        let clean = close_all(doors, deadline).await;
        // Entrypoints removed earlier may still be closing.
        let mut connections = self.building.connections.subscribe();
        let none = connections.wait_for(|open| *open == 0);
        timeout_at(until, none).await.is_ok_and(|waited| waited.is_ok()) && clean
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Vec<Plan>, Vec<DoorError>> {
        let entrypoints = wanted.entrypoints;
        let mut kept = self.keep(entrypoints);
        let (mut plans, mut errors) = (Vec::new(), Vec::new());
        for (name, entrypoint) in entrypoints {
            let policy = self.policy(name, entrypoint, wanted);
            let source = match kept.remove(name) {
                Some(index) => Ok(Source::Kept(index)),
                None => bind(entrypoint.address)
                    .map(|(listener, bound)| Source::Bound(listener, bound))
                    .map_err(|source| DoorError::Bind {
                        entrypoint: name.clone(),
                        address: entrypoint.address,
                        source,
                    }),
            };
            match (policy, source) {
                (Ok(policy), Ok(source)) => {
                    plans.push(Plan { name: name.clone(), asked: entrypoint.address, policy, source });
                }
                (policy, source) => errors.extend(policy.err().into_iter().chain(source.err())),
            }
        }
        if errors.is_empty() { Ok(plans) } else { Err(errors) }
    }

    /// Which entrypoint keeps which open door: by name and address, else by
    /// address alone. Port 0 never means the same socket under another name.
    fn keep(&self, entrypoints: &BTreeMap<Name, Entrypoint>) -> BTreeMap<Name, usize> {
        let open = self.open.lock();
        let mut free: Vec<bool> = open.iter().map(|door| !door.task.is_finished()).collect();
        let mut kept = BTreeMap::new();
        for same_name in [true, false] {
            for (name, entrypoint) in entrypoints {
                if kept.contains_key(name) {
                    continue;
                }
                let fits = |door: &Door| {
                    door.asked == entrypoint.address
                        && (door.name == *name || (!same_name && entrypoint.address.port() != 0))
                };
                if let Some(index) = (0..open.len()).find(|index| free[*index] && fits(&open[*index])) {
                    free[index] = false;
                    kept.insert(name.clone(), index);
                }
            }
        }
        kept
    }

    fn policy(&self, name: &Name, entrypoint: &Entrypoint, wanted: &Wanted<'_>) -> Result<Policy, DoorError> {
        let load = |tls| TlsPolicy::load(&self.basis, tls);
        let tls = entrypoint.tls.as_ref().map(load).transpose();
        let tls = tls.map_err(|source| DoorError::Certificate {
            entrypoint: name.clone(),
            source: Box::new(source),
        })?;
        Ok(Policy {
            entrypoint: name.shared(),
            tls,
            proxy_protocol: entrypoint.proxy_protocol.clone(),
            streams: StreamTable::build(name, wanted, &self.clusters, &*self.building.events),
            timeouts: entrypoint.timeouts.clone(),
            limits: entrypoint.limits.clone(),
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a previous process in TIME_WAIT must not keep us out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

impl Door {
    /// Stops accepting; `false` if connections had to be cut after `patience`.
    async fn close(mut self, patience: Duration) -> bool {
        self.closing.send_replace(true);
        let finished = timeout(patience, &mut self.task).await.is_ok();
        if !finished {
            self.task.abort();
            // Cancelled by us, so its result says nothing.
            let _ = self.task.await;
        }
        finished
    }
}

impl<A> Building<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    fn open(
        &self,
        name: Name,
        asked: SocketAddr,
        bound: SocketAddr,
        listener: TcpListener,
        policy: Arc<Policy>,
    ) -> Door {
        let policy = Arc::new(ArcSwap::new(policy));
        let (closing, closed) = watch::channel(false);
        let doorman = Doorman {
            building: Building {
                app: self.app.clone(),
                events: self.events.clone(),
                connections: self.connections.clone(),
            },
            policy: policy.clone(),
            closing: closed,
            inside: JoinSet::new(),
        };
        let task = tokio::spawn(doorman.work(listener));
        Door { name, asked, bound, policy, closing, task }
    }
}

/// Accepts for one door and waits for its connections. Dropped, it cuts them.
struct Doorman<A> {
    building: Building<A>,
    policy: Arc<ArcSwap<Policy>>,
    closing: watch::Receiver<bool>,
    inside: JoinSet<()>,
}

impl<A> Doorman<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn work(mut self, listener: TcpListener) {
        loop {
            tokio::select! {
                biased;
                _ = self.closing.changed() => break,
                Some(_) = self.inside.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((tcp, peer)) => self.admit(tcp, peer),
                    Err(error) => {
                        tracing::warn!(%error, entrypoint = &*self.policy.load().entrypoint, "cannot accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        while self.inside.join_next().await.is_some() {}
    }

    fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let policy = self.policy.load_full();
        if self.inside.len() >= policy.limits.max_connections {
            // Closed, not queued: a client that is refused goes elsewhere, one
            // that waits in the backlog times out.
            self.building.events.connection_shed(&policy.entrypoint);
            return;
        }
        // Small SSE chunks would wait some 40 ms for an acknowledgement.
        if tcp.set_nodelay(true).is_err() {
            return;
        }
        let counted = Counted::new(&self.building, policy.entrypoint.clone());
        let front = Front {
            app: self.building.app.clone(),
            events: self.building.events.clone(),
            policy,
            closing: self.closing.clone(),
        };
        self.inside.spawn(async move {
            let _counted = counted;
            front.serve(tcp, peer).await;
        });
    }
}

/// An open connection in the count and the metrics.
struct Counted {
    connections: Arc<watch::Sender<usize>>,
    events: Arc<dyn FrontEvents>,
    entrypoint: Arc<str>,
}

impl Counted {
    fn new<A>(building: &Building<A>, entrypoint: Arc<str>) -> Self {
        building.connections.send_modify(|open| *open += 1);
        building.events.connection_opened(&entrypoint);
        Self { connections: building.connections.clone(), events: building.events.clone(), entrypoint }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.send_modify(|open| *open -= 1);
        self.events.connection_closed(&self.entrypoint);
    }
}
