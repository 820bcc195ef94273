//! What is held, for whom, and when not.

use tollgate_sdk::{Caller, host::LedgerError, testing::MemoryLedger};

use super::*;

/// 2 USD in, 10 USD out per million tokens.
const PRICE: Price =
    Price { input: 2_000_000, input_cache_read: 200_000, input_cache_write: 0, output: 10_000_000 };

fn candidate(price: Option<Price>, max_output_tokens: Option<u64>) -> Candidate {
    Candidate {
        provider: "openai".to_owned(),
        model: "m".to_owned(),
        price,
        max_output_tokens,
        cooling: false,
    }
}

fn request(max_output_tokens: Option<u64>, candidates: Vec<Candidate>) -> LlmRequest {
    LlmRequest {
        request_id: "r1".to_owned(),
        caller: Caller { id: "k1".to_owned(), tenant: "team".to_owned(), tier: "free".to_owned() },
        route: "llm".to_owned(),
        model: "demo".to_owned(),
        stream: false,
        estimated_input_tokens: 1_000,
        max_output_tokens,
        candidates,
        unix_ms: 1_798_761_599_999,
    }
}

fn rich() -> MemoryLedger {
    MemoryLedger::default().with_balance("team", 1_000_000_000_000, 0, 0)
}

fn hold(verdict: AdmissionVerdict) -> Hold {
    match verdict {
        AdmissionVerdict::Hold(hold) => hold,
        other => panic!("expected a hold, got {other:?}"),
    }
}

#[test]
fn the_hold_covers_input_with_safety_and_the_asked_output() {
    let request = request(Some(100), vec![candidate(Some(PRICE), Some(4_096))]);
    let hold = hold(admit(&Config::default(), &request, &rich()));
    // 1,200 tokens at 2,000 nano-USD and 100 at 10,000.
    assert_eq!(hold.amount_nano_usd, 1_200 * 2_000 + 100 * 10_000);
    assert_eq!(hold.account, "team");
    assert_eq!(hold.max_output_tokens, None);
    assert!(hold.prepaid);
    assert!(hold.caps.is_empty());
}

#[test]
fn the_dearest_candidate_decides() {
    let dear = Price { output: 50_000_000, ..PRICE };
    let request = request(Some(100), vec![candidate(Some(PRICE), None), candidate(Some(dear), None)]);
    assert_eq!(
        hold(admit(&Config::default(), &request, &rich())).amount_nano_usd,
        1_200 * 2_000 + 100 * 50_000
    );
}

#[test]
fn cache_writes_count_when_they_are_dearer() {
    let caching = Price { input_cache_write: 2_500_000, ..PRICE };
    let request = request(Some(0), vec![candidate(Some(caching), None)]);
    assert_eq!(hold(admit(&Config::default(), &request, &rich())).amount_nano_usd, 1_200 * 2_500);
}

#[test]
fn without_a_limit_the_assumed_one_is_enforced() {
    let candidates = vec![candidate(Some(PRICE), Some(500)), candidate(Some(PRICE), None)];
    let hold = hold(admit(&Config::default(), &request(None, candidates), &rich()));
    assert_eq!(hold.max_output_tokens, Some(500));
    assert_eq!(hold.amount_nano_usd, 1_200 * 2_000 + 500 * 10_000);
}

#[test]
fn a_small_balance_lowers_the_limit_instead_of_refusing() {
    // 0.01 USD available: 10,000,000 - 2,400,000 for the input leave 760 tokens.
    let ledger = MemoryLedger::default().with_balance("team", 12_000_000, 1_000_000, 1_000_000);
    let request = request(None, vec![candidate(Some(PRICE), Some(16_384))]);
    let hold = hold(admit(&Config::default(), &request, &ledger));
    assert_eq!(hold.max_output_tokens, Some(760));
    assert_eq!(hold.amount_nano_usd, 10_000_000);
}

#[test]
fn a_balance_below_the_floor_is_left_to_be_denied() {
    let ledger = MemoryLedger::default().with_balance("team", 2_500_000, 0, 0);
    let request = request(None, vec![candidate(Some(PRICE), Some(16_384))]);
    let hold = hold(admit(&Config::default(), &request, &ledger));
    assert_eq!(hold.max_output_tokens, Some(256));
    assert!(hold.amount_nano_usd > 2_500_000);
}

#[test]
fn a_silent_ledger_does_not_lower_the_limit() {
    let ledger = MemoryLedger { failure: Some(LedgerError::Unavailable), ..MemoryLedger::default() };
    let request = request(None, vec![candidate(Some(PRICE), Some(700))]);
    assert_eq!(hold(admit(&Config::default(), &request, &ledger)).max_output_tokens, Some(700));
}

#[test]
fn tiers_add_markup_and_a_monthly_cap() {
    let json = r#"{"tiers":{"free":{"markup_percent":"20","monthly_cap_usd":"5.00","prepaid":false}}}"#;
    let config = Config::parse(json).unwrap();
    let request = request(Some(0), vec![candidate(Some(PRICE), None)]);
    let hold = hold(admit(&config, &request, &MemoryLedger::default()));
    assert_eq!(hold.amount_nano_usd, 1_200 * 2_400);
    assert!(!hold.prepaid);
    let cap =
        Cap { name: "month:2026-12".to_owned(), limit_nano_usd: 5_000_000_000, ttl_seconds: 40 * 86_400 };
    assert_eq!(hold.caps, [cap]);
}

#[test]
fn an_unknown_price_is_never_free() {
    let unknown = request(Some(100), vec![candidate(Some(PRICE), None), candidate(None, None)]);
    let verdict = admit(&Config::default(), &unknown, &rich());
    assert!(matches!(verdict, AdmissionVerdict::Refuse(Refusal { reason: RefusalReason::Forbidden, .. })));

    let config = Config::parse(r#"{"unknown_price":"unmetered"}"#).unwrap();
    assert_eq!(hold(admit(&config, &unknown, &rich())).amount_nano_usd, 1_200 * 2_000 + 100 * 10_000);
    let none_known = request(Some(100), vec![candidate(None, None)]);
    assert!(matches!(admit(&config, &none_known, &rich()), AdmissionVerdict::Unmetered));
}

#[test]
fn absurd_numbers_saturate() {
    let absurd = Price { input: u64::MAX, input_cache_read: 0, input_cache_write: 0, output: u64::MAX };
    let request = request(Some(u64::MAX), vec![candidate(Some(absurd), None)]);
    assert_eq!(hold(admit(&Config::default(), &request, &rich())).amount_nano_usd, u64::MAX);
}
