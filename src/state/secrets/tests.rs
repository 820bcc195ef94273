//! Sealing, opening, and what happens when the key is not the one.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use super::{KEY_FILE, Secrets, hint};
use crate::{
    config::Secret,
    state::{Store, StoreError, shared::SharedStore},
};

const VALUE: &str = "sk-test-0123456789";

fn store(dir: &Path) -> Arc<dyn Store> {
    SharedStore::open(dir).unwrap()
}

#[tokio::test]
async fn a_sealed_value_opens_again_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let secrets = Secrets::open(store.clone(), dir.path()).await.unwrap();
    let handle = secrets.seal("byok", "demo", "openai", &Secret::new(VALUE)).await.unwrap();
    assert_eq!(handle, "byok/demo/openai");

    let again = Secrets::open(store, dir.path()).await.unwrap();
    assert_eq!(again.reveal(&handle).unwrap().unwrap().expose(), VALUE);
    assert!(again.exists(&handle));
    assert_eq!(again.reveal("byok/demo/other"), Ok(None));
    let listed = again.list("byok", Some("demo"));
    assert_eq!((listed[0].hint.as_str(), listed[0].needs_attention), ("6789", false));
    assert!(again.list("byok", Some("another")).is_empty());
    assert!(again.remove(&handle).await.unwrap());
    assert!(!again.remove(&handle).await.unwrap());
    assert_eq!(again.reveal(&handle), Ok(None));
}

#[tokio::test]
async fn the_same_value_never_seals_to_the_same_bytes_and_is_not_among_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let secrets = Secrets::open(store.clone(), dir.path()).await.unwrap();
    secrets.seal("byok", "demo", "a", &Secret::new(VALUE)).await.unwrap();
    secrets.seal("byok", "demo", "b", &Secret::new(VALUE)).await.unwrap();
    let sealed = store.secret_list().await.unwrap();
    assert_ne!(sealed[0].nonce_and_ciphertext[..12], sealed[1].nonce_and_ciphertext[..12]);
    for one in &sealed {
        let bytes = &one.nonce_and_ciphertext;
        assert!(!bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
        assert!(!format!("{one:?}").contains("6789"));
    }
}

#[tokio::test]
async fn with_another_key_records_stay_and_say_that_they_need_attention() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let secrets = Secrets::open(store.clone(), dir.path()).await.unwrap();
    let handle = secrets.seal("byok", "demo", "openai", &Secret::new(VALUE)).await.unwrap();
    fs::write(dir.path().join(KEY_FILE), [7; 32]).unwrap();

    let other = Secrets::open(store.clone(), dir.path()).await.unwrap();
    assert!(matches!(other.reveal(&handle), Err(StoreError::Corrupt(_))));
    assert!(other.list("byok", None)[0].needs_attention);
    assert_eq!(store.secret_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_record_moved_to_another_handle_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let secrets = Secrets::open(store.clone(), dir.path()).await.unwrap();
    secrets.seal("byok", "demo", "openai", &Secret::new(VALUE)).await.unwrap();
    let mut moved = store.secret_list().await.unwrap().remove(0);
    moved.handle = "byok/thief/openai".to_owned();
    store.secret_put(&moved).await.unwrap();
    secrets.refresh().await.unwrap();
    assert!(matches!(secrets.reveal("byok/thief/openai"), Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn the_key_is_for_its_owner_only_and_must_be_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    Secrets::open(store.clone(), dir.path()).await.unwrap();
    let path = dir.path().join(KEY_FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&path, [7; 31]).unwrap();
    assert!(matches!(Secrets::open(store, dir.path()).await, Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn parts_of_a_handle_have_no_slash() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::open(store(dir.path()), dir.path()).await.unwrap();
    for (scope, owner, name) in [("byok", "a/b", "c"), ("byok", "", "c"), ("byok", "a", "b\n")] {
        let refused = secrets.seal(scope, owner, name, &Secret::new(VALUE)).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))));
    }
}

#[test]
fn short_values_give_no_hint() {
    assert_eq!(hint(&Secret::new("01234567890")), "");
    assert_eq!(hint(&Secret::new("012345678901")), "8901");
}
