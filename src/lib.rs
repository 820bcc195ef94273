//! Tollgate: an edge proxy and LLM gateway in one binary. This page is its
//! architecture; how to use it is in `README.md` and `docs/`.
//!
//! # The walk of a request
//!
//! 1. [`server`] accepts, learns who a connection is from, passes streams on as
//!    bytes or shakes hands by SNI, and checks each head, the framing of HTTP/1
//!    bodies and every HTTP/2 frame before the HTTP engine sees them: what two
//!    implementations could read in two ways is refused. A connection remembers
//!    its entrypoint ([`proxy::arrival`]). Certificates come from files or from
//!    [`acme`].
//! 2. [`proxy`] is the corridor: [`proxy::Corridor`] implements pingora's
//!    `ProxyHttp`, and every phase is one call into a step with its own file. A
//!    request takes the current [`proxy::Snapshot`] once and keeps it to its end.
//! 3. [`route::Table`] finds the route.
//! 4. The route's chain runs in written order: [`auth::ApiKeys`] finds the
//!    caller, [`limit::RateLimits`] counts, filters of [`plugin`] edit or answer.
//!    A step takes the current [`plugin::Version`] from its [`plugin::Slot`], so
//!    a swap never meets a call in its middle.
//! 5. The service decides the lane:
//!    * *HTTP*: [`upstream::Cluster`] picks a target, [`upstream::Exchange`]
//!      carries the bytes, which are never looked at.
//!    * *LLM*: [`llm::ChatRequest`] reads the body once, a plugin admits it, the
//!      [`ledger`] holds the worst case. A plugin plans the candidates and names
//!      the key, [`llm::upstream_request`] translates, [`upstream::Connections`]
//!      sends. [`llm::Stream`] or [`llm::reply`] translates back. Up to the first
//!      content another candidate may take over; after it, none.
//!    * *Endpoint*: a component gives the whole answer ([`plugin::Version::serve`]).
//!    * The operator's entrypoint: probes and metrics natively, the rest by
//!      endpoint plugins, behind the admin token.
//! 6. Any failure is a [`fault::Fault`]; one place in [`proxy`] makes responses
//!    of them: problem documents, or the caller's dialect on LLM routes.
//! 7. Settlement always runs: the [`ledger::OpenHold`] is booked once on every
//!    exit path, because dropping it books too; then [`telemetry::Metrics`], the
//!    [`telemetry::AccessRecord`] and the filters' last hook.
//!
//! # Who carries the bytes
//!
//! HTTP exchanges, gRPC and WebSocket are carried by loops of our own, over
//! pingora's pooled connector. Pingora's pass-through has one read timeout for
//! head and body, so that a slow first byte and a silent stream could not be
//! told apart, and may lose an upgrade that is answered quickly; ours have a
//! deadline for each wait, retry a stale pooled connection only where that is
//! safe, and notice a client that goes away at once. On HTTP/2 the two
//! directions are independent, so that one side's flow control does not hold up
//! the other. LLM attempts are requests of the gateway itself, over the same
//! connector.
//!
//! # What decides, and what does
//!
//! The host dials, counts and books; plugins decide. A component imports only
//! what its grants name, sees secrets as handles only, and its amounts and
//! accounts are checked by the host. [`plugin`] ends calls that take too long,
//! trap or hoard, and the plugin's `on_error` says what that means.
//!
//! # What outlives what
//!
//! [`control::Reloader`] turns a file into a [`config::Config`], that into a
//! [`proxy::Snapshot`], and publishes it whole or not at all; [`control::Watcher`]
//! tells it when. Everything with a memory lives outside the snapshot, by name,
//! in [`proxy::Rooms`]: counters, turns, plugin versions, connections. What
//! outlives the process is behind [`state::Store`], with SQLite or Redis under
//! it and one suite of tests for both; callers' keys are sealed by
//! [`state::Secrets`] before they get there.
//!
//! Text becomes types once, in [`config`], which reports every mistake at once
//! with its place; no room checks again.
//!
//! # Floors and owners
//!
//! A room uses only rooms on floors below its own; rooms on one floor do not
//! know each other. `tests/architecture.rs` reads the sources and keeps it so.
//!
//! | Floor | Rooms |
//! |---|---|
//! | 8 | `main`, [`cli`] |
//! | 7 | [`app`], the only place where rooms are constructed |
//! | 6 | [`server`], [`control`], [`acme`] |
//! | 5 | [`proxy`] |
//! | 4 | [`plugin`] |
//! | 3 | [`route`], [`auth`], [`limit`], [`upstream`], [`llm`], [`ledger`] |
//! | 2 | [`state`] |
//! | 1 | [`telemetry`] |
//! | 0 | [`config`], [`fault`] |
//!
//! A heavy dependency is named by its owners only: pingora by `server`, `proxy`,
//! `app` and `upstream`; wasmtime by `plugin`; rustls by `server` and `upstream`;
//! SQLite and Redis by `state`; the metrics and log libraries by `telemetry`.
//! [`llm`] does no I/O: bytes and values in, bytes and values out.

pub mod acme;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod fault;
pub mod ledger;
pub mod limit;
pub mod llm;
pub mod plugin;
pub mod proxy;
pub mod route;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod upstream;
