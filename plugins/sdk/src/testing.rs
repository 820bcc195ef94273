//! Doubles of the host's interfaces for native tests.

use std::{cell::RefCell, collections::BTreeMap};

use crate::host::{
    Balance, Control, ControlError, Ledger, LedgerError, SecretInfo, Secrets, SecretsError, UsageRow,
};

/// Books in memory.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    pub balances: RefCell<BTreeMap<String, Balance>>,
    pub credit_ids: RefCell<Vec<String>>,
    /// Newest first.
    pub rows: Vec<UsageRow>,
    /// Every call fails with this.
    pub failure: Option<LedgerError>,
}

impl MemoryLedger {
    #[must_use]
    pub fn with_balance(self, account: &str, credited: i64, spent: i64, held: i64) -> Self {
        let balance = Balance {
            account: account.to_owned(),
            credited_nano_usd: credited,
            spent_nano_usd: spent,
            held_nano_usd: held,
        };
        self.balances.borrow_mut().insert(account.to_owned(), balance);
        self
    }

    fn check(&self) -> Result<(), LedgerError> {
        self.failure.map_or(Ok(()), Err)
    }
}

impl Ledger for MemoryLedger {
    fn accounts(&self) -> Result<Vec<Balance>, LedgerError> {
        self.check()?;
        Ok(self.balances.borrow().values().cloned().collect())
    }

    fn balance(&self, account: &str) -> Result<Balance, LedgerError> {
        self.check()?;
        Ok(self.balances.borrow().get(account).cloned().unwrap_or_else(|| zero(account)))
    }

    fn credit(&self, id: &str, account: &str, nano_usd: i64, _note: &str) -> Result<bool, LedgerError> {
        self.check()?;
        let mut ids = self.credit_ids.borrow_mut();
        if ids.iter().any(|known| known == id) {
            return Ok(false);
        }
        ids.push(id.to_owned());
        let mut balances = self.balances.borrow_mut();
        balances.entry(account.to_owned()).or_insert_with(|| zero(account)).credited_nano_usd += nano_usd;
        Ok(true)
    }

    fn usage(&self, account: Option<&str>, limit: u32) -> Result<Vec<UsageRow>, LedgerError> {
        self.check()?;
        let wanted = |row: &&UsageRow| account.is_none_or(|account| row.account == account);
        Ok(self.rows.iter().filter(wanted).take(limit as usize).cloned().collect())
    }
}

fn zero(account: &str) -> Balance {
    Balance { account: account.to_owned(), credited_nano_usd: 0, spent_nano_usd: 0, held_nano_usd: 0 }
}

/// Secrets in memory, by handle. Values can be looked at, unlike the real ones.
#[derive(Debug, Default)]
pub struct MemorySecrets {
    pub values: RefCell<BTreeMap<String, String>>,
    /// Every call fails with this.
    pub failure: Option<SecretsError>,
}

impl MemorySecrets {
    fn check(&self) -> Result<(), SecretsError> {
        self.failure.map_or(Ok(()), Err)
    }
}

impl Secrets for MemorySecrets {
    fn seal(&self, scope: &str, owner: &str, name: &str, value: &str) -> Result<String, SecretsError> {
        self.check()?;
        let handle = format!("{scope}/{owner}/{name}");
        self.values.borrow_mut().insert(handle.clone(), value.to_owned());
        Ok(handle)
    }

    fn list(&self, scope: &str, owner: Option<&str>) -> Result<Vec<SecretInfo>, SecretsError> {
        self.check()?;
        let values = self.values.borrow();
        let infos = values.iter().filter_map(|(handle, value)| {
            let mut parts = handle.splitn(3, '/');
            let (of_scope, of_owner, name) = (parts.next()?, parts.next()?, parts.next()?);
            let wanted = of_scope == scope && owner.is_none_or(|owner| owner == of_owner);
            wanted.then(|| SecretInfo {
                handle: handle.clone(),
                owner: of_owner.to_owned(),
                name: name.to_owned(),
                hint: value[value.len().saturating_sub(4)..].to_owned(),
                created_unix_ms: 0,
            })
        });
        Ok(infos.collect())
    }

    fn exists(&self, handle: &str) -> Result<bool, SecretsError> {
        self.check()?;
        Ok(self.values.borrow().contains_key(handle))
    }

    fn remove(&self, handle: &str) -> Result<bool, SecretsError> {
        self.check()?;
        Ok(self.values.borrow_mut().remove(handle).is_some())
    }
}

/// A gateway that tells fixed documents and remembers what was loaded.
#[derive(Debug, Default)]
pub struct MemoryControl {
    /// Name and size of every loaded component.
    pub loaded: RefCell<Vec<(String, usize)>>,
    /// Every call fails with this.
    pub failure: Option<ControlError>,
}

impl MemoryControl {
    fn document(&self, what: &str) -> Result<String, ControlError> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(format!("{{\"{what}\":[]}}")),
        }
    }
}

impl Control for MemoryControl {
    fn routes(&self) -> Result<String, ControlError> {
        self.document("routes")
    }

    fn services(&self) -> Result<String, ControlError> {
        self.document("services")
    }

    fn plugins(&self) -> Result<String, ControlError> {
        self.document("plugins")
    }

    fn load_plugin(&self, name: &str, component: &[u8]) -> Result<String, ControlError> {
        self.document("loaded")?;
        self.loaded.borrow_mut().push((name.to_owned(), component.len()));
        Ok(format!("{{\"name\":\"{name}\",\"version\":2}}"))
    }
}
