//! Hook calls: lease, enter under limits, check what came back, count.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use wasmtime::{Result as Wasm, Trap};

use crate::telemetry::Hook;

use super::{
    PluginFault,
    api::{
        AdmissionVerdict, Attempt, Booking, Credential, Edit, EndSummary, FailedAttempt, LlmRequest,
        NextStep, Outcome, Refusal, RequestHead, RequestVerdict, ResponseHead,
    },
    instance::WAITING,
    limits::Meter,
    output,
    pool::Lease,
    version::Version,
};

/// Leases an instance, calls one exported function, checks its output.
macro_rules! call_hook {
    ($version:ident, $hook:expr, $interface:ident . $function:ident ( $($argument:expr),* ), $check:expr) => {{
        let mut lease = $version.pool.lease().await.inspect_err(|_| $version.count($hook, Duration::ZERO, true))?;
        let instance = &mut lease.instance;
        let Some(guest) = &instance.exports.$interface else {
            return Err(PluginFault::Invalid("the hook is not exported"));
        };
        instance.store.set_epoch_deadline(1);
        let call = guest.$function(&mut instance.store, $($argument),*);
        let outcome = $version.bounded(&instance.meter, call).await;
        $version.finish($hook, lease, outcome, $check)
    }};
}

impl Version {
    pub async fn on_request(&self, head: RequestHead) -> Result<RequestVerdict, PluginFault> {
        call_hook!(self, Hook::OnRequest, filter.call_on_request(&head), output::request_verdict)
    }

    pub async fn on_response(&self, head: ResponseHead) -> Result<Vec<Edit>, PluginFault> {
        call_hook!(self, Hook::OnResponse, filter.call_on_response(&head), |edits| output::edits(edits))
    }

    pub async fn on_end(&self, summary: EndSummary) -> Result<(), PluginFault> {
        call_hook!(self, Hook::OnEnd, filter.call_on_end(&summary), |()| Ok(()))
    }

    pub async fn admit(&self, request: &LlmRequest) -> Result<AdmissionVerdict, PluginFault> {
        call_hook!(self, Hook::Admit, admission.call_admit(request), output::admission)
    }

    /// Indices into the request's candidates: each in range, none twice, at least one.
    pub async fn plan(&self, request: &LlmRequest) -> Result<Result<Vec<u32>, Refusal>, PluginFault> {
        let candidates = request.candidates.len();
        call_hook!(self, Hook::Plan, planner.call_plan(request), |plan| output::plan(plan, candidates))
    }

    pub async fn after_failure(
        &self,
        request: &LlmRequest,
        failed: &[FailedAttempt],
    ) -> Result<NextStep, PluginFault> {
        let candidates = request.candidates.len();
        call_hook!(self, Hook::AfterFailure, planner.call_after_failure(request, failed), |step| {
            output::next_step(step, candidates)
        })
    }

    pub async fn credential_for(
        &self,
        attempt: &Attempt,
    ) -> Result<Result<Credential, Refusal>, PluginFault> {
        call_hook!(self, Hook::CredentialFor, credentials.call_credential_for(attempt), output::credential)
    }

    pub async fn settle(&self, request: &LlmRequest, outcome: &Outcome) -> Result<Booking, PluginFault> {
        call_hook!(self, Hook::Settle, settlement.call_settle(request, outcome), output::booking)
    }

    /// None: the call waited for too long and was dropped.
    async fn bounded<T>(&self, meter: &Meter, call: impl Future<Output = Wasm<T>>) -> Option<Wasm<T>> {
        let limit = self.limits.time_per_call;
        timeout(limit + WAITING, meter.run(limit, call)).await.ok()
    }

    /// Only a call that returned gives its instance back. `outcome` is none
    /// if the call was dropped because it waited for too long.
    pub(super) fn finish<T>(
        &self,
        hook: Hook,
        lease: Lease<'_>,
        outcome: Option<Wasm<T>>,
        check: impl FnOnce(&T) -> Result<(), &'static str>,
    ) -> Result<T, PluginFault> {
        let computed = lease.instance.meter.used();
        let result = match outcome {
            Some(Ok(value)) => {
                lease.give_back();
                match check(&value) {
                    Ok(()) => Ok(value),
                    Err(problem) => Err((PluginFault::Invalid(problem), None)),
                }
            }
            Some(Err(error)) => {
                let fault = PluginFault::of(&error, lease.instance.store.data().memory.refused);
                Err((fault, Some(error)))
            }
            None => Err((PluginFault::TimedOut, None)),
        };
        self.count(hook, computed, result.is_err());
        result.map_err(|(fault, cause)| {
            self.report(hook, fault, cause.as_ref());
            fault
        })
    }

    fn report(&self, hook: Hook, fault: PluginFault, cause: Option<&wasmtime::Error>) {
        if !self.pool.blueprint().identity.log_limit.allows(Instant::now()) {
            return;
        }
        let (plugin, version, hook) = (&*self.name, self.number, hook.label());
        let root = cause.map(|error| error.root_cause().to_string());
        tracing::warn!(plugin, version, hook, %fault, cause = root, "plugin call failed");
        if let Some(error) = cause {
            tracing::debug!(plugin, version, hook, ?error, "plugin call failed");
        }
    }
}

impl PluginFault {
    /// `memory_refused`: whether the instance was denied memory before it failed.
    pub(super) fn of(error: &wasmtime::Error, memory_refused: bool) -> Self {
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::TimedOut,
            _ if memory_refused => Self::OutOfMemory,
            _ => Self::Trapped,
        }
    }
}
