//! Which version of which plugin is in service, and how that changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::{fs, sync::MutexGuard};

use crate::config::{
    Name,
    plugin::{Module, Plugin},
};

use super::{
    Hooks, HostServices, LoadError, PluginInfo, Version, VersionInfo,
    component::{Loader, digest},
    engine,
    host::{self, Host},
    standard::embedded,
};

/// A component file beyond this is refused unread.
const MAX_COMPONENT: u64 = 64 * 1024 * 1024;

/// All plugins in service.
pub struct Plugins {
    loader: Loader,
    slots: RwLock<BTreeMap<Name, Arc<Slot>>>,
    /// Held while versions are made, so that changes happen one after another.
    changes: tokio::sync::Mutex<()>,
    instances: Arc<AtomicUsize>,
}

/// The place of one plugin, by name: versions come and go, the slot stays.
pub struct Slot {
    current: ArcSwap<Version>,
    origin: Mutex<Origin>,
    /// Number of the next version.
    next: AtomicU64,
}

/// Where the version in service came from.
struct Origin {
    plugin: Plugin,
    /// Of the module when it was last read, whether it was accepted or not.
    module_sha256: [u8; 32],
}

type Changes = Vec<(Name, Result<VersionInfo, LoadError>)>;

impl Plugins {
    /// Compiled code is kept under `cache_dir` if one is given.
    pub fn new(services: HostServices, cache_dir: Option<&Path>) -> Result<Arc<Self>, LoadError> {
        let refused = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let engine = engine::build(cache_dir).map_err(refused)?;
        let linker = host::linker(&engine).map_err(refused)?;
        let instances = Arc::new(AtomicUsize::new(0));
        Ok(Arc::new_cyclic(|plugins| {
            let host = Arc::new(Host { services, plugins: plugins.clone(), instances: instances.clone() });
            Self {
                loader: Loader::new(engine, linker, host),
                slots: RwLock::default(),
                changes: tokio::sync::Mutex::new(()),
                instances,
            }
        }))
    }

    /// Puts exactly these plugins in service, or changes nothing and says all
    /// that is wrong.
    pub async fn apply(self: &Arc<Self>, plugins: &BTreeMap<Name, Plugin>) -> Result<(), Vec<LoadError>> {
        self.stage(plugins).await?.commit();
        Ok(())
    }

    /// Makes exactly these plugins ready without putting them in service, or
    /// says all that is wrong. A plugin whose configuration and module are what
    /// they were keeps its version, also one that was loaded over the API
    /// since. Other changes wait until the stage is committed or dropped.
    pub async fn stage(&self, plugins: &BTreeMap<Name, Plugin>) -> Result<Staged<'_>, Vec<LoadError>> {
        let changing = self.changes.lock().await;
        let mut errors = Vec::new();
        let mut ready = Vec::new();
        for (name, plugin) in plugins {
            match self.prepare(name, plugin).await {
                Ok(Some(prepared)) => ready.push(prepared),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let wanted = plugins.keys().cloned().collect();
        Ok(Staged { plugins: self, _changing: changing, wanted, ready })
    }

    /// Puts these bytes in service as the next version of a configured plugin.
    pub async fn load(self: &Arc<Self>, name: &str, component: Bytes) -> Result<VersionInfo, LoadError> {
        let _changing = self.changes.lock().await;
        let slot = self.slot(name).ok_or_else(|| LoadError::UnknownPlugin(name.to_owned()))?;
        let plugin = slot.origin.lock().plugin.clone();
        let number = slot.next.load(Ordering::Relaxed);
        let version = self.loader.load(name, &plugin, component, "api".to_owned(), number).await?;
        slot.succeed(version)
    }

    /// Loads the file modules whose bytes changed since they were last read.
    /// A refused file is reported once, and its predecessor stays in service.
    pub async fn refresh(self: &Arc<Self>) -> Changes {
        let _changing = self.changes.lock().await;
        let slots: Vec<_> =
            self.slots.read().iter().map(|(name, slot)| (name.clone(), slot.clone())).collect();
        let mut changes = Vec::new();
        for (name, slot) in slots {
            let plugin = slot.origin.lock().plugin.clone();
            if let Some(change) = self.refresh_one(&name, &slot, &plugin).await {
                changes.push((name, change));
            }
        }
        changes
    }

    pub fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.slots.read().get(name).cloned()
    }

    pub fn list(&self) -> Vec<PluginInfo> {
        self.slots.read().values().map(|slot| slot.current.load().plugin_info()).collect()
    }

    /// Living instances of all versions, those no longer in service included.
    pub fn instances(&self) -> usize {
        self.instances.load(Ordering::Relaxed)
    }

    /// `None` if the version in service is the one wanted.
    async fn prepare(&self, name: &Name, plugin: &Plugin) -> Result<Option<Prepared>, LoadError> {
        let component = read_module(name.as_str(), &plugin.module).await?;
        let module_sha256 = digest(&component);
        let slot = self.slot(name.as_str());
        let number = match &slot {
            Some(slot) if slot.origin.lock().is(plugin, module_sha256) => return Ok(None),
            Some(slot) => slot.next.load(Ordering::Relaxed),
            None => 1,
        };
        let source = source(&plugin.module);
        let version = self.loader.load(name.as_str(), plugin, component, source, number).await?;
        let origin = Origin { plugin: plugin.clone(), module_sha256 };
        Ok(Some(match slot {
            Some(slot) => Prepared { name: name.clone(), slot, successor: Some((version, origin)) },
            None => {
                let slot = Arc::new(Slot::new(version, origin));
                Prepared { name: name.clone(), slot, successor: None }
            }
        }))
    }

