//! Two stores in one process stand for two processes.

use std::{sync::Arc, time::Duration};

use tokio::net::UnixStream;

use super::{Handover, SharedStore};
use crate::state::{
    Balance, Cap, Denial, Hold, HoldOutcome, HoldState, SettleOutcome, Settlement, Store, UsageRow,
};

pub(in crate::state) struct Two {
    old: Arc<SharedStore>,
    pub(in crate::state) new: Arc<SharedStore>,
    successor: Box<dyn super::Successor>,
}

/// The old one has the store, the new one asks it.
pub(in crate::state) fn two_on(dir: &std::path::Path) -> Two {
    let old = SharedStore::open(dir).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let successor = old.clone().offer(ours);
    let new = SharedStore::elsewhere(dir, theirs);
    Two { old, new, successor }
}

async fn two() -> (Two, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let two = two_on(dir.path());
    two.old.credit("c", "demo", 1000, "").await.unwrap();
    (two, dir)
}

fn hold(id: &str, amount: i64) -> Hold {
    let cap = Cap { name: "day".to_owned(), limit: 500, ttl: Duration::from_secs(3600) };
    Hold {
        id: id.to_owned(),
        account: "demo".to_owned(),
        amount,
        prepaid: true,
        caps: vec![cap],
        lease: Duration::from_secs(60),
    }
}

fn settlement(id: &str, amount: i64) -> Settlement {
    let row = UsageRow { request_id: id.to_owned(), unix_ms: 1, ..UsageRow::default() };
    Settlement { id: id.to_owned(), account: "demo".to_owned(), amount, row }
}

fn demo(spent: i64, held: i64) -> Balance {
    Balance { account: "demo".to_owned(), credited: 1000, spent, held }
}

#[tokio::test]
async fn a_store_elsewhere_answers_as_one_here() {
    let (two, _dir) = two().await;
    two.new.kv_set("ns", "key", b"\x00\xff", Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(two.old.kv_get("ns", "key").await.unwrap().as_deref(), Some(&b"\x00\xff"[..]));
    assert_eq!(two.new.kv_get("ns", "none").await.unwrap(), None);
    assert!(two.new.kv_add("ns", "key", 1, None).await.is_err());
    assert_eq!(two.new.kv_add("ns", "count", 2, None).await.unwrap(), 2);
    assert_eq!(two.new.hold(&hold("a", 100)).await.unwrap(), HoldOutcome::Held);
    assert_eq!(two.new.hold(&hold("a", 100)).await.unwrap(), HoldOutcome::Exists(HoldState::Held));
    assert_eq!(two.new.balance("demo").await.unwrap(), demo(0, 100));
    assert_eq!(two.new.settle(&settlement("a", 40)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(two.old.settle(&settlement("a", 40)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(two.new.usage(None, 9).await.unwrap(), two.old.usage(None, 9).await.unwrap());
    assert_eq!(two.new.secret_list().await.unwrap(), []);
}

#[tokio::test]
async fn open_holds_and_their_caps_move_with_the_store() {
    let (two, _dir) = two().await;
    two.old.hold(&hold("a", 300)).await.unwrap();
    two.old.hold(&hold("b", 100)).await.unwrap();
    two.old.settle(&settlement("b", 90)).await.unwrap();

    two.old.give().await.unwrap();
    two.new.take().await.unwrap();
    two.successor.follow();

    assert_eq!(two.new.balance("demo").await.unwrap(), demo(90, 300));
    let denied = two.new.hold(&hold("c", 120)).await.unwrap();
    assert_eq!(denied, HoldOutcome::Denied { what: Denial::Cap("day".to_owned()), limit: 500, used: 390 });
    assert!(two.old.renew("a", "demo", Duration::from_secs(60)).await.unwrap());
    assert_eq!(two.old.settle(&settlement("a", 10)).await.unwrap(), SettleOutcome::Booked);
    assert_eq!(two.new.settle(&settlement("a", 10)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(two.new.settle(&settlement("b", 90)).await.unwrap(), SettleOutcome::Duplicate);
    assert_eq!(two.old.balance("demo").await.unwrap(), demo(100, 0));
    assert_eq!(two.new.hold(&hold("d", 400)).await.unwrap(), HoldOutcome::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_is_lost_while_the_store_moves() {
    let (two, _dir) = two().await;
    let working = (0..200).map(|id| {
        let store = if id % 2 == 0 { two.old.clone() } else { two.new.clone() };
        tokio::spawn(async move {
            let id = id.to_string();
            let mut free = hold(&id, 1);
            free.caps.clear();
            // The new process asks the old one just when that gives the store away.
            let mut outcome = store.hold(&free).await;
            while outcome.is_err() {
                outcome = store.hold(&free).await;
            }
            while store.settle(&settlement(&id, 1)).await.is_err() {}
        })
    });
    let working: Vec<_> = working.collect();
    two.old.give().await.unwrap();
    two.new.take().await.unwrap();
    two.successor.follow();
    for work in working {
        work.await.unwrap();
    }
    assert_eq!(two.new.balance("demo").await.unwrap(), demo(200, 0));
    assert_eq!(two.new.usage(None, 1000).await.unwrap().len(), 200);
}

#[tokio::test]
async fn what_was_given_and_not_taken_comes_back() {
    let (two, _dir) = two().await;
    two.old.hold(&hold("a", 300)).await.unwrap();
    two.old.give().await.unwrap();
    two.old.take().await.unwrap();
    assert_eq!(two.old.balance("demo").await.unwrap(), demo(0, 300));
    two.old.settle(&settlement("a", 10)).await.unwrap();
    assert_eq!(two.old.balance("demo").await.unwrap(), demo(10, 0));
}

#[tokio::test]
async fn the_old_process_settles_by_itself_when_the_new_one_dies() {
    let (two, _dir) = two().await;
    two.old.hold(&hold("a", 300)).await.unwrap();
    two.old.give().await.unwrap();
    two.new.take().await.unwrap();
    two.successor.follow();
    two.new.give().await.unwrap();
    drop(two.new);
    // The first answer may be that the other process just left.
    let mut settled = two.old.settle(&settlement("a", 10)).await;
    while settled.is_err() {
        settled = two.old.settle(&settlement("a", 10)).await;
    }
    assert_eq!(settled.unwrap(), SettleOutcome::Booked);
    assert_eq!(two.old.balance("demo").await.unwrap(), demo(10, 0));
}
