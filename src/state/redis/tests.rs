//! What happens when Redis is away or hangs.

use std::time::{Duration, Instant};

use super::{RedisStore, server::Server};
use crate::{
    config::Secret,
    state::{HoldOutcome, Store, StoreError, contract::hold},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_again_by_itself() {
    let Some(mut server) = Server::start() else { return };
    let store = RedisStore::open(&server.url(), Duration::from_secs(5)).unwrap();
    store.ping().await.unwrap();
    tokio::task::block_in_place(|| server.restart());
    let end = Instant::now() + Duration::from_secs(20);
    while let Err(error) = store.ping().await {
        assert!(matches!(error, StoreError::Unavailable(_) | StoreError::TimedOut), "{error}");
        assert!(Instant::now() < end, "does not connect again");
        tokio::task::yield_now().await;
    }
    // The new server knows no script yet.
    store.credit("c", "a", 100, "").await.unwrap();
    assert_eq!(store.hold(&hold("r", "a", 60)).await.unwrap(), HoldOutcome::Held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_server_costs_no_more_than_the_deadline() {
    let Some(server) = Server::start() else { return };
    let patient = RedisStore::open(&server.url(), Duration::from_secs(10)).unwrap();
    patient.credit("c", "a", 100, "").await.unwrap();
    let store = RedisStore::open(&server.url(), Duration::from_millis(50)).unwrap();
    while store.balance("a").await.is_err() {}
    server.signal("-STOP");
    let start = Instant::now();
    let outcome = store.hold(&hold("r", "a", 60)).await;
    let waited = start.elapsed();
    server.signal("-CONT");
    assert_eq!(outcome, Err(StoreError::TimedOut));
    assert!(waited < Duration::from_secs(5), "waited {waited:?}");
    // A lost answer is no lost hold: asking again tells.
    let again = patient.hold(&hold("r", "a", 60)).await.unwrap();
    assert!(matches!(again, HoldOutcome::Held | HoldOutcome::Exists(_)), "{again:?}");
    assert_eq!(patient.balance("a").await.unwrap().held, 60);
}

#[tokio::test]
async fn without_a_server_operations_fail_and_say_nothing_secret() {
    let dir = tempfile::tempdir().unwrap();
    let url = Secret::new(format!("redis+unix://{}/none.sock?pass=hunter22", dir.path().display()));
    let store = RedisStore::open(&url, Duration::from_millis(50)).unwrap();
    let error = store.hold(&hold("r", "a", 60)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_) | StoreError::TimedOut));
    assert!(!error.to_string().contains("hunter22"));
    let invalid = RedisStore::open(&Secret::new("nonsense://:hunter22@host"), Duration::from_millis(50));
    assert!(matches!(invalid.err(), Some(StoreError::Invalid(text)) if !text.contains("hunter22")));
}
