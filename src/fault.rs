//! What any failure can answer: whose fault it is, which status and label it
//! has, what the client may read. Only `proxy::reply` makes responses of it.

use std::{borrow::Cow, error::Error, fmt, time::Duration};

/// Why a request could not be served. Doubles as the metric and log label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    BadRequest,
    Unauthenticated,
    InsufficientCredit,
    Forbidden,
    NoRoute,
    UnknownModel,
    MethodNotAllowed,
    /// What is asked for needs HTTP/2.
    HttpVersion,
    RequestTimeout,
    BodyTooLarge,
    /// The connection was made for another host.
    Misdirected,
    RateLimited,
    /// The client went away; nobody reads the answer.
    ClientClosed,
    PluginFailed,
    UpstreamConnect,
    UpstreamBroken,
    UpstreamTimeout,
    /// An upstream's refusal that is passed on with its own status.
    UpstreamRefused,
    StoreUnavailable,
    Overloaded,
    Internal,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Client,
    Gateway,
    Upstream,
    Plugin,
}

/// One failure. `message` is for the client; the source is for the log only.
#[derive(Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: Cow<'static, str>,
    /// When the client may try again.
    pub retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    /// What went wrong underneath: logged, never shown.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl FaultKind {
    /// The HTTP status of a failure of this kind.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::InsufficientCredit => 402,
            Self::Forbidden => 403,
            Self::NoRoute | Self::UnknownModel => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::Misdirected => 421,
            Self::RateLimited => 429,
            // nginx's convention; only ever seen in the access log.
            Self::ClientClosed => 499,
            Self::Internal => 500,
            Self::PluginFailed | Self::UpstreamConnect | Self::UpstreamBroken | Self::UpstreamRefused => 502,
            Self::StoreUnavailable | Self::Overloaded => 503,
            Self::UpstreamTimeout => 504,
            Self::HttpVersion => 505,
        }
    }

    /// Label in metrics, logs and the `type` of problem documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Unauthenticated => "unauthenticated",
            Self::InsufficientCredit => "insufficient-credit",
            Self::Forbidden => "forbidden",
            Self::NoRoute => "no-route",
            Self::UnknownModel => "unknown-model",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::HttpVersion => "http-version",
            Self::RequestTimeout => "request-timeout",
            Self::BodyTooLarge => "body-too-large",
            Self::Misdirected => "misdirected",
            Self::RateLimited => "rate-limited",
            Self::ClientClosed => "client-closed",
            Self::PluginFailed => "plugin-failed",
            Self::UpstreamConnect => "upstream-connect",
            Self::UpstreamBroken => "upstream-broken",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::UpstreamRefused => "upstream-refused",
            Self::StoreUnavailable => "store-unavailable",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    pub fn party(self) -> Party {
        match self {
            Self::BadRequest
            | Self::Unauthenticated
            | Self::InsufficientCredit
            | Self::Forbidden
            | Self::NoRoute
            | Self::UnknownModel
            | Self::MethodNotAllowed
            | Self::HttpVersion
            | Self::RequestTimeout
            | Self::BodyTooLarge
            | Self::Misdirected
            | Self::RateLimited
            | Self::ClientClosed => Party::Client,
            Self::PluginFailed => Party::Plugin,
            Self::UpstreamConnect | Self::UpstreamBroken | Self::UpstreamTimeout | Self::UpstreamRefused => {
                Party::Upstream
            }
            Self::StoreUnavailable | Self::Overloaded | Self::Internal => Party::Gateway,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.message)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
