//! Endpoint plugins: a `wasi:http` handler that gives the whole response.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use wasmtime::Result as Wasm;
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody, WasiHttpView,
    p2::bindings::http::types::{ErrorCode, Scheme},
};

use crate::telemetry::Hook;

use super::{PluginFault, instance::Instance, version::Version};

pub type BodyError = Box<dyn Error + Send + Sync>;

/// A body in either direction: streamed, with trailers if any.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there already.
pub fn body(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// From the call to the response head.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// What a handler may still do once nobody reads its response.
const FAREWELL: Duration = Duration::from_secs(5);
/// Endpoint calls may compute this many times `limits.time_per_call`.
const TIME_FACTOR: u32 = 10;

type Head = Result<Response<WasiBody>, ErrorCode>;

/// The two sides of a running call: what the handler's task holds.
struct Call {
    head: oneshot::Sender<Head>,
    /// Resolves when the caller or the response body is dropped.
    abandoned: oneshot::Receiver<()>,
    /// Set before the instance goes: a body cut short by a failed handler must
    /// not look like a whole one.
    failed: Arc<AtomicBool>,
}

impl Version {
    /// Returns once the response head is known. Both bodies go on streaming;
    /// a handler that fails later ends its response body with an error.
    pub async fn serve(self: Arc<Self>, mut request: Request<Body>) -> Result<Response<Body>, PluginFault> {
        if request.uri().authority().is_none() && !request.headers().contains_key(HOST) {
            // wasi:http demands an authority; HTTP/1.0 clients may send none.
            request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        }
        let (head, head_receiver) = oneshot::channel();
        let (reader, abandoned) = oneshot::channel();
        let failed = Arc::new(AtomicBool::new(false));
        let call = Call { head, abandoned, failed: failed.clone() };
        let task = tokio::spawn(self.clone().handle(request, call));
        match timeout(HEAD_WAIT, head_receiver).await {
            Ok(Ok(Ok(response))) => {
                Ok(response.map(|body| Tail { body, failed, _reader: reader }.boxed_unsync()))
            }
            Ok(Ok(Err(_))) => Err(PluginFault::Invalid("an error instead of a response")),
            Ok(Err(_)) => match task.await {
                Ok(Ok(())) => Err(PluginFault::Invalid("no response")),
                Ok(Err(fault)) => Err(fault),
                Err(_) => Err(PluginFault::Trapped),
            },
            Err(_) => {
                task.abort();
                self.count(Hook::Serve, Duration::ZERO, true);
                Err(PluginFault::TimedOut)
            }
        }
    }

    async fn handle(self: Arc<Self>, request: Request<Body>, call: Call) -> Result<(), PluginFault> {
        let mut lease =
            self.pool.lease().await.inspect_err(|_| self.count(Hook::Serve, Duration::ZERO, true))?;
        let Call { head, abandoned, failed } = call;
        let limit = self.limits.time_per_call * TIME_FACTOR;
        let instance = &mut lease.instance;
        let meter = instance.meter.clone();
        let outcome = tokio::select! {
            outcome = meter.run(limit, enter(instance, request, head)) => Some(outcome),
            () = farewell(abandoned) => None,
        };
        failed.store(!matches!(outcome, Some(Ok(()))), Ordering::Release);
        self.finish(Hook::Serve, lease, outcome, |()| Ok(()))
    }
}

async fn enter(instance: &mut Instance, request: Request<Body>, head: oneshot::Sender<Head>) -> Wasm<()> {
    let store = &mut instance.store;
    store.set_epoch_deadline(1);
    let scheme = if request.uri().scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
    let request = request.map(|body| body.map_err(|_| HttpError::ConnectionTerminated));
    let request = store.data_mut().http().new_incoming_request(scheme, request)?;
    let response = store.data_mut().http().new_response_outparam(head)?;
    let Some(guest) = &instance.exports.endpoint else {
        return Err(wasmtime::Error::msg("the endpoint is not exported"));
    };
    guest.call_handle(store, request, response).await
}

async fn farewell(abandoned: oneshot::Receiver<()>) {
    // Nothing is ever sent: the channel ends when the other side is dropped.
    let _ = abandoned.await;
    sleep(FAREWELL).await;
}

/// A response body that knows whether its handler failed.
struct Tail {
    body: WasiBody,
    failed: Arc<AtomicBool>,
    _reader: oneshot::Sender<()>,
}

impl hyper::body::Body for Tail {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) if self.failed.load(Ordering::Acquire) => {
                Poll::Ready(Some(Err("the plugin failed before the end of its response".into())))
            }
            poll => poll.map(|frame| frame.map(|result| result.map_err(BodyError::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
