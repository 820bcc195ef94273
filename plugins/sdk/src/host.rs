//! The host's interfaces as traits, so that logic runs against a double in
//! tests. [`Gateway`] is the real thing; calling one of its traits makes the
//! component import that interface, and the operator must grant it.

use crate::wit::host::tollgate::plugin as wit;

pub use wit::control::Error as ControlError;
pub use wit::key_value::Error as KeyValueError;
pub use wit::ledger::{AccountBalance as Balance, Error as LedgerError, UsageRow};
pub use wit::log::Level;
pub use wit::secrets::{Error as SecretsError, SecretInfo};

/// The gateway that runs the plugin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gateway;

/// Lines in the gateway's log. Grant: `log: true`.
pub trait Log {
    fn write(&self, level: Level, message: &str);
}

/// Small values that outlive a request. Grant: `key_value: [NAMESPACE]`.
pub trait KeyValue {
    fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, KeyValueError>;
    /// `ttl_seconds` 0 keeps the value until it is deleted.
    fn set(&self, namespace: &str, key: &str, value: &[u8], ttl_seconds: u64) -> Result<(), KeyValueError>;
    fn delete(&self, namespace: &str, key: &str) -> Result<(), KeyValueError>;
    /// Adds atomically and returns the new value.
    fn add(&self, namespace: &str, key: &str, delta: i64, ttl_seconds: u64) -> Result<i64, KeyValueError>;
    /// Sorted, at most `limit` (1 to 1000).
    fn keys(&self, namespace: &str, prefix: &str, limit: u32) -> Result<Vec<String>, KeyValueError>;
}

/// The books. Grant: `ledger: read` or `ledger: write`.
pub trait Ledger {
    fn accounts(&self) -> Result<Vec<Balance>, LedgerError>;
    fn balance(&self, account: &str) -> Result<Balance, LedgerError>;
    /// Adds credit once per `id`; false if the id was used before.
    fn credit(&self, id: &str, account: &str, nano_usd: i64, note: &str) -> Result<bool, LedgerError>;
    /// Newest first, at most `limit` (1 to 1000).
    fn usage(&self, account: Option<&str>, limit: u32) -> Result<Vec<UsageRow>, LedgerError>;
}

/// Sealed credentials, by handle only. Grant: `secrets: [SCOPE]`.
pub trait Secrets {
    fn seal(&self, scope: &str, owner: &str, name: &str, value: &str) -> Result<String, SecretsError>;
    fn list(&self, scope: &str, owner: Option<&str>) -> Result<Vec<SecretInfo>, SecretsError>;
    fn exists(&self, handle: &str) -> Result<bool, SecretsError>;
    /// False if there was none.
    fn remove(&self, handle: &str) -> Result<bool, SecretsError>;
}

/// The gateway itself; documents are JSON. Grant: `control: [read, load-plugin]`.
pub trait Control {
    fn routes(&self) -> Result<String, ControlError>;
    fn services(&self) -> Result<String, ControlError>;
    fn plugins(&self) -> Result<String, ControlError>;
    /// Puts a new version in service and returns it as JSON.
    fn load_plugin(&self, name: &str, component: &[u8]) -> Result<String, ControlError>;
}

impl Log for Gateway {
    fn write(&self, level: Level, message: &str) {
        wit::log::write(level, message);
    }
}

impl KeyValue for Gateway {
    fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        wit::key_value::get(namespace, key)
    }

    fn set(&self, namespace: &str, key: &str, value: &[u8], ttl_seconds: u64) -> Result<(), KeyValueError> {
        wit::key_value::set(namespace, key, value, ttl_seconds)
    }

    fn delete(&self, namespace: &str, key: &str) -> Result<(), KeyValueError> {
        wit::key_value::delete(namespace, key)
    }

    fn add(&self, namespace: &str, key: &str, delta: i64, ttl_seconds: u64) -> Result<i64, KeyValueError> {
        wit::key_value::add(namespace, key, delta, ttl_seconds)
    }

    fn keys(&self, namespace: &str, prefix: &str, limit: u32) -> Result<Vec<String>, KeyValueError> {
        wit::key_value::keys(namespace, prefix, limit)
    }
}

impl Ledger for Gateway {
    fn accounts(&self) -> Result<Vec<Balance>, LedgerError> {
        wit::ledger::accounts()
    }

    fn balance(&self, account: &str) -> Result<Balance, LedgerError> {
        wit::ledger::balance(account)
    }

    fn credit(&self, id: &str, account: &str, nano_usd: i64, note: &str) -> Result<bool, LedgerError> {
        wit::ledger::credit(id, account, nano_usd, note)
    }

    fn usage(&self, account: Option<&str>, limit: u32) -> Result<Vec<UsageRow>, LedgerError> {
        wit::ledger::usage(account, limit)
    }
}

impl Secrets for Gateway {
    fn seal(&self, scope: &str, owner: &str, name: &str, value: &str) -> Result<String, SecretsError> {
        wit::secrets::seal(scope, owner, name, value)
    }

    fn list(&self, scope: &str, owner: Option<&str>) -> Result<Vec<SecretInfo>, SecretsError> {
        wit::secrets::list(scope, owner)
    }

    fn exists(&self, handle: &str) -> Result<bool, SecretsError> {
        wit::secrets::exists(handle)
    }

    fn remove(&self, handle: &str) -> Result<bool, SecretsError> {
        wit::secrets::remove(handle)
    }
}

impl Control for Gateway {
    fn routes(&self) -> Result<String, ControlError> {
        wit::control::routes()
    }

    fn services(&self) -> Result<String, ControlError> {
        wit::control::services()
    }

    fn plugins(&self) -> Result<String, ControlError> {
        wit::control::plugins()
    }

    fn load_plugin(&self, name: &str, component: &[u8]) -> Result<String, ControlError> {
        wit::control::load_plugin(name, component)
    }
}
