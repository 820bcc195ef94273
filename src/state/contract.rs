//! What every store promises, checked on the embedded one and on a real Redis.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Balance, Cap, Denial, Hold, HoldOutcome, HoldState, SealedSecret, SettleOutcome, Settlement, Store,
    StoreError, UsageRow,
};

macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod on_embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let dir = tempfile::tempdir().unwrap();
                    super::$name(super::super::shared::SharedStore::open(dir.path()).unwrap()).await;
                }
            )+
        }
        mod on_embedded_elsewhere {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let dir = tempfile::tempdir().unwrap();
                    let two = super::super::shared::tests::two_on(dir.path());
                    super::$name(two.new.clone()).await;
                }
            )+
        }
        mod on_redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let Some(server) = super::super::redis::server::Server::start() else { return };
                    let store = super::redis(&server);
                    super::$name(std::sync::Arc::new(store)).await;
                }
            )+
        }
    };
}

contract!(
    credits_once_for_each_id,
    holds_only_what_the_balance_covers,
    denies_by_any_cap_and_changes_nothing,
    recognises_a_repeated_hold,
    settles_once,
    books_more_than_was_held_and_denies_the_next,
    books_late_after_the_lease_ended,
    keeps_a_renewed_hold,
    charges_a_cap_only_in_its_own_window,
    lets_exactly_one_of_many_through,
    lists_usage_newest_first,
    books_without_a_hold,
    counts_large_amounts_exactly,
    refuses_senseless_requests,
    keeps_values,
    forgets_values_after_their_ttl,
    adds_to_numbers,
    swaps_only_what_is_as_expected,
    lists_keys_in_order,
    keeps_sealed_secrets,
    balances_are_the_sum_of_the_rows,
);

pub(super) fn redis(server: &super::redis::server::Server) -> super::redis::RedisStore {
    super::redis::RedisStore::open(&server.url(), Duration::from_secs(10)).unwrap()
}

pub(super) fn hold(id: &str, account: &str, amount: i64) -> Hold {
    Hold {
        id: id.to_owned(),
        account: account.to_owned(),
        amount,
        prepaid: true,
        caps: Vec::new(),
        lease: Duration::from_secs(60),
    }
}

fn capped(id: &str, account: &str, amount: i64, caps: &[(&str, i64)]) -> Hold {
    let cap =
        |&(name, limit): &(&str, i64)| Cap { name: name.to_owned(), limit, ttl: Duration::from_secs(600) };
    Hold { prepaid: false, caps: caps.iter().map(cap).collect(), ..hold(id, account, amount) }
}

pub(super) fn settlement(id: &str, account: &str, amount: i64) -> Settlement {
    let row = UsageRow {
        request_id: id.to_owned(),
        unix_ms: 1_700_000_000_000,
        account: account.to_owned(),
        model: "gpt \"4o\" \u{e9}".to_owned(),
        cost: Some(amount / 2),
        amount,
        tags: vec![("team".to_owned(), "a".to_owned())],
        ..UsageRow::default()
    };
    Settlement { id: id.to_owned(), account: account.to_owned(), amount, row }
}

pub(super) fn balance(account: &str, credited: i64, spent: i64, held: i64) -> Balance {
    Balance { account: account.to_owned(), credited, spent, held }
}

fn denied(what: Denial, limit: i64, used: i64) -> HoldOutcome {
    HoldOutcome::Denied { what, limit, used }
}

/// Waits until what depends on the passing of a ttl or lease is true.
macro_rules! eventually {
    ($condition:expr) => {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !$condition {
            assert!(std::time::Instant::now() < end, "never: {}", stringify!($condition));
            tokio::task::yield_now().await;
        }
    };
}

