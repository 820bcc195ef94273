//! Builds the probe component; the benchmark of plugin calls uses it too.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// Built once per run, in the same target directory as everything else.
static PROBE: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target/test-guests");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked", "--target", "wasm32-wasip2", "--manifest-path"])
        .arg(root.join("src/plugin/tests/guest/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the probe does not build");
    target.join("wasm32-wasip2/release/probe.wasm")
});

/// The component's file. Tests that change it work on a copy.
pub(crate) fn file() -> &'static Path {
    &PROBE
}
