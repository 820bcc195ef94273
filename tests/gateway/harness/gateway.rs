//! One gateway process with its own configuration, directory and ports.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
};

use super::{Client, Reply, eventually, eventually_asking};

pub(crate) const ADMIN_TOKEN: &str = "test-admin-token";
/// Belongs to the consumer `alice`, who has 10 USD.
pub(crate) const CALLER_KEY: &str = "tg_test_key";

#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    directory: TempDir,
    config: Value,
    addresses: HashMap<String, SocketAddr>,
    output: Output,
}

/// Why a start or a check failed.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
}

#[derive(Debug, Clone, Default)]
struct Output {
    /// Diagnostics, as written to standard error.
    log: Arc<Mutex<Vec<String>>>,
    /// Access records, as written to standard output.
    access: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts with `given` laid over a base of one entrypoint, an admin door and
    /// the consumer `alice`; returns when it is ready.
    pub(crate) async fn given(given: Value) -> Self {
        Self::in_directory(tempfile::tempdir().expect("a temporary directory"), given).await
    }

    /// The same in a directory that already holds files of the test or data of an earlier run.
    pub(crate) async fn in_directory(directory: TempDir, given: Value) -> Self {
        match Self::start(directory, given).await {
            Ok(gateway) => gateway,
            Err(refused) => panic!("the gateway does not start: {refused:?}"),
        }
    }

    pub(crate) async fn refused(given: Value) -> Refused {
        match Self::start(tempfile::tempdir().expect("a temporary directory"), given).await {
            Ok(_) => panic!("the gateway starts with a configuration that it should refuse"),
            Err(refused) => refused,
        }
    }

    /// The same, started in another way than directly.
    pub(crate) async fn launched(directory: TempDir, given: Value, launch: Command) -> Self {
        match Self::start_by(directory, given, launch).await {
            Ok(gateway) => gateway,
            Err(refused) => panic!("the gateway does not start: {refused:?}"),
        }
    }

    async fn start(directory: TempDir, given: Value) -> Result<Self, Refused> {
        let mut command = binary();
        command.stdin(Stdio::null());
        Self::start_by(directory, given, command).await
    }

    async fn start_by(directory: TempDir, given: Value, mut launch: Command) -> Result<Self, Refused> {
        let mut config = base();
        lay_over(&mut config, given);
        let path = directory.path().join("gateway.yaml");
        write_config(&path, &config);
        let mut child = launch
            .args(["run", "--config"])
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(trusted(directory.path()))
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let output = Output::default();
        collect(child.stdout.take().expect("piped"), output.access.clone());
        collect(child.stderr.take().expect("piped"), output.log.clone());
        let mut gateway = Self { child, directory, config, addresses: HashMap::new(), output };
        gateway.until_ready().await?;
        Ok(gateway)
    }

    async fn until_ready(&mut self) -> Result<(), Refused> {
        let (child, output) = (&mut self.child, self.output.clone());
        let ended = eventually("ready or exit", || {
            if output.log().iter().any(|line| line["message"] == "ready") {
                return Some(None);
            }
            child.try_wait().expect("the child can be waited for").map(Some)
        })
        .await;
        match ended {
            Some(status) => Err(Refused { code: status.code(), output: self.output_text() }),
            None => {
                self.addresses = listening(&self.output.log());
                Ok(())
            }
        }
    }

    pub(crate) fn address(&self, entrypoint: &str) -> SocketAddr {
        self.addresses.get(entrypoint).copied().unwrap_or_else(|| panic!("no entrypoint {entrypoint}"))
    }

    /// Where the gateway listens now, which a reload may have changed.
    pub(crate) fn listening(&self) -> HashMap<String, SocketAddr> {
        listening(&self.output.log())
    }

    pub(crate) fn request(&self, method: &'static str, path: &str) -> Client {
        Client::new(self.address("web"), method, path)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.request("GET", path).send().await
    }

    /// A request to the admin door with its token.
    pub(crate) fn admin(&self, method: &'static str, path: &str) -> Client {
        Client::new(self.address("admin"), method, path).bearer(ADMIN_TOKEN)
    }

    pub(crate) async fn admin_json(&self, path: &str) -> Value {
        self.admin("GET", path).send().await.expect(200).json()
    }

