//! The origins of the demo: two echo servers, three providers and a certificate,
//! until standard input closes. Prints their addresses as one line of JSON.

use std::{env, fs, path::Path};

use anyhow::Context;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tollgate_fakes::{Authority, Origin, Provider};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the line of JSON is this program's result")]
async fn main() -> anyhow::Result<()> {
    let directory = env::args_os().nth(1).context("usage: demo-origins DIRECTORY")?;
    write_certificates(Path::new(&directory))?;
    let (alpha, beta) = (Origin::start("alpha").await, Origin::start("beta").await);
    let (openai, anthropic) = (Provider::openai().await, Provider::anthropic().await);
    let flaky = Provider::flaky().await;
    println!(
        "{}",
        json!({
            "echo_a": alpha.url(),
            "echo_b": beta.url(),
            "openai": openai.url(),
            "anthropic": anthropic.url(),
            "flaky": flaky.url(),
        })
    );
    until_stdin_closes().await;
    Ok(())
}

/// Ctrl-C reaches the whole process group; the one who started this program
/// decides when it ends, because a draining gateway still needs its origins.
async fn until_stdin_closes() {
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let mut rest = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut rest).await;
}

/// Keeps what is there, so that a CA that was trusted once stays good.
fn write_certificates(directory: &Path) -> anyhow::Result<()> {
    if ["ca.crt", "server.crt", "server.key"].iter().all(|file| directory.join(file).exists()) {
        return Ok(());
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let authority = Authority::new()?;
    fs::write(directory.join("ca.crt"), authority.pem())?;
    authority.certify(&["localhost", "127.0.0.1", "::1"])?.write(directory, "server")?;
    Ok(())
}
