//! What operators see: metrics, one access record per request, diagnostics.
//! Nothing here decides anything, and nothing here blocks a request.

mod access_log;
mod access_record;
mod handles;
mod logging;
mod metrics;
mod stream_record;

pub use access_log::AccessLog;
pub use access_record::{AccessRecord, LlmRecord};
pub use handles::{
    AttemptOutcome, EntrypointMetrics, Hook, HookOutcome, InFlight, ModelMetrics, OrderOutcome,
    PluginMetrics, ProviderMetrics, RateLimitMetrics, RouteMetrics, Settled, Shed, StreamFailure,
    StreamMetrics, TokenKind, UpstreamMetrics,
};
pub use logging::init_logging;
pub use metrics::Metrics;
pub use stream_record::StreamRecord;
