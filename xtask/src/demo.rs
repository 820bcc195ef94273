//! `cargo xtask demo`: the whole gateway with local origins, and what to try.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    shell::{cargo, command, root, run, shown, signal},
    tools,
};

const CALLER_KEY: &str = "tg_demo_key";
const ADMIN_TOKEN: &str = "demo-admin-token";
/// Compiling the plugins at the first start of a debug build takes a while.
const START_PATIENCE: Duration = Duration::from_secs(120);

struct Options {
    http: String,
    https: String,
    admin: String,
    profile: Profile,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    Debug,
    Release,
}

pub(crate) fn demo(arguments: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(arguments)?;
    tools::prepare_build()?;
    build(options.profile)?;
    let folder = root().join("target/demo");
    let swappable = build_plugin(&folder)?;
    let origins = Origins::start(&folder, options.profile)?;
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = stop.send(());
    })
    .context("cannot handle Ctrl-C")?;
    let mut gateway = Gateway::start(&options, &folder, &origins)?;
    introduce(&gateway.addresses, &swappable);
    let outcome = gateway.until_stopped(&stopped);
    drop(origins);
    outcome
}

impl Options {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            http: "127.0.0.1:8080".to_owned(),
            https: "127.0.0.1:8443".to_owned(),
            admin: "127.0.0.1:9900".to_owned(),
            profile: Profile::Release,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let place = match argument.as_str() {
                "--debug" => {
                    options.profile = Profile::Debug;
                    continue;
                }
                "--http" => &mut options.http,
                "--https" => &mut options.https,
                "--admin" => &mut options.admin,
                other => bail!("unknown option {other}; known: --http, --https, --admin, --debug"),
            };
            *place = arguments.next().with_context(|| format!("{argument} needs an address"))?.clone();
        }
        Ok(options)
    }
}

impl Profile {
    fn folder(self) -> PathBuf {
        root().join("target").join(match self {
            Self::Debug => "debug",
            Self::Release => "release",
        })
    }
}

fn build(profile: Profile) -> anyhow::Result<()> {
    eprintln!("building the gateway and its plugins (the first time takes minutes)");
    let mut build = cargo();
    build.args(["build", "--locked"]);
    match profile {
        Profile::Release => {
            build.args(["--release", "--bins", "--package", "tollgate", "--package", "tollgate-fakes"])
        }
        // What the tests have built already: anything less would select other
        // features of the dependencies and compile them all again.
        Profile::Debug => build.args(["--workspace", "--all-targets"]),
    };
    run(&mut build)
}

/// A component to swap in: the same policy, loaded as a new version.
fn build_plugin(folder: &Path) -> anyhow::Result<PathBuf> {
    let target = root().join("target/plugins");
    let mut build = cargo();
    build.args([
        "build",
        "--locked",
        "--quiet",
        "--release",
        "--target",
        "wasm32-wasip2",
        "--package",
        "tollgate-fallback",
    ]);
    run(build.args(["--manifest-path", "plugins/Cargo.toml", "--target-dir"]).arg(&target))?;
    fs::create_dir_all(folder)?;
    let component = folder.join("fallback.wasm");
    fs::copy(target.join("wasm32-wasip2/release/fallback.wasm"), &component)?;
    Ok(component)
}

/// The local origins; they end when their standard input closes.
struct Origins {
    child: Child,
    input: Option<ChildStdin>,
    addresses: BTreeMap<String, String>,
}

impl Origins {
    fn start(folder: &Path, profile: Profile) -> anyhow::Result<Self> {
        let mut origins = Command::new(profile.folder().join("demo-origins"));
        let mut child = origins
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", shown(&origins)))?;
        let input = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("the origins have no output")?).read_line(&mut line)?;
        let addresses = serde_json::from_str(&line).context("the origins do not tell their addresses")?;
        Ok(Self { child, input, addresses })
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

struct Gateway {
    child: Child,
    addresses: BTreeMap<String, String>,
}

impl Gateway {
    /// Returns when it is ready to serve.
    fn start(options: &Options, folder: &Path, origins: &Origins) -> anyhow::Result<Self> {
        let mut gateway = command(&options.profile.folder().join("tollgate").to_string_lossy());
        gateway
            .args(["run", "--config", "config/demo.yaml"])
            .env("TOLLGATE_HTTP", &options.http)
            .env("TOLLGATE_HTTPS", &options.https)
            .env("TOLLGATE_ADMIN", &options.admin)
            .env("TOLLGATE_DATA", folder.join("data"))
            .env("TOLLGATE_DEMO_CERT", folder.join("server.crt"))
            .env("TOLLGATE_DEMO_KEY", folder.join("server.key"));
        for (name, address) in &origins.addresses {
            gateway.env(format!("TOLLGATE_DEMO_{}", name.to_uppercase()), address);
        }
        // A group of its own: Ctrl-C reaches it through us, once.
        let access = fs::File::create(folder.join("access.log"))?;
        gateway.stdin(Stdio::null()).stdout(access).stderr(Stdio::piped()).process_group(0);
        let mut child = gateway.spawn().with_context(|| format!("cannot start {}", shown(&gateway)))?;
        let lines = child.stderr.take().context("the gateway has no diagnostics")?;
        let log = fs::File::create(folder.join("gateway.log"))?;
        let mut started = Self { child, addresses: BTreeMap::new() };
        match listen(lines, log).recv_timeout(START_PATIENCE) {
            Ok(addresses) => started.addresses = addresses,
            Err(_) => {
                let _ = started.child.kill();
                bail!("the gateway does not become ready; see {}", folder.join("gateway.log").display());
            }
        }
        Ok(started)
    }