    /// A chat completion of `alice`'s.
    pub(crate) fn chat(&self, body: &Value) -> Client {
        self.request("POST", "/v1/chat/completions").bearer(CALLER_KEY).json(body)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn edit_config(&mut self, edit: impl FnOnce(&mut Value)) {
        edit(&mut self.config);
        write_config(&self.directory.path().join("gateway.yaml"), &self.config);
    }

    pub(crate) fn write_raw_config(&self, text: &str) {
        replace(&self.directory.path().join("gateway.yaml"), text.as_bytes());
    }

    pub(crate) fn log(&self) -> Vec<Value> {
        self.output.log()
    }

    pub(crate) fn access_records(&self) -> Vec<Value> {
        parsed(&self.output.access)
    }

    /// Waits for the first access record for which `matches` holds.
    pub(crate) async fn access_record(&self, matches: impl Fn(&Value) -> bool) -> Value {
        eventually("an access record", || self.access_records().into_iter().find(&matches)).await
    }

    /// Waits for the first line of the log for which `matches` holds.
    pub(crate) async fn logged(&self, matches: impl Fn(&Value) -> bool) -> Value {
        eventually("a line of the log", || self.log().into_iter().find(&matches)).await
    }

    /// Everything that the process wrote so far.
    pub(crate) fn output_text(&self) -> String {
        [&self.output.access, &self.output.log].map(|lines| lines.lock().unwrap().join("\n")).join("\n")
    }

    /// Of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the gateway runs")
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        id.expect("the gateway runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the gateway runs");
    }

    /// The processes that took over so far, the first one first.
    pub(crate) fn heirs(&self) -> Vec<Pid> {
        let log = self.log();
        let heirs = log.iter().filter_map(|line| line["pid"].as_i64());
        heirs.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
    }

    /// Has another process take over, and returns it.
    pub(crate) async fn upgrade(&self) -> Pid {
        self.signal(Signal::USR2);
        eventually("another process serves", || self.heirs().first().copied()).await
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let patience = std::time::Duration::from_secs(60);
        let exit = tokio::time::timeout(patience, self.child.wait()).await;
        exit.expect("the gateway ends").expect("the child can be waited for")
    }

    /// Ends the process and starts another one on the same data.
    pub(crate) async fn restart(mut self) -> Self {
        self.terminate();
        self.exit().await;
        let empty = tempfile::tempdir().expect("a temporary directory");
        let directory = std::mem::replace(&mut self.directory, empty);
        Self::in_directory(directory, self.config.clone()).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for heir in self.heirs() {
            // It may have ended by itself.
            let _ = kill_process(heir, Signal::KILL);
        }
    }
}

impl Output {
    fn log(&self) -> Vec<Value> {
        parsed(&self.log)
    }
}

/// A `ca.pem` in the gateway's directory is the authority that it trusts for origins.
fn trusted(directory: &Path) -> Option<(&'static str, std::path::PathBuf)> {
    let authority = directory.join("ca.pem");
    authority.exists().then_some(("SSL_CERT_FILE", authority))
}

/// The binary under test.
pub(crate) fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
}

pub(crate) fn key_hash(key: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(key)))
}

pub(crate) fn base() -> Value {
    json!({
        "version": 1,
        "entrypoints": {"web": {"address": "127.0.0.1:0"}},
        "admin": {"address": "127.0.0.1:0", "token": key_hash(ADMIN_TOKEN)},
        "state": {"data_dir": "data"},
        "consumers": {"alice": {"tier": "free", "api_keys": [key_hash(CALLER_KEY)], "opening_credit": "10.00"}},
    })
}

/// Objects are merged, all else is replaced; `null` removes.
pub(crate) fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.shift_remove(&key);
                } else {
                    lay_over(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Every JSON document is a YAML document.
fn write_config(path: &Path, config: &Value) {
    replace(path, serde_json::to_string_pretty(config).expect("JSON is writable").as_bytes());
}

/// As editors do: a new file takes the place of the old one, never half written.
pub(crate) fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).expect("the directory is writable");
    std::fs::rename(&beside, path).expect("the directory is writable");
}

fn collect(from: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.lock().unwrap().push(line);
        }
    });
}

fn parsed(lines: &Mutex<Vec<String>>) -> Vec<Value> {
    lines.lock().unwrap().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn listening(log: &[Value]) -> HashMap<String, SocketAddr> {
    let lines = log.iter().filter(|line| line["message"] == "listening");
    lines
        .filter_map(|line| {
            let entrypoint = line["entrypoint"].as_str()?.to_owned();
            Some((entrypoint, line["address"].as_str()?.parse().ok()?))
        })
        .collect()
}

/// Waits until a `GET` of `path` has this status: an edit has been applied.
pub(crate) async fn until_answers(gateway: &Gateway, path: &str, status: u16) {
    let what = format!("{path} answers {status}");
    eventually_asking(&what, async || (gateway.get(path).await.status == status).then_some(())).await;
}

/// The value of a metric by its name and labels, as written on the page.
pub(crate) async fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let page = gateway.admin("GET", "/metrics").send().await.expect(200).text();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
