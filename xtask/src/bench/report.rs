//! The samples as tables, and where they are kept.

use std::{fmt::Write as _, fs};

use super::{
    GROUPS, Group, ROUNDS, SECONDS, Sample, Subject,
    load::{CONNECTIONS, STREAMS},
};
use crate::shell::{command, read, root};

/// What follows it was measured by another command, and stays.
const ELSEWHERE: &str = "\n## Inside the process\n";

pub(super) fn tables(subjects: &[Subject]) -> anyhow::Result<String> {
    let mut text = String::new();
    for group in &GROUPS {
        let rows: Vec<&Subject> = subjects.iter().filter(|subject| subject.group == group.name).collect();
        if !rows.is_empty() {
            table(&mut text, group, &rows)?;
        }
    }
    Ok(text)
}

fn table(text: &mut String, group: &Group, rows: &[&Subject]) -> anyhow::Result<()> {
    let Group { title, floor, per, .. } = group;
    let least = rows.iter().find(|row| row.name == *floor).map_or(f64::NAN, |row| middle(row, micros));
    writeln!(text, "\n## {title}\n")?;
    writeln!(text, "| What | us per {per} | rounds | {per}s/s | over {floor} |\n|---|---|---|---|---|")?;
    for row in rows {
        let rounds: Vec<String> = row.samples.iter().map(|sample| format!("{:.1}", sample.micros)).collect();
        let (micros, rate) = (middle(row, micros), middle(row, |sample| sample.per_second));
        let (name, rounds, ratio) = (row.name, rounds.join(" "), micros / least);
        writeln!(text, "| {name} | {micros:.1} | {rounds} | {rate:.0} | {ratio:.2} |")?;
    }
    Ok(())
}

fn micros(sample: &Sample) -> f64 {
    sample.micros
}

/// The median over the rounds.
fn middle(subject: &Subject, value: impl Fn(&Sample) -> f64) -> f64 {
    let mut sorted: Vec<f64> = subject.samples.iter().map(value).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Replaces what an earlier run wrote to `benches/RESULTS.md`.
pub(super) fn write(tables: &str) -> anyhow::Result<()> {
    let path = root().join("benches/RESULTS.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let kept = before.find(ELSEWHERE).map_or("", |at| &before[at..]);
    fs::write(&path, format!("{}{tables}{kept}", heading()?))?;
    eprintln!("written to {}", path.display());
    Ok(())
}

fn heading() -> anyhow::Result<String> {
    let commit = read(command("git").args(["rev-parse", "--short", "HEAD"]))?;
    let date = read(command("date").args(["-u", "+%F %H:%M UTC"]))?;
    Ok(format!(
        "# Results\n\n\
         CPU microseconds of the proxy process, pinned to one core; origins and load on another; loopback,\n\
         {CONNECTIONS} connections, {ROUNDS} interleaved rounds of {SECONDS} s, medians. Requests are kept alive and answered\n\
         with 1 KB; HTTP/2 has {STREAMS} streams on each connection. The gateway has a request id, the access\n\
         record, metrics and 1,000 other routes. Handshakes are X25519 with an ECDSA P-256 certificate and end\n\
         with the tickets; the connection is counted with them, from accept to close.\n\n\
         * Machine: {}\n* Date: {date}\n* Commit: {commit}\n* Command: `cargo xtask bench`\n",
        machine()?
    ))
}

/// Model, cores and the kernel's version without what its builder added to it.
fn machine() -> anyhow::Result<String> {
    let model = read(command("sh").args(["-c", "lscpu | sed -n 's/^Model name: *//p'"]))?;
    let cores = read(&mut command("nproc"))?;
    let kernel = read(command("uname").arg("-r"))?;
    let kernel = kernel.split('-').next().unwrap_or_default();
    Ok(format!("{model}, {cores} virtual cores, Linux {kernel}"))
}
