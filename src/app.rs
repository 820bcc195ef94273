//! Config to running process: the only place where rooms are constructed, and
//! the order in which they start and drain.

mod acme;
mod descriptors;
mod events;
mod explain;
mod inspect;
mod signals;
mod upgrade;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use pingora::proxy::HttpProxy;

use self::{
    events::Events,
    signals::{Signals, Wish},
    upgrade::{Estate, Heir, Predecessor, Program},
};
use crate::{
    acme::Acme,
    config::{
        Config, ConfigErrors, Loaded, Name,
        entrypoint::{ADMIN, Entrypoint},
        state::Backend,
    },
    control::{Listeners, ReloadError, Reloader, ServiceManager, Watcher},
    ledger::Ledger,
    limit::RateLimits,
    plugin::{HostServices, Plugins},
    proxy::{Corridor, Rooms, Shared},
    route,
    server::{self, Certificates, DoorError, Doors, Wanted},
    state::{self, Handover, Secrets, StoreError},
    telemetry::{self, AccessLog, Metrics},
    upstream::{Clusters, Connections, Cooling},
};

/// Connections to origins kept for reuse, over all of them.
const UPSTREAM_POOL: usize = 1024;
/// Attempts of one request are bounded by the targets of its service; this only
/// bounds a mistake.
const MAX_RETRIES: usize = 16;
/// How soon a key that another node sealed is usable here.
const SECRETS_REFRESH: Duration = Duration::from_secs(5);
/// How long a store that is away may take to appear at the start.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// What is left to write after the last request gets this long.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

pub use explain::{Request, explain};

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl From<ConfigErrors> for StartError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors.to_string())
    }
}

/// Reports what is wrong with the configuration at `path`, or what it contains.
pub fn check(path: &Path) -> Result<String, StartError> {
    let config = Config::load(path)?.config;
    route::Table::build(&config.routes).map_err(|errors| StartError::Config(lines(&errors)))?;
    server::check(&config.entrypoints).map_err(|errors| StartError::Config(lines(&errors)))?;
    Ok(format!(
        "{}: ok ({} entrypoints, {} routes, {} services, {} plugins)",
        path.display(),
        config.entrypoints.len(),
        config.routes.len(),
        config.services.len(),
        config.plugins.len()
    ))
}

/// Runs until a signal ends it or another process has taken over.
pub fn run(path: PathBuf) -> Result<(), StartError> {
    telemetry::init_logging();
    let program = Program::new();
    let clients = descriptors::raise_limit();
    let read_at = SystemTime::now();
    let loaded = Config::load(&path)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new().map_err(anyhow::Error::from)?;
        let mut manager = ServiceManager::from_environment();
        let mut gateway = tokio::select! {
            started = Gateway::start(path, loaded, read_at, clients) => started?,
            () = signals.stop() => return Ok(()),
        };
        manager.ready();
        gateway.work(&program, &mut signals, &mut manager).await;
        gateway.end(&mut signals).await
    });
    // Whoever asked twice does not wait for what still runs.
    runtime.shutdown_timeout(FLUSH_DEADLINE / 5);
    ended
}

/// A started gateway.
struct Gateway {
    shared: Arc<Shared>,
    doors: Arc<Doors<HttpProxy<Corridor>>>,
    reloader: Arc<Reloader>,
    acme: Arc<Acme>,
    handover: Option<Arc<dyn Handover>>,
    predecessor: Option<Predecessor>,
    generation: u64,
    /// Serves instead; this one only finishes.
    heir: Option<Heir>,
    watcher: Option<Watcher>,
}

