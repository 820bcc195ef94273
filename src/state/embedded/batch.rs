//! One transaction of the journal: what it writes, and what it tells whom
//! once it is committed.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rusqlite::{Connection, params};

use super::{
    books::{Books, Charged, Held},
    journal::{Change, Reply},
    schema::caps_to_text,
};
use crate::state::{
    Result, SealedSecret, SettleOutcome,
    clock::{self, unix_ms},
};

/// Holds that are not written yet, by id and account. A hold that is settled
/// while it is young is never written: that halves the work of a short request.
pub(super) type YoungHolds = HashMap<(Arc<str>, Arc<str>), Held>;

/// More are not kept back.
const YOUNG: usize = 16_384;

pub(super) struct Batch<'a> {
    books: &'a Books,
    young: &'a mut YoungHolds,
    /// Whether this batch writes the young holds.
    ages: bool,
    /// Sums for each account: one write each, however many settlements.
    sums: HashMap<Arc<str>, Sums>,
    caps: HashMap<(Arc<str>, Arc<str>), (Charged, i64)>,
    effects: Vec<Effect>,
}

#[derive(Default)]
struct Sums {
    credited: i64,
    spent: i64,
}

/// What follows from the commit.
enum Effect {
    Settled {
        id: Arc<str>,
        account: Arc<str>,
        amount: i64,
        outcome: SettleOutcome,
        reply: Reply<SettleOutcome>,
    },
    Credited {
        account: Arc<str>,
        nano_usd: i64,
        first: bool,
        reply: Reply<bool>,
    },
    Written(Reply<()>),
    Removed(bool, Reply<bool>),
}

impl<'a> Batch<'a> {
    pub(super) fn new(books: &'a Books, young: &'a mut YoungHolds) -> Self {
        Self { books, young, ages: false, sums: HashMap::new(), caps: HashMap::new(), effects: Vec::new() }
    }

    /// Has this batch write the young holds.
    pub(super) fn write_holds(&mut self) {
        self.ages = true;
    }

    pub(super) fn len(&self) -> usize {
        self.effects.len()
    }

