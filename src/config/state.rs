//! Where what outlives a request is kept.

use std::{path::PathBuf, time::Duration};

use super::Secret;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Holds the database, the sealing key and compiled plugins. Created at start.
    pub data_dir: PathBuf,
    pub backend: Backend,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// SQLite in `data_dir`.
    Embedded,
    Redis {
        /// `redis://[user:password@]host:port/db`; secret because of the password.
        url: Secret,
        /// Deadline of one operation. Default 50 ms.
        timeout: Duration,
    },
}
