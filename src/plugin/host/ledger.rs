//! `ledger`: the books, to read or to credit.

use crate::{
    config::plugin::LedgerGrant,
    plugin::{
        bindings::imports::ledger::{AccountBalance, Error, Host, UsageRow},
        instance::InstanceState,
    },
    state::{self, StoreError},
};

use super::bounded;

const MAX_ID: usize = 128;
const MAX_NOTE: usize = 1024;
const MAX_ROWS: u32 = 1_000;

impl InstanceState {
    fn may_read(&self) -> Result<(), Error> {
        match self.identity.grants.ledger {
            LedgerGrant::None => Err(Error::Denied),
            LedgerGrant::Read | LedgerGrant::Write => Ok(()),
        }
    }

    fn may_write(&self) -> Result<(), Error> {
        if self.identity.grants.ledger == LedgerGrant::Write { Ok(()) } else { Err(Error::Denied) }
    }
}

impl Host for InstanceState {
    async fn accounts(&mut self) -> Result<Vec<AccountBalance>, Error> {
        self.may_read()?;
        let accounts = bounded(self.host.services.store.accounts()).await?;
        Ok(accounts.into_iter().map(AccountBalance::from).collect())
    }

    async fn balance(&mut self, account: String) -> Result<AccountBalance, Error> {
        self.may_read()?;
        check_id(&account)?;
        Ok(bounded(self.host.services.store.balance(&account)).await?.into())
    }

    async fn credit(
        &mut self,
        id: String,
        account: String,
        nano_usd: i64,
        note: String,
    ) -> Result<bool, Error> {
        self.may_write()?;
        check_id(&id)?;
        check_id(&account)?;
        if nano_usd == 0 || nano_usd == i64::MIN || note.len() > MAX_NOTE {
            return Err(Error::Invalid);
        }
        Ok(bounded(self.host.services.store.credit(&id, &account, nano_usd, &note)).await?)
    }

    async fn usage(&mut self, account: Option<String>, limit: u32) -> Result<Vec<UsageRow>, Error> {
        self.may_read()?;
        let limit = limit.clamp(1, MAX_ROWS) as usize;
        let rows = bounded(self.host.services.store.usage(account.as_deref(), limit)).await?;
        Ok(rows.into_iter().map(UsageRow::from).collect())
    }
}

fn check_id(id: &str) -> Result<(), Error> {
    if id.is_empty() || id.len() > MAX_ID { Err(Error::Invalid) } else { Ok(()) }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid(_) | StoreError::NotANumber => Self::Invalid,
            _ => Self::Unavailable,
        }
    }
}

impl From<state::Balance> for AccountBalance {
    fn from(balance: state::Balance) -> Self {
        Self {
            account: balance.account,
            credited_nano_usd: balance.credited,
            spent_nano_usd: balance.spent,
            held_nano_usd: balance.held,
        }
    }
}

impl From<state::UsageRow> for UsageRow {
    fn from(row: state::UsageRow) -> Self {
        // The store counts cached input apart from the rest; here input is the sum.
        let input = row.input_tokens + row.input_cache_read_tokens + row.input_cache_write_tokens;
        Self {
            request_id: row.request_id,
            unix_ms: row.unix_ms,
            account: row.account,
            caller: row.caller,
            route: row.route,
            model: row.model,
            provider: row.provider,
            input_tokens: input,
            output_tokens: row.output_tokens,
            cost_nano_usd: row.cost.and_then(|cost| u64::try_from(cost).ok()),
            amount_nano_usd: u64::try_from(row.amount).unwrap_or(0),
            ending: row.ending,
            attempts: row.attempts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_cached_input_as_input() {
        let row = state::UsageRow {
            input_tokens: 1,
            input_cache_read_tokens: 20,
            input_cache_write_tokens: 300,
            output_tokens: 50,
            reasoning_tokens: 40,
            cost: Some(-1),
            amount: 7,
            ..state::UsageRow::default()
        };
        let row = UsageRow::from(row);
        assert_eq!((row.input_tokens, row.output_tokens), (321, 50));
        assert_eq!((row.cost_nano_usd, row.amount_nano_usd), (None, 7));
    }
}
