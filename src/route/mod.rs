//! Request heads to routes: the rule language, its priorities and the compiled
//! table. Knows nothing of what a route leads to.
//!
//! A lookup makes the host and the path canonical once, asks the index for the
//! routes that could match, and evaluates those in order of priority.

mod canonical;
mod condition;
mod expression;
mod fields;
mod index;
mod pattern;
mod priority;
mod rule;
mod table;

pub use canonical::{climbs_above_root, sanitised_path};
pub use priority::priority;
pub use table::{RequestView, RouteError, Table};
