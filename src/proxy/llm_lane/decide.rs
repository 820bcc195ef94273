//! The decisions that plugins make, and what stands in when none makes them.

use std::{sync::Arc, time::Duration};

use super::Exchange;
use crate::{
    config::plugin::OnError,
    fault::{Fault, FaultKind},
    ledger::{HoldError, OpenHold},
    plugin::{PluginFault, Version, api},
    proxy::{
        context::RequestContext,
        snapshot::{CompiledRoute, Step},
    },
    state::{Cap, Denial, Hold},
};

/// How long a hold outlives the last sign of its request.
const LEASE: Duration = Duration::from_secs(60);

/// The plugins that decide for this request, on the versions it began with.
pub(super) struct Deciders {
    admission: Option<Arc<Version>>,
    planner: Option<Arc<Version>>,
    credentials: Option<Arc<Version>>,
    settlement: Option<Arc<Version>>,
}

/// The key that goes with an attempt.
pub(super) enum Key {
    /// By name of the provider's configured key.
    Platform,
    /// Sealed, by handle.
    Sealed(String),
    Anonymous,
}

/// What follows a failed attempt.
pub(super) enum Next {
    Attempt(usize),
    AttemptAfter(usize, Duration),
    GiveUp,
}

impl Deciders {
    pub(super) fn of(route: &CompiledRoute, ctx: &RequestContext) -> Self {
        let mut deciders = Self { admission: None, planner: None, credentials: None, settlement: None };
        for step in &route.chain {
            let Step::Plugin(slot) = step else { continue };
            // A request must not meet two versions of a plugin: one that filtered it decides too.
            let met = ctx.filters.iter().find(|version| version.name() == &*slot.name());
            let version = met.cloned().unwrap_or_else(|| slot.current());
            let hooks = version.hooks();
            let places = [
                (hooks.admission, &mut deciders.admission),
                (hooks.planner, &mut deciders.planner),
                (hooks.credentials, &mut deciders.credentials),
                (hooks.settlement, &mut deciders.settlement),
            ];
            for (exported, place) in places {
                if exported {
                    *place = Some(version.clone());
                }
            }
        }
        deciders
    }

    pub(super) fn settlement(&self) -> Option<&Arc<Version>> {
        self.settlement.as_ref()
    }
}

impl Exchange<'_> {
    /// Sets money aside before anything is sent anywhere.
    pub(super) async fn admit(&mut self, ctx: &RequestContext) -> Result<OpenHold, Fault> {
        let tenant = self.told.caller.tenant.clone();
        let unmetered = || self.shared.ledger.unmetered(&ctx.booking, &tenant);
        let Some(version) = &self.deciders.admission else { return Ok(unmetered()) };
        let verdict = match version.admit(&self.told).await {
            Ok(verdict) => verdict,
            Err(fault) if version.on_error() == OnError::Continue => {
                skipped(version, &fault, ctx);
                return Ok(unmetered());
            }
            Err(fault) => return Err(plugin_failed(fault)),
        };
        match verdict {
            api::AdmissionVerdict::Unmetered => Ok(unmetered()),
            api::AdmissionVerdict::Refuse(refusal) => Err(refused(refusal)),
            api::AdmissionVerdict::Hold(wanted) => {
                self.max_output_tokens = wanted.max_output_tokens.or(self.max_output_tokens);
                let hold = checked(wanted, &tenant, &ctx.booking).ok_or_else(|| {
                    Fault::new(FaultKind::PluginFailed, "admission held on a foreign account")
                })?;
                self.shared.ledger.hold(hold).await.map_err(denied)
            }
        }
    }

    /// The order of candidates to try; never empty.
    pub(super) async fn plan(&self, ctx: &RequestContext) -> Result<usize, Fault> {
        let Some(version) = &self.deciders.planner else { return Ok(0) };
        match version.plan(&self.told).await {
            Ok(Ok(order)) => order
                .first()
                .map(|first| *first as usize)
                .filter(|first| *first < self.candidates.len())
                .ok_or_else(|| Fault::new(FaultKind::PluginFailed, "the plan names no candidate")),
            Ok(Err(refusal)) => Err(refused(refusal)),
            Err(fault) if version.on_error() == OnError::Continue => {
                skipped(version, &fault, ctx);
                Ok(0)
            }
            Err(fault) => Err(plugin_failed(fault)),
        }
    }

    pub(super) async fn after_failure(&self, failed: &[api::FailedAttempt], ctx: &RequestContext) -> Next {
        let Some(version) = &self.deciders.planner else { return Next::GiveUp };
        let known = |index: u32| Some(index as usize).filter(|index| *index < self.candidates.len());
        match version.after_failure(&self.told, failed).await {
            Ok(api::NextStep::Attempt(index)) => known(index).map_or(Next::GiveUp, Next::Attempt),
            Ok(api::NextStep::AttemptAfter((index, wait))) => known(index)
                .map_or(Next::GiveUp, |index| Next::AttemptAfter(index, Duration::from_millis(wait))),
            Ok(api::NextStep::GiveUp) => Next::GiveUp,
            // The failure at hand is the better answer; a second one would hide it.
            Err(fault) => {
                skipped(version, &fault, ctx);
                Next::GiveUp
            }
        }
    }

    pub(super) async fn key(&self, index: usize, ctx: &RequestContext) -> Result<Key, Fault> {
        let Some(version) = &self.deciders.credentials else { return Ok(Key::Platform) };
        let candidate = &self.candidates[index];
        let attempt = api::Attempt {
            request_id: ctx.id.to_string(),
            caller: self.told.caller.clone(),
            provider: candidate.provider.name.to_string(),
            model: candidate.candidate.model.clone(),
        };
        match version.credential_for(&attempt).await {
            Ok(Ok(api::Credential::Platform)) => Ok(Key::Platform),
            Ok(Ok(api::Credential::Secret(handle))) => Ok(Key::Sealed(handle)),
            Ok(Ok(api::Credential::Anonymous)) => Ok(Key::Anonymous),
            Ok(Err(refusal)) => Err(refused(refusal)),
            // Never the platform's key in place of a decision that did not happen:
            // that would bill the wrong account.
            Err(fault) => Err(plugin_failed(fault)),
        }
    }
}

