//! Builds the standard plugins and embeds them: writes `plugins.rs` with a
//! table of their names and bytes for `src/plugin`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const STANDARD: [&str; 4] = ["metering", "byok", "fallback", "admin"];
const TARGET: &str = "wasm32-wasip2";
/// A folder with `NAME.wasm` for each standard plugin, to take instead of building.
const PREBUILT: &str = "TOLLGATE_PLUGINS_DIR";

fn main() {
    if let Err(message) = embed() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn embed() -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    watch(&root);
    let built = match env::var_os(PREBUILT) {
        Some(folder) => PathBuf::from(folder),
        None => build(&root)?,
    };
    let mut table = String::from("pub(super) const EMBEDDED: &[(&str, &[u8])] = &[\n");
    for name in STANDARD {
        let (from, to) = (built.join(name).with_extension("wasm"), out.join(name).with_extension("wasm"));
        fs::copy(&from, &to).map_err(|error| format!("cannot copy {}: {error}", from.display()))?;
        table.push_str(&format!("    ({name:?}, include_bytes!({to:?})),\n"));
    }
    table.push_str("];\n");
    fs::write(out.join("plugins.rs"), table).map_err(|error| format!("cannot write plugins.rs: {error}"))
}

fn watch(root: &Path) {
    println!("cargo::rerun-if-env-changed={PREBUILT}");
    let shared = ["wit", "plugins/Cargo.toml", "plugins/Cargo.lock", "plugins/.cargo/config.toml"];
    let crates = STANDARD.iter().chain(["sdk"].iter());
    let crates =
        crates.flat_map(|name| [format!("plugins/{name}/src"), format!("plugins/{name}/Cargo.toml")]);
    for path in shared.map(str::to_owned).into_iter().chain(crates) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
}

/// Runs cargo in `plugins/` and returns the folder with the components.
fn build(root: &Path) -> Result<PathBuf, String> {
    require_target()?;
    // Beside the gateway's own, whatever its profile: one build serves all.
    let target_dir = root.join("target/plugins");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(root.join("plugins"));
    cargo.args(["build", "--release", "--locked", "--target", TARGET]).arg("--target-dir").arg(&target_dir);
    for name in STANDARD {
        cargo.args(["--package", &format!("tollgate-{name}")]);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_about_the_outer_build) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().map_err(|error| format!("cannot run cargo in plugins/: {error}"))?;
    if output.status.success() {
        return Ok(target_dir.join(TARGET).join("release"));
    }
    let log = String::from_utf8_lossy(&output.stderr);
    Err(format!("the standard plugins in plugins/ do not build:\n{log}"))
}

/// Flags, wrappers and targets of the outer build (clippy, coverage, another
/// target) break the inner one. Where cargo finds packages stays.
fn is_about_the_outer_build(name: &str) -> bool {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_BUILD_JOBS"];
    let outer = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "MAKEFLAGS", "MFLAGS"];
    outer.iter().any(|prefix| name.starts_with(prefix)) && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

fn require_target() -> Result<(), String> {
    let mut rustc = Command::new(variable("RUSTC")?);
    let output = rustc
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("cannot run rustc: {error}"))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    Err(format!(
        "plugins are compiled for {TARGET}, which is not installed\n\
         run: rustup target add {TARGET}\n\
         or set {PREBUILT} to a folder with the compiled standard plugins"
    ))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