    async fn refresh_one(
        &self,
        name: &Name,
        slot: &Slot,
        plugin: &Plugin,
    ) -> Option<Result<VersionInfo, LoadError>> {
        if !matches!(plugin.module, Module::File(_)) {
            return None;
        }
        let component = match read_module(name.as_str(), &plugin.module).await {
            Ok(component) => component,
            // A file that is being replaced may be absent for a moment.
            Err(_) => return None,
        };
        let module_sha256 = digest(&component);
        if std::mem::replace(&mut slot.origin.lock().module_sha256, module_sha256) == module_sha256 {
            return None;
        }
        let number = slot.next.load(Ordering::Relaxed);
        let loaded = self.loader.load(name.as_str(), plugin, component, source(&plugin.module), number).await;
        Some(loaded.and_then(|version| slot.succeed(version)))
    }
}

/// Plugins that passed every check and wait to be put in service together with
/// the configuration that names them. Dropped, nothing has changed.
pub struct Staged<'a> {
    plugins: &'a Plugins,
    _changing: MutexGuard<'a, ()>,
    wanted: BTreeSet<Name>,
    ready: Vec<Prepared>,
}

/// A slot that changes, or a new one.
struct Prepared {
    name: Name,
    slot: Arc<Slot>,
    /// What the slot gets; absent for a new slot, which has its version already.
    successor: Option<(Version, Origin)>,
}

impl Staged<'_> {
    /// A staged plugin, and the hooks it will have once it is in service.
    pub fn find(&self, name: &str) -> Option<(Arc<Slot>, Hooks)> {
        if let Some(prepared) = self.ready.iter().find(|prepared| prepared.name.as_str() == name) {
            let hooks = match &prepared.successor {
                Some((version, _)) => version.hooks(),
                None => prepared.slot.current.load().hooks(),
            };
            return Some((prepared.slot.clone(), hooks));
        }
        let slot = self.plugins.slot(name).filter(|_| self.wanted.contains(name))?;
        let hooks = slot.current.load().hooks();
        Some((slot, hooks))
    }

    /// Requests that begin from now on get the staged versions.
    pub fn commit(self) {
        let mut slots = self.plugins.slots.write();
        slots.retain(|name, _| self.wanted.contains(name.as_str()));
        for Prepared { name, slot, successor } in self.ready {
            match successor {
                Some((version, origin)) => {
                    *slot.origin.lock() = origin;
                    slot.swap(version);
                }
                None => slot.current.load().enters_service(),
            }
            slots.insert(name, slot);
        }
    }
}

impl Slot {
    fn new(version: Version, origin: Origin) -> Self {
        let next = AtomicU64::new(version.number() + 1);
        Self { current: ArcSwap::from_pointee(version), origin: Mutex::new(origin), next }
    }

    /// As configured.
    pub fn name(&self) -> Arc<str> {
        self.current.load().shared_name()
    }

    /// A request takes it once and keeps it to its end.
    pub fn current(&self) -> Arc<Version> {
        self.current.load_full()
    }

    /// Swaps in a version that came without a configuration. It must export all
    /// hooks of its predecessor: routes rely on them, and one that lost
    /// `admission`, say, would serve without billing.
    fn succeed(&self, version: Version) -> Result<VersionInfo, LoadError> {
        let lost = self.current.load().hooks().not_in(version.hooks());
        if lost.is_empty() {
            return Ok(self.swap(version));
        }
        Err(LoadError::HooksLost { plugin: version.name().to_owned(), hooks: lost })
    }

    /// Requests that hold the old version finish on it; it goes with the last of them.
    fn swap(&self, version: Version) -> VersionInfo {
        version.enters_service();
        let info = version.info();
        self.next.store(info.version + 1, Ordering::Relaxed);
        self.current.store(Arc::new(version));
        info
    }
}

impl Origin {
    fn is(&self, plugin: &Plugin, module_sha256: [u8; 32]) -> bool {
        self.plugin == *plugin && self.module_sha256 == module_sha256
    }
}

fn source(module: &Module) -> String {
    match module {
        Module::Embedded(_) => "embedded".to_owned(),
        Module::File(path) => path.display().to_string(),
    }
}

async fn read_module(plugin: &str, module: &Module) -> Result<Bytes, LoadError> {
    match module {
        Module::Embedded(standard) => embedded(standard.as_str()).map(Bytes::from_static).ok_or_else(|| {
            LoadError::NoSuchModule { plugin: plugin.to_owned(), module: standard.to_string() }
        }),
        Module::File(path) => read_file(path).await.map_err(|error| LoadError::Unreadable {
            plugin: plugin.to_owned(),
            path: path.display().to_string(),
            reason: error.to_string(),
        }),
    }
}

async fn read_file(path: &Path) -> io::Result<Bytes> {
    if fs::metadata(path).await?.len() > MAX_COMPONENT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB"));
    }
    fs::read(path).await.map(Bytes::from)
}
