//! Bytes through: which target, what it is sent, what comes back, what a
//! failure means. Bodies are never looked at here.
//!
//! Ordinary exchanges are carried by [`forward`], which has a deadline for each
//! wait. Upgrades and gRPC go through pingora's own loop in [`pass_through`],
//! which can splice raw bytes and carry trailers, but knows one read timeout only.

mod forward;
mod head;
mod pass_through;

use http::{Version, header};
use pingora::proxy::Session;

pub(super) use forward::forward;
pub(super) use head::is_hop_by_hop;
pub(super) use pass_through::{connect_failed, count_body, failed, peer, request_head, response_head};

/// Whether pingora's loop must carry this request.
pub(super) fn needs_pass_through(session: &Session) -> bool {
    let head = session.req_header();
    let grpc = head
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    grpc || (head.version <= Version::HTTP_11 && session.as_downstream().is_upgrade_req())
}
