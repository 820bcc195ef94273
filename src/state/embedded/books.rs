//! The books in memory: accounts, open holds and caps. They decide alone and at
//! once; the journal beside them only makes what they decided survive.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::state::{Balance, Cap, Denial, Hold, HoldOutcome, HoldState, clock::millis};

const SHARDS: usize = 16;
/// Settled ids kept per shard so that a repeated hold is recognised.
const REMEMBERED: usize = 4096;
/// How long an expired hold waits for its late settlement.
pub(super) const LATE: i64 = 24 * 60 * 60 * 1000;

pub(super) struct Books {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    accounts: HashMap<Arc<str>, Account>,
    /// Oldest first.
    settled: VecDeque<(Arc<str>, Arc<str>)>,
}

#[derive(Default)]
struct Account {
    credited: i64,
    spent: i64,
    /// Invariant: the sum over `holds` in state `Held`.
    held: i64,
    caps: HashMap<Arc<str>, Counter>,
    holds: HashMap<Arc<str>, Entry>,
}

struct Counter {
    spent: i64,
    held: i64,
    born: i64,
    /// Zero: never.
    expires: i64,
}

struct Entry {
    state: HoldState,
    amount: i64,
    deadline: i64,
    caps: Arc<[Charged]>,
}

/// The very counter a hold was made in. A later counter of the same name is
/// another window, so `born` tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charged {
    pub(super) name: Arc<str>,
    pub(super) born: i64,
    pub(super) expires: i64,
}

/// What the journal needs to know of a hold that was made.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) account: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) amount: i64,
    pub(super) deadline: i64,
    pub(super) caps: Arc<[Charged]>,
}