async fn credits_once_for_each_id(store: Arc<dyn Store>) {
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 0, 0, 0));
    assert!(store.credit("pay-1", "a", 100, "first").await.unwrap());
    assert!(!store.credit("pay-1", "a", 100, "again").await.unwrap());
    assert!(!store.credit("pay-1", "a", 999, "again, other amount").await.unwrap());
    assert!(store.credit("pay-2", "a", -30, "refund").await.unwrap());
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 70, 0, 0));
    assert!(store.credit("pay-1", "b", 5, "ids are scoped by account").await.unwrap());
    assert_eq!(store.accounts().await.unwrap(), [balance("a", 70, 0, 0), balance("b", 5, 0, 0)]);
}

async fn holds_only_what_the_balance_covers(store: Arc<dyn Store>) {
    assert_eq!(store.hold(&hold("r0", "a", 1)).await.unwrap(), denied(Denial::Balance, 0, 0));
    assert!(store.accounts().await.unwrap().is_empty());
    store.credit("c", "a", 100, "").await.unwrap();
    assert_eq!(store.hold(&hold("r1", "a", 60)).await.unwrap(), HoldOutcome::Held);
    assert_eq!(store.hold(&hold("r2", "a", 41)).await.unwrap(), denied(Denial::Balance, 100, 60));
    assert_eq!(store.hold(&hold("r3", "a", 40)).await.unwrap(), HoldOutcome::Held);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 0, 100));
    let postpaid = Hold { prepaid: false, ..hold("r4", "a", 1000) };
    assert_eq!(store.hold(&postpaid).await.unwrap(), HoldOutcome::Held);
}

async fn denies_by_any_cap_and_changes_nothing(store: Arc<dyn Store>) {
    let first = capped("r1", "a", 10, &[("day", 100), ("month", 15)]);
    assert_eq!(store.hold(&first).await.unwrap(), HoldOutcome::Held);
    let second = capped("r2", "a", 10, &[("day", 100), ("month", 15)]);
    assert_eq!(store.hold(&second).await.unwrap(), denied(Denial::Cap("month".to_owned()), 15, 10));
    // Nothing of the denied hold stays, not even in the cap that had room.
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 0, 0, 10));
    let exact = capped("r3", "a", 90, &[("day", 100)]);
    assert_eq!(store.hold(&exact).await.unwrap(), HoldOutcome::Held);
    // The denied id may be tried again.
    let again = capped("r2", "a", 5, &[("month", 15)]);
    assert_eq!(store.hold(&again).await.unwrap(), HoldOutcome::Held);
    // Caps belong to their account.
    assert_eq!(store.hold(&capped("r4", "b", 15, &[("month", 15)])).await.unwrap(), HoldOutcome::Held);
}

async fn recognises_a_repeated_hold(store: Arc<dyn Store>) {
    store.credit("c", "a", 100, "").await.unwrap();
    assert_eq!(store.hold(&hold("r", "a", 60)).await.unwrap(), HoldOutcome::Held);
    assert_eq!(store.hold(&hold("r", "a", 60)).await.unwrap(), HoldOutcome::Exists(HoldState::Held));
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 0, 60));
    store.settle(&settlement("r", "a", 50)).await.unwrap();
    assert_eq!(store.hold(&hold("r", "a", 60)).await.unwrap(), HoldOutcome::Exists(HoldState::Settled));
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 50, 0));
}

