//! Request heads to routes: the rule language, its priorities and the compiled
//! table. Knows nothing of what a route leads to.
//!
//! A lookup makes the host and the path canonical once, asks the index for the
//! routes that could match, and evaluates those in order of priority.

mod canonical;
mod condition;
mod conflict;
mod expression;
mod fields;
mod hosts;
mod index;
mod overlap;
mod pattern;
mod priority;
mod rule;
mod table;

pub use canonical::{climbs_above_root, host as canonical_host, sanitised_path};
pub use hosts::{hosts, names_hosts_by_pattern};
pub use priority::priority;
pub use table::{RequestView, RouteError, Table, Verdict};
