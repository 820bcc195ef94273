//! All listeners: opened and closed together, kept across reloads, drained.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Certificates, FrontEvents, Wanted,
    doorman::{Building, Doorman},
    front::Policy,
    sockets::{self, Inherited, Socket},
    streams::StreamTable,
    ticket::House,
    tls::{TlsBasis, TlsError, TlsPolicy},
};
use crate::{
    config::{Name, entrypoint::Entrypoint},
    upstream::TcpClusters,
};

#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("entrypoint {entrypoint}: cannot listen on {address}: {source}")]
    Bind { entrypoint: Name, address: SocketAddr, source: io::Error },
    #[error("entrypoint {entrypoint}: tls: {source}")]
    Tls { entrypoint: Name, source: Box<TlsError> },
}

/// The listeners of the process and what gets their connections.
pub struct Doors<A> {
    building: Building<A>,
    basis: TlsBasis,
    clusters: TcpClusters,
    open: Mutex<Vec<Door>>,
    /// Passed to us and not yet used.
    inherited: Mutex<Vec<Inherited>>,
    /// One [`Doors::apply`] or [`Doors::drain`] at a time.
    turn: tokio::sync::Mutex<()>,
}

struct Door {
    name: Name,
    /// As configured: port 0 stays 0.
    asked: SocketAddr,
    bound: SocketAddr,
    policy: Arc<ArcSwap<Policy>>,
    listener: Arc<TcpListener>,
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

/// Reads every certificate that `entrypoints` names, and compiles their TLS
/// options; binds nothing.
pub fn check(entrypoints: &BTreeMap<Name, Entrypoint>) -> Result<(), Vec<DoorError>> {
    let basis = TlsBasis::new(Certificates::new(Arc::new(())));
    let errors: Vec<_> = entrypoints
        .iter()
        .filter_map(|(name, entrypoint)| tls(&basis, name, entrypoint).err())
        .flatten()
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn tls(basis: &TlsBasis, name: &Name, entrypoint: &Entrypoint) -> Result<Option<TlsPolicy>, Vec<DoorError>> {
    let Some(tls) = &entrypoint.tls else { return Ok(None) };
    TlsPolicy::load(basis, tls).map(Some).map_err(|errors| {
        let of = |source| DoorError::Tls { entrypoint: name.clone(), source: Box::new(source) };
        errors.into_iter().map(of).collect()
    })
}

impl<A> Doors<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// No listener yet. `certificates` serve beside those of the entrypoints.
    pub fn new(app: Arc<A>, events: Arc<dyn FrontEvents>, certificates: Arc<Certificates>) -> Arc<Self> {
        let building = Building {
            app,
            events,
            house: Arc::new(House::new()),
            accepting: Arc::new(watch::Sender::new(true)),
        };
        Arc::new(Self {
            building,
            basis: TlsBasis::new(certificates),
            clusters: TcpClusters::default(),
            open: Mutex::default(),
            inherited: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Beyond `max` open connections over all entrypoints new ones are shed.
    pub fn limit_connections(&self, max: usize) {
        self.building.house.limit(max);
    }

    /// Sockets for the next [`Doors::apply`], which uses those that fit an
    /// entrypoint by name, else by address, and closes the others.
    pub fn inherit(&self, sockets: Vec<Inherited>) {
        self.inherited.lock().extend(sockets);
    }

    /// While `false`, doors open without accepting: clients wait in the backlog
    /// of the kernel. `true` from the start.
    pub fn accept(&self, accepting: bool) {
        self.building.accepting.send_replace(accepting);
    }

    /// The listening sockets, to be passed to another process.
    pub fn sockets(&self) -> Vec<Socket> {
        let socket = |door: &Door| Socket {
            name: door.name.clone(),
            asked: door.asked,
            listener: door.listener.clone(),
        };
        self.open.lock().iter().map(socket).collect()
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
        for unused in self.inherited.lock().drain(..) {
            tracing::warn!(socket = ?unused.listener, name = unused.name, "no entrypoint for an inherited socket");
        }
        self.clusters.keep(|name| wanted.services.contains_key(name));
        let mut open = self.open.lock();
        for gone in open.iter().filter(|door| !wanted.entrypoints.contains_key(&door.name)) {
            self.building.events.certificates(gone.name.as_str(), &[]);
        }
        let mut before: Vec<Option<Door>> = std::mem::take(&mut *open).into_iter().map(Some).collect();
        for plan in plans {
            let policy = Arc::new(plan.policy);
            self.tell_certificates(&policy);
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

    fn tell_certificates(&self, policy: &Policy) {
        let ends = policy.tls.as_ref().map_or(&[][..], |tls| &tls.ends);
        self.building.events.certificates(&policy.entrypoint, ends);
    }

    /// Real addresses, with the ports that were chosen for port 0.
    pub fn addresses(&self) -> BTreeMap<Name, SocketAddr> {
        self.open.lock().iter().map(|door| (door.name.clone(), door.bound)).collect()
    }

    /// Open connections on all entrypoints, removed ones included.
    pub fn connections(&self) -> usize {
        self.building.house.open()
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
        timeout_at(until, self.building.house.emptied()).await.is_ok() && clean
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Vec<Plan>, Vec<DoorError>> {
        let entrypoints = wanted.entrypoints;
        let mut kept = self.keep(entrypoints);
        let mut passed = self.passed(entrypoints, &kept);
        let (mut plans, mut errors) = (Vec::new(), Vec::new());
        for (name, entrypoint) in entrypoints {
            let policy = self.policy(name, entrypoint, wanted);
            let source = match kept.remove(name) {
                Some(index) => Ok(Source::Kept(index)),
                None => passed
                    .remove(name)
                    .map_or_else(|| sockets::bind(entrypoint.address), Inherited::open)
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
                (policy, source) => {
                    errors.extend(policy.err().into_iter().flatten().chain(source.err()));
                }
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

    /// Which entrypoint without an open door gets which inherited socket.
    fn passed(
        &self,
        entrypoints: &BTreeMap<Name, Entrypoint>,
        kept: &BTreeMap<Name, usize>,
    ) -> BTreeMap<Name, Inherited> {
        let mut inherited = self.inherited.lock();
        let mut passed = BTreeMap::new();
        let fits: [fn(&Inherited, &Name, SocketAddr) -> bool; 2] =
            [Inherited::is_named, |socket, _, address| socket.is_at(address)];
        for fits in fits {
            for (name, entrypoint) in entrypoints {
                if kept.contains_key(name) || passed.contains_key(name) {
                    continue;
                }
                if let Some(index) = inherited.iter().position(|s| fits(s, name, entrypoint.address)) {
                    passed.insert(name.clone(), inherited.swap_remove(index));
                }
            }
        }
        passed
    }

    fn policy(
        &self,
        name: &Name,
        entrypoint: &Entrypoint,
        wanted: &Wanted<'_>,
    ) -> Result<Policy, Vec<DoorError>> {
        Ok(Policy {
            entrypoint: name.shared(),
            tls: tls(&self.basis, name, entrypoint)?,
            streams: StreamTable::build(name, wanted, &self.clusters, &*self.building.events),
            timeouts: entrypoint.timeouts.clone(),
            limits: entrypoint.limits.clone(),
            proxy_protocol: entrypoint.proxy_protocol.clone(),
        })
    }
}

impl Door {
    /// Stops accepting; `false` if connections had to be cut after `patience`.
    async fn close(self, patience: Duration) -> bool {
        let Self { mut task, listener, closing, .. } = self;
        drop(listener);
        closing.send_replace(true);
        let finished = timeout(patience, &mut task).await.is_ok();
        if !finished {
            task.abort();
            // Cancelled by us, so its result says nothing.
            let _ = task.await;
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
        let listener = Arc::new(listener);
        let (closing, closed) = watch::channel(false);
        let doorman = Doorman::new(self.clone(), policy.clone(), closed);
        let task = tokio::spawn(doorman.work(listener.clone()));
        Door { name, asked, bound, policy, listener, closing, task }
    }
}
