//! A real Redis for tests: its own child process, directory and socket.

use std::{
    io,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::config::Secret;

pub(in crate::state) struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// `None`, and a line that says so, where redis-server is not installed.
    pub(in crate::state) fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        match spawn(dir.path()) {
            Ok(child) => Some(Self { child, dir }.answering()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: redis-server not on PATH");
                None
            }
            Err(error) => panic!("redis-server does not start: {error}"),
        }
    }

    pub(in crate::state) fn url(&self) -> Secret {
        Secret::new(format!("redis+unix://{}", self.dir.path().join("redis.sock").display()))
    }

    /// Kills the server and starts an empty one at the same address.
    pub(in crate::state) fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.dir.path()).unwrap();
        self.wait_until_it_answers();
    }

    /// The server hangs: it accepts, and does not answer.
    pub(in crate::state) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn answering(mut self) -> Self {
        self.wait_until_it_answers();
        self
    }

    fn wait_until_it_answers(&mut self) {
        let client = redis::Client::open(self.url().expose()).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut connection = client.get_connection();
            let answer = connection.as_mut().map(|c| redis::cmd("PING").query::<String>(c));
            if matches!(answer, Ok(Ok(_))) {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "redis-server ended");
            assert!(Instant::now() < end, "redis-server does not answer");
            std::thread::yield_now();
        }
    }
}

fn spawn(dir: &std::path::Path) -> io::Result<Child> {
    Command::new("redis-server")
        .current_dir(dir)
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
