//! The embedded store while one process takes over from another. One of them
//! has it, decides alone and writes; the other one asks it over a socket. So
//! the books have one owner at any time, and every hold and settlement passes it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    net::UnixStream,
    sync::{Mutex, oneshot, watch},
    time::timeout,
};

mod calls;
mod link;
#[cfg(test)]
pub(super) mod tests;

use calls::Call;
use link::Link;

use super::{
    Balance, Hold, HoldOutcome, Result, SealedSecret, SettleOutcome, Settlement, Store, StoreError, UsageRow,
    embedded::{Embedded, OpenHolds},
};

/// Writing out what is queued and folding in the log, once nobody uses the store.
const HAND_OVER: Duration = Duration::from_secs(10);

pub(super) struct SharedStore {
    dir: PathBuf,
    place: ArcSwap<Place>,
    /// Told after each change of `place`.
    moved: watch::Sender<()>,
    /// One move at a time.
    moving: Mutex<()>,
}

/// Where the store is.
enum Place {
    Here(Here),
    There(Link),
    /// On its way; operations wait.
    Moving,
    /// Nobody has it who should: whoever needs it opens it here.
    Closed,
}

impl Place {
    /// The process that had the store is gone, and its lock is free.
    fn is_left(&self) -> bool {
        match self {
            Self::There(link) => link.is_cut(),
            Self::Closed => true,
            Self::Here(_) | Self::Moving => false,
        }
    }
}

/// Fields are dropped in this order: the word goes out when the store is closed.
struct Here {
    store: Embedded,
    _alive: oneshot::Sender<()>,
    closed: parking_lot::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Here {
    fn open(dir: &Path, holds: OpenHolds) -> Result<Self> {
        let store = Embedded::open(dir, holds)?;
        let (alive, closed) = oneshot::channel();
        Ok(Self { store, _alive: alive, closed: parking_lot::Mutex::new(Some(closed)) })
    }
}

impl SharedStore {
    /// With the store in this process. Blocks.
    pub(super) fn open(dir: &Path) -> Result<Arc<Self>> {
        Ok(Self::at(dir, Place::Here(Here::open(dir, OpenHolds::Freed)?)))
    }

    /// With the store in the process at the other end of `stream`. Needs a runtime.
    pub(super) fn elsewhere(dir: &Path, stream: UnixStream) -> Arc<Self> {
        let shared = Self::at(dir, Place::Moving);
        let link = Link::start(stream, Arc::downgrade(&shared));
        shared.put(Place::There(link));
        shared
    }

    fn at(dir: &Path, place: Place) -> Arc<Self> {
        Arc::new(Self {
            dir: dir.to_owned(),
            place: ArcSwap::from_pointee(place),
            moved: watch::Sender::new(()),
            moving: Mutex::new(()),
        })
    }

    fn put(&self, place: Place) {
        self.place.store(Arc::new(place));
        self.moved.send_replace(());
    }

    /// Where to ask, once that is settled.
    async fn place(&self) -> Result<Arc<Place>> {
        let mut moved = self.moved.subscribe();
        loop {
            let place = self.place.load_full();
            match &*place {
                Place::Moving => moved.changed().await.map_err(|_| lost())?,
                place if place.is_left() => self.take_back().await?,
                _ => return Ok(place),
            }
        }
    }

    async fn take_back(&self) -> Result<()> {
        let _moving = self.moving.lock().await;
        if self.place.load().is_left() { self.open_here().await } else { Ok(()) }
    }

    async fn open_here(&self) -> Result<()> {
        let dir = self.dir.clone();
        let opened = tokio::task::spawn_blocking(move || Here::open(&dir, OpenHolds::Kept)).await;
        let here = opened.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        self.put(Place::Here(here));
        Ok(())
    }
}

/// The store's way from one process to another. Operations that come meanwhile wait.
#[async_trait]
pub trait Handover: Send + Sync {
    /// Answers the process at the other end of `stream`; that one has to call
    /// [`Handover::take`] after [`Handover::give`]. Needs a runtime.
    fn offer(self: Arc<Self>, stream: UnixStream) -> Box<dyn Successor>;

    /// Finishes what is under way, writes everything, closes the files.
    ///
    /// # Errors
    /// When that takes too long; the store then stays.
    async fn give(&self) -> Result<()>;

    /// Opens the files here, with the holds that are open. Also takes back what
    /// was given and not taken.
    ///
    /// # Errors
    /// When the files cannot be opened; the next operation tries again.
    async fn take(&self) -> Result<()>;
}

/// The process that took the store over.
pub trait Successor: Send + Sync {
    /// From now on its store is asked.
    fn follow(self: Box<Self>);
}

struct Following {
    shared: Arc<SharedStore>,
    link: Link,
}

impl Successor for Following {
    fn follow(self: Box<Self>) {
        self.shared.put(Place::There(self.link));
    }
}

#[async_trait]
impl Handover for SharedStore {
    fn offer(self: Arc<Self>, stream: UnixStream) -> Box<dyn Successor> {
        let link = Link::start(stream, Arc::downgrade(&self));
        Box::new(Following { shared: self, link })
    }