/// Admission may only hold on the caller's own account.
fn checked(wanted: api::Hold, tenant: &str, booking: &str) -> Option<Hold> {
    if wanted.account != tenant {
        return None;
    }
    let cap = |cap: api::Cap| {
        Some(Cap {
            name: cap.name,
            limit: i64::try_from(cap.limit_nano_usd).ok()?,
            ttl: Duration::from_secs(cap.ttl_seconds),
        })
    };
    Some(Hold {
        id: booking.to_owned(),
        account: wanted.account,
        amount: i64::try_from(wanted.amount_nano_usd).ok()?,
        prepaid: wanted.prepaid,
        caps: wanted.caps.into_iter().map(cap).collect::<Option<_>>()?,
        lease: LEASE,
    })
}

fn denied(error: HoldError) -> Fault {
    match error {
        HoldError::Denied { what: Denial::Balance, .. } => {
            Fault::new(FaultKind::InsufficientCredit, "the account's balance does not cover this request")
        }
        HoldError::Denied { what: Denial::Cap(name), .. } => Fault::new(
            FaultKind::InsufficientCredit,
            format!("the spending cap `{name}` does not cover this request"),
        ),
        HoldError::Closed => Fault::new(FaultKind::BadRequest, "a request with this id was settled already"),
        HoldError::Store(error) => Fault::new(FaultKind::StoreUnavailable, "metering is not available")
            .because(error)
            .retry_after(Duration::from_secs(1)),
    }
}

pub(super) fn refused(refusal: api::Refusal) -> Fault {
    let kind = match refusal.reason {
        api::RefusalReason::InvalidRequest => FaultKind::BadRequest,
        api::RefusalReason::Unauthenticated => FaultKind::Unauthenticated,
        api::RefusalReason::InsufficientCredit => FaultKind::InsufficientCredit,
        api::RefusalReason::Forbidden => FaultKind::Forbidden,
        api::RefusalReason::UnknownModel => FaultKind::UnknownModel,
        api::RefusalReason::RateLimited => FaultKind::RateLimited,
        api::RefusalReason::Unavailable => FaultKind::Overloaded,
    };
    Fault::new(kind, refusal.message)
}

pub(super) fn skipped(version: &Version, fault: &PluginFault, ctx: &RequestContext) {
    tracing::warn!(request_id = %ctx.id, plugin = version.name(), %fault, "plugin skipped");
}

fn plugin_failed(fault: PluginFault) -> Fault {
    Fault::new(FaultKind::PluginFailed, "a plugin of this route failed").because(fault)
}
