//! `cargo xtask test`: every check, one line each.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    shell::{cargo, shown},
    tools,
};

#[derive(Default)]
struct Checks {
    /// Tests that ran and passed, over all steps.
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

pub(crate) fn test() -> anyhow::Result<()> {
    let started = Instant::now();
    let mut checks = Checks::default();
    tools::prepare_build()?;
    if !tools::on_path("redis-server")
        && let Err(reason) = tools::apt_install("redis-server")
    {
        checks.skip("store on redis", &format!("{reason:#}"));
    }
    checks.lint();
    checks.tests();
    checks.guests();
    checks.clients();
    checks.summary(started.elapsed())
}

impl Checks {
    fn lint(&mut self) {
        self.step("format", cargo().args(["fmt", "--all", "--check"]));
        self.step("format plugins", plugins("fmt").args(["--all", "--check"]));
        let deny = ["--", "-D", "warnings"];
        self.step("clippy", workspace("clippy").arg("--all-targets").args(deny));
        let mut guests = plugins("clippy");
        guests.args(["--workspace", "--locked", "--all-targets", "--target-dir", "target/plugins"]);
        self.step("clippy plugins", guests.args(deny));
    }

    fn tests(&mut self) {
        // Compiled once with one set of features; the steps after it only run.
        self.step("build tests", workspace("build").arg("--all-targets"));
        self.step("unit tests", workspace("test").args(["--lib", "--bins"]));
        self.step("architecture", workspace("test").args(["--test", "architecture"]));
        self.step(
            "integration",
            workspace("test").args(["--test", "gateway", "--", "--skip", "clients::", "--skip", "grpcio_"]),
        );
        // Without `--bench` each benchmark runs once, in the profile that is already built.
        self.step("benches, once", workspace("test").args(["--bench", "*"]));
        self.step("documentation", workspace("doc").arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"));
    }

    fn guests(&mut self) {
        let mut native = plugins("test");
        native.args(["--workspace", "--locked", "--lib", "--target-dir", "target/plugins"]);
        self.step("plugins, native tests", &mut native);
    }

    fn clients(&mut self) {
        match tools::client_python() {
            Ok(python) => {
                let mut clients = workspace("test");
                clients.args(["--test", "gateway", "--", "clients::", "grpcio_", "--nocapture"]);
                self.step("official clients", clients.env("TOLLGATE_CLIENT_PYTHON", python));
            }
            Err(reason) => self.skip("official clients", &format!("{reason:#}")),
        }
    }

    fn step(&mut self, name: &str, command: &mut Command) {
        let started = Instant::now();
        let output = command.output();
        let took = shown_duration(started.elapsed());
        match output {
            Ok(output) if output.status.success() => {
                eprintln!("ok       {took:>7}  {name}");
                self.passed += passed(&String::from_utf8_lossy(&output.stdout));
                for line in
                    String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("SKIPPED"))
                {
                    eprintln!("                  {line}");
                }
            }
            Ok(output) => {
                eprintln!("FAILED   {took:>7}  {name}: {}", shown(command));
                eprintln!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
                self.failed.push(name.to_owned());
            }
            Err(error) => {
                eprintln!("FAILED   {took:>7}  {name}: {}: {error}", shown(command));
                self.failed.push(name.to_owned());
            }
        }
    }

    fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("SKIPPED           {name}: {reason}");
        self.skipped.push(name.to_owned());
    }

    #[expect(clippy::print_stdout, reason = "the closing line, for those who read nothing else")]
    fn summary(&self, took: Duration) -> anyhow::Result<()> {
        let took = shown_duration(took);
        if !self.skipped.is_empty() {
            eprintln!("skipped: {}", self.skipped.join(", "));
        }
        if !self.failed.is_empty() {
            bail!("failed after {took}: {}", self.failed.join(", "));
        }
        println!("total: {} passed, 0 failed", self.passed);
        eprintln!("all checks passed in {took}");
        Ok(())
    }
}

/// Sums the `test result: ok. N passed; …` lines of cargo's test runner.
fn passed(output: &str) -> usize {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|result| result.split_once(" passed")?.0.parse::<usize>().ok()).sum()
}

fn workspace(subcommand: &str) -> Command {
    let mut command = cargo();
    command.args([subcommand, "--workspace", "--locked"]);
    command
}

fn plugins(subcommand: &str) -> Command {
    let mut command = cargo();
    command.args([subcommand, "--manifest-path", "plugins/Cargo.toml"]);
    command
}

fn shown_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} m {:02} s", seconds / 60, seconds % 60)
    }
}
