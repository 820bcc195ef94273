//! Which certificate answers which name.

use std::{collections::HashMap, sync::Arc};

use super::certificate::Certificate;

/// Certificates by the names they serve; several for one name may differ in
/// the kind of their key.
#[derive(Debug, Clone, Default)]
pub(super) struct ByName {
    exact: HashMap<String, Vec<Arc<Certificate>>>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Vec<Arc<Certificate>>>,
}

impl ByName {
    /// Beside what serves these names already, which keeps precedence.
    pub(super) fn add(&mut self, certificate: &Arc<Certificate>) {
        for name in &certificate.names {
            self.slot(name).push(certificate.clone());
        }
    }

    /// In place of what served `name`.
    pub(super) fn put(&mut self, name: &str, certificate: Arc<Certificate>) {
        *self.slot(name) = vec![certificate];
    }

    pub(super) fn remove(&mut self, name: &str) {
        match name.strip_prefix("*.") {
            Some(rest) => self.wildcard.remove(rest),
            None => self.exact.remove(name),
        };
    }

    fn slot(&mut self, name: &str) -> &mut Vec<Arc<Certificate>> {
        match name.strip_prefix("*.") {
            Some(rest) => self.wildcard.entry(rest.to_owned()).or_default(),
            None => self.exact.entry(name.to_owned()).or_default(),
        }
    }

    /// For `name`, in lower case: the exact one, then a wildcard for one more
    /// label. Empty if there is none.
    pub(super) fn of(&self, name: &str) -> &[Arc<Certificate>] {
        let found = self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1));
        found.map_or(&[], Vec::as_slice)
    }

    /// What was added or put under exactly this name, `*.` included.
    pub(super) fn under(&self, name: &str) -> &[Arc<Certificate>] {
        let found = match name.strip_prefix("*.") {
            Some(rest) => self.wildcard.get(rest),
            None => self.exact.get(name),
        };
        found.map_or(&[], Vec::as_slice)
    }

    /// Sorted, wildcards with their `*.`.
    pub(super) fn names(&self) -> Vec<String> {
        let wildcards = self.wildcard.keys().map(|rest| format!("*.{rest}"));
        let mut names: Vec<String> = self.exact.keys().cloned().chain(wildcards).collect();
        names.sort_unstable();
        names
    }
}
