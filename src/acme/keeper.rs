//! Keeps one certificate: serves what the store has, renews it in time, and
//! says why if it cannot.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

use super::{
    AcmeError, Front, Status,
    desk::Desk,
    lease::Lease,
    plan::Wanted,
    schedule::{self, Life, Window},
    stage::{Performance, Stage},
    status::Board,
    vault::{Failure, Issued, Kept, Vault},
};
use crate::telemetry::{Metrics, OrderOutcome};

/// Nothing waits longer without looking at clock and store again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// While another node orders, unless that node's result comes first.
const OTHER_NODE: Duration = Duration::from_secs(3);
/// The store does not answer.
const STORE_AWAY: Duration = Duration::from_secs(5);
/// Some minutes; an order can be repeated after all.
const PUBLISH_TRIES: u32 = 60;
/// No advice because the authority does not answer.
const NO_ADVICE: Duration = Duration::from_secs(3600);
/// An order that takes longer has hung.
const ORDER_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// What all keepers share.
pub(super) struct House {
    pub(super) vault: Vault,
    pub(super) stage: Stage,
    pub(super) front: Arc<dyn Front>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Board,
    /// Few orders at a time.
    pub(super) orders: Semaphore,
}

pub(super) struct Keeper {
    pub(super) wanted: Wanted,
    pub(super) desk: Arc<Desk>,
    pub(super) house: Arc<House>,
    pub(super) stop: watch::Receiver<bool>,
    /// Something in the vault has changed.
    pub(super) changes: watch::Receiver<u64>,
    pub(super) serving: Option<Kept>,
    pub(super) advice: Option<Advice>,
    /// When it began.
    pub(super) since: SystemTime,
}

/// For the certificate that is being served.
pub(super) struct Advice {
    window: Option<Window>,
    again: SystemTime,
}

