//! The request's body on its way from the client to the target.

use bytes::Bytes;
use pingora::proxy::Session;

use super::forward::Failure;
use crate::{
    fault::{Fault, FaultKind},
    proxy::{
        body_limits::{self, BodyLimits},
        context::RequestContext,
    },
    upstream::Exchange,
};

/// How much of a body is kept for a second attempt.
const MOST_KEPT: usize = 64 * 1024;

pub(super) struct Upload {
    /// The client sent all of it.
    pub(super) done: bool,
    /// There is none.
    pub(super) bodiless: bool,
    /// The target takes no more of it; its answer may be on the way all the same.
    pub(super) refused: bool,
    /// All that came so far, to send it again; `None` once it is too much, or
    /// where no second attempt is thinkable.
    kept: Option<Vec<Bytes>>,
}

impl Upload {
    /// `repeatable`: whether a second attempt may be made at all.
    pub(super) fn of(session: &mut Session, repeatable: bool) -> Self {
        let done = session.as_downstream_mut().is_body_done();
        Self { done, bodiless: done, refused: false, kept: repeatable.then(Vec::new) }
    }

    /// The beginning of the body for another attempt, if it is all there.
    pub(super) fn again(&mut self) -> Option<Bytes> {
        self.refused = false;
        self.kept.as_ref().map(|kept| kept.concat().into())
    }

    /// From now on there is no other attempt.
    pub(super) fn committed(&mut self) {
        self.kept = None;
    }

    pub(super) fn repeatable(&self) -> bool {
        self.kept.is_some()
    }

    fn keep(&mut self, piece: &Bytes) {
        let Some(kept) = &mut self.kept else { return };
        if kept.iter().map(Bytes::len).sum::<usize>() + piece.len() > MOST_KEPT {
            self.kept = None;
        } else if !piece.is_empty() {
            kept.push(piece.clone());
        }
    }

    /// The next piece of the client's body, or, once that is `done`, the
    /// client's end, which is an error. Cancel safe.
    pub(super) async fn next(
        &self,
        session: &mut Session,
        limits: &mut BodyLimits,
    ) -> Result<Option<Bytes>, Fault> {
        if self.done {
            let left = session.as_downstream_mut().read_body_or_idle(true).await;
            return left.map_err(body_limits::client_failed);
        }
        limits.next(session).await
    }

    /// What [`Self::next`] brought, on to the target.
    pub(super) async fn step(
        &mut self,
        piece: Result<Option<Bytes>, Fault>,
        exchange: &mut Exchange,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<(), Failure> {
        let piece = match piece {
            Err(fault) => return Err(Failure::of(fault)),
            Ok(_) if self.done => {
                return Err(Failure::of(Fault::new(FaultKind::ClientClosed, "the client went away")));
            }
            Ok(piece) => piece,
        };
        // The end may come with the last piece rather than after it.
        self.done = piece.is_none() || session.as_downstream_mut().is_body_done();
        let piece = piece.unwrap_or_default();
        ctx.request_bytes += piece.len() as u64;
        self.keep(&piece);
        if !self.refused && (self.done || !piece.is_empty()) {
            self.refused = exchange.write_body(piece, self.done).await.is_err();
        }
        Ok(())
    }
}
