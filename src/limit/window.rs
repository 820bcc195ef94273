//! The sliding window of one counter.
//!
//! Requests are counted in steps, and a step is forgotten when all of it lies
//! further back than the window. So no window of any alignment ever holds more
//! than the limit. Up to a limit of 100 a step is a moment, which is exact;
//! beyond that it is a hundredth of the window, by which a request may be
//! forgotten late. The usual pair of counters, with the earlier one
//! weighted, lets nearly twice the limit through when a burst at the end of one
//! window is followed by a steady stream in the next.

use std::{collections::VecDeque, time::Duration};

use super::{Decision, Policy};

#[derive(Default)]
pub(super) struct Window {
    /// Steps that counted something, oldest first; never more than a window's.
    steps: VecDeque<Step>,
    /// Sum over `steps`.
    used: u64,
    seen: Duration,
}

struct Step {
    /// Since the epoch, in steps of the policy.
    number: u64,
    count: u64,
}

impl Window {
    /// The time of the last check.
    pub(super) fn seen(&self) -> Duration {
        self.seen
    }

    pub(super) fn check(&mut self, policy: &Policy, now: Duration) -> Decision {
        let now = self.steadied(policy, now);
        self.seen = now;
        self.forget(policy, now);
        let allowed = self.used < policy.limit;
        if allowed {
            self.count(step_number(policy, now));
        }
        let wait = self.steps.front().map_or(policy.window, |step| until_forgotten(policy, step, now));
        Decision {
            allowed,
            limit: policy.limit,
            remaining: policy.limit.saturating_sub(self.used),
            reset: wait.min(policy.window),
            retry_after: (!allowed).then_some(wait),
        }
    }

    /// A clock that goes back a little stands still, or it would free what it
    /// has counted. One that goes back a window or more starts the counter
    /// afresh, or everything would be denied until it has caught up.
    fn steadied(&mut self, policy: &Policy, now: Duration) -> Duration {
        if self.seen.saturating_sub(now) < policy.window {
            return now.max(self.seen);
        }
        *self = Self::default();
        now
    }

    fn forget(&mut self, policy: &Policy, now: Duration) {
        while let Some(step) = self.steps.front() {
            if !until_forgotten(policy, step, now).is_zero() {
                break;
            }
            self.used -= step.count;
            self.steps.pop_front();
        }
    }

    fn count(&mut self, number: u64) {
        self.used += 1;
        match self.steps.back_mut() {
            Some(step) if step.number == number => step.count += 1,
            _ => self.steps.push_back(Step { number, count: 1 }),
        }
    }
}

fn step_number(policy: &Policy, now: Duration) -> u64 {
    // Invariant: steps are at least 1 ns and the epoch is less than 584 years ago.
    u64::try_from(now.as_nanos() / policy.step.as_nanos()).unwrap_or(u64::MAX)
}

/// Until a whole window has passed since the last moment of the step.
fn until_forgotten(policy: &Policy, step: &Step, now: Duration) -> Duration {
    let last = (u128::from(step.number) + 1) * policy.step.as_nanos() - 1;
    let end = last + policy.window.as_nanos();
    Duration::from_nanos(u64::try_from(end.saturating_sub(now.as_nanos())).unwrap_or(u64::MAX))
}
