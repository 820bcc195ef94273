//! Builds the guests in `plugins/` once per run.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use sha2::{Digest, Sha256};

/// The component of a guest package, for example `misbehaving`.
pub(crate) fn guest(package: &str) -> PathBuf {
    let built = directory().join(format!("{}.wasm", package.replace('-', "_")));
    assert!(built.exists(), "no guest {package}: {} is missing", built.display());
    built
}

pub(crate) fn sha256(path: &Path) -> String {
    hex::encode(Sha256::digest(std::fs::read(path).expect("the component is readable")))
}

fn directory() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let target = root().join("target/plugins");
    let status = cargo_build(&target).status().expect("cargo runs");
    assert!(status.success(), "the guests do not build");
    target.join("wasm32-wasip2/release")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn cargo_build(target: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--target", "wasm32-wasip2", "--manifest-path"])
        .arg(root().join("plugins/Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        // Set by cargo for its own build; a nested one must not inherit them.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS");
    cargo
}

/// `header-filter`, built so that it says this version; its bytes differ from any other's.
pub(crate) fn header_filter(version: &str) -> PathBuf {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let common = directory();
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kept = common.join(format!("header_filter-{version}.component"));
    let mut cargo = cargo_build(&root().join("target/plugins"));
    let status = cargo.args(["--package", "header-filter"]).env("PLUGIN_VERSION", version).status();
    assert!(status.expect("cargo runs").success(), "the guest does not build");
    std::fs::copy(common.join("header_filter.wasm"), &kept).expect("the guest was built");
    kept
}
