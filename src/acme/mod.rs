//! Certificates by ACME (RFC 8555): which names want one, how they are proved,
//! when they are renewed. Knows how to get certificates, not how to serve them:
//! that is the [`Front`]'s part.
//!
//! Each certificate has a [`keeper`] of its own. What it gets is in the store,
//! private keys sealed; on Redis all nodes share it, and a lease lets one of
//! them order. A node that loses its lease unawares cannot overwrite what
//! another one got since, because certificates are swapped, never set.

mod certificate;
mod courier;
mod desk;
mod hook;
mod import;
mod keeper;
mod lease;
mod plan;
mod schedule;
mod stage;
mod status;
mod tls_alpn;
mod vault;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    sync::{Mutex, Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{interval, timeout},
};

pub use status::Status;

use crate::{
    config::{
        Config, Name, Secret,
        tls::{self, Challenge, EntrypointTls},
    },
    proxy::{Challenges, SharedAnswers},
    state::{Secrets, Store, StoreError},
    telemetry::Metrics,
    upstream::Web,
};
use certificate::Facts;
use desk::Desk;
use import::Import;
use keeper::{House, Keeper};
use plan::{Plan, Wanted};
use stage::Stage;
use vault::{SPACE, Vault};

/// Orders of one node at one time.
const ORDERS: usize = 4;
/// A start does not wait longer for stored certificates.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// Where connections are secured.
pub trait Front: Send + Sync + 'static {
    /// Serves `names` with this chain, leaf first, and key from the next
    /// handshake on, in place of what served them.
    fn install(&self, names: &[String], chain_pem: &str, key_pem: &Secret) -> Result<(), String>;
    fn remove(&self, names: &[String]);
    /// Answers handshakes for `acme-tls/1` and this name with a certificate.
    fn present_tls_alpn(&self, name: &str, certificate_pem: &str, key_pem: &str) -> Result<(), String>;
    fn withdraw_tls_alpn(&self, name: &str);
}

/// Why there is no certificate, or no newer one.
#[derive(Debug, thiserror::Error)]
enum AcmeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority says no; its reason.
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// It says to come back later, and perhaps when.
    #[error("the authority asks to wait: {reason}")]
    ComeBack { reason: String, asked: Option<Duration> },
    /// It cannot be reached or understood.
    #[error("no agreement with the authority: {0}")]
    Protocol(String),
    #[error("the DNS hook failed: {0}")]
    Hook(String),
    #[error("unusable: {0}")]
    Unusable(String),
    #[error("the lease was lost to another node")]
    LeaseLost,
    #[error("stopped")]
    Stopped,
}

/// What the room is built of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub secrets: Arc<Secrets>,
    /// Whether other nodes use the same store.
    pub shared: bool,
    pub challenges: Arc<Challenges>,
    pub front: Arc<dyn Front>,
    pub metrics: Arc<Metrics>,
}

/// All certificates that the configuration wants.
pub struct Acme {
    house: Arc<House>,
    changes: watch::Sender<u64>,
    /// By the certificate's id. Locked while a configuration is applied.
    running: Mutex<BTreeMap<String, Running>>,
    /// Whether other nodes may present challenge certificates.
    follows_tls_alpn: AtomicBool,
}

struct Running {
    wanted: Wanted,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Acme {
    /// Keeps nothing before [`Acme::apply`]. Needs a runtime.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, secrets, shared, challenges, front, metrics } = parts;
        let followed = tls_alpn::Followed::default();
        let stage = Stage { store: store.clone(), shared, http: challenges, front: front.clone(), followed };
        let acme = Arc::new(Self {
            house: Arc::new(House {
                vault: Vault::new(store, secrets),
                stage,
                front,
                metrics,
                board: status::Board::default(),
                orders: Semaphore::new(ORDERS),
            }),
            changes: watch::Sender::new(0),
            running: Mutex::default(),
            follows_tls_alpn: AtomicBool::new(false),
        });
        if shared {
            tokio::spawn(follow(Arc::downgrade(&acme)));
        }
        acme
    }

