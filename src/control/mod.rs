//! The operator's side: a new configuration is checked, compiled and swapped
//! in whole, or changes nothing.

mod reload;
mod service_manager;
mod watch;

pub use reload::{Listeners, ReloadError, Reloader};
pub use service_manager::ServiceManager;
pub use watch::Watcher;
