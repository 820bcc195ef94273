//! A real redis-server of the test's own, on a port that was free a moment ago.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use super::eventually;

pub(crate) struct Redis {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Redis {
    /// `None`, and a line that says so, where redis-server is not installed.
    pub(crate) async fn start() -> Option<Self> {
        for _ in 0..5 {
            let directory = tempfile::tempdir().expect("a directory");
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
            let address = free.expect("a free port");
            let port = address.port().to_string();
            let mut server = Command::new("redis-server");
            server.args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ]);
            server.arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let Ok(mut child) = server.spawn() else {
                eprintln!("SKIPPED: redis-server not on PATH");
                return None;
            };
            // Whoever took the port in between makes the server end; then once more.
            let up = eventually("redis answers or ends", || {
                let ended = child.try_wait().expect("a status").map(|_| false);
                ended.or_else(|| TcpStream::connect(address).is_ok().then_some(true))
            });
            if up.await {
                return Some(Self { child, address, _directory: directory });
            }
        }
        panic!("redis-server does not start")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
