//! Names of the keys. The part in braces is the cluster's hash tag: what has to
//! change together carries the same.

pub(super) const ACCOUNTS: &str = "tollgate:accounts";
pub(super) const SECRETS: &str = "tollgate:secrets";

/// The keys of one account. The scripts derive those of holds and caps from
/// the first in the same way.
pub(super) struct AccountKeys {
    balance: String,
}

impl AccountKeys {
    pub(super) fn new(account: &str) -> Self {
        Self { balance: format!("tollgate:{{{account}}}") }
    }

    /// Hash: credited, spent, held.
    pub(super) fn balance(&self) -> &str {
        &self.balance
    }

    /// Hash: state, amount, caps.
    pub(super) fn hold(&self, id: &str) -> String {
        format!("{}:hold:{id}", self.balance)
    }

    /// Hash: spent, held, born.
    pub(super) fn cap(&self, name: &str) -> String {
        format!("{}:cap:{name}", self.balance)
    }

    /// Sorted set: open holds by the end of their lease.
    pub(super) fn leases(&self) -> String {
        format!("{}:leases", self.balance)
    }

    /// Hash: what was credited under which id.
    pub(super) fn credits(&self) -> String {
        format!("{}:credits", self.balance)
    }

    /// Stream: the ledger.
    pub(super) fn usage(&self) -> String {
        format!("{}:usage", self.balance)
    }
}

pub(super) struct ValueKeys {
    pub(super) value: String,
    /// Sorted set of the namespace's keys, for listing.
    pub(super) index: String,
}

impl ValueKeys {
    pub(super) fn new(ns: &str, key: &str) -> Self {
        Self { value: format!("tollgate:kv:{{{ns}}}:{key}"), index: format!("tollgate:kvindex:{{{ns}}}") }
    }
}
