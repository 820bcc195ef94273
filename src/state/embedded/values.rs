//! Small values in memory. What is decided here is put in the journal while the
//! lock is held, so that the journal has the same order.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::state::{Result, StoreError};

#[derive(Default)]
pub(super) struct Values {
    namespaces: HashMap<Box<str>, BTreeMap<Box<str>, Value>>,
}

#[derive(Clone)]
pub(super) struct Value {
    pub(super) bytes: Bytes,
    /// Unix milliseconds; zero: never.
    pub(super) expires: i64,
}

impl Value {
    fn lives(&self, now: i64) -> bool {
        self.expires == 0 || now < self.expires
    }
}

impl Values {
    pub(super) fn read(&self, ns: &str, key: &str, now: i64) -> Option<Bytes> {
        self.live(ns, key, now).map(|value| value.bytes.clone())
    }

    pub(super) fn set(&mut self, ns: &str, key: &str, value: Value) {
        let space = match self.namespaces.get_mut(ns) {
            Some(space) => space,
            None => self.namespaces.entry(ns.into()).or_default(),
        };
        space.insert(key.into(), value);
    }

    pub(super) fn delete(&mut self, ns: &str, key: &str) -> bool {
        self.namespaces.get_mut(ns).is_some_and(|space| space.remove(key).is_some())
    }

    /// The sum and when it expires; `expires` counts only for a new key.
    pub(super) fn add(
        &mut self,
        ns: &str,
        key: &str,
        delta: i64,
        expires: i64,
        now: i64,
    ) -> Result<(i64, Value)> {
        let (before, expires) = match self.live(ns, key, now) {
            Some(value) => (number(&value.bytes)?, value.expires),
            None => (0, expires),
        };
        let sum = before.checked_add(delta).ok_or(StoreError::NotANumber)?;
        let value =
            Value { bytes: Bytes::copy_from_slice(itoa::Buffer::new().format(sum).as_bytes()), expires };
        self.set(ns, key, value.clone());
        Ok((sum, value))
    }

    pub(super) fn is(&self, ns: &str, key: &str, old: Option<&[u8]>, now: i64) -> bool {
        self.live(ns, key, now).map(|value| value.bytes.as_ref()) == old
    }

    pub(super) fn keys(&self, ns: &str, prefix: &str, limit: usize, now: i64) -> Vec<String> {
        let Some(space) = self.namespaces.get(ns) else { return Vec::new() };
        let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
        space
            .range::<str, _>(from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, value)| value.lives(now))
            .take(limit)
            .map(|(key, _)| key.to_string())
            .collect()
    }

    pub(super) fn expire(&mut self, now: i64) {
        for space in self.namespaces.values_mut() {
            space.retain(|_, value| value.lives(now));
        }
    }

    fn live(&self, ns: &str, key: &str, now: i64) -> Option<&Value> {
        self.namespaces.get(ns)?.get(key).filter(|value| value.lives(now))
    }
}

/// As Redis reads it: digits without a plus, leading zeroes or blanks.
fn number(bytes: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(bytes).map_err(|_| StoreError::NotANumber)?;
    let number = text.parse().map_err(|_| StoreError::NotANumber)?;
    if itoa::Buffer::new().format::<i64>(number) == text { Ok(number) } else { Err(StoreError::NotANumber) }
}