    /// Waits for Ctrl-C or the gateway's own end, and lets it drain.
    fn until_stopped(&mut self, stopped: &mpsc::Receiver<()>) -> anyhow::Result<()> {
        loop {
            if stopped.recv_timeout(Duration::from_millis(200)).is_ok() {
                break;
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the gateway ended by itself: {status}; see target/demo/gateway.log");
            }
        }
        eprintln!("draining");
        signal(self.child.id(), "INT")?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the gateway ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies diagnostics to `log`, shows problems, and sends the addresses once ready.
fn listen(lines: impl Read + Send + 'static, mut log: fs::File) -> mpsc::Receiver<BTreeMap<String, String>> {
    use std::io::Write;
    let (ready, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut addresses = BTreeMap::new();
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            let _ = writeln!(log, "{line}");
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                eprintln!("{line}");
                continue;
            };
            if matches!(event["level"].as_str(), Some("ERROR" | "WARN")) {
                eprintln!("{line}");
            }
            match (event["message"].as_str(), event["entrypoint"].as_str(), event["address"].as_str()) {
                (Some("listening"), Some(name), Some(address)) => {
                    addresses.insert(name.to_owned(), address.to_owned());
                }
                (Some("ready"), ..) => {
                    let _ = ready.send(addresses.clone());
                }
                _ => {}
            }
        }
    });
    receiver
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn introduce(addresses: &BTreeMap<String, String>, swappable: &Path) {
    let at = |name: &str| addresses.get(name).map_or("?", String::as_str);
    let (http, https, admin) = (at("web"), at("websecure"), at("admin"));
    println!("\nTollgate is running. Configuration: config/demo.yaml, data and logs: target/demo/");
    println!("  HTTP   http://{http}      caller key:  {CALLER_KEY}");
    println!("  HTTPS  https://{https}     CA:          target/demo/ca.crt");
    println!("  admin  http://{admin}      admin token: {ADMIN_TOKEN}");
    println!("\nTry these, from this folder:\n");
    for (number, (title, line)) in examples(http, https, admin, swappable).into_iter().enumerate() {
        println!("# {}. {title}\n{line}\n", number + 1);
    }
    println!("Ctrl-C drains and stops.");
}

/// Each is one line of shell that works as printed.
fn examples(http: &str, https: &str, admin: &str, swappable: &Path) -> [(&'static str, String); 6] {
    let token = format!("-H 'Authorization: Bearer {ADMIN_TOKEN}'");
    let chat = |model: &str, more: &str| {
        format!(
            "http://{http}/v1/chat/completions -H 'Authorization: Bearer {CALLER_KEY}' \
             -H 'Content-Type: application/json' \
             -d '{{\"model\":\"{model}\",{more}\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
        )
    };
    let component = swappable.strip_prefix(root()).unwrap_or(swappable).display();
    [
        ("Plain proxying, two targets in turn", format!("curl -sS http://{http}/echo/hello")),
        ("The same over TLS", format!("curl -sS --cacert target/demo/ca.crt https://{https}/echo/hello")),
        (
            "A chat completion; its first provider is throttled, the next one answers",
            format!("curl -sS {}", chat("demo-flaky", "")),
        ),
        (
            "A streamed one, translated from another dialect",
            format!("curl -sSN {}", chat("demo-anthropic", "\"stream\":true,")),
        ),
        (
            "What was used, and what is left",
            format!(
                "curl -sS {token} http://{admin}/api/v1/usage; echo; curl -sS {token} http://{admin}/api/v1/credits"
            ),
        ),
        (
            "Swap a plugin while requests run: the statuses of 100 requests, and the new version",
            format!(
                "(for i in $(seq 100); do curl -sS -o /dev/null -w '%{{http_code}}\\n' {}; done | sort | uniq -c) & \
                 sleep 0.5; curl -sS -X POST {token} -H 'Content-Type: application/wasm' \
                 --data-binary @{component} http://{admin}/api/v1/plugins/fallback/versions; echo; wait",
                chat("demo-openai", "")
            ),
        ),
    ]
}
