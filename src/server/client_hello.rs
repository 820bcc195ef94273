//! What a connection opens with, seen without taking it: the name in a TLS
//! ClientHello, or that it is none.

use std::io;

use rustls::server::Acceptor;

use super::incoming::Incoming;

/// A ClientHello with post-quantum shares and a long ticket has some 3 KiB.
const MOST: usize = 16 * 1024;
/// The type of a TLS record that carries a handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// RFC 8737: a certificate authority looks, not a client.
const ACME: &[u8] = b"acme-tls/1";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Tls {
        /// In lower case.
        sni: Option<String>,
        acme: bool,
    },
    /// Not TLS.
    Other,
}

/// Reads until it is clear what opens the connection; the bytes stay for
/// whoever serves it. Waits for as long as it is polled. Cancel safe.
///
/// # Errors
/// When the client leaves first, or a ClientHello has more than 16 KiB.
pub(super) async fn opening(socket: &mut Incoming) -> io::Result<Opening> {
    let mut seen = 0;
    let mut acceptor = Acceptor::default();
    loop {
        if socket.ahead().first().is_some_and(|first| *first != HANDSHAKE) {
            return Ok(Opening::Other);
        }
        while seen < socket.ahead().len() {
            seen += acceptor.read_tls(&mut &socket.ahead()[seen..])?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(of(&accepted.client_hello())),
                Ok(None) => {}
                Err(_) => return Ok(Opening::Other),
            }
        }
        if seen >= MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if socket.look().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn of(hello: &rustls::server::ClientHello<'_>) -> Opening {
    Opening::Tls {
        sni: hello.server_name().map(str::to_ascii_lowercase),
        acme: hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME)),
    }
}
