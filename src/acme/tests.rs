//! Leases and the vault, on a real store.

use tempfile::TempDir;

use super::{
    lease::Lease,
    vault::{Failure, Issued},
    *,
};
use crate::{
    config::state::{Backend, State},
    state,
};

struct Node {
    store: Arc<dyn Store>,
    vault: Vault,
    _directory: TempDir,
}

async fn node() -> Node {
    let directory = tempfile::tempdir().unwrap();
    let config = State { data_dir: directory.path().to_owned(), backend: Backend::Embedded };
    let store = state::open(&config, None).await.unwrap().store;
    let secrets = Secrets::open(store.clone(), directory.path()).await.unwrap();
    Node { vault: Vault::new(store.clone(), secrets), store, _directory: directory }
}

fn issued() -> Issued {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let chain_pem = params.self_signed(&key).unwrap().pem();
    Issued { chain_pem, key_pem: Secret::new(key.serialize_pem()) }
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_is_given_back() {
    let node = node().await;
    let first = Lease::take(node.store.clone(), "x").await.unwrap().unwrap();
    assert!(Lease::take(node.store.clone(), "x").await.unwrap().is_none());
    assert!(Lease::take(node.store.clone(), "y").await.unwrap().is_some());
    first.give_back().await;
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while Lease::take(node.store.clone(), "x").await.unwrap().is_none() {
        assert!(std::time::Instant::now() < until);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_lost_the_lease_cannot_overwrite_what_came_since() {
    let node = node().await;
    let (names, slow, fast) = (["a.test".to_owned()], issued(), issued());
    assert!(node.vault.publish("x", &names, &fast, true, None).await.unwrap());
    assert!(!node.vault.publish("x", &names, &slow, true, None).await.unwrap());
    let kept = node.vault.certificate("x").await.unwrap().unwrap();
    assert_eq!(kept.chain_pem, fast.chain_pem);
    assert_eq!(kept.key_pem.expose(), fast.key_pem.expose());
    assert!(node.vault.publish("x", &names, &slow, true, Some(&kept)).await.unwrap());
    assert!(!node.vault.publish("x", &names, &issued(), true, Some(&kept)).await.unwrap());
}

#[tokio::test]
async fn every_change_is_told_and_no_key_lies_open() {
    let node = node().await;
    let (names, issued) = (["a.test".to_owned()], issued());
    let before = node.vault.version().await.unwrap();
    node.vault.publish("x", &names, &issued, true, None).await.unwrap();
    let published = node.vault.version().await.unwrap();
    assert_ne!(before, published);
    let record = node.store.kv_get(SPACE, "certificate/x").await.unwrap().unwrap();
    let text = String::from_utf8(record.to_vec()).unwrap();
    assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE KEY"), "{text}");

    let failure = Failure::new(2, "no".to_owned(), Duration::from_secs(60), false);
    node.vault.failed("x", &failure).await.unwrap();
    assert_ne!(published, node.vault.version().await.unwrap());
    assert_eq!(node.vault.failure("x").await.unwrap(), Some(failure));
    node.vault.forget_failure("x").await.unwrap();
    assert_eq!(node.vault.failure("x").await.unwrap(), None);
}

#[tokio::test]
async fn the_first_account_stays() {
    let node = node().await;
    assert!(node.vault.keep_account("x", &Secret::new("one")).await.unwrap());
    assert!(!node.vault.keep_account("x", &Secret::new("two")).await.unwrap());
    assert_eq!(node.vault.account("x").await.unwrap().unwrap().expose(), "one");
    node.vault.forget_account("x").await.unwrap();
    assert!(node.vault.account("x").await.unwrap().is_none());
}

#[test]
fn a_start_tries_again_soon_unless_the_authority_asked_for_a_pause() {
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let (before, after) = (now - hour, now + hour);
    let failure = |asked| Failure::new(1, String::new(), hour * 5, asked);
    assert!(failure(false).again(before) > now + hour * 4);
    assert!(failure(false).again(after) < after + Duration::from_secs(60));
    assert!(failure(true).again(after) > now + hour * 4);
}
