//! `cargo xtask bench`: CPU microseconds per request of the proxy process, on one
//! core of its own, beside its peers. Loopback only.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{
    shell::{cargo, command, read, root, run, shown},
    tools,
};

const ROUNDS: usize = 3;
const SECONDS: u64 = 4;
const CONNECTIONS: u64 = 16;
/// Between two looks at whether a process rests, and how many there are at most.
const REST: Duration = Duration::from_millis(100);
const REST_CHECKS: usize = 20;
const PROXY_CORE: &str = "0";
const LOAD_CORE: &str = "1";
/// sha256 of `bench_key`, which `CHAT` sends.
const KEY_HASH: &str = "sha256:ba323baff3f0ce3586b2e6f527a378b06c46e9b10f13c75a916abbc17534a52f";

/// One row of the result.
struct Subject {
    name: &'static str,
    process: u32,
    url: String,
    /// A wrk script, for requests with a body.
    script: Option<PathBuf>,
    micros: Vec<f64>,
}

pub(crate) fn bench() -> anyhow::Result<()> {
    for program in ["wrk", "nginx"] {
        if !tools::on_path(program) {
            tools::apt_install(program)?;
        }
    }
    tools::prepare_build()?;
    build()?;
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let mut bench = Bench::start(&folder)?;
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for subject in &mut bench.subjects {
            let micros = measure(subject)?;
            eprintln!("  {:<42} {micros:>7.1} us", subject.name);
            subject.micros.push(micros);
        }
    }
    let path = root().join("benches/RESULTS.md");
    fs::write(&path, report(&bench.subjects)?)?;
    eprintln!("written to {}", path.display());
    Ok(())
}

fn build() -> anyhow::Result<()> {
    let mut build = cargo();
    build.args(["build", "--locked", "--release", "--package", "tollgate", "--package", "tollgate-fakes"]);
    run(build.args(["--bins", "--example", "bare_pingora"]))?;
    let mut guest = cargo();
    guest.args(["build", "--locked", "--quiet", "--release", "--target", "wasm32-wasip2"]);
    guest.args(["--manifest-path", "plugins/Cargo.toml", "--package", "noop-filter"]);
    run(guest.args(["--target-dir", "target/plugins"]))
}

/// Everything that runs; it ends with this value.
struct Bench {
    subjects: Vec<Subject>,
    _children: Vec<Running>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bench {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let origin = free_address()?;
        let origin_nginx = nginx(folder, "origin", LOAD_CORE, &origin_config(&origin))?;
        let (provider, provider_url) = provider(folder)?;
        let peer = free_address()?;
        let peer_nginx = nginx(folder, "peer", PROXY_CORE, &peer_config(&peer, &origin))?;
        let bare = free_address()?;
        let bare_pingora = Running(
            pinned(PROXY_CORE, &root().join("target/release/examples/bare_pingora"))
                .args([&bare, &origin])
                .spawn()?,
        );
        let (gateway, web) = gateway(folder, &origin, &provider_url)?;
        let script = folder.join("chat.lua");
        fs::write(&script, CHAT)?;
        let subject = |name, child: &Running, url: String| Subject {
            name,
            process: child.0.id(),
            url,
            script: None,
            micros: Vec::new(),
        };
        let chat = |name, path: &str| Subject {
            script: Some(script.clone()),
            ..subject(name, &gateway, format!("http://{web}{path}"))
        };
        let subjects = vec![
            subject("nginx, 1 KB", &peer_nginx, format!("http://{peer}/")),
            subject("bare pingora, 1 KB", &bare_pingora, format!("http://{bare}/")),
            subject("tollgate HTTP lane, 1 KB", &gateway, format!("http://{web}/plain")),
            subject("tollgate HTTP lane with a no-op plugin", &gateway, format!("http://{web}/noop")),
            chat("chat completion passed through unread", "/raw/v1/chat/completions"),
            chat("chat completion, whole LLM chain, ledger", "/v1/chat/completions"),
        ];
        let children = vec![origin_nginx, provider, peer_nginx, bare_pingora, gateway];
        Ok(Self { subjects, _children: children })
    }
}

const CHAT: &str = r#"
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer bench_key"
wrk.body = '{"model":"bench","max_tokens":100,"messages":[{"role":"user","content":"Say hello to the reader of this benchmark."}]}'
"#;

/// CPU per request of one run under load.
fn measure(subject: &Subject) -> anyhow::Result<f64> {
    load(subject, 1)?;
    let before = cpu_micros(subject.process)?;
    let requests = load(subject, SECONDS)?;
    Ok((cpu_at_rest(subject.process)? - before) / requests)
}

/// As [`cpu_micros`], once the process has come to rest: what a request leaves
/// to be written behind it is part of its cost.
fn cpu_at_rest(process: u32) -> anyhow::Result<f64> {
    let mut used = cpu_micros(process)?;
    for _ in 0..REST_CHECKS {
        thread::sleep(REST);
        let now = cpu_micros(process)?;
        if now <= used {
            break;
        }
        used = now;
    }
    Ok(used)
}

