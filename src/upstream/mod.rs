//! The way to origins: which target is next, its address, a connection to it.
//!
//! What survives a reload lives here, keyed by service name.

mod cluster;
mod connections;
mod cooling;
mod exchange;
mod outflow;
mod peer;
mod preamble;
mod resolver;
mod tcp;
mod web;

pub use cluster::{Cluster, Clusters, Picked};
pub use connections::{ConnectError, Connections, ReadError, Response};
pub use cooling::Cooling;
pub use exchange::{Answering, Asking, Exchange, ExchangeError};
pub use outflow::Outflow;
pub use peer::{Wire, peer};
pub use preamble::Preamble;
pub use resolver::{ResolveError, Resolver};
pub use tcp::{Dialled, TcpCluster, TcpClusters};
pub use web::{Web, WebError};
