//! The corridor: every phase of a request is one call into a step that has its
//! own file. It introduces the rooms to each other; they know nothing of it.

mod admit;
mod arrival;
mod body_limits;
mod chain;
mod challenges;
mod client_certificate;
mod context;
mod endpoint_lane;
mod forwarded;
mod grpc;
mod http_lane;
mod llm_lane;
mod operator;
mod redirect;
mod reply;
mod rules;
mod settle;
mod snapshot;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use pingora::{
    prelude::*,
    proxy::{FailToProxy, ProxyHttp, Session},
};

pub use arrival::{Arrival, ClientIdentity, HostRules, TlsInfo, arrival};
pub use body_limits::MalformedBody;
pub use challenges::{Challenges, SharedAnswers};
pub use context::RequestContext;
pub use snapshot::{CompileError, Snapshot};

use crate::{
    config::Config,
    ledger::Ledger,
    limit::RateLimits,
    plugin::{Plugins, Staged},
    state::{Secrets, Store},
    telemetry::{AccessLog, Metrics},
    upstream::{Clusters, Connections, Cooling},
};

/// The rooms that a request may pass. Everything in here outlives reloads.
pub struct Rooms {
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
    pub store: Arc<dyn Store>,
    pub secrets: Arc<Secrets>,
    pub ledger: Arc<Ledger>,
    pub plugins: Arc<Plugins>,
    pub limits: RateLimits,
    pub clusters: Arc<Clusters>,
    pub connections: Arc<Connections>,
    pub cooling: Cooling,
    pub challenges: Arc<Challenges>,
}

/// What all requests share.
pub struct Shared {
    rooms: Rooms,
    snapshot: ArcSwapOption<Snapshot>,
    generations: AtomicU64,
    draining: AtomicBool,
}

/// Pingora's view of the gateway: one per process.
pub struct Corridor {
    shared: Arc<Shared>,
}

impl std::ops::Deref for Shared {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.rooms
    }
}

impl Shared {
    pub fn new(rooms: Rooms) -> Arc<Self> {
        Arc::new(Self {
            rooms,
            snapshot: ArcSwapOption::empty(),
            generations: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        })
    }

    /// Compiles `config` against its staged plugins. Nothing changes yet.
    pub fn compile(&self, config: Config, plugins: &Staged<'_>) -> Result<Snapshot, Vec<CompileError>> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        Snapshot::compile(self, plugins, Arc::new(config), generation)
    }

    /// Puts a snapshot in service for requests that begin from now on.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Some(Arc::new(snapshot)));
    }

    /// The snapshot in service; none before the first `publish`.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// From now on `/readyz` answers 503, so that balancers look elsewhere.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.snapshot.load().is_some()
    }
}

impl Corridor {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl ProxyHttp for Corridor {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new()
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        admit::admit(&self.shared, session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        match chain::serve(&self.shared, session, ctx).await {
            Ok(answered) => Ok(answered == chain::Served::Answered),
            Err(fault) => match reply::fault(session, ctx, &fault).await {
                reply::Replied::Whole => Ok(true),
                // Ending the session properly would pass a torn answer off as whole.
                reply::Replied::Torn => Error::e_explain(InternalError, fault.kind.label()),
            },
        }
    }

    /// Every request is answered by its lane.
    async fn upstream_peer(&self, _: &mut Session, _: &mut RequestContext) -> Result<Box<HttpPeer>> {
        Error::e_explain(InternalError, "a request without an answer left its lane")
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut RequestContext,
    ) -> FailToProxy {
        http_lane::failed(session, ctx, error).await
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        // `reply` and the access record tell it once, in our own format.
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut RequestContext) {
        settle::settle(&self.shared, session, ctx).await;
    }
}
