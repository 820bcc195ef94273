//! What a service manager is told: systemd's `sd_notify` protocol. Without
//! `NOTIFY_SOCKET` nothing happens.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net::SocketAddr, net::UnixDatagram},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;

pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<JoinHandle<()>>,
}

impl ServiceManager {
    /// Whoever started the process, if it wants to know. Needs a runtime when a
    /// watchdog is asked for (`WATCHDOG_USEC`).
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| match connect(&path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "the service manager's socket cannot be used");
                None
            }
        });
        let mut manager = Self { socket, watchdog: None };
        manager.watchdog = manager.start_watchdog();
        manager
    }

    /// Serving, at the start and after a reload.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Text for the operator.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", text.replace('\n', " ")));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Another process is the service from now on: this one says nothing more.
    pub fn succeeded_by(&mut self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
        self.socket = None;
        self.watchdog.take().inspect(JoinHandle::abort);
    }

    fn tell(&self, text: &str) {
        let Some((socket, manager)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), manager) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }

    /// Tells twice in each period that the runtime turns.
    fn start_watchdog(&self) -> Option<JoinHandle<()>> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let period = Duration::from_micros(number("WATCHDOG_USEC").filter(|micros| *micros > 1)?);
        if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
            return None;
        }
        let (socket, manager) = self.socket.as_ref()?;
        let (socket, manager) = (socket.try_clone().ok()?, manager.clone());
        Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(period / 2);
            loop {
                tick.tick().await;
                // One that is lost is followed by the next.
                let _ = socket.send_to_addr(b"WATCHDOG=1", &manager);
            }
        }))
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.watchdog.take().inspect(JoinHandle::abort);
    }
}

/// A path, or with a leading `@` a name in the abstract namespace.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the service.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
