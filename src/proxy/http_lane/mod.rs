//! Bytes through: which target, what it is sent, what comes back, what a
//! failure means. Bodies are never looked at here.
//!
//! [`forward`] carries exchanges and their trailers, [`websocket`] what begins
//! as one; each wait has its deadline. Of the engine they use connections and
//! sessions; its own loop is not used, which may lose an upgrade whose answer
//! comes before it has noted the end of the request.

mod delivery;
mod engine;
mod forward;
mod head;
mod upload;
mod websocket;

pub(super) use engine::failed;
pub(super) use forward::forward;
pub(super) use head::is_hop_by_hop;
pub(super) use websocket::{is_websocket, websocket};
