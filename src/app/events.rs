//! What the doors tell, in the metrics and, of connections passed on, in the
//! access log.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use parking_lot::RwLock;

use crate::{
    server::FrontEvents,
    telemetry::{AccessLog, EntrypointMetrics, Metrics, Shed, StreamMetrics, StreamRecord},
};

/// Connections that never become requests, in the metrics.
pub(super) struct Events {
    metrics: Arc<Metrics>,
    access_log: Arc<AccessLog>,
    /// A few names, looked up for each connection.
    entrypoints: RwLock<HashMap<String, Arc<EntrypointMetrics>>>,
}

impl Events {
    pub(super) fn new(metrics: Arc<Metrics>, access_log: Arc<AccessLog>) -> Self {
        Self { metrics, access_log, entrypoints: RwLock::default() }
    }

    fn of(&self, entrypoint: &str) -> Arc<EntrypointMetrics> {
        if let Some(known) = self.entrypoints.read().get(entrypoint) {
            return known.clone();
        }
        let new = self.metrics.entrypoint(entrypoint);
        self.entrypoints.write().entry(entrypoint.to_owned()).or_insert(new).clone()
    }
}

impl FrontEvents for Events {
    fn connection_opened(&self, entrypoint: &str) {
        self.of(entrypoint).opened();
    }

    fn connection_closed(&self, entrypoint: &str) {
        self.of(entrypoint).closed();
    }

    fn connection_shed(&self, entrypoint: &str, why: Shed) {
        self.of(entrypoint).shed(why);
    }

    fn accept_failed(&self, entrypoint: &str) {
        self.of(entrypoint).accept_failed();
    }

    fn handshake_failed(&self, entrypoint: &str, reason: &'static str) {
        self.of(entrypoint).tls_failed(reason);
    }

    fn certificates(&self, entrypoint: &str, ends: &[(String, SystemTime)]) {
        self.metrics.certificates(entrypoint, ends);
    }

    fn proxy_header_refused(&self, entrypoint: &str) {
        self.of(entrypoint).proxy_header_refused();
    }

    fn stream_metrics(&self, service: &str) -> Option<Arc<StreamMetrics>> {
        Some(self.metrics.stream(service))
    }

    fn stream_ended(&self, record: &StreamRecord<'_>) {
        self.access_log.write_stream(record);
    }

    fn refused(&self, entrypoint: &str, status: u16) {
        tracing::debug!(entrypoint, status, "malformed request refused");
        self.of(entrypoint).refused();
    }

    fn http2_cut(&self, entrypoint: &str, reason: &'static str) {
        tracing::debug!(entrypoint, reason, "HTTP/2 connection cut");
        self.metrics.http2_cut(entrypoint, reason);
    }
}
