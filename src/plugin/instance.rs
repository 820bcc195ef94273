//! One running component and what belongs to it alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use tokio::time::timeout;
use wasmtime::{
    Engine, Store, UpdateDeadline,
    component::{InstancePre, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, Result as HttpResult, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

use crate::config::plugin::{Grants, Limits};

use super::{
    bindings::{Exports, Indices, WantedSubscription},
    host::Host,
    limits::{LogLimit, MemoryLimit, Meter},
};

/// How much longer than it may compute a call may take with its waits.
pub(super) const WAITING: Duration = Duration::from_secs(5);

/// What host calls need to know about the plugin that makes them.
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    pub(super) grants: Grants,
    pub(super) log_limit: LogLimit,
}

/// Makes instances of one version.
pub(super) struct Blueprint {
    pub(super) pre: InstancePre<InstanceState>,
    pub(super) indices: Indices,
    pub(super) identity: Arc<Identity>,
    pub(super) host: Arc<Host>,
    pub(super) limits: Limits,
    /// JSON handed to `configure`.
    pub(super) config: String,
    /// Living instances of this version.
    pub(super) alive: Arc<AtomicUsize>,
}

pub(super) struct Instance {
    pub(super) store: Store<InstanceState>,
    pub(super) exports: Exports,
    pub(super) meter: Arc<Meter>,
    pub(super) calls: u64,
    _census: [Counted; 2],
}

/// The data of a store.
pub(super) struct InstanceState {
    pub(super) identity: Arc<Identity>,
    pub(super) host: Arc<Host>,
    pub(super) memory: MemoryLimit,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    outbound: NoOutbound,
}

/// Why there is no instance.
pub(super) enum StartError {
    Engine(wasmtime::Error),
    /// The guest's own words.
    Refused(String),
    OutOfMemory,
    /// It waited for too long.
    TimedOut,
}

impl Blueprint {
    /// Instantiates and configures. The guest's time limit holds for both.
    pub(super) async fn start(&self) -> Result<(Instance, WantedSubscription), StartError> {
        let meter = Arc::new(Meter::new());
        let mut store = self.store(&meter);
        let run = meter.run(self.limits.time_per_call, async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            let exports = self.indices.load(&mut store, &instance)?;
            let wanted = exports.lifecycle.call_configure(&mut store, &self.config).await?;
            Ok((exports, wanted))
        });
        // The lock of all plugin changes may be held meanwhile: no wait without an end.
        let Ok(outcome) = timeout(self.limits.time_per_call + WAITING, run).await else {
            return Err(StartError::TimedOut);
        };
        match outcome {
            Ok((exports, Ok(wanted))) => {
                let census = [Counted::new(&self.alive), Counted::new(&self.host.instances)];
                Ok((Instance { store, exports, meter, calls: 0, _census: census }, wanted))
            }
            Ok((_, Err(message))) => Err(StartError::Refused(message)),
            Err(_) if store.data().memory.refused => Err(StartError::OutOfMemory),
            Err(error) => Err(StartError::Engine(error)),
        }
    }

    fn store(&self, meter: &Arc<Meter>) -> Store<InstanceState> {
        let state = InstanceState {
            identity: self.identity.clone(),
            host: self.host.clone(),
            memory: MemoryLimit::new(self.limits.memory.0),
            // No arguments, no environment, no preopened directory, no socket, output to nowhere.
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            outbound: NoOutbound,
        };
        let mut store = Store::new(self.engine(), state);
        store.limiter(|state| &mut state.memory);
        let meter = meter.clone();
        store.epoch_deadline_callback(move |_| {
            // Yielding keeps a long call from holding up the thread's other tasks.
            Ok(if meter.is_exhausted() { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        store.set_epoch_deadline(1);
        store
    }

    fn engine(&self) -> &Engine {
        self.pre.engine()
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for InstanceState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}

/// Endpoints answer; they do not call out.
struct NoOutbound;

type Outbound<T> = Box<dyn Future<Output = HttpResult<T>> + Send>;

impl WasiHttpHooks for NoOutbound {
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _body_sent: Outbound<()>,
    ) -> Outbound<(http::Response<WasiBody>, Outbound<()>)> {
        Box::new(async { Err(HttpError::HttpRequestDenied) })
    }
}

/// Counts one living thing.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