impl Keeper {
    /// Until it is told to stop.
    pub(super) async fn keep(mut self) {
        let mut stop = self.stop.clone();
        loop {
            self.changes.borrow_and_update();
            let wait = match self.turn().await {
                Ok(wait) => wait,
                Err(error) => {
                    self.house.board.note(&self.wanted, |status| status.problem = Some(error.to_string()));
                    tracing::warn!(names = ?self.wanted.names, %error, "the certificate is not looked after");
                    STORE_AWAY
                }
            };
            if *stop.borrow() {
                return;
            }
            let mut changes = self.changes.clone();
            tokio::select! {
                () = sleep(wait.min(LONGEST_WAIT)) => {}
                Ok(()) = changes.changed() => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Does what is due and returns how long nothing else is.
    async fn turn(&mut self) -> Result<Duration, AcmeError> {
        self.serve().await?;
        let now = SystemTime::now();
        let renewal = self.due(now).await;
        let failure = self.house.vault.failure(&self.wanted.id).await?;
        let again = failure.as_ref().map(|failure| failure.again(self.since));
        let at = renewal.max(again.unwrap_or(SystemTime::UNIX_EPOCH));
        self.tell(renewal, at, failure.as_ref());
        match at.duration_since(now) {
            Ok(wait) if !wait.is_zero() => Ok(self.until_advice(now).min(wait)),
            _ => self.attempt(failure.map_or(0, |failure| failure.count)).await,
        }
    }

    /// Puts in service what the vault has, taking over an imported certificate
    /// if it has none.
    pub(super) async fn serve(&mut self) -> Result<(), AcmeError> {
        let id = &self.wanted.id;
        let mut kept = self.house.vault.certificate(id).await?;
        if kept.is_none()
            && let Some(imported) = self.desk.import.certificate(&self.wanted.names)
        {
            if self.house.vault.publish(id, &self.wanted.names, imported, false, None).await? {
                tracing::info!(names = ?self.wanted.names, "certificate taken over from acme.json");
            }
            kept = self.house.vault.certificate(id).await?;
        }
        let Some(kept) = kept else { return Ok(()) };
        if self.serving.as_ref().is_some_and(|serving| serving.is(&kept)) {
            return Ok(());
        }
        if *self.stop.borrow() {
            return Ok(());
        }
        self.house
            .front
            .install(&self.wanted.names, &kept.chain_pem, &kept.key_pem)
            .map_err(AcmeError::Unusable)?;
        let not_after = httpdate::fmt_http_date(kept.facts.not_after);
        tracing::info!(names = ?self.wanted.names, not_after, "certificate in service");
        (self.serving, self.advice) = (Some(kept), None);
        Ok(())
    }

    /// When the certificate is to be renewed; at once if there is none.
    async fn due(&mut self, now: SystemTime) -> SystemTime {
        let Some(kept) = &self.serving else { return SystemTime::UNIX_EPOCH };
        if kept.ordered && self.advice.as_ref().is_none_or(|advice| advice.again <= now) {
            let (window, again) = match self.desk.advice(&kept.facts).await {
                Ok(advice) => advice,
                Err(error) => {
                    tracing::debug!(%error, "no advice on renewal");
                    (self.advice.as_ref().and_then(|advice| advice.window), NO_ADVICE)
                }
            };
            self.advice = Some(Advice { window, again: now + again });
        }
        let life = Life { not_before: kept.facts.not_before, not_after: kept.facts.not_after };
        let window = self.advice.as_ref().and_then(|advice| advice.window);
        schedule::renewal(life, self.desk.acme.renew_before, window, &self.wanted.id)
    }

    fn until_advice(&self, now: SystemTime) -> Duration {
        let again = self.advice.as_ref().and_then(|advice| advice.again.duration_since(now).ok());
        again.unwrap_or(LONGEST_WAIT).max(Duration::from_secs(1))
    }

    /// One order, if no other node is at it, and never two at a time.
    async fn attempt(&mut self, failures: u32) -> Result<Duration, AcmeError> {
        let house = self.house.clone();
        let Ok(_permit) = house.orders.acquire().await else { return Ok(LONGEST_WAIT) };
        let Some(lease) = Lease::take(house.vault.store.clone(), &self.wanted.id).await? else {
            return Ok(OTHER_NODE);
        };
        let attempted = self.attempt_alone(&lease, failures).await;
        lease.give_back().await;
        attempted
    }

    async fn attempt_alone(&mut self, lease: &Lease, failures: u32) -> Result<Duration, AcmeError> {
        // Whoever had the lease before may have done it.
        let current = self.house.vault.certificate(&self.wanted.id).await?;
        let same = match (&current, &self.serving) {
            (None, None) => true,
            (Some(current), Some(serving)) => current.is(serving),
            _ => false,
        };
        let failed_since =
            self.house.vault.failure(&self.wanted.id).await?.map_or(0, |failure| failure.count);
        if !same || failed_since > failures {
            return Ok(Duration::ZERO);
        }
        match self.order(lease).await {
            Ok(issued) => self.succeed(&issued, current.as_ref()).await,
            Err(AcmeError::Stopped) => Ok(LONGEST_WAIT),
            Err(error) => self.fail(&error, failures + 1).await,
        }
    }

    async fn order(&self, lease: &Lease) -> Result<Issued, AcmeError> {
        let (desk, names) = (&self.desk, &self.wanted.names);
        tracing::info!(?names, resolver = desk.resolver.as_str(), "ordering a certificate");
        let performance = Performance::new(&self.house.stage, &desk.acme.challenge, &desk.web);
        let replaces =
            self.serving.as_ref().filter(|kept| kept.ordered).and_then(|kept| kept.facts.id.clone());
        let mut stop = self.stop.clone();
        let outcome = tokio::select! {
            outcome = desk.order(names, replaces, &performance) => outcome,
            () = lease.lost() => Err(AcmeError::LeaseLost),
            () = sleep(ORDER_DEADLINE) => Err(AcmeError::Protocol("the order took too long".to_owned())),
            _ = stop.wait_for(|stop| *stop) => Err(AcmeError::Stopped),
        };
        performance.withdraw().await;
        outcome
    }

    async fn succeed(&self, issued: &Issued, replaced: Option<&Kept>) -> Result<Duration, AcmeError> {
        self.house.metrics.acme_order(self.desk.resolver.as_str(), OrderOutcome::Issued);
        if !self.publish(issued, replaced).await? {
            tracing::warn!(names = ?self.wanted.names, "another node was faster; its certificate is used");
        }
        self.house.vault.forget_failure(&self.wanted.id).await?;
        Ok(Duration::ZERO)
    }

    /// Does not give up a good certificate because the store is away for a moment.
    async fn publish(&self, issued: &Issued, replaced: Option<&Kept>) -> Result<bool, AcmeError> {
        let (vault, wanted) = (&self.house.vault, &self.wanted);
        let mut tries = PUBLISH_TRIES;
        loop {
            match vault.publish(&wanted.id, &wanted.names, issued, true, replaced).await {
                Err(AcmeError::Store(error)) if tries > 0 => {
                    tracing::warn!(names = ?wanted.names, %error, "a certificate cannot be stored yet");
                    tries -= 1;
                    sleep(STORE_AWAY).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn fail(&self, error: &AcmeError, count: u32) -> Result<Duration, AcmeError> {
        let (outcome, asked) = match error {
            AcmeError::ComeBack { asked, .. } => (OrderOutcome::RateLimited, *asked),
            _ => (OrderOutcome::Failed, None),
        };
        let resolver = self.desk.resolver.as_str();
        self.house.metrics.acme_order(resolver, outcome);
        let limited = outcome == OrderOutcome::RateLimited;
        let wait = schedule::retry(count, limited, asked, &self.wanted.id);
        let kept_until = self.serving.as_ref().map(|kept| httpdate::fmt_http_date(kept.facts.not_after));
        tracing::error!(
            names = ?self.wanted.names,
            resolver,
            %error,
            failures = count,
            retry_in_seconds = wait.as_secs(),
            kept_until,
            "no certificate was issued; what is in service stays",
        );
        let failure = Failure::new(count, error.to_string(), wait, limited);
        self.house.vault.failed(&self.wanted.id, &failure).await?;
        Ok(Duration::ZERO)
    }

    fn tell(&self, renewal: SystemTime, next: SystemTime, failure: Option<&Failure>) {
        let serving = self.serving.as_ref();
        self.house.board.note(&self.wanted, |status| {
            *status = Status {
                not_after: serving.map(|kept| kept.facts.not_after),
                renewal: serving.map(|_| renewal),
                next_attempt: failure.map(|_| next),
                failures: failure.map_or(0, |failure| failure.count),
                problem: failure.map(|failure| failure.reason.clone()),
                ..Status::of(&self.wanted)
            };
        });
    }
}
