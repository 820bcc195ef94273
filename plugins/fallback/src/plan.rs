//! The order of candidates, and what follows a failure.

use tollgate_sdk::{
    Candidate, FailureClass,
    planner::{FailedAttempt, NextStep},
};

use crate::Fallback;

/// Wait before the same candidate is asked again when it did not say how long.
const PAUSE_MS: u64 = 250;

/// All candidates as configured, those that the host holds for unhealthy last.
pub(crate) fn order(candidates: &[Candidate]) -> Vec<u32> {
    let indices = || (0..).zip(candidates);
    let healthy = indices().filter(|(_, candidate)| !candidate.cooling);
    let cooling = indices().filter(|(_, candidate)| candidate.cooling);
    healthy.chain(cooling).map(|(index, _)| index).collect()
}

pub(crate) fn after_failure(
    settings: &Fallback,
    candidates: &[Candidate],
    failed: &[FailedAttempt],
) -> NextStep {
    let Some(last) = failed.last() else { return NextStep::GiveUp };
    if !another_may_serve(last.class) {
        return NextStep::GiveUp;
    }
    let untried = |index: &u32| failed.iter().all(|attempt| attempt.candidate != *index);
    match order(candidates).into_iter().find(untried) {
        Some(next) => NextStep::Attempt(next),
        None => again(settings, candidates, failed, last),
    }
}

/// Asks the only candidate once more, if its failure passes by itself and the
/// wait that it asks for is short.
fn again(
    settings: &Fallback,
    candidates: &[Candidate],
    failed: &[FailedAttempt],
    last: &FailedAttempt,
) -> NextStep {
    let wait = last.retry_after_ms.unwrap_or(PAUSE_MS);
    let asked_again = failed.len().saturating_sub(1);
    let may_retry = asked_again < settings.same_candidate_retries as usize;
    if candidates.len() == 1 && may_retry && passes_by_itself(last.class) && wait <= settings.max_wait_ms {
        NextStep::AttemptAfter((last.candidate, wait))
    } else {
        NextStep::GiveUp
    }
}

fn another_may_serve(class: FailureClass) -> bool {
    match class {
        FailureClass::ClientError | FailureClass::ContextExceeded | FailureClass::PolicyRefused => false,
        FailureClass::ModelGone
        | FailureClass::KeyDead
        | FailureClass::Throttled
        | FailureClass::Transient
        | FailureClass::BadStream => true,
    }
}

fn passes_by_itself(class: FailureClass) -> bool {
    matches!(class, FailureClass::Throttled | FailureClass::Transient | FailureClass::BadStream)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVE_ON: [FailureClass; 5] = [
        FailureClass::ModelGone,
        FailureClass::KeyDead,
        FailureClass::Throttled,
        FailureClass::Transient,
        FailureClass::BadStream,
    ];
    const FINAL: [FailureClass; 3] =
        [FailureClass::ClientError, FailureClass::ContextExceeded, FailureClass::PolicyRefused];

    fn candidates(cooling: &[bool]) -> Vec<Candidate> {
        let candidate = |cooling: &bool| Candidate {
            provider: "p".to_owned(),
            model: "m".to_owned(),
            price: None,
            max_output_tokens: None,
            cooling: *cooling,
        };
        cooling.iter().map(candidate).collect()
    }

    fn failure(candidate: u32, class: FailureClass, retry_after_ms: Option<u64>) -> FailedAttempt {
        FailedAttempt { candidate, class, status: 503, retry_after_ms, elapsed_ms: 10 }
    }

    fn next(cooling: &[bool], failed: &[FailedAttempt]) -> NextStep {
        after_failure(&Fallback::default(), &candidates(cooling), failed)
    }

    #[test]
    fn cooling_candidates_go_last_in_their_order() {
        assert_eq!(order(&candidates(&[true, false, true, false])), [1, 3, 0, 2]);
        assert_eq!(order(&candidates(&[true, true])), [0, 1]);
    }

    #[test]
    fn the_next_untried_candidate_is_asked() {
        for class in MOVE_ON {
            assert_eq!(next(&[false, false], &[failure(0, class, None)]), NextStep::Attempt(1));
        }
        let failed = [failure(1, FailureClass::Transient, None), failure(2, FailureClass::Throttled, None)];
        assert_eq!(next(&[true, false, false], &failed), NextStep::Attempt(0));
    }

    #[test]
    fn a_faulty_request_is_given_up() {
        for class in FINAL {
            assert_eq!(next(&[false, false], &[failure(0, class, None)]), NextStep::GiveUp);
            assert_eq!(next(&[false], &[failure(0, class, Some(1))]), NextStep::GiveUp);
        }
    }

    #[test]
    fn the_only_candidate_is_asked_once_more_after_a_short_wait() {
        let transient = |wait| failure(0, FailureClass::Transient, wait);
        assert_eq!(next(&[false], &[transient(Some(2_000))]), NextStep::AttemptAfter((0, 2_000)));
        assert_eq!(next(&[false], &[transient(None)]), NextStep::AttemptAfter((0, PAUSE_MS)));
        assert_eq!(next(&[false], &[transient(Some(2_001))]), NextStep::GiveUp);
        assert_eq!(next(&[false], &[transient(None), transient(None)]), NextStep::GiveUp);
    }

    #[test]
    fn a_dead_key_or_a_missing_model_is_not_asked_again() {
        for class in [FailureClass::KeyDead, FailureClass::ModelGone] {
            assert_eq!(next(&[false], &[failure(0, class, Some(1))]), NextStep::GiveUp);
        }
    }

    #[test]
    fn when_all_of_several_failed_it_is_over() {
        let failed = [failure(0, FailureClass::Transient, None), failure(1, FailureClass::Transient, None)];
        assert_eq!(next(&[false, false], &failed), NextStep::GiveUp);
        assert_eq!(next(&[false], &[]), NextStep::GiveUp);
    }
}
