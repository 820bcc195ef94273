//! The servers that are measured, and what stands behind them.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{
    child::{Running, START, await_port, pinned},
    load::LOAD_CORE,
};
use crate::{shell::root, tools};

const PROXY_CORE: &str = "0";
/// Routes beside those that are asked for.
const OTHER_ROUTES: usize = 1_000;
/// sha256 of `bench_key`, which `CHAT` sends.
const KEY_HASH: &str = "sha256:ba323baff3f0ce3586b2e6f527a378b06c46e9b10f13c75a916abbc17534a52f";

const CHAT: &str = r#"
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer bench_key"
wrk.body = '{"model":"bench","max_tokens":100,"messages":[{"role":"user","content":"Say hello to the reader of this benchmark."}]}'
"#;

/// Where a server listens; addresses are `host:port`.
pub(super) struct Server {
    pub(super) process: u32,
    pub(super) plain: String,
    /// The same as `plain` where one port speaks both versions.
    pub(super) plain_http2: String,
    pub(super) tls: String,
}

/// Everything that runs; it ends with this value.
pub(super) struct Processes {
    pub(super) nginx: Server,
    pub(super) bare: Server,
    pub(super) gateway: Server,
    /// For wrk: a chat completion.
    pub(super) chat_script: PathBuf,
    _children: Vec<Running>,
}

impl Processes {
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        // The provider comes first: it writes the certificate.
        let (provider, provider_url) = provider(folder)?;
        let origin = free_address()?;
        let origin_nginx = nginx(folder, "origin", LOAD_CORE, &origin_config(&origin))?;
        await_port(&origin)?;
        let (peer_nginx, nginx) = peer_nginx(folder, &origin)?;
        let (bare_pingora, bare) = bare_pingora(folder, &origin)?;
        let (tollgate, gateway) = gateway(folder, &origin, &provider_url)?;
        for server in [&nginx, &bare, &gateway] {
            await_port(&server.plain)?;
            await_port(&server.tls)?;
        }
        let chat_script = folder.join("chat.lua");
        fs::write(&chat_script, CHAT)?;
        let children = vec![provider, origin_nginx, peer_nginx, bare_pingora, tollgate];
        Ok(Self { nginx, bare, gateway, chat_script, _children: children })
    }
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("server.crt"), folder.join("server.key"))
}

/// One process, without a master, so that its CPU time is the whole.
fn nginx(folder: &Path, name: &str, core: &str, http: &str) -> anyhow::Result<Running> {
    let file = folder.join(format!("{name}.conf"));
    let place = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {place}/{name}.pid; error_log {place}/{name}.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {place}; {http} }}\n"
    );
    fs::write(&file, config)?;
    let mut nginx = pinned(core, Path::new("nginx"));
    nginx.env("PATH", format!("{}:/usr/sbin", tools::path().to_string_lossy()));
    Running::spawn(nginx.arg("-c").arg(file).arg("-e").arg(folder.join(format!("{name}.log"))))
}

fn origin_config(address: &str) -> String {
    let body = "x".repeat(1024);
    format!("server {{ listen {address}; location / {{ default_type text/plain; return 200 '{body}'; }} }}")
}

/// Its default tickets and curves; no session cache, which tickets make idle.
fn peer_nginx(folder: &Path, origin: &str) -> anyhow::Result<(Running, Server)> {
    let (plain, plain_http2, tls) = (free_address()?, free_address()?, free_address()?);
    let (certificate, key) = certificate(folder);
    let config = format!(
        "upstream origin {{ server {origin}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{ listen {plain}; listen {plain_http2} http2; listen {tls} ssl http2;\n\
         ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;\n\
         location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}",
        certificate.display(),
        key.display(),
    );
    let child = nginx(folder, "peer", PROXY_CORE, &config)?;
    let process = child.id();
    Ok((child, Server { process, plain, plain_http2, tls }))
}

fn bare_pingora(folder: &Path, origin: &str) -> anyhow::Result<(Running, Server)> {
    let (plain, tls) = (free_address()?, free_address()?);
    let (certificate, key) = certificate(folder);
    let mut bare = pinned(PROXY_CORE, &root().join("target/release/examples/bare_pingora"));
    let child = Running::spawn(bare.args([&plain, &tls]).arg(certificate).arg(key).arg(origin))?;
    let process = child.id();
    Ok((child, Server { process, plain_http2: plain.clone(), plain, tls }))
}