impl Books {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    fn shard(&self, account: &str) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(account) as usize % SHARDS]
    }

    /// Decides and, if there is room, takes it. About a microsecond.
    pub(super) fn hold(&self, hold: &Hold, now: i64) -> (HoldOutcome, Option<Held>) {
        let mut shard = self.shard(&hold.account).lock();
        let account = shard.accounts.get(hold.account.as_str());
        if let Some(entry) = account.and_then(|account| account.holds.get(hold.id.as_str())) {
            return (HoldOutcome::Exists(entry.state), None);
        }
        if let Some(denied) = refusal(account, hold, now) {
            return (denied, None);
        }
        let name = shard.name(&hold.account);
        let account = shard.accounts.entry(name.clone()).or_default();
        let held = account.take(hold, name, now);
        (HoldOutcome::Held, Some(held))
    }

    pub(super) fn renew(&self, id: &str, account: &str, deadline: i64) -> bool {
        let mut shard = self.shard(account).lock();
        let entry = shard.accounts.get_mut(account).and_then(|account| account.holds.get_mut(id));
        match entry {
            Some(entry) if entry.state == HoldState::Held => {
                entry.deadline = deadline;
                true
            }
            _ => false,
        }
    }

    /// The counters that a settlement of this hold has to charge, those of
    /// closed windows left out; `None` if the hold is unknown.
    pub(super) fn charged(&self, id: &str, account: &str, now: i64) -> Option<Vec<Charged>> {
        let shard = self.shard(account).lock();
        let account = shard.accounts.get(account)?;
        let entry = account.holds.get(id)?;
        let open = |cap: &&Charged| {
            account.caps.get(&cap.name).is_some_and(|counter| counter.born == cap.born && counter.runs(now))
        };
        Some(entry.caps.iter().filter(open).cloned().collect())
    }

    /// The settlement is in the journal: moves held to spent.
    pub(super) fn booked(&self, id: &Arc<str>, account: &Arc<str>, amount: i64) {
        let mut shard = self.shard(account).lock();
        let books = shard.accounts.entry(account.clone()).or_default();
        books.spent = books.spent.saturating_add(amount);
        books.close(id, HoldState::Settled, amount);
        shard.remember(account.clone(), id.clone());
    }

    /// The journal knew this settlement already: only a hold made since is freed.
    pub(super) fn booked_before(&self, id: &Arc<str>, account: &Arc<str>) {
        let mut shard = self.shard(account).lock();
        let Some(books) = shard.accounts.get_mut(account) else { return };
        let was_open = books.holds.get(id).is_some_and(|entry| entry.state == HoldState::Held);
        if was_open {
            books.close(id, HoldState::Settled, 0);
            shard.remember(account.clone(), id.clone());
        }
    }

    pub(super) fn credited(&self, account: &str, nano_usd: i64) {
        let mut shard = self.shard(account).lock();
        let name = shard.name(account);
        let books = shard.accounts.entry(name).or_default();
        books.credited = books.credited.saturating_add(nano_usd);
    }

    /// Frees holds past their lease; forgets what is too old to matter.
    pub(super) fn expire(&self, now: i64) -> u64 {
        let mut freed = 0;
        for shard in &self.shards {
            for account in shard.lock().accounts.values_mut() {
                freed += account.expire(now);
            }
        }
        freed
    }

    pub(super) fn balance(&self, account: &str) -> Balance {
        let shard = self.shard(account).lock();
        shard.accounts.get(account).map_or_else(
            || Balance { account: account.to_owned(), ..Balance::default() },
            |books| books.balance(account),
        )
    }

    pub(super) fn accounts(&self) -> Vec<Balance> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().accounts.iter().map(|(name, books)| books.balance(name)));
        }
        all.sort_unstable_by(|a, b| a.account.cmp(&b.account));
        all
    }

    pub(super) fn load_account(&self, account: &str, credited: i64, spent: i64) {
        let mut shard = self.shard(account).lock();
        let books = Account { credited, spent, ..Account::default() };
        shard.accounts.insert(account.into(), books);
    }

    pub(super) fn load_cap(&self, account: &str, cap: Charged, spent: i64) {
        let mut shard = self.shard(account).lock();
        let name = shard.name(account);
        let counter = Counter { spent, held: 0, born: cap.born, expires: cap.expires };
        shard.accounts.entry(name).or_default().caps.insert(cap.name, counter);
    }

    /// A hold of a process that died: nobody will use it, so it holds nothing.
    pub(super) fn load_expired(&self, held: Held) {
        let mut shard = self.shard(&held.account).lock();
        let entry = Entry {
            state: HoldState::Expired,
            amount: held.amount,
            deadline: held.deadline,
            caps: held.caps,
        };
        shard.accounts.entry(held.account).or_default().holds.insert(held.id, entry);
    }

    /// A hold whose request goes on in the process that handed it over. After
    /// the caps: a counter that nothing was charged to yet begins with its hold.
    pub(super) fn load_held(&self, held: Held, now: i64) {
        let mut shard = self.shard(&held.account).lock();
        let account = shard.accounts.entry(held.account).or_default();
        for cap in held.caps.iter() {
            let began = Counter { spent: 0, held: 0, born: cap.born, expires: cap.expires };
            if !began.runs(now) {
                continue;
            }
            let counter = account.caps.entry(cap.name.clone()).or_insert(began);
            if counter.born == cap.born {
                counter.held = counter.held.saturating_add(held.amount);
            }
        }
        account.held = account.held.saturating_add(held.amount);
        let entry =
            Entry { state: HoldState::Held, amount: held.amount, deadline: held.deadline, caps: held.caps };
        account.holds.insert(held.id, entry);
    }

    pub(super) fn load_settled(&self, id: Arc<str>, account: &str) {
        let mut shard = self.shard(account).lock();
        let name = shard.name(account);
        shard.accounts.entry(name.clone()).or_default().close(&id, HoldState::Settled, 0);
        shard.remember(name, id);
    }
}

impl Shard {
    /// The account's name without allocating if the account is known.
    fn name(&self, account: &str) -> Arc<str> {
        self.accounts.get_key_value(account).map_or_else(|| account.into(), |(name, _)| name.clone())
    }

    fn remember(&mut self, account: Arc<str>, id: Arc<str>) {
        self.settled.push_back((account, id));
        if self.settled.len() > REMEMBERED
            && let Some((account, id)) = self.settled.pop_front()
            && let Some(books) = self.accounts.get_mut(&account)
        {
            books.holds.remove(&id);
        }
    }
}