impl Gateway {
    async fn start(
        path: PathBuf,
        loaded: Loaded,
        read_at: SystemTime,
        clients: Option<usize>,
    ) -> Result<Self, StartError> {
        let mut predecessor = Predecessor::from_environment().await.map_err(anyhow::Error::from)?;
        let config = loaded.config;
        let backend = config.state.backend.clone();
        let store = predecessor.as_mut().and_then(|before| before.store.take());
        let opened = state::open(&config.state, store).await.map_err(anyhow::Error::from)?;
        let handover = opened.handover.clone();
        let (shared, view) = rooms(&config, opened.store).await?;
        let events = Arc::new(Events::new(shared.metrics.clone(), shared.access_log.clone()));
        let certificates = Certificates::new(events.clone());
        let acme = acme::open(&shared, certificates.clone(), &backend);
        view.show_certificates(&acme);
        let doors = doors(&shared, events, certificates);
        doors.limit_connections(clients.unwrap_or(usize::MAX));
        match &mut predecessor {
            Some(before) => doors.inherit(std::mem::take(&mut before.sockets)),
            None => doors.inherit(upgrade::activated_sockets()),
        }
        doors.accept(predecessor.is_none());
        let reloader = Reloader::new(path, loaded.files, shared.clone(), Arc::new(Entrance(doors.clone())));
        reloader.apply(config).await.map_err(|error| match error {
            ReloadError::Refused(_) => StartError::Config(error.to_string()),
            ReloadError::Failed(_) => StartError::Failed(error.into()),
        })?;
        let generation = predecessor.as_ref().map_or(0, |before| before.generation);
        let (heir, watcher) = (None, None);
        let mut this =
            Self { shared, doors, reloader, acme, handover, predecessor, generation, heir, watcher };
        this.take_over().await?;
        this.shared.ledger.start();
        this.watcher = Some(Watcher::start(this.reloader.clone(), read_at).map_err(anyhow::Error::from)?);
        if matches!(backend, Backend::Redis { .. }) {
            tokio::spawn(follow_secrets(Arc::downgrade(&this.shared.secrets)));
        }
        this.shared.metrics.generation(generation);
        tracing::info!(generation, "ready");
        Ok(this)
    }

    /// The store from the process before this one, and then the clients.
    async fn take_over(&self) -> anyhow::Result<()> {
        let Some(predecessor) = &self.predecessor else {
            acme::keep(&self.acme, self.reloader.configurations()).await;
            return Ok(());
        };
        predecessor.prepared().await?;
        if let Some(handover) = &self.handover {
            handover.take().await?;
            // It may have sealed some meanwhile.
            self.shared.secrets.refresh().await?;
        }
        // Before the first handshake, and after the store is this process's own.
        acme::keep(&self.acme, self.reloader.configurations()).await;
        self.doors.accept(true);
        Ok(predecessor.ready().await?)
    }

    /// Until it is told to stop, or replaced.
    async fn work(&mut self, program: &Program, signals: &mut Signals, manager: &mut ServiceManager) {
        loop {
            match signals.next().await {
                Wish::Stop => return manager.stopping(),
                Wish::Reload => {
                    manager.reloading();
                    let applied = self.reloader.reload().await;
                    manager.ready();
                    if !applied {
                        manager.status("the configuration was refused; the last good one serves");
                    }
                }
                Wish::Upgrade => match self.upgrade(program, signals).await {
                    Ok(heir) => {
                        tracing::info!(
                            pid = heir.pid,
                            "another process serves; this one finishes what it began"
                        );
                        self.shared.metrics.upgraded(true);
                        manager.succeeded_by(heir.pid);
                        self.heir = Some(heir);
                        return;
                    }
                    Err(error) => {
                        tracing::error!(%error, "not upgraded; this process goes on serving");
                        self.shared.metrics.upgraded(false);
                        manager.status("an upgrade failed; the old process serves");
                        if matches!(error, upgrade::UpgradeError::Stopped) {
                            return manager.stopping();
                        }
                    }
                },
            }
        }
    }

    async fn upgrade(&self, program: &Program, signals: &mut Signals) -> Result<Heir, upgrade::UpgradeError> {
        // The store goes from hand to hand, not over two.
        if let Some(before) = &self.predecessor
            && before.is_alive().await
        {
            return Err(upgrade::UpgradeError::TooSoon);
        }
        tracing::info!("upgrading");
        let estate = Estate {
            sockets: self.doors.sockets(),
            store: self.handover.clone(),
            generation: self.generation + 1,
        };
        upgrade::hand_over(program, estate, signals.stop()).await
    }

    /// Finishes what is open; a second signal ends it at once.
    async fn end(self, signals: &mut Signals) -> Result<(), StartError> {
        let access_log = self.shared.clone();
        tokio::select! {
            () = self.drain() => Ok(()),
            () = signals.stop() => {
                access_log.access_log.flush(FLUSH_DEADLINE / 5);
                Err(anyhow::anyhow!("stopped at once; what was open is cut").into())
            }
        }
    }

