//! What only the embedded store promises: surviving crashes and restarts.

use std::{fs, path::Path, sync::Arc, time::Duration};

use super::{Embedded, OpenHolds};
use crate::state::{
    Cap, Denial, Hold, HoldOutcome, HoldState, SettleOutcome, Store, StoreError,
    contract::{balance, hold, settlement},
};

/// What a crash leaves: the files as they are while the process runs.
fn crash(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in ["tollgate.db", "tollgate.db-wal"] {
        fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    to
}

fn capped(id: &str, amount: i64) -> Hold {
    let cap = Cap { name: "2026-11".to_owned(), limit: 100, ttl: Duration::from_secs(600) };
    Hold { caps: vec![cap], ..hold(id, "a", amount) }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), OpenHolds::Freed).unwrap();
    store.credit("c", "a", 500, "opening").await.unwrap();
    store.hold(&capped("r", 60)).await.unwrap();
    store.settle(&settlement("r", "a", 40)).await.unwrap();
    store.kv_set("ns", "kept", b"x", Some(Duration::from_secs(600))).await.unwrap();
    store.kv_set("ns", "gone", b"x", None).await.unwrap();
    store.kv_delete("ns", "gone").await.unwrap();
    store.kv_add("ns", "n", 7, None).await.unwrap();
    store.close().await;
    drop(store);

    let store = Embedded::open(dir.path(), OpenHolds::Freed).unwrap();
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 500, 40, 0));
    assert!(!store.credit("c", "a", 500, "opening").await.unwrap());
    assert_eq!(store.settle(&settlement("r", "a", 40)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(store.hold(&capped("r", 60)).await.unwrap(), HoldOutcome::Exists(HoldState::Settled));
    assert_eq!(store.kv_keys("ns", "", 10).await.unwrap(), ["kept", "n"]);
    assert_eq!(store.kv_add("ns", "n", 1, None).await.unwrap(), 8);
    // The month goes on where it was.
    let full = HoldOutcome::Denied { what: Denial::Cap("2026-11".to_owned()), limit: 100, used: 40 };
    assert_eq!(store.hold(&capped("r2", 61)).await.unwrap(), full);
}

#[tokio::test]
async fn a_crash_frees_open_holds_and_keeps_bookings() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), OpenHolds::Freed).unwrap();
    store.credit("c", "a", 500, "").await.unwrap();
    store.hold(&capped("booked", 30)).await.unwrap();
    store.settle(&settlement("booked", "a", 20)).await.unwrap();
    store.hold(&capped("open", 60)).await.unwrap();
    // Committed, as anything that was answered.
    store.ping().await.unwrap();
    let left = crash(dir.path());

    let again = Embedded::open(left.path(), OpenHolds::Freed).unwrap();
    assert_eq!(again.balance("a").await.unwrap(), balance("a", 500, 20, 0));
    assert_eq!(again.hold(&capped("open", 60)).await.unwrap(), HoldOutcome::Exists(HoldState::Expired));
    assert_eq!(again.hold(&capped("new", 80)).await.unwrap(), HoldOutcome::Held);
    // Should the settlement of the dead request turn up, it still books, once.
    assert_eq!(again.settle(&settlement("open", "a", 50)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(again.settle(&settlement("open", "a", 50)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(again.balance("a").await.unwrap(), balance("a", 500, 70, 80));
}

#[tokio::test]
async fn a_repeated_settlement_frees_a_hold_made_of_a_forgotten_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), OpenHolds::Freed).unwrap();
    store.settle(&settlement("r", "a", 20)).await.unwrap();
    for n in 0..5000 {
        store.books.load_settled(format!("other-{n}").into(), "a");
    }
    let held = Hold { prepaid: false, ..hold("r", "a", 30) };
    assert_eq!(store.hold(&held).await.unwrap(), HoldOutcome::Held);
    assert_eq!(store.settle(&settlement("r", "a", 20)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(store.balance("a").await.unwrap(), balance("a", 0, 20, 0));
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::open(dir.path(), OpenHolds::Freed).unwrap();
    let second = Embedded::open(dir.path(), OpenHolds::Freed).err().unwrap();
    assert!(second.to_string().contains("another process"), "{second}");
    drop(first);
    assert!(Embedded::open(dir.path(), OpenHolds::Freed).is_ok());
}

#[tokio::test]
async fn a_database_of_another_version_or_none_at_all_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Embedded::open(dir.path(), OpenHolds::Freed).unwrap());
    let db = rusqlite::Connection::open(dir.path().join("tollgate.db")).unwrap();
    db.execute("UPDATE schema SET version = 99", []).unwrap();
    drop(db);
    assert!(matches!(Embedded::open(dir.path(), OpenHolds::Freed), Err(StoreError::Corrupt(_))));
    let odd = tempfile::tempdir().unwrap();
    fs::write(odd.path().join("tollgate.db"), [b'x'; 8192]).unwrap();
    assert!(matches!(Embedded::open(odd.path(), OpenHolds::Freed), Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn the_journal_has_what_memory_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(dir.path(), OpenHolds::Freed).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        tasks.spawn(async move {
            let (id, account) = (format!("r{n}"), format!("a{}", n % 7));
            store.credit(&id, &account, 100, "").await.unwrap();
            store.hold(&Hold { account: account.clone(), ..capped(&id, 1) }).await.unwrap();
            if n % 3 > 0 {
                store.settle(&settlement(&id, &account, 2)).await.unwrap();
            }
            store.kv_add("ns", "n", n, None).await.unwrap();
        });
    }
    tasks.join_all().await;
    store.ping().await.unwrap();
    let left = crash(dir.path());
    let again = Embedded::open(left.path(), OpenHolds::Freed).unwrap();
    let freed = |mut balance: crate::state::Balance| {
        balance.held = 0;
        balance
    };
    let before: Vec<_> = store.accounts().await.unwrap().into_iter().map(freed).collect();
    assert_eq!(again.accounts().await.unwrap(), before);
    assert_eq!(again.kv_get("ns", "n").await.unwrap(), store.kv_get("ns", "n").await.unwrap());
    let sums: i64 = again.usage(None, 1000).await.unwrap().iter().map(|row| row.amount).sum();
    assert_eq!(sums, before.iter().map(|balance| balance.spent).sum::<i64>());
}
