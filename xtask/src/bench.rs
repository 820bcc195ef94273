//! `cargo xtask bench`: CPU microseconds of the proxy process for each request
//! and each TLS handshake, on one core of its own, beside its peers. Loopback only.

mod child;
mod load;
mod processes;
mod report;

use std::{fs, thread, time::Duration};

use anyhow::bail;

use crate::{
    shell::{cargo, root, run},
    tools,
};
use load::{Load, TlsMode};
use processes::Processes;

const ROUNDS: usize = 3;
/// Seconds under load of each subject in each round.
const SECONDS: u64 = 3;
/// Between two looks at whether a process rests, and how many there are at most.
const REST: Duration = Duration::from_millis(100);
const REST_CHECKS: usize = 20;

/// One table of the result.
struct Group {
    /// For `--only`.
    name: &'static str,
    title: &'static str,
    /// The row that the others are compared with.
    floor: &'static str,
    /// What is counted.
    per: &'static str,
}

const GROUPS: [Group; 6] = [
    Group { name: "http", title: "HTTP/1.1, plain", floor: "bare pingora", per: "request" },
    Group { name: "https", title: "HTTP/1.1 over TLS 1.3", floor: "bare pingora", per: "request" },
    Group { name: "h2", title: "HTTP/2 over TLS 1.3", floor: "bare pingora", per: "request" },
    Group { name: "h2c", title: "HTTP/2, plain", floor: "bare pingora", per: "request" },
    Group { name: "tls", title: "TLS 1.3 handshakes", floor: "nginx, full", per: "handshake" },
    Group { name: "llm", title: "Chat completions", floor: "passed through unread", per: "request" },
];

/// One row of the result.
struct Subject {
    group: &'static str,
    name: &'static str,
    process: u32,
    load: Load,
    samples: Vec<Sample>,
}

/// One run under load.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Of CPU time for each request or handshake.
    micros: f64,
    /// Requests or handshakes.
    per_second: f64,
}

/// All groups, or the one named `only`. A whole run replaces `benches/RESULTS.md`.
pub(crate) fn bench(only: Option<&str>) -> anyhow::Result<()> {
    if let Some(only) = only
        && !GROUPS.iter().any(|group| group.name == only)
    {
        let known: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
        bail!("nothing is called {only}; there are {}", known.join(", "));
    }
    for (program, package) in [("wrk", "wrk"), ("nginx", "nginx"), ("h2load", "nghttp2-client")] {
        if !tools::on_path(program) {
            tools::apt_install(package)?;
        }
    }
    tools::prepare_build()?;
    build()?;
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let processes = Processes::start(&folder)?;
    let mut subjects = subjects(&processes);
    subjects.retain(|subject| only.is_none_or(|only| subject.group == only));
    measure(&mut subjects)?;
    drop(processes);
    let tables = report::tables(&subjects)?;
    if only.is_some() {
        eprintln!("{tables}");
        return Ok(());
    }
    report::write(&tables)
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

/// Rounds are interleaved, so that a noisy minute spoils one round of each
/// subject and the median survives it.
fn measure(subjects: &mut [Subject]) -> anyhow::Result<()> {
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for subject in &mut *subjects {
            if round == 1 {
                // To warm up; whether it went well the sample says.
                let _ = load::run(&subject.load, 1);
            }
            // On a machine with other work a run may come to nothing; a server that
            // really fails does so again.
            let sample = sample(subject).or_else(|error| {
                eprintln!("  once more: {error:#}");
                sample(subject)
            })?;
            eprintln!(
                "  {:<6} {:<36} {:>7.1} us {:>8.0}/s",
                subject.group, subject.name, sample.micros, sample.per_second
            );
            subject.samples.push(sample);
        }
    }
    Ok(())
}

fn sample(subject: &Subject) -> anyhow::Result<Sample> {
    let before = child::cpu_micros(subject.process)?;
    let done = load::run(&subject.load, SECONDS)?;
    let micros = (cpu_at_rest(subject.process)? - before) / done.count;
    Ok(Sample { micros, per_second: done.count / done.seconds })
}

/// Once the process has come to rest: what a request leaves to be written
/// behind it is part of its cost.
fn cpu_at_rest(process: u32) -> anyhow::Result<f64> {
    let mut used = child::cpu_micros(process)?;
    for _ in 0..REST_CHECKS {
        thread::sleep(REST);
        let now = child::cpu_micros(process)?;
        if now <= used {
            break;
        }
        used = now;
    }
    Ok(used)
}

fn subjects(processes: &Processes) -> Vec<Subject> {
    let Processes { nginx, bare, gateway, chat_script, .. } = processes;
    let peers = [("nginx", nginx, "/"), ("bare pingora", bare, "/"), ("tollgate", gateway, "/plain")];
    let mut subjects = Vec::new();
    let mut add = |group, name, process, load| {
        subjects.push(Subject { group, name, process, load, samples: Vec::new() });
    };
    for (name, server, path) in peers {
        add("http", name, server.process, Load::http1(format!("http://{}{path}", server.plain)));
    }
    let noop = Load::http1(format!("http://{}/noop", gateway.plain));
    add("http", "tollgate with a no-op plugin", gateway.process, noop);
    for (name, server, path) in peers {
        add("https", name, server.process, Load::http1(format!("https://{}{path}", server.tls)));
    }
    for (name, server, path) in peers {
        add("h2", name, server.process, Load::Http2(format!("https://{}{path}", server.tls)));
    }
    for (name, server, path) in peers {
        add("h2c", name, server.process, Load::Http2(format!("http://{}{path}", server.plain_http2)));
    }
    for (names, server) in [
        (["nginx, full", "nginx, resumed"], nginx),
        (["bare pingora, full", "bare pingora, resumed"], bare),
        (["tollgate, full", "tollgate, resumed"], gateway),
    ] {
        let [full, resumed] = names;
        add("tls", full, server.process, Load::Handshakes(server.tls.clone(), TlsMode::Full));
        add("tls", resumed, server.process, Load::Handshakes(server.tls.clone(), TlsMode::Resumed));
    }
    let quantum = Load::Handshakes(gateway.tls.clone(), TlsMode::FullPostQuantum);
    add("tls", "tollgate, full, X25519MLKEM768", gateway.process, quantum);
    for (name, path) in [
        ("passed through unread", "/raw/v1/chat/completions"),
        ("whole chain, ledger", "/v1/chat/completions"),
    ] {
        let url = format!("http://{}{path}", gateway.plain);
        add("llm", name, gateway.process, Load::Http1 { url, script: Some(chat_script.clone()) });
    }
    subjects
}
