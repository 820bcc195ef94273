//! Listening sockets: bound by us, or opened by another process and passed on.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::{TcpListener, TcpSocket};

use crate::config::Name;

/// Connections the kernel holds for us while we are busy.
const BACKLOG: u32 = 4096;

/// A listening socket that another process opened: the service manager, or the
/// process that this one replaces.
#[derive(Debug)]
pub struct Inherited {
    /// The entrypoint it is meant for, if it was named.
    pub name: Option<String>,
    /// The address as the configuration had it (port 0 stays 0); `None` if unknown.
    pub asked: Option<SocketAddr>,
    pub listener: std::net::TcpListener,
}

/// A listening socket of this process, to be passed on.
pub struct Socket {
    pub name: Name,
    /// As configured: port 0 stays 0.
    pub asked: SocketAddr,
    pub listener: Arc<TcpListener>,
}

impl Inherited {
    /// By name. A name without an address is enough: who named it meant it.
    pub(super) fn is_named(&self, name: &Name, address: SocketAddr) -> bool {
        self.name.as_deref() == Some(name.as_str()) && self.asked.is_none_or(|asked| asked == address)
    }

    /// By address. Port 0 never means the same socket.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let bound = self.listener.local_addr().ok();
        address.port() != 0 && (self.asked == Some(address) || bound == Some(address))
    }

    pub(super) fn open(self) -> io::Result<(TcpListener, SocketAddr)> {
        self.listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(self.listener)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    }
}

/// Binds and listens. The unspecified IPv6 address takes IPv4 as well, whatever
/// the system's default is; on a machine without IPv6 it means all of IPv4.
pub(super) fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    match listen(address) {
        Err(error) if is_unspecified_v6(address) && lacks_ipv6(&error) => {
            listen(SocketAddr::from(([0, 0, 0, 0], address.port())))
        }
        bound => bound,
    }
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a previous process in TIME_WAIT must not keep us out.
    socket.set_reuseaddr(true)?;
    if is_unspecified_v6(address) {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

fn is_unspecified_v6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}
