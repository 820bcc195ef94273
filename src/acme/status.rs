//! What operators are told of each certificate.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::plan::Wanted;

/// Times are Unix seconds when written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    pub names: Vec<String>,
    pub resolver: String,
    /// The end of the certificate in service; none while there is none.
    #[serde(serialize_with = "seconds")]
    pub not_after: Option<SystemTime>,
    #[serde(serialize_with = "seconds")]
    pub renewal: Option<SystemTime>,
    /// When an order is tried again that failed.
    #[serde(serialize_with = "seconds")]
    pub next_attempt: Option<SystemTime>,
    /// In a row.
    pub failures: u32,
    /// Why there is no certificate, or no newer one.
    pub problem: Option<String>,
}

/// By the certificate's id.
#[derive(Default)]
pub(super) struct Board {
    shown: Mutex<BTreeMap<String, Status>>,
}

impl Status {
    pub(super) fn of(wanted: &Wanted) -> Self {
        Self {
            names: wanted.names.clone(),
            resolver: wanted.resolver.to_string(),
            not_after: None,
            renewal: None,
            next_attempt: None,
            failures: 0,
            problem: None,
        }
    }
}

impl Board {
    pub(super) fn note(&self, wanted: &Wanted, change: impl FnOnce(&mut Status)) {
        change(self.shown.lock().entry(wanted.id.clone()).or_insert_with(|| Status::of(wanted)));
    }

    pub(super) fn forget(&self, id: &str) {
        self.shown.lock().remove(id);
    }

    /// Ordered by names.
    pub(super) fn all(&self) -> Vec<Status> {
        let mut all: Vec<Status> = self.shown.lock().values().cloned().collect();
        all.sort_by(|one, other| one.names.cmp(&other.names));
        all
    }
}

fn seconds<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map(|since| since.as_secs()).serialize(serializer)
}
