//! The promise that a request is settled: by name, or by being dropped.

use std::{fmt, sync::Arc};

use super::{Ledger, failed_row};
use crate::state::{MAX_AMOUNT, Settlement, UsageRow};

/// Owned by the request. Whatever becomes of the request, exactly one
/// settlement is queued: that of `settle`, or when this is dropped that of
/// `if_dropped`, else of zero with the ending `failed`. Neither blocks or waits.
#[must_use = "dropping it settles the request as failed"]
pub struct OpenHold {
    ledger: Arc<Ledger>,
    /// `None` once settled.
    open: Option<Open>,
    amount: Option<i64>,
    /// What `drop` books instead of nothing.
    fallback: Option<(i64, UsageRow)>,
}

struct Open {
    id: String,
    account: String,
}

impl OpenHold {
    /// `amount` is `None` if no money was set aside.
    pub(super) fn new(ledger: Arc<Ledger>, id: String, account: String, amount: Option<i64>) -> Self {
        Self { ledger, open: Some(Open { id, account }), amount, fallback: None }
    }

    /// What is set aside, in nano-USD; 0 if unmetered.
    pub fn amount(&self) -> i64 {
        self.amount.unwrap_or(0)
    }

    /// What is booked if this is dropped unsettled from now on, for a request
    /// that has delivered something already.
    pub fn if_dropped(&mut self, amount: i64, row: UsageRow) {
        self.fallback = Some((amount, row));
    }

    /// Queues the booking of `amount` nano-USD and returns at once. An amount
    /// that the books refuse is brought to the nearest one that they take: the
    /// row must be there whatever a price was.
    pub fn settle(mut self, amount: i64, row: UsageRow) {
        self.close(amount, |_| row);
    }

    fn close(&mut self, amount: i64, row: impl FnOnce(&Open) -> UsageRow) {
        let Some(open) = self.open.take() else { return };
        let row = row(&open);
        let amount = amount.clamp(0, MAX_AMOUNT);
        let settlement = Settlement { id: open.id, account: open.account, amount, row };
        self.ledger.close(settlement, self.amount.is_some());
    }
}

impl Drop for OpenHold {
    fn drop(&mut self) {
        match self.fallback.take() {
            Some((amount, row)) => self.close(amount, |_| row),
            None => self.close(0, |open| failed_row(&open.id, &open.account)),
        }
    }
}

impl fmt::Debug for OpenHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.open.as_ref().map(|open| open.id.as_str());
        f.debug_struct("OpenHold").field("id", &id).field("amount", &self.amount).finish_non_exhaustive()
    }
}
