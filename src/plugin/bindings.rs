//! The ABI as Rust: generated from `wit/`, and which parts of it a component has.

use wasmtime::{
    Result, Store,
    component::{Instance, InstancePre},
};
use wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler;

use super::{instance::InstanceState, version::Hooks};

mod generated {
    #![allow(unreachable_pub, clippy::all, reason = "generated code")]

    wasmtime::component::bindgen!({
        path: "wit",
        inline: "
            package tollgate:host;
            world hooks {
                import tollgate:plugin/log@0.1.0;
                import tollgate:plugin/key-value@0.1.0;
                import tollgate:plugin/ledger@0.1.0;
                import tollgate:plugin/secrets@0.1.0;
                import tollgate:plugin/control@0.1.0;

                export tollgate:plugin/lifecycle@0.1.0;
                export tollgate:plugin/http-filter@0.1.0;
                export tollgate:plugin/admission@0.1.0;
                export tollgate:plugin/planner@0.1.0;
                export tollgate:plugin/credentials@0.1.0;
                export tollgate:plugin/settlement@0.1.0;
            }
        ",
        world: "tollgate:host/hooks",
        imports: {
            "tollgate:plugin/key-value": async,
            "tollgate:plugin/ledger": async,
            "tollgate:plugin/secrets.seal": async,
            "tollgate:plugin/secrets.remove": async,
            "tollgate:plugin/control.load-plugin": async,
        },
        exports: { default: async },
        require_store_data_send: true,
    });
}

pub(super) use generated::{Hooks as World, tollgate::plugin as imports};

use generated::exports::tollgate::plugin::{
    admission, credentials, http_filter, lifecycle, planner, settlement,
};

/// What hooks take and return, named as in `wit/`.
pub mod api {
    pub use super::generated::{
        exports::tollgate::plugin::{
            admission::{AdmissionVerdict, Cap, Hold},
            credentials::{Attempt, Credential},
            http_filter::{Edit, EndSummary, Reply, RequestHead, RequestVerdict, ResponseHead},
            planner::{FailedAttempt, NextStep},
            settlement::{Booking, Ending, Outcome},
        },
        tollgate::plugin::{
            llm_types::{Candidate, FailureClass, LlmRequest, Price, Usage},
            types::{Caller, Refusal, RefusalReason},
        },
    };
}

pub(super) use lifecycle::Subscription as WantedSubscription;

/// Where a component's exports are, looked up once per version.
pub(super) struct Indices {
    lifecycle: lifecycle::GuestIndices,
    filter: Option<http_filter::GuestIndices>,
    admission: Option<admission::GuestIndices>,
    planner: Option<planner::GuestIndices>,
    credentials: Option<credentials::GuestIndices>,
    settlement: Option<settlement::GuestIndices>,
    endpoint: Option<incoming_handler::GuestIndices>,
}

/// The callable exports of one instance.
pub(super) struct Exports {
    pub(super) lifecycle: lifecycle::Guest,
    pub(super) filter: Option<http_filter::Guest>,
    pub(super) admission: Option<admission::Guest>,
    pub(super) planner: Option<planner::Guest>,
    pub(super) credentials: Option<credentials::Guest>,
    pub(super) settlement: Option<settlement::Guest>,
    pub(super) endpoint: Option<incoming_handler::Guest>,
}

impl Indices {
    pub(super) fn find(pre: &InstancePre<InstanceState>, hooks: Hooks) -> Result<Self> {
        Ok(Self {
            lifecycle: lifecycle::GuestIndices::new(pre)?,
            filter: hooks.filter.then(|| http_filter::GuestIndices::new(pre)).transpose()?,
            admission: hooks.admission.then(|| admission::GuestIndices::new(pre)).transpose()?,
            planner: hooks.planner.then(|| planner::GuestIndices::new(pre)).transpose()?,
            credentials: hooks.credentials.then(|| credentials::GuestIndices::new(pre)).transpose()?,
            settlement: hooks.settlement.then(|| settlement::GuestIndices::new(pre)).transpose()?,
            endpoint: hooks.endpoint.then(|| incoming_handler::GuestIndices::new(pre)).transpose()?,
        })
    }

    /// Also checks the types of the exports.
    pub(super) fn load(&self, store: &mut Store<InstanceState>, instance: &Instance) -> Result<Exports> {
        let filter = self.filter.as_ref();
        let admission = self.admission.as_ref();
        let planner = self.planner.as_ref();
        let credentials = self.credentials.as_ref();
        let settlement = self.settlement.as_ref();
        let endpoint = self.endpoint.as_ref();
        Ok(Exports {
            lifecycle: self.lifecycle.load(&mut *store, instance)?,
            filter: filter.map(|indices| indices.load(&mut *store, instance)).transpose()?,
            admission: admission.map(|indices| indices.load(&mut *store, instance)).transpose()?,
            planner: planner.map(|indices| indices.load(&mut *store, instance)).transpose()?,
            credentials: credentials.map(|indices| indices.load(&mut *store, instance)).transpose()?,
            settlement: settlement.map(|indices| indices.load(&mut *store, instance)).transpose()?,
            endpoint: endpoint.map(|indices| indices.load(&mut *store, instance)).transpose()?,
        })
    }
}