    pub(super) fn add(&mut self, db: &Connection, change: Change) -> Result<()> {
        match change {
            Change::Hold(held) => {
                self.young.insert((held.id.clone(), held.account.clone()), held);
            }
            Change::Settle { id, account, amount, unix_ms, row, reply } => {
                let outcome = self.settle(db, &id, &account, amount, unix_ms, &row)?;
                self.effects.push(Effect::Settled { id, account, amount, outcome, reply });
            }
            Change::Credit { id, account, nano_usd, note, reply } => {
                let first = self.credit(db, &id, &account, nano_usd, &note)?;
                self.effects.push(Effect::Credited { account, nano_usd, first, reply });
            }
            Change::Set { ns, key, value, expires, reply } => {
                db.prepare_cached(
                    "INSERT OR REPLACE INTO kv (ns, key, value, expires) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![ns, key, &*value, expires])?;
                self.effects.push(Effect::Written(reply));
            }
            Change::Delete { ns, key, reply } => {
                db.prepare_cached("DELETE FROM kv WHERE ns = ?1 AND key = ?2")?.execute(params![ns, key])?;
                self.effects.push(Effect::Written(reply));
            }
            Change::PutSecret { sealed, reply } => {
                put_secret(db, &sealed)?;
                self.effects.push(Effect::Written(reply));
            }
            Change::RemoveSecret { handle, reply } => {
                let removed =
                    db.prepare_cached("DELETE FROM secrets WHERE handle = ?1")?.execute([handle])?;
                self.effects.push(Effect::Removed(removed > 0, reply));
            }
            Change::Purge => {
                self.ages = true;
                purge(db)?;
            }
            Change::Flush { reply } | Change::Checkpoint { reply } => {
                self.ages = true;
                self.effects.push(Effect::Written(reply))
            }
        }
        Ok(())
    }

    /// The unique id of the usage row is what makes a settlement happen once,
    /// also across restarts.
    fn settle(
        &mut self,
        db: &Connection,
        id: &Arc<str>,
        account: &Arc<str>,
        amount: i64,
        unix_ms: i64,
        row: &str,
    ) -> Result<SettleOutcome> {
        let charged = self.books.charged(id, account, clock::unix_ms());
        let was_young = self.young.remove(&(id.clone(), account.clone())).is_some();
        if charged.is_some() && !was_young {
            db.prepare_cached("DELETE FROM holds WHERE id = ?1 AND account = ?2")?
                .execute(params![id, account])?;
        }
        let appended = db
            .prepare_cached(
                "INSERT OR IGNORE INTO usage (id, account, unix_ms, amount, row) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![id, account, unix_ms, amount, row])?;
        if appended == 0 {
            return Ok(SettleOutcome::Duplicate);
        }
        self.sums.entry(account.clone()).or_default().spent += amount;
        for cap in charged.into_iter().flatten() {
            match self.caps.entry((account.clone(), cap.name.clone())) {
                Entry::Occupied(mut sum) if sum.get().0.born == cap.born => sum.get_mut().1 += amount,
                entry => {
                    entry.insert_entry((cap, amount));
                }
            }
        }
        Ok(SettleOutcome::Booked)
    }

    fn credit(
        &mut self,
        db: &Connection,
        id: &str,
        account: &Arc<str>,
        nano_usd: i64,
        note: &str,
    ) -> Result<bool> {
        let added = db
            .prepare_cached(
                "INSERT OR IGNORE INTO credits (account, id, nano_usd, note, unix_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![account, id, nano_usd, note, unix_ms()])?;
        if added > 0 {
            self.sums.entry(account.clone()).or_default().credited += nano_usd;
        }
        Ok(added > 0)
    }

    /// Writes what was gathered: sums, and holds if they are no longer young.
    pub(super) fn finish(&mut self, db: &Connection) -> Result<()> {
        self.ages |= self.young.len() > YOUNG;
        for held in self.young.values().filter(|_| self.ages) {
            db.prepare_cached(
                "INSERT OR REPLACE INTO holds (id, account, amount, deadline, caps) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![held.id, held.account, held.amount, held.deadline, caps_to_text(&held.caps)])?;
        }
        for (account, sums) in &self.sums {
            db.prepare_cached(
                "INSERT INTO accounts (account, credited, spent) VALUES (?1, ?2, ?3) ON CONFLICT (account) \
                 DO UPDATE SET credited = credited + excluded.credited, spent = spent + excluded.spent",
            )?
            .execute(params![account, sums.credited, sums.spent])?;
        }
        for ((account, name), (cap, spent)) in &self.caps {
            db.prepare_cached(
                "INSERT INTO caps (account, name, born, expires, spent) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (account, name) DO UPDATE SET spent = excluded.spent + \
                 CASE WHEN born = excluded.born THEN spent ELSE 0 END, \
                 born = excluded.born, expires = excluded.expires",
            )?
            .execute(params![account, name, cap.born, cap.expires, spent])?;
        }
        Ok(())
    }

    /// Tells the books and the callers how the commit went.
    pub(super) fn announce(self, written: &Result<()>) {
        if self.ages && written.is_ok() {
            self.young.clear();
        }
        for effect in self.effects {
            match written {
                Ok(()) => effect.happened(self.books),
                Err(error) => effect.failed(error.clone()),
            }
        }
    }
}

impl Effect {
    /// A caller that gave up waiting is no error.
    fn happened(self, books: &Books) {
        match self {
            Self::Settled { id, account, amount, outcome, reply } => {
                match outcome {
                    SettleOutcome::Booked => books.booked(&id, &account, amount),
                    SettleOutcome::Duplicate => books.booked_before(&id, &account),
                }
                let _ = reply.send(Ok(outcome));
            }
            Self::Credited { account, nano_usd, first, reply } => {
                if first {
                    books.credited(&account, nano_usd);
                }
                let _ = reply.send(Ok(first));
            }
            Self::Written(reply) => {
                let _ = reply.send(Ok(()));
            }
            Self::Removed(removed, reply) => {
                let _ = reply.send(Ok(removed));
            }
        }
    }

    fn failed(self, error: crate::state::StoreError) {
        match self {
            Self::Settled { reply, .. } => drop(reply.send(Err(error))),
            Self::Credited { reply, .. } | Self::Removed(_, reply) => drop(reply.send(Err(error))),
            Self::Written(reply) => drop(reply.send(Err(error))),
        }
    }
}

fn put_secret(db: &Connection, sealed: &SealedSecret) -> Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO secrets (handle, owner, name, scope, hint, created_unix_ms, key_id, sealed) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        sealed.handle,
        sealed.owner,
        sealed.name,
        sealed.scope,
        sealed.hint,
        sealed.created_unix_ms.cast_signed(),
        sealed.key_id,
        sealed.nonce_and_ciphertext,
    ])?;
    Ok(())
}

fn purge(db: &Connection) -> Result<()> {
    let now = unix_ms();
    db.prepare_cached("DELETE FROM kv WHERE expires <> 0 AND expires <= ?1")?.execute([now])?;
    db.prepare_cached("DELETE FROM caps WHERE expires <> 0 AND expires <= ?1")?.execute([now])?;
    Ok(())
}