/// The scripted provider, and its address with `/v1`. Writes the certificate too.
fn provider(folder: &Path) -> anyhow::Result<(Running, String)> {
    let mut origins = pinned(LOAD_CORE, &root().join("target/release/demo-origins"));
    let mut child = Running::spawn(origins.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let line = child.stdout()?.recv_timeout(START).context("the provider does not start")?;
    let addresses: Value = serde_json::from_str(&line)?;
    let url = addresses["openai"].as_str().context("no provider")?.to_owned();
    Ok((child, url))
}

fn gateway(folder: &Path, origin: &str, provider: &str) -> anyhow::Result<(Running, Server)> {
    let file = folder.join("gateway.yaml");
    let _ = fs::remove_dir_all(folder.join("data"));
    // Apart from the configuration, whose folder the gateway watches.
    fs::create_dir_all(folder.join("logs"))?;
    fs::write(&file, serde_json::to_string_pretty(&gateway_config(folder, origin, provider))?)?;
    let mut gateway = pinned(PROXY_CORE, &root().join("target/release/tollgate"));
    gateway.args(["run", "--config"]).arg(&file);
    gateway.stdout(fs::File::create(folder.join("logs/access.log"))?).stderr(Stdio::piped());
    let mut child = Running::spawn(&mut gateway)?;
    let lines = child.stderr()?;
    let (mut web, mut tls) = (None, None);
    let deadline = Instant::now() + START;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let address = || event["address"].as_str().map(str::to_owned);
        match (event["message"].as_str(), event["entrypoint"].as_str()) {
            (Some("listening"), Some("web")) => web = address(),
            (Some("listening"), Some("tls")) => tls = address(),
            (Some("ready"), _) => {
                let plain = web.context("the gateway does not listen")?;
                let tls = tls.context("the gateway does not listen for TLS")?;
                let server = Server { process: child.id(), plain_http2: plain.clone(), plain, tls };
                return Ok((child, server));
            }
            _ => eprintln!("{line}"),
        }
    }
    bail!("the gateway does not start")
}

fn gateway_config(folder: &Path, origin: &str, provider: &str) -> Value {
    let provider_origin = provider.trim_end_matches("/v1");
    let (certificate, key) = certificate(folder);
    let mut config = json!({
        "version": 1,
        "entrypoints": {
            "web": {"address": "127.0.0.1:0"},
            "tls": {
                "address": "127.0.0.1:0",
                "tls": {"certificates": [{"cert_file": certificate, "key_file": key}]},
            },
        },
        "state": {"data_dir": "data"},
        "consumers": {"bench": {"api_keys": [KEY_HASH], "opening_credit": "1000000"}},
        "services": {
            "origin": {"targets": [{"url": format!("http://{origin}")}]},
            "raw": {"targets": [{"url": provider_origin}]},
            "llm": {"llm": {
                "providers": {"fake": {"api": "openai", "url": provider, "key": "${env:BENCH_KEY:-sk-bench}"}},
                "models": {"bench": {"provider": "fake", "name": "m", "price": {"input": "0.15", "output": "0.60"}}},
            }},
        },
        "middlewares": {"ids": {"request_id": {}}, "key": {"api_key": {}}},
        "plugins": {
            "noop": {"module": root().join("target/plugins/wasm32-wasip2/release/noop_filter.wasm")},
            "metering": {"grants": {"log": true, "ledger": "write"}},
            "byok": {"grants": {"log": true, "secrets": ["byok"]}},
            "fallback": {"grants": {"log": true}},
        },
        "routes": {
            "plain": {"rule": "PathPrefix(`/plain`)", "chain": ["ids"], "service": "origin"},
            "noop": {"rule": "PathPrefix(`/noop`)", "chain": ["ids", "plugin:noop"], "service": "origin"},
            "raw": {"rule": "PathPrefix(`/raw`)", "strip_path": "/raw", "chain": ["ids"], "service": "raw"},
            "llm": {
                "rule": "PathPrefix(`/v1/`)",
                "chain": ["ids", "key", "plugin:metering", "plugin:byok", "plugin:fallback"],
                "service": "llm",
            },
        },
    });
    for number in 0..OTHER_ROUTES {
        let rule = format!("Host(`host-{number}.example.com`) && PathPrefix(`/part-{number}`)");
        config["routes"][format!("other-{number}")] = json!({"rule": rule, "service": "origin"});
    }
    config
}
