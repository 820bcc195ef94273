//! What the engine gives up on by itself, before a lane has the request.

use pingora::{
    Error, ErrorSource, ErrorType,
    proxy::{FailToProxy, Session},
};

use crate::{
    fault::{Fault, FaultKind},
    proxy::{body_limits, context::RequestContext, reply},
};

/// The end of a request that the engine could not serve.
pub(in crate::proxy) async fn failed(
    session: &mut Session,
    ctx: &mut RequestContext,
    error: &Error,
) -> FailToProxy {
    let torn = FailToProxy { error_code: 0, can_reuse_downstream: false };
    if ctx.fault.is_some() {
        // Another lane has dealt with it; all that is left is to close.
        return torn;
    }
    let fault = fault_of(error);
    match reply::fault(session, ctx, &fault).await {
        reply::Replied::Whole => FailToProxy { error_code: fault.kind.status(), can_reuse_downstream: false },
        reply::Replied::Torn => torn,
    }
}

fn fault_of(error: &Error) -> Fault {
    if let Some(fault) = body_limits::malformed(error) {
        return fault;
    }
    let (kind, message) = match (error.esource(), error.etype()) {
        (
            ErrorSource::Downstream,
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed,
        ) => (FaultKind::ClientClosed, "the client went away"),
        (ErrorSource::Downstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            (FaultKind::RequestTimeout, "the request body took too long")
        }
        (ErrorSource::Downstream, ErrorType::HTTPStatus(413)) => {
            (FaultKind::BodyTooLarge, "the request body is too large")
        }
        (ErrorSource::Downstream, _) => (FaultKind::BadRequest, "the request is not valid HTTP"),
        (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            (FaultKind::UpstreamTimeout, "the upstream did not answer in time")
        }
        (
            _,
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert
            | ErrorType::SocketError,
        ) => (FaultKind::UpstreamConnect, "the upstream cannot be reached"),
        (ErrorSource::Upstream, _) => (FaultKind::UpstreamBroken, "the upstream broke the exchange"),
        _ => (FaultKind::Internal, "the gateway failed"),
    };
    Fault::new(kind, message).because(error.to_string())
}
