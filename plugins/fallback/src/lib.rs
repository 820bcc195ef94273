//! Fallback: providers in the configured order, resting ones last; the next
//! one when a failure is not the request's own fault.

use serde::Deserialize;
use tollgate_sdk::{
    LlmRequest, Planner, Plugin, Refusal,
    planner::{FailedAttempt, NextStep},
};

mod plan;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fallback {
    /// Longest wait before the same candidate is asked again.
    max_wait_ms: u64,
    /// How often a candidate is asked again when there is no other left.
    same_candidate_retries: u32,
}

impl Default for Fallback {
    fn default() -> Self {
        Self { max_wait_ms: 2_000, same_candidate_retries: 1 }
    }
}

impl Plugin for Fallback {
    fn configure(config: &str) -> Result<Self, String> {
        tollgate_sdk::parse_config(config)
    }
}

impl Planner for Fallback {
    fn plan(&self, request: LlmRequest) -> Result<Vec<u32>, Refusal> {
        Ok(plan::order(&request.candidates))
    }

    fn after_failure(&self, request: LlmRequest, failed: Vec<FailedAttempt>) -> NextStep {
        plan::after_failure(self, &request.candidates, &failed)
    }
}

tollgate_sdk::export!(Fallback: planner);
