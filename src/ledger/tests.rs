//! Exactly one row for each request, whatever happens to it and to the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{HoldError, Ledger};
use crate::{
    config::state::{Backend, State},
    state::{
        self, Balance, Denial, Hold, HoldOutcome, Result, SealedSecret, SettleOutcome, Settlement, Store,
        StoreError, UsageRow,
    },
};

struct Given {
    ledger: Arc<Ledger>,
    store: Arc<Scripted>,
    _dir: tempfile::TempDir,
}

/// A ledger over an embedded store with 100 nano-USD for `demo`.
async fn given() -> Given {
    let dir = tempfile::tempdir().unwrap();
    let config = State { data_dir: dir.path().to_owned(), backend: Backend::Embedded };
    let inner = state::open(&config, None).await.unwrap().store;
    inner.credit("opening", "demo", 100, "").await.unwrap();
    let store = Arc::new(Scripted { inner, settle_errors: Mutex::default(), renewed: Mutex::default() });
    let ledger = Ledger::new(store.clone(), crate::telemetry::Metrics::new());
    Given { ledger, store, _dir: dir }
}

fn hold(id: &str, amount: i64) -> Hold {
    let lease = Duration::from_secs(60);
    Hold { id: id.to_owned(), account: "demo".to_owned(), amount, prepaid: true, caps: Vec::new(), lease }
}

fn row(id: &str, amount: i64) -> UsageRow {
    let ending = "complete".to_owned();
    UsageRow { request_id: id.to_owned(), account: "demo".to_owned(), amount, ending, ..UsageRow::default() }
}

fn demo(spent: i64, held: i64) -> Balance {
    Balance { account: "demo".to_owned(), credited: 100, spent, held }
}

impl Given {
    async fn rows(&self) -> Vec<UsageRow> {
        self.ledger.drain().await;
        self.store.usage(None, 100).await.unwrap()
    }

    async fn balance(&self) -> Balance {
        self.store.balance("demo").await.unwrap()
    }
}

#[tokio::test]
async fn settles_what_was_used() {
    let given = given().await;
    given.ledger.start();
    let open = given.ledger.hold(hold("r", 60)).await.unwrap();
    assert_eq!((open.amount(), given.balance().await), (60, demo(0, 60)));
    open.settle(40, row("r", 40));
    assert_eq!(given.rows().await, [row("r", 40)]);
    assert_eq!(given.balance().await, demo(40, 0));
    assert_eq!(given.ledger.leases.len(), 0);
}

#[tokio::test]
async fn a_dropped_hold_is_settled_as_failed() {
    let given = given().await;
    given.ledger.start();
    drop(given.ledger.hold(hold("r", 60)).await.unwrap());
    let rows = given.rows().await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].request_id.as_str(), rows[0].ending.as_str(), rows[0].amount), ("r", "failed", 0));
    assert!(rows[0].unix_ms > 0);
    assert_eq!(given.balance().await, demo(0, 0));
}

#[tokio::test]
async fn a_hold_dropped_after_deliveries_is_settled_for_them() {
    let given = given().await;
    given.ledger.start();
    let mut open = given.ledger.hold(hold("r", 60)).await.unwrap();
    open.if_dropped(7, UsageRow { ending: "broken".to_owned(), ..row("r", 7) });
    drop(open);
    let rows = given.rows().await;
    assert_eq!((rows.len(), rows[0].ending.as_str(), rows[0].amount), (1, "broken", 7));
    assert_eq!(given.balance().await, demo(7, 0));
}

#[tokio::test]
async fn a_panic_settles_too() {
    let given = given().await;
    given.ledger.start();
    let open = given.ledger.hold(hold("r", 60)).await.unwrap();
    let request = tokio::spawn(async move {
        let _open = open;
        std::panic::resume_unwind(Box::new("the request died"));
    });
    assert!(request.await.unwrap_err().is_panic());
    assert_eq!(given.rows().await.len(), 1);
    assert_eq!(given.balance().await, demo(0, 0));
}

#[tokio::test]
async fn an_unmetered_request_is_settled_once() {
    let given = given().await;
    given.ledger.start();
    let open = given.ledger.unmetered("r", "demo");
    assert_eq!(open.amount(), 0);
    open.settle(0, row("r", 0));
    drop(given.ledger.unmetered("s", "demo"));
    assert_eq!(given.rows().await.len(), 2);
}

#[tokio::test]
async fn two_holds_of_one_id_make_one_row() {
    let given = given().await;
    given.ledger.start();
    let first = given.ledger.hold(hold("r", 60)).await.unwrap();
    let again = given.ledger.hold(hold("r", 60)).await.unwrap();
    first.settle(40, row("r", 40));
    given.ledger.drain().await;
    again.settle(50, row("r", 50));
    assert_eq!(given.rows().await, [row("r", 40)]);
    assert_eq!(given.balance().await, demo(40, 0));
    assert_eq!(given.ledger.hold(hold("r", 60)).await.unwrap_err(), HoldError::Closed);
}