    /// Requests first, then what they booked, then the files.
    async fn drain(mut self) {
        tracing::info!("draining");
        // A changed file must not open the doors again.
        self.watcher = None;
        let deadline = self
            .shared
            .snapshot()
            .and_then(|snapshot| snapshot.config.entrypoints.values().map(|e| e.timeouts.drain).max())
            .unwrap_or(FLUSH_DEADLINE);
        // What it proves is withdrawn from here, so while the doors are open.
        let quiet = self.acme.stop(FLUSH_DEADLINE);
        if self.heir.is_some() {
            tokio::join!(self.doors.drain(deadline), quiet);
        } else {
            self.shared.set_draining();
            tokio::join!(self.doors.drain_before(ADMIN, deadline), quiet);
            self.doors.drain(FLUSH_DEADLINE).await;
        }
        let flushed = async {
            self.shared.ledger.drain().await;
            self.shared.store.close().await;
        };
        if tokio::time::timeout(FLUSH_DEADLINE, flushed).await.is_err() {
            tracing::error!(
                "the ledger could not be written in time; open holds are resolved at the next start"
            );
        }
        tracing::info!("stopped");
        self.shared.access_log.flush(FLUSH_DEADLINE);
    }
}

async fn rooms(
    config: &Config,
    store: Arc<dyn state::Store>,
) -> anyhow::Result<(Arc<Shared>, Arc<inspect::View>)> {
    let metrics = Metrics::new();
    let secrets = secrets(&store, &config.state.data_dir).await?;
    let view = Arc::new(inspect::View::default());
    let services = HostServices {
        store: store.clone(),
        secrets: secrets.clone(),
        inspect: view.clone(),
        metrics: metrics.clone(),
    };
    let plugins = Plugins::new(services, Some(&config.state.data_dir.join("compiled")))?;
    let shared = Shared::new(Rooms {
        access_log: Arc::new(AccessLog::stdout(&metrics)),
        ledger: Ledger::new(store.clone(), metrics.clone()),
        store,
        secrets,
        plugins,
        limits: RateLimits::new(),
        clusters: Clusters::new(),
        connections: Arc::new(Connections::new()),
        cooling: Cooling::default(),
        challenges: Arc::default(),
        metrics,
    });
    view.show(&shared);
    Ok((shared, view))
}

/// The first use of the store. Services start in any order: one that is away
/// is waited for.
async fn secrets(store: &Arc<dyn state::Store>, data_dir: &Path) -> anyhow::Result<Arc<Secrets>> {
    let until = tokio::time::Instant::now() + STORE_PATIENCE;
    loop {
        match Secrets::open(store.clone(), data_dir).await {
            Err(error @ (StoreError::Unavailable(_) | StoreError::TimedOut))
                if tokio::time::Instant::now() < until =>
            {
                tracing::warn!(%error, "the store is away; trying again");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            opened => return Ok(opened?),
        }
    }
}

fn doors(
    shared: &Arc<Shared>,
    events: Arc<Events>,
    certificates: Arc<Certificates>,
) -> Arc<Doors<HttpProxy<Corridor>>> {
    let engine = server::http_proxy(Corridor::new(shared.clone()), UPSTREAM_POOL, MAX_RETRIES);
    Doors::new(engine, events, certificates)
}

/// Other nodes seal and remove secrets in the shared store, too.
async fn follow_secrets(secrets: Weak<Secrets>) {
    let mut tick = tokio::time::interval(SECRETS_REFRESH);
    loop {
        tick.tick().await;
        let Some(secrets) = secrets.upgrade() else { return };
        if let Err(error) = secrets.refresh().await {
            tracing::warn!(%error, "secrets of other nodes are not seen");
        }
    }
}

fn lines<T: std::fmt::Display>(errors: &[T]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The doors, as `control` sees them: an address that is taken is the machine's
/// fault, a certificate that cannot be used is the configuration's.
struct Entrance(Arc<Doors<HttpProxy<Corridor>>>);

#[async_trait]
impl Listeners for Entrance {
    async fn apply(
        &self,
        entrypoints: &BTreeMap<Name, Entrypoint>,
        config: &Config,
    ) -> Result<(), ReloadError> {
        self.0.apply(Wanted::new(entrypoints, config)).await.map_err(|errors| {
            let machine = errors.iter().any(|error| matches!(error, DoorError::Bind { .. }));
            let lines = errors.iter().map(ToString::to_string).collect();
            if machine { ReloadError::Failed(lines) } else { ReloadError::Refused(lines) }
        })
    }

    fn addresses(&self) -> BTreeMap<Name, SocketAddr> {
        self.0.addresses()
    }
}