async fn settles_once(store: Arc<dyn Store>) {
    store.credit("c", "a", 100, "").await.unwrap();
    store.hold(&capped("r", "a", 60, &[("day", 70)])).await.unwrap();
    assert_eq!(store.settle(&settlement("r", "a", 20)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(store.settle(&settlement("r", "a", 20)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(store.settle(&settlement("r", "a", 33)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 20, 0));
    assert_eq!(store.usage(Some("a"), 10).await.unwrap(), [settlement("r", "a", 20).row]);
    // The cap was charged 20, no more and no less.
    let full = denied(Denial::Cap("day".to_owned()), 70, 20);
    assert_eq!(store.hold(&capped("r2", "a", 51, &[("day", 70)])).await.unwrap(), full);
    assert_eq!(store.hold(&capped("r3", "a", 50, &[("day", 70)])).await.unwrap(), HoldOutcome::Held);
    // Nothing used: the hold is freed, the row is there.
    assert_eq!(store.settle(&settlement("r3", "a", 0)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 20, 0));
    assert_eq!(store.usage(Some("a"), 10).await.unwrap().len(), 2);
    // A hold of nothing can be settled too.
    store.hold(&capped("r4", "a", 0, &[("day", 70)])).await.unwrap();
    assert_eq!(store.settle(&settlement("r4", "a", 0)).await.unwrap(), SettleOutcome::Booked);
}

async fn books_more_than_was_held_and_denies_the_next(store: Arc<dyn Store>) {
    store.credit("c", "a", 100, "").await.unwrap();
    store.hold(&hold("r1", "a", 90)).await.unwrap();
    assert_eq!(store.settle(&settlement("r1", "a", 130)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 130, 0));
    assert_eq!(store.hold(&hold("r2", "a", 1)).await.unwrap(), denied(Denial::Balance, 100, 130));
}

async fn books_late_after_the_lease_ended(store: Arc<dyn Store>) {
    store.credit("c", "a", 100, "").await.unwrap();
    let short = Duration::from_millis(1);
    store
        .hold(&Hold { prepaid: true, lease: short, ..capped("r1", "a", 60, &[("day", 100)]) })
        .await
        .unwrap();
    store.hold(&hold("r2", "a", 40)).await.unwrap();
    eventually!(store.expire_holds().await.unwrap() == 1);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 0, 40));
    assert_eq!(store.hold(&hold("r1", "a", 60)).await.unwrap(), HoldOutcome::Exists(HoldState::Expired));
    assert!(!store.renew("r1", "a", Duration::from_secs(9)).await.unwrap());
    assert_eq!(store.settle(&settlement("r1", "a", 50)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(store.settle(&settlement("r1", "a", 50)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 50, 40));
    let full = denied(Denial::Cap("day".to_owned()), 100, 50);
    assert_eq!(store.hold(&capped("r3", "a", 51, &[("day", 100)])).await.unwrap(), full);
}

async fn keeps_a_renewed_hold(store: Arc<dyn Store>) {
    let short = Duration::from_millis(1);
    for id in ["kept", "left"] {
        let hold = Hold { prepaid: false, lease: short, ..hold(id, "a", 10) };
        store.hold(&hold).await.unwrap();
    }
    assert!(store.renew("kept", "a", Duration::from_secs(600)).await.unwrap());
    assert!(!store.renew("unknown", "a", Duration::from_secs(600)).await.unwrap());
    eventually!(store.expire_holds().await.unwrap() == 1);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 0, 0, 10));
}

async fn charges_a_cap_only_in_its_own_window(store: Arc<dyn Store>) {
    let windowed = |id: &str, amount, ttl| Hold {
        prepaid: false,
        caps: vec![Cap { name: "hour".to_owned(), limit: 10, ttl: Duration::from_millis(ttl) }],
        ..hold(id, "a", amount)
    };
    store.hold(&windowed("r1", 10, 50)).await.unwrap();
    // The window ends and the same name begins a new one.
    eventually!(store.hold(&windowed("r2", 4, 600_000)).await.unwrap() == HoldOutcome::Held);
    // The first hold belongs to the closed window: the new one sees nothing of it.
    store.settle(&settlement("r1", "a", 9)).await.unwrap();
    let full = denied(Denial::Cap("hour".to_owned()), 10, 4);
    assert_eq!(store.hold(&windowed("r3", 7, 600_000)).await.unwrap(), full);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 0, 9, 4));
}

async fn lets_exactly_one_of_many_through(store: Arc<dyn Store>) {
    store.credit("c", "a", 100, "").await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let store = store.clone();
        tasks.spawn(async move { store.hold(&hold(&format!("r{n}"), "a", 60)).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == HoldOutcome::Held).count(), 1);
    let full = denied(Denial::Balance, 100, 60);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == full).count(), 63);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 100, 0, 60));
}

