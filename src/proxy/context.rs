//! What is learned about a request on its way.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, Uri};

use super::{
    arrival::ClientIdentity,
    body_limits::BodyLimits,
    forwarded::Sender,
    snapshot::{CompiledRoute, Snapshot},
};
use crate::{
    auth::Caller,
    config::{entrypoint::PathPolicy, service::ProxyProtocol},
    fault::FaultKind,
    plugin::Version,
    telemetry::InFlight,
    upstream::Preamble,
};

/// Lives from the first byte of a request to its access record.
pub struct RequestContext {
    pub(super) started: Instant,
    pub(super) received: SystemTime,
    pub(super) id: Arc<str>,
    /// Names the request in the books. Never the client's choice: a repeated id
    /// would be booked once.
    pub(super) booking: Arc<str>,
    pub(super) id_header: HeaderName,
    /// As the client sent it, whatever the chain makes of it.
    pub(super) uri: Uri,
    pub(super) entrypoint: Arc<str>,
    pub(super) client: IpAddr,
    pub(super) sender: Sender,
    pub(super) tls_version: Option<&'static str>,
    /// Who the client proved to be by its certificate.
    pub(super) client_certificate: Option<Arc<ClientIdentity>>,
    /// What the entrypoint bounds its requests with.
    pub(super) body: BodyLimits,
    pub(super) path: PathPolicy,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) route: Option<Arc<CompiledRoute>>,
    pub(super) caller: Option<Arc<Caller>>,
    /// Filters that saw the request, in order: the versions it began with.
    pub(super) filters: Vec<Arc<Version>>,
    /// Set on the response whoever makes it: request id, rate-limit state.
    pub(super) response_headers: HeaderMap,
    /// Indices of targets already tried.
    pub(super) tried: Vec<usize>,
    pub(super) target: Option<Arc<str>>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// When the upstream's head arrived, after the start.
    pub(super) upstream: Option<Duration>,
    pub(super) fault: Option<FaultKind>,
    pub(super) llm: Option<Box<LlmRecord>>,
    pub(super) in_flight: Option<InFlight>,
}

/// What the access record and the metrics tell of an LLM request.
#[derive(Debug, Default)]
pub(super) struct LlmRecord {
    pub(super) model: String,
    pub(super) provider: String,
    pub(super) provider_model: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cost_nano_usd: Option<i64>,
    pub(super) attempts: u32,
    pub(super) time_to_first_token: Option<Duration>,
    pub(super) stream: bool,
    pub(super) ending: &'static str,
}

impl RequestContext {
    pub(super) fn new() -> Self {
        let id: Arc<str> = ulid::Ulid::new().to_string().into();
        Self {
            started: Instant::now(),
            received: SystemTime::now(),
            booking: id.clone(),
            id,
            id_header: HeaderName::from_static("x-request-id"),
            uri: Uri::default(),
            entrypoint: Arc::from(""),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            sender: Sender::UNKNOWN,
            tls_version: None,
            client_certificate: None,
            body: BodyLimits::default(),
            path: PathPolicy::default(),
            snapshot: None,
            route: None,
            caller: None,
            filters: Vec::new(),
            response_headers: HeaderMap::new(),
            tried: Vec::new(),
            target: None,
            request_bytes: 0,
            response_bytes: 0,
            upstream: None,
            fault: None,
            llm: None,
            in_flight: None,
        }
    }

    /// How a target that wants it is told whom a connection is for. The port is
    /// 0 where only the address is known.
    pub(super) fn preamble(&self, version: ProxyProtocol) -> Preamble {
        let sender = self.sender.address;
        let port = if sender.ip() == self.client { sender.port() } else { 0 };
        let source = SocketAddr::new(self.client, port);
        Preamble { version, source, destination: self.sender.local }
    }
}
