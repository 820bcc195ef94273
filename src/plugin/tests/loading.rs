//! What becomes a version, what is refused, and what a change leaves alone.

use bytes::Bytes;

use crate::{
    config::plugin::{Grants, Module},
    plugin::LoadError,
};

use super::support::{Bench, configured, plugin, probe, probe_variant, request};

#[tokio::test(flavor = "multi_thread")]
async fn ungranted_imports_are_refused_by_name() {
    let mut bare = plugin();
    bare.grants = Grants::default();
    let bench = Bench::empty().await;
    let errors = bench.plugins.apply(&configured(bare)).await.unwrap_err();
    let LoadError::Imports { imports, .. } = &errors[0] else { panic!("{errors:?}") };
    assert_eq!(imports.len(), 5);
    for interface in ["log", "key-value", "ledger", "secrets", "control"] {
        let named = format!("imports tollgate:plugin/{interface}@0.1.0, not granted");
        assert!(imports.iter().any(|import| import.starts_with(&named)), "{interface}: {imports:?}");
    }
    assert!(bench.plugins.slot("probe").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_the_pinned_ones_are_refused() {
    let mut pinned = plugin();
    pinned.sha256 = Some([7; 32]);
    let bench = Bench::empty().await;
    let errors = bench.plugins.apply(&configured(pinned)).await.unwrap_err();
    assert!(
        matches!(&errors[0], LoadError::Digest { pinned, .. } if pinned.starts_with("0707")),
        "{errors:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_the_plugin_refuses_names_its_reason() {
    for (config, reason) in [("\"refuse\"", "the label must not be refuse"), ("\"loop\"", "interrupt")] {
        let mut refusing = plugin();
        refusing.config = config.to_owned();
        let bench = Bench::empty().await;
        let errors = bench.plugins.apply(&configured(refusing)).await.unwrap_err();
        assert!(errors[0].to_string().contains(reason), "{}", errors[0]);
        assert_eq!(bench.plugins.instances(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_errors_are_told_and_nothing_changes() {
    let bench = Bench::with(plugin()).await;
    let mut changed = configured(plugin());
    changed.values_mut().for_each(|plugin| plugin.config = "\"b\"".to_owned());
    let mut absent = plugin();
    absent.module = Module::File("/nowhere.wasm".into());
    let mut unknown = plugin();
    unknown.module = Module::Embedded("no-such-plugin".parse().unwrap());
    changed.insert("absent".parse().unwrap(), absent);
    changed.insert("unknown".parse().unwrap(), unknown);

    let errors = bench.plugins.apply(&changed).await.unwrap_err();

    assert!(
        matches!(errors[..], [LoadError::Unreadable { .. }, LoadError::NoSuchModule { .. }]),
        "{errors:?}"
    );
    assert_eq!(bench.plugins.list().len(), 1);
    assert_eq!(bench.version().number(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_plugin_keeps_its_version_and_a_removed_one_goes() {
    let bench = Bench::with(plugin()).await;
    bench.version().on_request(request("/")).await.unwrap();
    bench.plugins.apply(&configured(plugin())).await.unwrap();
    let info = &bench.plugins.list()[0];
    assert_eq!((info.version, info.calls), (1, 1));
    bench.plugins.apply(&Default::default()).await.unwrap();
    assert!(bench.plugins.list().is_empty());
    assert_eq!(bench.plugins.instances(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_loaded_by_hand_stays_until_its_configuration_changes() {
    let bench = Bench::with(plugin()).await;
    let loaded = bench.plugins.load("probe", probe_variant(1)).await.unwrap();
    assert_eq!(loaded.version, 2);
    bench.plugins.apply(&configured(plugin())).await.unwrap();
    assert_eq!(bench.plugins.list()[0].sha256, loaded.sha256);
    assert!(bench.plugins.refresh().await.is_empty());

    let mut changed = plugin();
    changed.config = "\"b\"".to_owned();
    bench.plugins.apply(&configured(changed)).await.unwrap();
    let info = &bench.plugins.list()[0];
    assert_eq!(info.version, 3);
    assert_ne!(info.sha256, loaded.sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_leaves_the_version_in_service() {
    let bench = Bench::with(plugin()).await;
    let unknown = bench.plugins.load("other", probe()).await.unwrap_err();
    assert!(matches!(unknown, LoadError::UnknownPlugin(_)));
    let garbage = bench.plugins.load("probe", Bytes::from_static(b"\0asm garbage")).await.unwrap_err();
    assert!(matches!(garbage, LoadError::NotAComponent { .. }), "{garbage}");
    assert_eq!(bench.version().number(), 1);
    bench.version().on_request(request("/")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_loaded_and_a_broken_one_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("probe.wasm");
    std::fs::copy(super::probe::file(), &file).unwrap();
    let mut watched = plugin();
    watched.module = Module::File(file.clone());
    let bench = Bench::with(watched.clone()).await;
    assert!(bench.plugins.refresh().await.is_empty());

    std::fs::write(&file, probe_variant(1)).unwrap();
    let changes = bench.plugins.refresh().await;
    assert!(matches!(&changes[..], [(_, Ok(info))] if info.version == 2), "{changes:?}");

    std::fs::write(&file, "broken").unwrap();
    let changes = bench.plugins.refresh().await;
    assert!(matches!(&changes[..], [(_, Err(LoadError::NotAComponent { .. }))]), "{changes:?}");
    assert!(bench.plugins.refresh().await.is_empty());
    assert_eq!(bench.version().number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_swaps_leave_nothing_behind() {
    let bench = Bench::with(plugin()).await;
    for swap in 0..200 {
        let info = bench.plugins.load("probe", probe_variant(swap % 2)).await.unwrap();
        assert_eq!(info.version, u64::from(swap) + 2);
        bench.version().on_request(request("/pass")).await.unwrap();
    }
    assert_eq!(bench.plugins.instances(), 1);
}