async fn lists_usage_newest_first(store: Arc<dyn Store>) {
    assert!(store.usage(None, 10).await.unwrap().is_empty());
    for n in 0..5 {
        store.settle(&settlement(&format!("r{n}"), "a", n)).await.unwrap();
    }
    store.settle(&settlement("other", "b", 7)).await.unwrap();
    let ids = |rows: Vec<UsageRow>| rows.into_iter().map(|row| row.request_id).collect::<Vec<_>>();
    assert_eq!(ids(store.usage(Some("a"), 3).await.unwrap()), ["r4", "r3", "r2"]);
    assert_eq!(ids(store.usage(Some("b"), 3).await.unwrap()), ["other"]);
    assert_eq!(store.usage(None, 100).await.unwrap().len(), 6);
    assert!(store.usage(Some("nobody"), 3).await.unwrap().is_empty());
}

async fn books_without_a_hold(store: Arc<dyn Store>) {
    assert_eq!(store.settle(&settlement("r", "a", 12)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(store.settle(&settlement("r", "a", 12)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(store.settle(&settlement("r", "b", 12)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 0, 12, 0));
    // The booked row says what was booked, whatever the caller wrote into it.
    let odd = Settlement { amount: 5, ..settlement("odd", "a", 12) };
    store.settle(&odd).await.unwrap();
    assert_eq!(store.usage(Some("a"), 1).await.unwrap()[0].amount, 5);
}

async fn counts_large_amounts_exactly(store: Arc<dyn Store>) {
    let big = super::MAX_AMOUNT;
    for n in 0..3 {
        store.credit(&format!("c{n}"), "a", big - 1, "").await.unwrap();
    }
    store.hold(&hold("r", "a", big - 1)).await.unwrap();
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 3 * (big - 1), 0, big - 1));
    store.settle(&settlement("r", "a", big - 3)).await.unwrap();
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 3 * (big - 1), big - 3, 0));
}

async fn refuses_senseless_requests(store: Arc<dyn Store>) {
    let invalid = |error| matches!(error, StoreError::Invalid(_));
    assert!(invalid(store.hold(&hold("r", "a", -1)).await.unwrap_err()));
    assert!(invalid(store.hold(&hold("", "a", 1)).await.unwrap_err()));
    assert!(invalid(store.hold(&hold("r", "", 1)).await.unwrap_err()));
    assert!(invalid(store.hold(&hold("r", "a", i64::MAX)).await.unwrap_err()));
    assert!(invalid(store.hold(&capped("r", "a", 1, &[("x", 1), ("x", 1)])).await.unwrap_err()));
    assert!(invalid(store.settle(&settlement("r", "a", -1)).await.unwrap_err()));
    assert!(invalid(store.credit("c", "a", i64::MIN, "").await.unwrap_err()));
    assert!(invalid(store.credit(&"x".repeat(257), "a", 1, "").await.unwrap_err()));
    assert!(store.accounts().await.unwrap().is_empty());
}

async fn keeps_values(store: Arc<dyn Store>) {
    store.ping().await.unwrap();
    assert_eq!(store.kv_get("ns", "k").await.unwrap(), None);
    store.kv_set("ns", "k", b"one\0\xff", None).await.unwrap();
    store.kv_set("other", "k", b"two", None).await.unwrap();
    assert_eq!(store.kv_get("ns", "k").await.unwrap().unwrap(), &b"one\0\xff"[..]);
    store.kv_delete("ns", "k").await.unwrap();
    store.kv_delete("ns", "k").await.unwrap();
    assert_eq!(store.kv_get("ns", "k").await.unwrap(), None);
    assert_eq!(store.kv_get("other", "k").await.unwrap().unwrap(), "two");
    assert!(store.kv_keys("ns", "", 10).await.unwrap().is_empty());
}

