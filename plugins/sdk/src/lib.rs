//! SDK for Tollgate plugins in Rust: implement [`Plugin`] and the hooks you
//! need, then name them once in [`export!`].
//!
//! ```
//! use tollgate_sdk::{HttpFilter, Plugin, RequestHead, RequestVerdict, edit};
//!
//! struct Stamp(String);
//!
//! impl Plugin for Stamp {
//!     fn configure(config: &str) -> Result<Self, String> {
//!         Ok(Self(tollgate_sdk::parse_config(config)?))
//!     }
//! }
//!
//! impl HttpFilter for Stamp {
//!     fn on_request(&self, _request: RequestHead) -> RequestVerdict {
//!         RequestVerdict::Edit(vec![edit::set("x-stamp", &self.0)])
//!     }
//! }
//!
//! tollgate_sdk::export!(Stamp: http_filter);
//! # fn main() {}
//! ```
//!
//! The component exports what the macro names and imports only the host
//! interfaces that are called through [`host::Gateway`], so the operator grants
//! no more than the plugin needs. Logic that takes the traits of [`host`] is
//! tested natively with the doubles of [`testing`].

mod export;
mod hooks;
mod http_filter;

pub mod host;
pub mod http;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[doc(hidden)]
pub mod wit;

#[doc(hidden)]
pub use export::Slot;
pub use hooks::{Admission, Credentials, Endpoint, HttpFilter, Planner, Plugin, Settlement, parse_config};
pub use http_filter::edit;

pub use wit::host::tollgate::plugin::{
    llm_types::{Candidate, FailureClass, LlmRequest, Price, Usage},
    types::{Caller, Refusal, RefusalReason},
};

/// Types of [`Admission`].
pub mod admission {
    pub use crate::wit::admission::exports::tollgate::plugin::admission::{AdmissionVerdict, Cap, Hold};
}

/// Types of [`Planner`].
pub mod planner {
    pub use crate::wit::planner::exports::tollgate::plugin::planner::{FailedAttempt, NextStep};
}

/// Types of [`Credentials`].
pub mod credentials {
    pub use crate::wit::credentials::exports::tollgate::plugin::credentials::{Attempt, Credential};
}

/// Types of [`Settlement`].
pub mod settlement {
    pub use crate::wit::settlement::exports::tollgate::plugin::settlement::{Booking, Ending, Outcome};
}

pub use wit::http_filter::exports::tollgate::plugin::http_filter::{
    Edit, EndSummary, Reply, RequestHead, RequestVerdict, ResponseHead,
};
pub use wit::lifecycle::exports::tollgate::plugin::lifecycle::Subscription;
