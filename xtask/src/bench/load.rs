//! What is asked of the servers, how often it was done, and that all of it went well.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::child::{output, pinned};
use crate::shell::root;

pub(super) const LOAD_CORE: &str = "1";
pub(super) const CONNECTIONS: u64 = 16;
/// Concurrent HTTP/2 streams on each connection.
pub(super) const STREAMS: u64 = 4;
/// What a run may take beyond its seconds.
const GRACE: Duration = Duration::from_secs(20);

pub(super) enum Load {
    /// Keep-alive requests; a wrk script where they have a body.
    Http1 {
        url: String,
        script: Option<PathBuf>,
    },
    Http2(String),
    /// New connections to an address.
    Handshakes(String, TlsMode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    Full,
    Resumed,
    FullPostQuantum,
}

/// Requests or handshakes.
pub(super) struct Done {
    pub(super) count: f64,
    pub(super) seconds: f64,
}

impl Load {
    pub(super) fn http1(url: String) -> Self {
        Self::Http1 { url, script: None }
    }
}

pub(super) fn run(load: &Load, seconds: u64) -> anyhow::Result<Done> {
    let text = |command: &mut Command| output(command, Duration::from_secs(seconds) + GRACE);
    match load {
        Load::Http1 { url, script } => {
            let mut wrk = pinned(LOAD_CORE, Path::new("wrk"));
            wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s")]);
            if let Some(script) = script {
                wrk.arg("-s").arg(script);
            }
            requests_by_wrk(url, &text(wrk.arg(url))?, seconds)
        }
        Load::Http2(url) => {
            let mut h2load = pinned(LOAD_CORE, Path::new("h2load"));
            h2load.args([
                "-t1",
                &format!("-c{CONNECTIONS}"),
                &format!("-m{STREAMS}"),
                &format!("-D{seconds}"),
            ]);
            requests_by_h2load(url, &text(h2load.arg(url))?, seconds)
        }
        Load::Handshakes(address, mode) => {
            let mut load = pinned(LOAD_CORE, &root().join("target/release/tls-load"));
            let (kind, group) = match mode {
                TlsMode::Full => ("full", "x25519"),
                TlsMode::Resumed => ("resumed", "x25519"),
                TlsMode::FullPostQuantum => ("full", "x25519mlkem768"),
            };
            handshakes(address, &text(load.args([address, &seconds.to_string(), kind, group]))?, *mode)
        }
    }
}

fn requests_by_wrk(url: &str, output: &str, seconds: u64) -> anyhow::Result<Done> {
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        bail!("{url} fails under load:\n{output}");
    }
    let line = output.lines().find(|line| line.contains(" requests in ")).context("wrk says nothing")?;
    done(url, line.split_whitespace().next(), seconds as f64)
}

/// `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout`
fn requests_by_h2load(url: &str, output: &str, seconds: u64) -> anyhow::Result<Done> {
    let line =
        output.lines().find_map(|line| line.strip_prefix("requests: ")).context("h2load says nothing")?;
    let count = |what: &str| line.split(", ").find_map(|part| part.strip_suffix(what));
    let refused = output.lines().find_map(|line| line.strip_prefix("status codes: "));
    let only_2xx = refused.is_some_and(|codes| codes.ends_with("0 3xx, 0 4xx, 0 5xx"));
    if count(" failed") != Some("0") || !only_2xx {
        bail!("{url} fails under load:\n{output}");
    }
    if !output.contains("Application protocol: h2") && url.starts_with("https") {
        bail!("{url} does not speak HTTP/2:\n{output}");
    }
    done(url, count(" succeeded"), seconds as f64)
}

fn handshakes(address: &str, output: &str, mode: TlsMode) -> anyhow::Result<Done> {
    let counts: Value = serde_json::from_str(output).context("tls-load says nothing")?;
    let count = |name: &str| counts[name].as_u64().unwrap_or_default();
    let (full, resumed) = (count("full"), count("resumed"));
    // The first connection of each client has nothing to resume.
    let as_wanted = match mode {
        TlsMode::Resumed => resumed > 0 && full <= CONNECTIONS,
        TlsMode::Full | TlsMode::FullPostQuantum => resumed == 0,
    };
    if count("failed") > 0 || !as_wanted {
        bail!("handshakes with {address} fail under load: {output}");
    }
    let all = (full + resumed).to_string();
    done(address, Some(&all), counts["seconds"].as_f64().unwrap_or(f64::NAN))
}

fn done(what: &str, count: Option<&str>, seconds: f64) -> anyhow::Result<Done> {
    let count: f64 = count.unwrap_or_default().parse().with_context(|| format!("{what}: no count"))?;
    if count == 0.0 {
        bail!("{what} answers nothing");
    }
    Ok(Done { count, seconds })
}