/// Runs wrk and returns the number of requests that were served.
fn load(subject: &Subject, seconds: u64) -> anyhow::Result<f64> {
    let mut wrk = pinned(LOAD_CORE, Path::new("wrk"));
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s")]);
    if let Some(script) = &subject.script {
        wrk.arg("-s").arg(script);
    }
    let output = read(wrk.arg(&subject.url))?;
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        bail!("{} fails under load:\n{output}", subject.name);
    }
    let line = output.lines().find(|line| line.contains(" requests in ")).context("wrk says nothing")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

/// User and system time of the process so far.
fn cpu_micros(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold spaces; the times are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(')').context("a strange /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ is 100 on every Linux that this runs on.
    Ok(ticks * 10_000.0)
}

fn pinned(core: &str, program: &Path) -> Command {
    let mut taskset = command("taskset");
    taskset.args(["-c", core]).arg(program).stdin(Stdio::null());
    taskset
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
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
    let child = nginx.arg("-c").arg(file).arg("-e").arg(folder.join(format!("{name}.log"))).spawn()?;
    Ok(Running(child))
}

fn origin_config(address: &str) -> String {
    let body = "x".repeat(1024);
    format!("server {{ listen {address}; location / {{ default_type text/plain; return 200 '{body}'; }} }}")
}

fn peer_config(address: &str, origin: &str) -> String {
    format!(
        "upstream origin {{ server {origin}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://origin; proxy_http_version 1.1; \
         proxy_set_header Connection ''; }} }}"
    )
}

/// The scripted provider, and its address with `/v1`.
fn provider(folder: &Path) -> anyhow::Result<(Running, String)> {
    let mut origins = pinned(LOAD_CORE, &root().join("target/release/demo-origins"));
    let mut child = origins.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let addresses: Value = serde_json::from_str(&line)?;
    let url = addresses["openai"].as_str().context("no provider")?.to_owned();
    Ok((Running(child), url))
}

/// The gateway, and the address that it listens on.
fn gateway(folder: &Path, origin: &str, provider: &str) -> anyhow::Result<(Running, String)> {
    let file = folder.join("gateway.yaml");
    let _ = fs::remove_dir_all(folder.join("data"));
    // Apart from the configuration, whose folder the gateway watches.
    fs::create_dir_all(folder.join("logs"))?;
    fs::write(&file, serde_json::to_string_pretty(&gateway_config(origin, provider))?)?;
    let mut gateway = pinned(PROXY_CORE, &root().join("target/release/tollgate"));
    gateway.args(["run", "--config"]).arg(&file);
    gateway.stdout(fs::File::create(folder.join("logs/access.log"))?).stderr(Stdio::piped());
    let mut child = gateway.spawn().with_context(|| format!("cannot start {}", shown(&gateway)))?;
    let mut lines = BufReader::new(child.stderr.take().context("no diagnostics")?).lines();
    let running = Running(child);
    let mut address = None;
    for line in lines.by_ref().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == "listening" && event["entrypoint"] == "web" {
            address = event["address"].as_str().map(str::to_owned);
        }
        if event["message"] == "ready" {
            // The pipe must be read to the end, or the gateway waits for us.
            thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return Ok((running, address.context("the gateway does not listen")?));
        }
        eprintln!("{line}");
    }
    bail!("the gateway does not start")
}

fn gateway_config(origin: &str, provider: &str) -> Value {
    let provider_origin = provider.trim_end_matches("/v1");
    json!({
        "version": 1,
        "entrypoints": {"web": {"address": "127.0.0.1:0"}},
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
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(subjects: &[Subject]) -> anyhow::Result<String> {
    let commit = read(command("git").args(["rev-parse", "--short", "HEAD"]))?;
    let date = read(command("date").args(["-u", "+%F %H:%M UTC"]))?;
    let machine = read(command("sh").args(["-c", "lscpu | sed -n 's/^Model name: *//p'; nproc; uname -sr"]))?;
    let floor = median(&subjects[1].micros);
    let mut text = format!(
        "# Results\n\nCPU microseconds per request of the proxy process, pinned to one core; origins and load on another;\n\
         loopback, HTTP/1.1 keep-alive, {CONNECTIONS} connections, {ROUNDS} interleaved rounds of {SECONDS} s.\n\n\
         * Machine: {}\n* Date: {date}\n* Commit: {commit}\n* Command: `cargo xtask bench`\n\n\
         | What | median us | rounds | over bare pingora |\n|---|---|---|---|\n",
        machine.replace('\n', ", "),
    );
    for subject in subjects {
        let rounds: Vec<String> = subject.micros.iter().map(|micros| format!("{micros:.1}")).collect();
        let middle = median(&subject.micros);
        writeln!(text, "| {} | {middle:.1} | {} | {:.2} |", subject.name, rounds.join(" "), middle / floor)?;
    }
    Ok(text)
}