async fn forgets_values_after_their_ttl(store: Arc<dyn Store>) {
    store.kv_set("ns", "short", b"x", Some(Duration::from_millis(20))).await.unwrap();
    store.kv_set("ns", "long", b"x", Some(Duration::from_secs(600))).await.unwrap();
    eventually!(store.kv_get("ns", "short").await.unwrap().is_none());
    assert_eq!(store.kv_keys("ns", "", 10).await.unwrap(), ["long"]);
    // Setting without a ttl takes the old one away.
    store.kv_set("ns", "kept", b"x", Some(Duration::from_millis(20))).await.unwrap();
    store.kv_set("ns", "kept", b"y", None).await.unwrap();
    store.kv_set("ns", "mark", b"x", Some(Duration::from_millis(40))).await.unwrap();
    eventually!(store.kv_get("ns", "mark").await.unwrap().is_none());
    assert!(store.kv_get("ns", "kept").await.unwrap().is_some());
    // A counter's window ends when its first addition said.
    store.kv_add("ns", "n", 1, Some(Duration::from_millis(40))).await.unwrap();
    eventually!(store.kv_add("ns", "n", 1, Some(Duration::from_millis(40))).await.unwrap() == 1);
}

async fn adds_to_numbers(store: Arc<dyn Store>) {
    assert_eq!(store.kv_add("ns", "n", 5, None).await.unwrap(), 5);
    assert_eq!(store.kv_add("ns", "n", -7, None).await.unwrap(), -2);
    assert_eq!(store.kv_get("ns", "n").await.unwrap().unwrap(), "-2");
    assert_eq!(store.kv_keys("ns", "", 10).await.unwrap(), ["n"]);
    store.kv_set("ns", "big", (i64::MAX - 1).to_string().as_bytes(), None).await.unwrap();
    assert_eq!(store.kv_add("ns", "big", 1, None).await.unwrap(), i64::MAX);
    assert_eq!(store.kv_add("ns", "big", 1, None).await, Err(StoreError::NotANumber));
    for odd in ["", "text", "+1", " 1", "01"] {
        store.kv_set("ns", "odd", odd.as_bytes(), None).await.unwrap();
        assert_eq!(store.kv_add("ns", "odd", 1, None).await, Err(StoreError::NotANumber), "{odd:?}");
    }
}

async fn swaps_only_what_is_as_expected(store: Arc<dyn Store>) {
    assert!(!store.kv_compare_and_swap("ns", "k", Some(b"a"), b"b", None).await.unwrap());
    assert!(store.kv_compare_and_swap("ns", "k", None, b"a", None).await.unwrap());
    assert!(!store.kv_compare_and_swap("ns", "k", None, b"b", None).await.unwrap());
    assert!(!store.kv_compare_and_swap("ns", "k", Some(b""), b"b", None).await.unwrap());
    assert!(store.kv_compare_and_swap("ns", "k", Some(b"a"), b"b", None).await.unwrap());
    assert_eq!(store.kv_get("ns", "k").await.unwrap().unwrap(), "b");
    assert_eq!(store.kv_keys("ns", "", 10).await.unwrap(), ["k"]);
    let short = Some(Duration::from_millis(10));
    assert!(store.kv_compare_and_swap("ns", "k", Some(b"b"), b"c", short).await.unwrap());
    eventually!(store.kv_compare_and_swap("ns", "k", None, b"d", None).await.unwrap());
}

async fn lists_keys_in_order(store: Arc<dyn Store>) {
    for n in (0..300).rev() {
        store.kv_set("ns", &format!("a:{n:03}"), b"x", None).await.unwrap();
    }
    for key in ["b:1", "a", "a;", "\u{e9}"] {
        store.kv_set("ns", key, b"x", None).await.unwrap();
    }
    assert_eq!(store.kv_keys("ns", "a:", 2).await.unwrap(), ["a:000", "a:001"]);
    assert_eq!(store.kv_keys("ns", "a:", 1000).await.unwrap().len(), 300);
    assert_eq!(store.kv_keys("ns", "", 1).await.unwrap(), ["a"]);
    assert_eq!(store.kv_keys("ns", "b", 10).await.unwrap(), ["b:1"]);
    assert_eq!(store.kv_keys("ns", "", 1000).await.unwrap().last().unwrap(), "\u{e9}");
    assert!(store.kv_keys("ns", "a", 0).await.unwrap().is_empty());
    assert!(store.kv_keys("another", "", 10).await.unwrap().is_empty());
}

