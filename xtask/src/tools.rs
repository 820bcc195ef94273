//! What the builds and checks need and a fresh machine may lack.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::shell::{command, read, root, run};

const WASM_TARGET: &str = "wasm32-wasip2";
/// The newest stable ones when they were pinned.
const CLIENTS: [&str; 3] = [OPENAI_PIN, ANTHROPIC_PIN, GRPC_PIN];
const OPENAI_PIN: &str = "openai==3.52.0";
const ANTHROPIC_PIN: &str = "anthropic==2.11.0";
const GRPC_PIN: &str = "grpcio==1.85.1";

/// What every build needs: the guests' target and cmake.
pub(crate) fn prepare_build() -> anyhow::Result<()> {
    wasm_target()?;
    cmake()
}

fn wasm_target() -> anyhow::Result<()> {
    let sysroot = read(command("rustc").args(["--print", "sysroot"]))?;
    if Path::new(&sysroot).join("lib/rustlib").join(WASM_TARGET).exists() {
        return Ok(());
    }
    eprintln!("installing the {WASM_TARGET} target");
    run(command("rustup").args(["target", "add", WASM_TARGET]))
        .with_context(|| format!("the {WASM_TARGET} target is missing and rustup cannot install it"))
}

/// A C dependency of pingora builds with cmake.
fn cmake() -> anyhow::Result<()> {
    if on_path("cmake") {
        return Ok(());
    }
    if apt_install("cmake").is_ok() {
        return Ok(());
    }
    eprintln!("installing cmake into target/tools");
    let venv = root().join("target/tools/cmake");
    python_venv(&venv, &["cmake"])
        .context("cmake is missing; install it with your package manager (Debian: apt-get install cmake)")?;
    prepend_to_path(&venv.join("bin"))
}

/// The interpreter of a virtual environment with the official client packages.
pub(crate) fn client_python() -> anyhow::Result<PathBuf> {
    let venv = root().join("target/tools/clients");
    python_venv(&venv, &CLIENTS)?;
    Ok(venv.join("bin/python"))
}

/// Installs a Debian package when this is Debian and we are root.
pub(crate) fn apt_install(package: &str) -> anyhow::Result<()> {
    if !on_path("apt-get") {
        bail!("{package} is missing and there is no apt-get to install it with");
    }
    if read(Command::new("id").arg("-u"))? != "0" {
        bail!("{package} is missing; as root: apt-get install {package}");
    }
    eprintln!("installing {package} with apt-get");
    let install = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        run(&mut apt)
    };
    // The package lists of a fresh container are empty.
    install(&["install", "--yes", "--no-install-recommends", package]).or_else(|_| {
        install(&["update"])?;
        install(&["install", "--yes", "--no-install-recommends", package])
    })
}

pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons live in sbin, which is not on everyone's path.
    env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|folder| folder.join(program).is_file())
}

fn python_venv(venv: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let stamp = venv.join("installed");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let create = |venv: &Path| run(command("python3").args(["-m", "venv"]).arg(venv));
    create(venv).or_else(|_| apt_install("python3-venv").and_then(|()| create(venv)))?;
    let pip = venv.join("bin/pip");
    let mut install = command(&pip.to_string_lossy());
    run(install.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    Ok(std::fs::write(stamp, wanted)?)
}

fn prepend_to_path(folder: &Path) -> anyhow::Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let joined = env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&path)))?;
    // Children of this process find it through their commands' environment.
    PATH.set(joined).map_err(|_| anyhow::anyhow!("the path was already changed"))
}

/// The path that children get, when it differs from ours: changing our own
/// environment would need `unsafe`.
static PATH: std::sync::OnceLock<std::ffi::OsString> = std::sync::OnceLock::new();

/// `PATH` for children that build.
pub(crate) fn path() -> std::ffi::OsString {
    PATH.get().cloned().or_else(|| env::var_os("PATH")).unwrap_or_default()
}