    /// Keeps what `config` wants from now on, and nothing else. Returns once
    /// what the store has is in service; the rest comes when it comes.
    ///
    /// A certificate that is no longer wanted stays in the store.
    pub async fn apply(self: &Arc<Self>, config: Arc<Config>) {
        let mut running = self.running.lock().await;
        let before: Vec<_> = running.values().map(|running| running.desk.clone()).collect();
        let vault = self.house.vault.clone();
        let read = tokio::task::spawn_blocking(move || prepare(&config, &before, &vault)).await;
        let Ok((plan, desks)) = read else { return };
        for (name, reason) in &plan.left_out {
            tracing::warn!(name, reason, "no certificate is asked for");
        }
        self.share(&desks);
        let kept: BTreeMap<&str, &Wanted> =
            plan.wanted.iter().map(|wanted| (wanted.id.as_str(), wanted)).collect();
        let unchanged = |id: &String, running: &Running| {
            let Some(wanted) = kept.get(id.as_str()) else { return false };
            desks.get(&wanted.resolver).is_some_and(|desk| Arc::ptr_eq(desk, &running.desk))
        };
        let (stay, go) = std::mem::take(&mut *running)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(id, running)| unchanged(id, running));
        *running = stay;
        let served: BTreeSet<&String> = plan.wanted.iter().flat_map(|wanted| &wanted.names).collect();
        for (id, gone) in go {
            gone.stop.send_replace(true);
            let names: Vec<String> =
                gone.wanted.names.into_iter().filter(|name| !served.contains(name)).collect();
            self.house.front.remove(&names);
            self.house.board.forget(&id);
        }
        let new = plan.wanted.into_iter().filter(|wanted| !running.contains_key(&wanted.id));
        let mut starting: JoinSet<Running> = new
            .filter_map(|wanted| Some(self.clone().start(desks.get(&wanted.resolver)?.clone(), wanted)))
            .collect();
        while let Some(started) = starting.join_next().await {
            if let Ok(started) = started {
                running.insert(started.wanted.id.clone(), started);
            }
        }
    }

    /// With what the store has in service, if it can be asked in time.
    async fn start(self: Arc<Self>, desk: Arc<Desk>, wanted: Wanted) -> Running {
        let stop = watch::Sender::new(false);
        let mut keeper = Keeper {
            wanted: wanted.clone(),
            desk: desk.clone(),
            house: self.house.clone(),
            stop: stop.subscribe(),
            changes: self.changes.subscribe(),
            serving: None,
            advice: None,
            since: SystemTime::now(),
        };
        // What goes wrong here is told by the keeper's first turn.
        let _ = timeout(STORE_PATIENCE, keeper.serve()).await;
        Running { wanted, desk, stop, task: tokio::spawn(keeper.keep()) }
    }

    fn share(&self, desks: &BTreeMap<Name, Arc<Desk>>) {
        let stage = &self.house.stage;
        let any = |challenge: &Challenge| {
            stage.shared && desks.values().any(|desk| desk.acme.challenge == *challenge)
        };
        let answers = any(&Challenge::Http01)
            .then(|| -> Arc<dyn SharedAnswers> { Arc::new(StoredAnswers(stage.store.clone())) });
        stage.http.share(answers);
        self.follows_tls_alpn.store(any(&Challenge::TlsAlpn01), Ordering::Relaxed);
    }

    /// Breaks orders off, withdraws what they presented, and ends; at most
    /// until `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        let running = std::mem::take(&mut *self.running.lock().await);
        let mut tasks = JoinSet::new();
        for running in running.into_values() {
            running.stop.send_replace(true);
            tasks.spawn(running.task);
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(deadline, ended).await.is_err() {
            tracing::warn!("challenges of broken orders may not have been withdrawn");
        }
    }

    /// Of each certificate that is wanted, ordered by names.
    pub fn status(&self) -> Vec<Status> {
        self.house.board.all()
    }
}

/// Blocks on files: certificates, authorities, imports.
fn prepare(config: &Config, before: &[Arc<Desk>], vault: &Vault) -> (Plan, BTreeMap<Name, Arc<Desk>>) {
    let plan = Plan::of(config, names_in_files);
    let resolvers: BTreeSet<&Name> = plan.wanted.iter().map(|wanted| &wanted.resolver).collect();
    let mut desks = BTreeMap::new();
    for name in resolvers {
        let Some(tls::Resolver { acme }) = config.resolvers.get(name) else { continue };
        let known = before.iter().find(|desk| desk.resolver == *name && desk.acme == *acme);
        match known.cloned().map_or_else(|| open(name, acme, vault), Ok) {
            Ok(desk) => drop(desks.insert(name.clone(), desk)),
            Err(error) => {
                tracing::error!(resolver = name.as_str(), %error, "the resolver gets no certificates");
            }
        }
    }
    (plan, desks)
}

fn open(name: &Name, acme: &tls::Acme, vault: &Vault) -> io::Result<Arc<Desk>> {
    let web = Web::new(acme.ca_file.as_deref()).map_err(io::Error::other)?;
    let import = match &acme.import_acme_json {
        Some(path) => Import::read(path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "nothing is taken over from acme.json");
            Import::default()
        }),
        None => Import::default(),
    };
    Ok(Arc::new(Desk::new(name.clone(), acme.clone(), web, Arc::new(import), vault.clone())))
}

/// A file that cannot be read covers nothing; it is refused elsewhere.
fn names_in_files(tls: &EntrypointTls) -> BTreeSet<String> {
    let names = |path: &Path| {
        let text = fs::read_to_string(path).ok()?;
        CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        Some(Facts::read(&text).ok()?.names)
    };
    tls.certificates.iter().filter_map(|files| names(&files.cert_file)).flatten().collect()
}

/// What other nodes publish, as long as there is somebody to be told.
async fn follow(acme: Weak<Acme>) {
    let mut tick = interval(tls_alpn::FOLLOW);
    let mut seen = None;
    loop {
        tick.tick().await;
        let Some(acme) = acme.upgrade() else { return };
        let house = &acme.house;
        match house.vault.version().await {
            Ok(version) if version != seen => {
                seen = version;
                acme.changes.send_modify(|changes| *changes += 1);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "certificates of other nodes are not seen"),
        }
        if acme.follows_tls_alpn.load(Ordering::Relaxed)
            && let Err(error) = house.stage.followed.follow(&*house.stage.store, &*house.front).await
        {
            tracing::debug!(%error, "challenges of other nodes are not seen");
        }
    }
}

/// Answers that nodes leave in the store.
struct StoredAnswers(Arc<dyn Store>);

#[async_trait]
impl SharedAnswers for StoredAnswers {
    async fn find(&self, token: &str) -> Option<String> {
        let answer = self.0.kv_get(SPACE, &stage::http_key(token)).await.ok()??;
        String::from_utf8(answer.to_vec()).ok()
    }
}
