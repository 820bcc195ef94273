//! The operator's side: a new configuration is checked, compiled and swapped
//! in whole, or changes nothing.

mod reload;
mod watch;

pub use reload::{Listeners, ReloadError, Reloader};
pub use watch::Watcher;
