//! Config to running process: the only place where rooms are constructed, and
//! the order in which they start and drain.

mod inspect;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use pingora::proxy::HttpProxy;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{
        Config, ConfigErrors, Loaded, Name,
        entrypoint::{ADMIN, Entrypoint},
        state::Backend,
    },
    control::{Listeners, ReloadError, Reloader, Watcher},
    ledger::Ledger,
    limit::RateLimits,
    plugin::{HostServices, Plugins},
    proxy::{Corridor, Rooms, Shared},
    route,
    server::{self, DoorError, Doors, FrontEvents, Wanted},
    state::{self, Secrets},
    telemetry::{self, AccessLog, Metrics, StreamMetrics, StreamRecord},
    upstream::{Clusters, Connections, Cooling},
};

/// Connections to origins kept for reuse, over all of them.
const UPSTREAM_POOL: usize = 1024;
/// HTTP/2 connections without a stream are closed after this long.
const IDLE: Duration = Duration::from_secs(75);
/// Attempts of one request are bounded by the targets of its service; this only
/// bounds a mistake.
const MAX_RETRIES: usize = 16;
/// How soon a key that another node sealed is usable here.
const SECRETS_REFRESH: Duration = Duration::from_secs(5);
/// What is left to write after the last request gets this long.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

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

/// Runs until a signal ends it.
pub fn run(path: PathBuf) -> Result<(), StartError> {
    telemetry::init_logging();
    let read_at = SystemTime::now();
    let loaded = Config::load(&path)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        let gateway = Gateway::start(path, loaded, read_at).await?;
        gateway.until_signal().await?;
        gateway.drain().await;
        Ok(())
    })
}

/// A started gateway.
struct Gateway {
    shared: Arc<Shared>,
    doors: Arc<Doors<HttpProxy<Corridor>>>,
    reloader: Arc<Reloader>,
    _watcher: Watcher,
}

impl Gateway {
    async fn start(path: PathBuf, loaded: Loaded, read_at: SystemTime) -> Result<Self, StartError> {
        let config = loaded.config;
        let backend = config.state.backend.clone();
        let shared = rooms(&config).await?;
        let doors = doors(&shared).map_err(anyhow::Error::from)?;
        let reloader = Reloader::new(path, shared.clone(), Arc::new(Entrance(doors.clone())));
        reloader.apply(config).await.map_err(|error| match error {
            ReloadError::Refused(_) => StartError::Config(error.to_string()),
            ReloadError::Failed(_) => StartError::Failed(error.into()),
        })?;
        shared.ledger.start();
        let watcher = Watcher::start(reloader.clone(), loaded.files, read_at).map_err(anyhow::Error::from)?;
        if matches!(backend, Backend::Redis { .. }) {
            tokio::spawn(follow_secrets(Arc::downgrade(&shared.secrets)));
        }
        tracing::info!("ready");
        Ok(Self { shared, doors, reloader, _watcher: watcher })
    }

    async fn until_signal(&self) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt, mut hangup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hangup.recv() => drop(self.reloader.reload().await),
            }
        }
    }

    /// Requests first, then what they booked, then the files.
    async fn drain(self) {
        tracing::info!("draining");
        self.shared.set_draining();
        let deadline = self
            .shared
            .snapshot()
            .and_then(|snapshot| snapshot.config.entrypoints.values().map(|e| e.timeouts.drain).max())
            .unwrap_or(FLUSH_DEADLINE);
        self.doors.drain_before(ADMIN, deadline).await;
        self.doors.drain(FLUSH_DEADLINE).await;
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

async fn rooms(config: &Config) -> anyhow::Result<Arc<Shared>> {
    let metrics = Metrics::new();
    let store = state::open(&config.state).await?;
    let secrets = Secrets::open(store.clone(), &config.state.data_dir).await?;
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
        metrics,
    });
    view.show(&shared);
    Ok(shared)
}

fn doors(shared: &Arc<Shared>) -> std::io::Result<Arc<Doors<HttpProxy<Corridor>>>> {
    let engine = server::http_proxy(Corridor::new(shared.clone()), IDLE, UPSTREAM_POOL, MAX_RETRIES);
    Doors::new(
        engine,
        Arc::new(Events { metrics: shared.metrics.clone(), access_log: shared.access_log.clone() }),
    )
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

/// Connections that never become requests, in the metrics and, passed on, in
/// the access log.
struct Events {
    metrics: Arc<Metrics>,
    access_log: Arc<AccessLog>,
}

impl FrontEvents for Events {
    fn connection_opened(&self, entrypoint: &str) {
        self.metrics.entrypoint(entrypoint).opened();
    }

    fn connection_closed(&self, entrypoint: &str) {
        self.metrics.entrypoint(entrypoint).closed();
    }

    fn connection_shed(&self, entrypoint: &str) {
        self.metrics.entrypoint(entrypoint).shed();
    }

    fn handshake_failed(&self, entrypoint: &str, _: &'static str) {
        self.metrics.entrypoint(entrypoint).tls_failed();
    }

    fn proxy_header_refused(&self, entrypoint: &str) {
        self.metrics.entrypoint(entrypoint).proxy_header_refused();
    }

    fn stream_metrics(&self, service: &str) -> Option<Arc<StreamMetrics>> {
        Some(self.metrics.stream(service))
    }

    fn stream_ended(&self, record: &StreamRecord<'_>) {
        self.access_log.write_stream(record);
    }

    fn refused(&self, entrypoint: &str, status: u16) {
        tracing::debug!(entrypoint, status, "malformed request refused");
        self.metrics.entrypoint(entrypoint).refused();
    }
}