async fn keeps_sealed_secrets(store: Arc<dyn Store>) {
    let sealed = |handle: &str, byte| SealedSecret {
        handle: handle.to_owned(),
        owner: "demo".to_owned(),
        name: "openai".to_owned(),
        scope: "byok".to_owned(),
        hint: "6789".to_owned(),
        created_unix_ms: 1_700_000_000_000,
        key_id: "k1".to_owned(),
        nonce_and_ciphertext: vec![byte; 40],
    };
    store.secret_put(&sealed("b", 0)).await.unwrap();
    store.secret_put(&sealed("a", 1)).await.unwrap();
    store.secret_put(&sealed("b", 255)).await.unwrap();
    assert_eq!(store.secret_list().await.unwrap(), [sealed("a", 1), sealed("b", 255)]);
    assert!(store.secret_remove("a").await.unwrap());
    assert!(!store.secret_remove("a").await.unwrap());
    assert_eq!(store.secret_list().await.unwrap().len(), 1);
}

/// Marsaglia's xorshift: the same walk in every run.
struct Walk(u64);

impl Walk {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

async fn balances_are_the_sum_of_the_rows(store: Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 1..=8 {
        tasks.spawn(random_walk(store.clone(), seed));
    }
    let mut held: HashMap<String, i64> = HashMap::new();
    let mut credited: HashMap<String, i64> = HashMap::new();
    for (account, still_held, credits) in tasks.join_all().await.into_iter().flatten() {
        *held.entry(account.clone()).or_default() += still_held;
        *credited.entry(account).or_default() += credits;
    }
    let mut rows = 0;
    for balance in store.accounts().await.unwrap() {
        let usage = store.usage(Some(&balance.account), 100_000).await.unwrap();
        rows += usage.len();
        assert_eq!(balance.spent, usage.iter().map(|row| row.amount).sum::<i64>(), "{}", balance.account);
        assert_eq!(balance.held, held[&balance.account], "{}", balance.account);
        assert_eq!(balance.credited, credited[&balance.account], "{}", balance.account);
    }
    assert!(rows > 100, "only {rows} rows");
}

/// For each account: what it leaves held, and what it credited.
async fn random_walk(store: Arc<dyn Store>, seed: u64) -> Vec<(String, i64, i64)> {
    let mut walk = Walk(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut open: Vec<Hold> = Vec::new();
    let mut credited = [0; 3];
    for step in 0..100 {
        let which = usize::try_from(walk.below(3)).unwrap();
        let account = format!("account-{which}");
        let amount = i64::try_from(walk.below(1000)).unwrap();
        let id = format!("{seed}-{step}");
        match walk.below(6) {
            0 => {
                credited[which] += amount * 4;
                store.credit(&id, &account, amount * 4, "").await.unwrap();
                store.credit(&id, &account, amount * 4, "").await.unwrap();
            }
            1..=3 => {
                let caps = capped("", "", 0, &[("one", 60_000), ("two", 25_000)]).caps;
                let hold = Hold { caps, prepaid: amount % 2 == 0, ..hold(&id, &account, amount) };
                if store.hold(&hold).await.unwrap() == HoldOutcome::Held {
                    open.push(hold);
                }
            }
            _ => {
                let Some(hold) = open.pop() else { continue };
                let settlement = settlement(&hold.id, &hold.account, amount);
                assert_eq!(store.settle(&settlement).await.unwrap(), SettleOutcome::Booked);
                assert_eq!(store.settle(&settlement).await.unwrap(), SettleOutcome::Duplicate);
            }
        }
    }
    let still_held = |account: &str| open.iter().filter(|h| h.account == account).map(|h| h.amount).sum();
    let report = |which: usize| {
        let account = format!("account-{which}");
        (account.clone(), still_held(&account), credited[which])
    };
    (0..3).map(report).collect()
}
