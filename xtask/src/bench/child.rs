//! Child processes that cannot outlive or outwait this one.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    shell::{command, shown},
    tools,
};

/// How long a server may take until it serves.
pub(super) const START: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Killed and reaped by its id when this is dropped.
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(super) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
        Ok(Self(child))
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Lines of a piped output, read to the end by a thread of their own.
    pub(super) fn lines(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // A full pipe would stop the child, so it is read even if nobody listens.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        lines
    }

    pub(super) fn stdout(&mut self) -> anyhow::Result<mpsc::Receiver<String>> {
        Ok(Self::lines(self.0.stdout.take().context("its output is not piped")?))
    }

    pub(super) fn stderr(&mut self) -> anyhow::Result<mpsc::Receiver<String>> {
        Ok(Self::lines(self.0.stderr.take().context("its diagnostics are not piped")?))
    }
}

/// A program on one core, which the system ends when this process dies.
pub(super) fn pinned(core: &str, program: &Path) -> Command {
    let mut pinned = if tools::on_path("setpriv") {
        let mut setpriv = command("setpriv");
        setpriv.args(["--pdeathsig", "KILL", "taskset"]);
        setpriv
    } else {
        command("taskset")
    };
    pinned.args(["-c", core]).arg(program).stdin(Stdio::null());
    pinned
}

/// Runs to the end, at most so long, and returns standard output.
pub(super) fn output(command: &mut Command, at_most: Duration) -> anyhow::Result<String> {
    let mut child = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (stdout, stderr) = (child.stdout()?, child.stderr()?);
    let deadline = Instant::now() + at_most;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            bail!("{} takes longer than {at_most:?}", shown(command));
        }
        thread::sleep(LOOK_EVERY);
    };
    if !status.success() {
        bail!("{} failed: {}", shown(command), stderr.iter().collect::<Vec<_>>().join("\n"));
    }
    Ok(stdout.iter().collect::<Vec<_>>().join("\n"))
}

/// Waits until somebody accepts connections there.
pub(super) fn await_port(address: &str) -> anyhow::Result<()> {
    let address: SocketAddr = address.parse()?;
    let deadline = Instant::now() + START;
    while TcpStream::connect_timeout(&address, LOOK_EVERY).is_err() {
        if Instant::now() >= deadline {
            bail!("nobody listens on {address}");
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// User and system time of the process so far.
pub(super) fn cpu_micros(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold spaces; the times are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(')').context("a strange /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ is 100 on every Linux that this runs on.
    Ok(ticks * 10_000.0)
}