#[tokio::test]
async fn says_why_there_is_no_room() {
    let given = given().await;
    let denied = given.ledger.hold(hold("r", 101)).await.unwrap_err();
    assert_eq!(denied, HoldError::Denied { what: Denial::Balance, limit: 100, used: 0 });
    assert_eq!((given.ledger.waiting(), given.ledger.leases.len()), (0, 0));
}

#[tokio::test]
async fn a_settlement_outlasts_a_store_that_fails_for_a_while() {
    let given = given().await;
    given.ledger.start();
    let away = StoreError::Unavailable("scripted".to_owned());
    *given.store.settle_errors.lock() = vec![away.clone(), StoreError::TimedOut, away];
    given.ledger.hold(hold("r", 60)).await.unwrap().settle(40, row("r", 40));
    assert_eq!(given.rows().await, [row("r", 40)]);
    assert!(given.store.settle_errors.lock().is_empty());
    assert_eq!(given.balance().await, demo(40, 0));
}

#[tokio::test]
async fn settlements_before_the_start_are_written_after_it() {
    let given = given().await;
    for id in ["a", "b", "c"] {
        given.ledger.hold(hold(id, 10)).await.unwrap().settle(5, row(id, 5));
    }
    assert_eq!(given.ledger.waiting(), 3);
    given.ledger.start();
    given.ledger.start();
    assert_eq!(given.rows().await.len(), 3);
    assert_eq!(given.balance().await, demo(15, 0));
}

#[tokio::test]
async fn a_settlement_that_cannot_be_booked_does_not_stop_the_others() {
    let given = given().await;
    given.ledger.start();
    given.ledger.unmetered("", "demo").settle(1, row("", 1));
    given.ledger.hold(hold("r", 60)).await.unwrap().settle(-7, row("r", 0));
    assert_eq!(given.rows().await, [row("r", 0)]);
}

#[tokio::test]
async fn open_holds_are_renewed_after_a_third_of_their_lease() {
    let given = given().await;
    let open = given.ledger.hold(hold("r", 60)).await.unwrap();
    let start = Instant::now();
    given.ledger.renew_due(start + Duration::from_secs(19)).await;
    assert!(given.store.renewed.lock().is_empty());
    given.ledger.renew_due(start + Duration::from_secs(21)).await;
    given.ledger.renew_due(start + Duration::from_secs(22)).await;
    assert_eq!(*given.store.renewed.lock(), ["r"]);
    drop(open);
    given.ledger.renew_due(start + Duration::from_secs(99)).await;
    assert_eq!(given.store.renewed.lock().len(), 1);
}

/// An embedded store whose settlements fail as scripted.
struct Scripted {
    inner: Arc<dyn Store>,
    settle_errors: Mutex<Vec<StoreError>>,
    renewed: Mutex<Vec<String>>,
}

#[async_trait]
impl Store for Scripted {
    async fn settle(&self, settlement: &Settlement) -> Result<SettleOutcome> {
        let error = self.settle_errors.lock().pop();
        match error {
            Some(error) => Err(error),
            None => self.inner.settle(settlement).await,
        }
    }
    async fn renew(&self, id: &str, account: &str, lease: Duration) -> Result<bool> {
        self.renewed.lock().push(id.to_owned());
        self.inner.renew(id, account, lease).await
    }
    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome> {
        self.inner.hold(hold).await
    }
    async fn expire_holds(&self) -> Result<u64> {
        self.inner.expire_holds().await
    }
    async fn balance(&self, account: &str) -> Result<Balance> {
        self.inner.balance(account).await
    }
    async fn usage(&self, account: Option<&str>, limit: usize) -> Result<Vec<UsageRow>> {
        self.inner.usage(account, limit).await
    }

    // The ledger has no business with the rest.
    async fn kv_get(&self, _: &str, _: &str) -> Result<Option<Bytes>> {
        unreachable!()
    }
    async fn kv_set(&self, _: &str, _: &str, _: &[u8], _: Option<Duration>) -> Result<()> {
        unreachable!()
    }
    async fn kv_delete(&self, _: &str, _: &str) -> Result<()> {
        unreachable!()
    }
    async fn kv_add(&self, _: &str, _: &str, _: i64, _: Option<Duration>) -> Result<i64> {
        unreachable!()
    }
    async fn kv_compare_and_swap(
        &self,
        _: &str,
        _: &str,
        _: Option<&[u8]>,
        _: &[u8],
        _: Option<Duration>,
    ) -> Result<bool> {
        unreachable!()
    }
    async fn kv_keys(&self, _: &str, _: &str, _: usize) -> Result<Vec<String>> {
        unreachable!()
    }
    async fn credit(&self, _: &str, _: &str, _: i64, _: &str) -> Result<bool> {
        unreachable!()
    }
    async fn accounts(&self) -> Result<Vec<Balance>> {
        unreachable!()
    }
    async fn secret_put(&self, _: &SealedSecret) -> Result<()> {
        unreachable!()
    }
    async fn secret_remove(&self, _: &str) -> Result<bool> {
        unreachable!()
    }
    async fn secret_list(&self) -> Result<Vec<SealedSecret>> {
        unreachable!()
    }
    async fn ping(&self) -> Result<()> {
        unreachable!()
    }
    async fn close(&self) {
        unreachable!()
    }
}