    async fn give(&self) -> Result<()> {
        let _moving = self.moving.lock().await;
        let before = self.place.load_full();
        let Place::Here(here) = &*before else { return Err(lost()) };
        let Some(mut closed) = here.closed.lock().take() else { return Err(lost()) };
        // Most of the writing happens while the store is still in use.
        here.store.close().await;
        let weak = Arc::downgrade(&before);
        self.put(Place::Moving);
        drop(before);
        if timeout(HAND_OVER, &mut closed).await.is_ok() {
            return Ok(());
        }
        // Somebody still uses it: it stays, unless they left just now.
        let Some(still) = weak.upgrade() else { return Ok(()) };
        if let Place::Here(here) = &*still {
            *here.closed.lock() = Some(closed);
        }
        self.place.store(still);
        self.moved.send_replace(());
        Err(StoreError::TimedOut)
    }

    async fn take(&self) -> Result<()> {
        let _moving = self.moving.lock().await;
        if matches!(&*self.place.load_full(), Place::Here(_)) {
            return Ok(());
        }
        let taken = self.open_here().await;
        if taken.is_err() {
            self.put(Place::Closed);
        }
        taken
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable("the store is with another process".to_owned())
}

/// Does it here or asks there.
macro_rules! wherever {
    ($self:ident.$operation:ident($($argument:expr),*) or $call:expr) => {
        match &*$self.place().await? {
            Place::Here(here) => here.store.$operation($($argument),*).await,
            Place::There(link) => link.ask(&$call).await,
            Place::Moving | Place::Closed => Err(lost()),
        }
    };
}

#[async_trait]
impl Store for SharedStore {
    async fn kv_get(&self, ns: &str, key: &str) -> Result<Option<Bytes>> {
        match &*self.place().await? {
            Place::Here(here) => here.store.kv_get(ns, key).await,
            Place::There(link) => {
                let call = Call::KvGet { ns: ns.into(), key: key.into() };
                Ok(link.ask::<Option<Vec<u8>>>(&call).await?.map(Bytes::from))
            }
            Place::Moving | Place::Closed => Err(lost()),
        }
    }

    async fn kv_set(&self, ns: &str, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()> {
        wherever!(self.kv_set(ns, key, value, ttl) or Call::KvSet {
            ns: ns.into(),
            key: key.into(),
            value: value.into(),
            ttl,
        })
    }

    async fn kv_delete(&self, ns: &str, key: &str) -> Result<()> {
        wherever!(self.kv_delete(ns, key) or Call::KvDelete { ns: ns.into(), key: key.into() })
    }

    async fn kv_add(&self, ns: &str, key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64> {
        wherever!(self.kv_add(ns, key, delta, ttl) or Call::KvAdd {
            ns: ns.into(),
            key: key.into(),
            delta,
            ttl,
        })
    }

    async fn kv_compare_and_swap(
        &self,
        ns: &str,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        wherever!(self.kv_compare_and_swap(ns, key, old, new, ttl) or Call::KvCompareAndSwap {
            ns: ns.into(),
            key: key.into(),
            old: old.map(Into::into),
            new: new.into(),
            ttl,
        })
    }

    async fn kv_keys(&self, ns: &str, prefix: &str, limit: usize) -> Result<Vec<String>> {
        wherever!(self.kv_keys(ns, prefix, limit) or Call::KvKeys {
            ns: ns.into(),
            prefix: prefix.into(),
            limit,
        })
    }

    async fn credit(&self, id: &str, account: &str, nano_usd: i64, note: &str) -> Result<bool> {
        wherever!(self.credit(id, account, nano_usd, note) or Call::Credit {
            id: id.into(),
            account: account.into(),
            nano_usd,
            note: note.into(),
        })
    }

    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome> {
        wherever!(self.hold(hold) or Call::Hold(hold.clone()))
    }

    async fn renew(&self, id: &str, account: &str, lease: Duration) -> Result<bool> {
        wherever!(self.renew(id, account, lease) or Call::Renew {
            id: id.into(),
            account: account.into(),
            lease,
        })
    }

    async fn settle(&self, settlement: &Settlement) -> Result<SettleOutcome> {
        wherever!(self.settle(settlement) or Call::Settle(Box::new(settlement.clone())))
    }

    async fn expire_holds(&self) -> Result<u64> {
        wherever!(self.expire_holds() or Call::ExpireHolds)
    }

    async fn balance(&self, account: &str) -> Result<Balance> {
        wherever!(self.balance(account) or Call::Balance { account: account.into() })
    }

    async fn accounts(&self) -> Result<Vec<Balance>> {
        wherever!(self.accounts() or Call::Accounts)
    }

    async fn usage(&self, account: Option<&str>, limit: usize) -> Result<Vec<UsageRow>> {
        wherever!(self.usage(account, limit) or Call::Usage { account: account.map(Into::into), limit })
    }

    async fn secret_put(&self, sealed: &SealedSecret) -> Result<()> {
        wherever!(self.secret_put(sealed) or Call::SecretPut(Box::new(sealed.clone())))
    }

    async fn secret_remove(&self, handle: &str) -> Result<bool> {
        wherever!(self.secret_remove(handle) or Call::SecretRemove { handle: handle.into() })
    }

    async fn secret_list(&self) -> Result<Vec<SealedSecret>> {
        wherever!(self.secret_list() or Call::SecretList)
    }

    async fn ping(&self) -> Result<()> {
        wherever!(self.ping() or Call::Ping)
    }

    async fn close(&self) {
        let written: Result<()> = async {
            match &*self.place().await? {
                Place::Here(here) => here.store.close().await,
                Place::There(link) => link.ask(&Call::Ping).await?,
                Place::Moving | Place::Closed => {}
            }
            Ok(())
        }
        .await;
        if let Err(error) = written {
            tracing::error!(%error, "the store could not write what was queued");
        }
    }
}
