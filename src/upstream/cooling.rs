//! Providers that asked to be left alone, or failed, and until when.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;

/// Keyed by `provider/model`; the keys come from the configuration, which
/// bounds them. Survives reloads.
#[derive(Default)]
pub struct Cooling {
    until: RwLock<HashMap<Arc<str>, Instant>>,
}

impl Cooling {
    /// Leaves `key` alone for `wait` from now, unless it is for longer already.
    pub fn cool(&self, key: &Arc<str>, wait: Duration) {
        let until = Instant::now() + wait;
        let mut cooling = self.until.write();
        let entry = cooling.entry(key.clone()).or_insert(until);
        *entry = until.max(*entry);
    }

    /// What answered is well again.
    pub fn warm(&self, key: &str) {
        // Almost always nothing is cooling: a read lock finds that out.
        if self.until.read().contains_key(key) {
            self.until.write().remove(key);
        }
    }

    pub fn is_cooling(&self, key: &str) -> bool {
        self.until.read().get(key).is_some_and(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_wait_does_not_end_a_longer_one() {
        let cooling = Cooling::default();
        let key: Arc<str> = "openai/gpt".into();
        assert!(!cooling.is_cooling(&key));
        cooling.cool(&key, Duration::from_secs(60));
        cooling.cool(&key, Duration::ZERO);
        assert!(cooling.is_cooling(&key));
        cooling.warm(&key);
        assert!(!cooling.is_cooling(&key));
    }
}
