//! Bytes through: which target, what it is sent, what comes back, what a
//! failure means. Bodies are never looked at here.
//!
//! Exchanges are carried by [`forward`], which has a deadline for each wait and
//! carries trailers. WebSocket goes through pingora's own loop in
//! [`pass_through`], which can splice raw bytes.

mod delivery;
mod forward;
mod head;
mod pass_through;
mod upload;

use http::{Version, header};
use pingora::proxy::Session;

pub(super) use forward::forward;
pub(super) use head::is_hop_by_hop;
pub(super) use pass_through::{connect_failed, count_body, failed, peer, request_head, response_head};

/// Whether pingora's loop must carry this request: a WebSocket handshake. Any
/// other upgrade is not taken up, and the request served as if it had not been
/// asked for (RFC 9110 section 7.8).
pub(super) fn needs_pass_through(session: &Session) -> bool {
    let head = session.req_header();
    let websocket = || {
        let mut asked = head.headers.get_all(header::UPGRADE).iter();
        asked.any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
    };
    head.version == Version::HTTP_11 && websocket() && session.as_downstream().is_upgrade_req()
}
