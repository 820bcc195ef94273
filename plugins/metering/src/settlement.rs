//! What is booked once the outcome is known.

use tollgate_sdk::{
    LlmRequest,
    settlement::{Booking, Ending, Outcome},
};

use crate::config::Config;

pub(crate) fn settle(config: &Config, request: LlmRequest, outcome: Outcome) -> Booking {
    let amount_nano_usd = amount(config, &request.caller.tier, &outcome);
    let mut tags = Vec::new();
    tags.extend(outcome.model.map(|model| ("model".to_owned(), model)));
    tags.extend(outcome.provider.map(|provider| ("provider".to_owned(), provider)));
    if outcome.own_key {
        tags.push(("key".to_owned(), "own".to_owned()));
    }
    if outcome.cost_nano_usd.is_none() && outcome.ending != Ending::Failed {
        tags.push(("price".to_owned(), "unknown".to_owned()));
    }
    Booking { account: request.caller.tenant, amount_nano_usd, tags }
}

fn amount(config: &Config, tier: &str, outcome: &Outcome) -> u64 {
    let cost = outcome.cost_nano_usd.unwrap_or(0);
    match outcome.ending {
        Ending::Failed => 0,
        Ending::Complete | Ending::Cancelled | Ending::Broken if outcome.own_key => {
            config.own_key_fee_percent.of(cost)
        }
        Ending::Complete | Ending::Cancelled | Ending::Broken => {
            config.tier(tier).markup_percent.on_top_of(cost)
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::{Caller, Usage};

    use super::*;

    fn request() -> LlmRequest {
        LlmRequest {
            request_id: "r1".to_owned(),
            caller: Caller { id: "k1".to_owned(), tenant: "team".to_owned(), tier: "pro".to_owned() },
            route: "llm".to_owned(),
            model: "demo".to_owned(),
            stream: true,
            estimated_input_tokens: 10,
            max_output_tokens: None,
            candidates: Vec::new(),
            unix_ms: 0,
        }
    }

    fn outcome(ending: Ending, own_key: bool, cost: Option<u64>) -> Outcome {
        Outcome {
            ending,
            provider: Some("openai".to_owned()),
            model: Some("gpt".to_owned()),
            price: None,
            usage: Usage {
                input: 10,
                input_cache_read: 0,
                input_cache_write: 0,
                output: 5,
                output_reasoning: 0,
                reported: true,
            },
            attempts: 1,
            own_key,
            held_nano_usd: 100,
            cost_nano_usd: cost,
        }
    }

    fn config() -> Config {
        Config::parse(r#"{"tiers":{"pro":{"markup_percent":"10"}},"own_key_fee_percent":"5"}"#).unwrap()
    }

    #[test]
    fn cost_and_markup_are_booked_and_rounded_up() {
        for ending in [Ending::Complete, Ending::Cancelled, Ending::Broken] {
            let booking = settle(&config(), request(), outcome(ending, false, Some(101)));
            assert_eq!(booking.amount_nano_usd, 112);
            assert_eq!(booking.account, "team");
            let tags = [("model", "gpt"), ("provider", "openai")];
            assert_eq!(booking.tags, tags.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
    }

    #[test]
    fn a_failed_request_costs_nothing() {
        let booking = settle(&config(), request(), outcome(Ending::Failed, false, Some(101)));
        assert_eq!(booking.amount_nano_usd, 0);
    }

    #[test]
    fn an_own_key_pays_the_fee_only() {
        let complete = || outcome(Ending::Complete, true, Some(1_000));
        assert_eq!(settle(&config(), request(), complete()).amount_nano_usd, 50);
        assert_eq!(settle(&Config::default(), request(), complete()).amount_nano_usd, 0);
    }

    #[test]
    fn an_unknown_cost_is_marked() {
        let booking = settle(&config(), request(), outcome(Ending::Complete, false, None));
        assert_eq!(booking.amount_nano_usd, 0);
        assert!(booking.tags.contains(&("price".to_owned(), "unknown".to_owned())));
    }
}
