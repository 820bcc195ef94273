//! One process takes over from another without a connection refused: sockets
//! and store change hands over a socket between the two.
//!
//! ```text
//! old: Socket (with descriptor) ..., Store (with descriptor), Begin
//! new: Prepared        has everything but the store, asks the old one for it
//! old: Go              has closed the store
//! new: Ready           has the store, accepts
//! old:                 asks the new one for the store, closes its doors, drains
//! ```
//!
//! Until `Ready` the old process accepts; whatever fails before leaves it serving.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixDatagram as StdDatagram, UnixStream as StdStream},
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::Interest,
    net::{UnixDatagram, UnixStream},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    server::{Inherited, Socket},
    state::{Handover, StoreError, Successor},
};

/// Tells the new process that its standard input is the socket to the old one.
const VARIABLE: &str = "TOLLGATE_UPGRADE";
/// Reading the configuration, compiling plugins.
const PREPARE: Duration = Duration::from_secs(60);
/// Opening the store.
const TAKE_OVER: Duration = Duration::from_secs(30);
/// Any other step.
const STEP: Duration = Duration::from_secs(10);
const LONGEST: usize = 4096;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    Socket { name: String, asked: SocketAddr },
    Store,
    Begin { generation: u64 },
    Prepared,
    Go,
    Ready,
}

/// Why the old process goes on serving.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("the new process ended ({0}); its own log says why")]
    Ended(ExitStatus),
    #[error("the new process was not ready in time")]
    TimedOut,
    #[error("the new process does not speak as expected: {0}")]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the process was told to stop")]
    Stopped,
    #[error("the process before this one still finishes what it began; try again later")]
    TooSoon,
}

/// The program to start for an upgrade: what was started, by the name by which
/// it was started, so that a replaced file and a moved link are followed.
pub(super) struct Program {
    name: PathBuf,
    /// Where it was, if the name leads nowhere.
    file: Option<PathBuf>,
}

impl Program {
    /// To be called at the start, before anything is replaced.
    pub(super) fn new() -> Self {
        let file = std::env::current_exe().ok();
        let name = std::env::args_os().next().filter(|name| !name.is_empty()).map(PathBuf::from);
        Self { name: name.or_else(|| file.clone()).unwrap_or_default(), file }
    }

    fn start(&self, socket: &OwnedFd) -> Result<Child, UpgradeError> {
        let start = |program: &PathBuf| {
            let mut command = Command::new(program);
            command.args(std::env::args_os().skip(1)).env(VARIABLE, "1");
            // Said of this process, not of the next.
            for stale in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
                command.env_remove(stale);
            }
            command.stdin(Stdio::from(socket.try_clone()?)).spawn()
        };
        let started = match (start(&self.name), &self.file) {
            (Err(error), Some(file)) if error.kind() == io::ErrorKind::NotFound => start(file),
            (started, _) => started,
        };
        started.map_err(|source| UpgradeError::Start { program: self.name.display().to_string(), source })
    }
}

/// What the old process passes on.
pub(super) struct Estate {
    pub(super) sockets: Vec<Socket>,
    pub(super) store: Option<Arc<dyn Handover>>,
    /// Of the new process.
    pub(super) generation: u64,
}

/// The process that took over.
pub(super) struct Heir {
    pub(super) pid: u32,
    /// Open as long as this process lives, for [`Predecessor::is_alive`].
    _channel: Channel,
}

/// Starts `program` and passes everything on. Returns once that serves. On any error, `stop` included, the new process is
/// gone and the estate is back in this one.
pub(super) async fn hand_over(
    program: &Program,
    estate: Estate,
    stop: impl Future<Output = ()>,
) -> Result<Heir, UpgradeError> {
    let (channel, theirs) = Channel::pair()?;
    let mut child = program.start(&theirs)?;
    drop(theirs);
    let pid = child.id().unwrap_or_default();
    let handed = tokio::select! {
        handed = converse(&channel, &estate) => handed,
        () = stop => Err(UpgradeError::Stopped),
    };
    let error = match handed {
        Ok(successor) => {
            if let Some(successor) = successor {
                successor.follow();
            }
            return Ok(Heir { pid, _channel: channel });
        }
        Err(error) => error,
    };
    let error = end(&mut child, error).await;
    if let Some(store) = &estate.store {
        store.take().await?;
    }
    Err(error)
}

