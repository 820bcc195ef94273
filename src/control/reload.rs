//! File to `Config` to `Snapshot` to service. Whatever fails on the way leaves
//! the last good state serving.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};

use crate::{
    config::{
        Config, Name,
        entrypoint::{ADMIN, Entrypoint},
    },
    proxy::Shared,
    route,
};

/// What listens: the doors of the data plane, as a reload needs them.
#[async_trait]
pub trait Listeners: Send + Sync + 'static {
    /// Makes the listeners what `entrypoints` says and the streams on them what
    /// `config` says, or changes nothing.
    async fn apply(
        &self,
        entrypoints: &BTreeMap<Name, Entrypoint>,
        config: &Config,
    ) -> Result<(), ReloadError>;
    /// Real addresses, with the ports that were chosen for port 0.
    fn addresses(&self) -> BTreeMap<Name, SocketAddr>;
}

pub struct Reloader {
    path: PathBuf,
    shared: Arc<Shared>,
    doors: Arc<dyn Listeners>,
    /// Whatever a change of which is a reason to reload.
    files: watch::Sender<Vec<PathBuf>>,
    /// One change at a time.
    changing: Mutex<()>,
    /// The configuration in service.
    applied: watch::Sender<Option<Arc<Config>>>,
}

/// Why a configuration is not in service; one line for each thing that stands against it.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is at fault.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The machine is: an address that is taken, a store that does not answer.
    #[error("{}", .0.join("\n"))]
    Failed(Vec<String>),
}

impl Reloader {
    /// `files` are those that the configuration in service was read from.
    pub fn new(
        path: PathBuf,
        files: Vec<PathBuf>,
        shared: Arc<Shared>,
        doors: Arc<dyn Listeners>,
    ) -> Arc<Self> {
        let (files, applied) = (watch::Sender::new(files), watch::Sender::new(None));
        Arc::new(Self { path, shared, doors, files, changing: Mutex::new(()), applied })
    }

    /// The configuration in service; none before the first.
    pub fn configurations(&self) -> watch::Receiver<Option<Arc<Config>>> {
        self.applied.subscribe()
    }

    /// The files to watch, told anew after each reload, whoever asked for it.
    pub(super) fn files(&self) -> watch::Receiver<Vec<PathBuf>> {
        self.files.subscribe()
    }

    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Reads the configuration again; `true` if it is in service. Errors are
    /// logged with file and line and change nothing.
    pub async fn reload(&self) -> bool {
        // Before the file is read: of two reloads the later one has the newer file.
        let _changing = self.changing.lock().await;
        let path = self.path.clone();
        let loaded = match tokio::task::spawn_blocking(move || Config::load(&path)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(errors)) => {
                self.also_follow(errors.files());
                return self.refused(errors.to_string().lines());
            }
            Err(error) => return self.refused([error.to_string().as_str()]),
        };
        match self.apply_locked(loaded.config).await {
            Ok(generation) => {
                self.files.send_replace(loaded.files);
                self.shared.metrics.config_reloaded(true);
                tracing::info!(generation, "configuration applied");
                true
            }
            Err(error) => {
                self.also_follow(&loaded.files);
                self.refused(error.to_string().lines())
            }
        }
    }

    /// What a refused configuration named may mend it; what the one in service
    /// depends on still counts.
    fn also_follow(&self, named: &[PathBuf]) {
        self.files.send_if_modified(|files| {
            let new: Vec<_> = named.iter().filter(|file| !files.contains(file)).cloned().collect();
            files.extend_from_slice(&new);
            !new.is_empty()
        });
    }

    /// Puts `config` in service, all of it or nothing. Returns its generation.
    pub async fn apply(&self, config: Config) -> Result<u64, ReloadError> {
        let _changing = self.changing.lock().await;
        self.apply_locked(config).await
    }

    async fn apply_locked(&self, config: Config) -> Result<u64, ReloadError> {
        let entrypoints = entrypoints(&config);
        // Everything that can fail comes before the first thing that changes.
        route::Table::build(&config.routes).map_err(ReloadError::of)?;
        let plugins = self.shared.plugins.stage(&config.plugins).await.map_err(ReloadError::of)?;
        let mut snapshot = self.shared.compile(config, &plugins).map_err(ReloadError::of)?;
        let (generation, config) = (snapshot.generation, snapshot.config.clone());
        self.open_doors(&entrypoints, &config).await?;
        snapshot.learn_addresses(&self.doors.addresses());
        plugins.commit();
        self.shared.publish(snapshot);
        self.applied.send_replace(Some(config.clone()));
        self.opening_credits(&config).await;
        Ok(generation)
    }

    /// Plugin modules whose files changed get a new version.
    pub async fn refresh_plugins(&self) {
        let _changing = self.changing.lock().await;
        for (name, outcome) in self.shared.plugins.refresh().await {
            match outcome {
                Ok(version) => {
                    tracing::info!(plugin = name.as_str(), version = version.version, sha256 = %version.sha256, "plugin swapped");
                }
                Err(error) => {
                    tracing::error!(plugin = name.as_str(), %error, "plugin refused; the version in service stays");
                }
            }
        }
    }

    async fn open_doors(
        &self,
        entrypoints: &BTreeMap<Name, Entrypoint>,
        config: &Config,
    ) -> Result<(), ReloadError> {
        let before = self.doors.addresses();
        self.doors.apply(entrypoints, config).await?;
        for (entrypoint, address) in self.doors.addresses() {
            if before.get(&entrypoint) != Some(&address) {
                tracing::info!(entrypoint = entrypoint.as_str(), %address, "listening");
            }
        }
        Ok(())
    }

    /// Booked once per consumer, however often the file is read. What cannot be
    /// booked now is tried again with the next reload.
    async fn opening_credits(&self, config: &Config) {
        for (name, consumer) in config.consumers.iter().filter(|(_, c)| c.opening_credit_nano_usd != 0) {
            let id = format!("opening:{name}");
            let (account, amount) = (consumer.tenant.as_str(), consumer.opening_credit_nano_usd);
            if let Err(error) = self.shared.store.credit(&id, account, amount, "opening credit").await {
                tracing::error!(consumer = name.as_str(), %error, "the opening credit was not booked");
            }
        }
    }

    fn refused<'a>(&self, errors: impl IntoIterator<Item = &'a str>) -> bool {
        self.shared.metrics.config_reloaded(false);
        for error in errors {
            tracing::error!(error, "configuration refused; the last good one stays in service");
        }
        false
    }
}

impl ReloadError {
    fn of<T: std::fmt::Display>(errors: Vec<T>) -> Self {
        Self::Refused(errors.into_iter().map(|error| error.to_string()).collect())
    }
}

/// The entrypoints to listen on: the configured ones and the operator's.
fn entrypoints(config: &Config) -> BTreeMap<Name, Entrypoint> {
    let mut entrypoints = config.entrypoints.clone();
    if let (Some(admin), Ok(name)) = (&config.admin, ADMIN.parse()) {
        entrypoints.insert(name, Entrypoint::plain(admin.address));
    }
    entrypoints
}
