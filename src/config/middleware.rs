//! Native chain steps.

use std::time::Duration;

#[derive(Debug, Clone)]
pub enum Middleware {
    RequestId(RequestId),
    RateLimit(RateLimit),
    ApiKey(ApiKey),
}

impl Middleware {
    /// The key under which it is configured.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RequestId(_) => "request_id",
            Self::RateLimit(_) => "rate_limit",
            Self::ApiKey(_) => "api_key",
        }
    }
}

/// Where the request's id is sent to the upstream and the client. Every request
/// has an id; this step names its header and whether the client may choose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// Default `x-request-id`.
    pub header: http::HeaderName,
    /// Whether a well-formed incoming id is kept. Default false.
    pub trust_incoming: bool,
}

/// `limit: 5/min`: a sliding-window counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: u64,
    pub window: Duration,
    pub by: LimitBy,
    pub headers: LimitHeaders,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitBy {
    /// The authenticated caller, else the client address. Default.
    Consumer,
    Address,
    Header(http::HeaderName),
    /// One counter for all.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitHeaders {
    /// `RateLimit` and `RateLimit-Policy` (IETF draft). Default true.
    pub ietf: bool,
    /// `RateLimit-Limit`, `X-RateLimit-Limit-Minute` … (Kong). Default true.
    pub kong: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Headers looked at in order; `authorization` means its Bearer token.
    /// Default: `authorization`, `x-api-key`.
    pub headers: Vec<http::HeaderName>,
    /// Remove the key before the request goes on. Default true.
    pub hide: bool,
}