async fn converse(channel: &Channel, estate: &Estate) -> Result<Option<Box<dyn Successor>>, UpgradeError> {
    for socket in &estate.sockets {
        let message = Message::Socket { name: socket.name.to_string(), asked: socket.asked };
        channel.send(&message, Some(socket.listener.as_fd())).await?;
    }
    let mut successor = None;
    if let Some(store) = &estate.store {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        channel.send(&Message::Store, Some(theirs.as_fd())).await?;
        successor = Some(store.clone().offer(UnixStream::from_std(ours)?));
    }
    channel.send(&Message::Begin { generation: estate.generation }, None).await?;
    channel.expect(&Message::Prepared, PREPARE).await?;
    if let Some(store) = &estate.store {
        store.give().await?;
    }
    channel.send(&Message::Go, None).await?;
    channel.expect(&Message::Ready, TAKE_OVER).await?;
    Ok(successor)
}

/// Makes sure that the new process is gone; if it went by itself, that is the error.
async fn end(child: &mut Child, error: UpgradeError) -> UpgradeError {
    let hung_up = matches!(&error, UpgradeError::Broken(e) if e.kind() == io::ErrorKind::UnexpectedEof);
    if hung_up && let Ok(Ok(status)) = timeout(STEP, child.wait()).await {
        return UpgradeError::Ended(status);
    }
    // Killed and waited for: what it locked is free afterwards.
    match child.kill().await {
        Ok(()) => error,
        Err(_) => child.wait().await.map_or_else(UpgradeError::Broken, |status| match error {
            UpgradeError::Broken(_) => UpgradeError::Ended(status),
            error => error,
        }),
    }
}

/// The process that this one takes over from.
pub(super) struct Predecessor {
    channel: Channel,
    pub(super) sockets: Vec<Inherited>,
    pub(super) store: Option<UnixStream>,
    pub(super) generation: u64,
}

impl Predecessor {
    /// If there is one: what it passed on. Needs a runtime.
    pub(super) async fn from_environment() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?)?;
        let mut this = Self { channel, sockets: Vec::new(), store: None, generation: 0 };
        loop {
            match timeout(STEP, this.channel.receive()).await?? {
                (Message::Socket { name, asked }, Some(descriptor)) => this.sockets.push(Inherited {
                    name: Some(name),
                    asked: Some(asked),
                    listener: descriptor.into(),
                }),
                (Message::Store, Some(descriptor)) => {
                    let stream = StdStream::from(descriptor);
                    stream.set_nonblocking(true)?;
                    this.store = Some(UnixStream::from_std(stream)?);
                }
                (Message::Begin { generation }, None) => {
                    this.generation = generation;
                    return Ok(Some(this));
                }
                (other, _) => return Err(io::Error::other(format!("unexpected {other:?}"))),
            }
        }
    }

    /// Everything but the store is here. Returns when the store may be opened.
    pub(super) async fn prepared(&self) -> io::Result<()> {
        self.channel.send(&Message::Prepared, None).await?;
        // Its own deadline for closing the store, and some more.
        self.channel.expect(&Message::Go, TAKE_OVER).await.map_err(io::Error::other)
    }

    /// This process serves.
    pub(super) async fn ready(&self) -> io::Result<()> {
        self.channel.send(&Message::Ready, None).await
    }

    /// Whether it still finishes what it began.
    pub(super) async fn is_alive(&self) -> bool {
        let gone = self.channel.receive();
        timeout(Duration::from_millis(1), gone).await.is_err()
    }
}

/// Messages with descriptors between the two processes.
struct Channel(UnixDatagram);

impl Channel {
    fn pair() -> io::Result<(Self, OwnedFd)> {
        // Keeps messages apart, as datagrams, and tells the end, as a stream.
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = StdDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(UnixDatagram::from_std(socket)?))
    }

    async fn send(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        let sent = timeout(STEP, self.0.async_io(Interest::WRITABLE, send)).await;
        match sent? {
            // The other side's end, whichever way it is told.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            sent => sent,
        }
    }

    async fn receive(&self) -> io::Result<(Message, Option<OwnedFd>)> {
        let receive = || {
            let mut bytes = [0; LONGEST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let descriptor = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok((serde_json::from_slice(&bytes[..received.bytes])?, descriptor))
        };
        match self.0.async_io(Interest::READABLE, receive).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            received => received,
        }
    }

    async fn expect(&self, wanted: &Message, patience: Duration) -> Result<(), UpgradeError> {
        match timeout(patience, self.receive()).await {
            Err(_) => Err(UpgradeError::TimedOut),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok((message, _))) if message == *wanted => Ok(()),
            Ok(Ok((other, _))) => Err(io::Error::other(format!("unexpected {other:?}")).into()),
        }
    }
}

/// Sockets that the service manager opened (`LISTEN_FDS`), with their names.
pub(super) fn activated_sockets() -> Vec<Inherited> {
    // Read before: the crate may clear them.
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let name = names.next().filter(|name| !name.is_empty());
        match passed.take_tcp_listener(index) {
            Ok(Some(listener)) => sockets.push(Inherited { name, asked: None, listener }),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, name, "an inherited descriptor is no TCP socket"),
        }
    }
    sockets
}