/// Why there is no room, if there is none. Changes nothing.
fn refusal(account: Option<&Account>, hold: &Hold, now: i64) -> Option<HoldOutcome> {
    let fits = |used: i64, limit: i64| i128::from(used) + i128::from(hold.amount) <= i128::from(limit);
    let denied = |what, limit, used| Some(HoldOutcome::Denied { what, limit, used });
    if hold.prepaid {
        let (credited, used) = account.map_or((0, 0), |a| (a.credited, a.spent.saturating_add(a.held)));
        if !fits(used, credited) {
            return denied(Denial::Balance, credited, used);
        }
    }
    for cap in &hold.caps {
        let counter = account.and_then(|account| account.caps.get(cap.name.as_str()));
        let used = counter.filter(|counter| counter.runs(now)).map_or(0, Counter::used);
        if !fits(used, cap.limit) {
            return denied(Denial::Cap(cap.name.clone()), cap.limit, used);
        }
    }
    None
}

impl Account {
    fn take(&mut self, hold: &Hold, account: Arc<str>, now: i64) -> Held {
        let caps: Arc<[Charged]> = hold.caps.iter().map(|cap| self.charge(cap, hold.amount, now)).collect();
        self.held = self.held.saturating_add(hold.amount);
        let deadline = now.saturating_add(millis(hold.lease));
        let id: Arc<str> = hold.id.as_str().into();
        let entry = Entry { state: HoldState::Held, amount: hold.amount, deadline, caps: caps.clone() };
        self.holds.insert(id.clone(), entry);
        Held { account, id, amount: hold.amount, deadline, caps }
    }

    fn charge(&mut self, cap: &Cap, amount: i64, now: i64) -> Charged {
        let name = match self.caps.get_key_value(cap.name.as_str()) {
            Some((name, _)) => name.clone(),
            None => cap.name.as_str().into(),
        };
        let counter = self.caps.entry(name.clone()).or_insert_with(|| Counter::new(cap, now));
        if !counter.runs(now) {
            *counter = Counter::new(cap, now);
        }
        counter.held = counter.held.saturating_add(amount);
        Charged { name, born: counter.born, expires: counter.expires }
    }

    /// Ends a hold in `state`: frees what it held, charges `amount` to its caps.
    fn close(&mut self, id: &Arc<str>, state: HoldState, amount: i64) {
        let fresh = || Entry { state, amount: 0, deadline: 0, caps: Arc::default() };
        let entry = self.holds.entry(id.clone()).or_insert_with(fresh);
        let freed = if entry.state == HoldState::Held { entry.amount } else { 0 };
        self.held -= freed;
        for cap in entry.caps.iter() {
            if let Some(counter) = self.caps.get_mut(&cap.name)
                && counter.born == cap.born
            {
                counter.held -= freed;
                counter.spent = counter.spent.saturating_add(amount);
            }
        }
        entry.state = state;
        if state == HoldState::Settled {
            entry.caps = Arc::default();
        }
    }

    fn expire(&mut self, now: i64) -> u64 {
        let over = |entry: &Entry| entry.state == HoldState::Held && entry.deadline <= now;
        let due: Vec<_> =
            self.holds.iter().filter(|(_, entry)| over(entry)).map(|(id, _)| id.clone()).collect();
        for id in &due {
            self.close(id, HoldState::Expired, 0);
        }
        self.holds.retain(|_, entry| entry.state != HoldState::Expired || entry.deadline + LATE > now);
        self.caps.retain(|_, counter| counter.runs(now));
        due.len() as u64
    }

    fn balance(&self, account: &str) -> Balance {
        let Self { credited, spent, held, .. } = *self;
        Balance { account: account.to_owned(), credited, spent, held }
    }
}

impl Counter {
    /// `born` is at least one above any earlier counter's that could still be
    /// charged, because that one ran until `now` or before.
    fn new(cap: &Cap, now: i64) -> Self {
        let expires = if cap.ttl.is_zero() { 0 } else { now + millis(cap.ttl) };
        Self { spent: 0, held: 0, born: now, expires }
    }

    fn runs(&self, now: i64) -> bool {
        self.expires == 0 || now < self.expires
    }

    fn used(&self) -> i64 {
        self.spent.saturating_add(self.held)
    }
}
