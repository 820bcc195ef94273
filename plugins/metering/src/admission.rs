//! How much is set aside: the worst case over all candidates.

use tollgate_sdk::{
    Candidate, LlmRequest, Price, Refusal, RefusalReason,
    admission::{AdmissionVerdict, Cap, Hold},
    host::Ledger,
};

use crate::{
    config::{Config, Tier, UnknownPrice},
    month::month,
};

/// Counters of a month are kept a little longer than the longest month.
const CAP_TTL_SECONDS: u64 = 40 * 24 * 60 * 60;
/// Token estimates run short: prompts are held with a fifth on top.
const INPUT_SAFETY: (u64, u64) = (6, 5);
const PICO_PER_NANO: u128 = 1_000;

pub(crate) fn admit(config: &Config, request: &LlmRequest, ledger: &impl Ledger) -> AdmissionVerdict {
    let tier = config.tier(&request.caller.tier);
    let prices: Vec<_> = request.candidates.iter().filter_map(|candidate| candidate.price).collect();
    if prices.len() < request.candidates.len() && config.unknown_price == UnknownPrice::Deny {
        return AdmissionVerdict::Refuse(without_price(&request.model));
    }
    if prices.is_empty() {
        return AdmissionVerdict::Unmetered;
    }
    let worst = Worst { input: with_safety(request.estimated_input_tokens), prices, tier: &tier };
    let (amount, max_output_tokens) = match request.max_output_tokens {
        Some(asked) => (worst.cost(asked), None),
        None => {
            let output = affordable_output(config, request, &worst, ledger);
            (worst.cost(output), Some(output))
        }
    };
    AdmissionVerdict::Hold(Hold {
        account: request.caller.tenant.clone(),
        amount_nano_usd: amount,
        prepaid: tier.prepaid,
        caps: monthly_cap(&tier, request.unix_ms),
        max_output_tokens,
    })
}

/// What a request can cost at most, markup included.
struct Worst<'a> {
    input: u64,
    prices: Vec<Price>,
    tier: &'a Tier,
}

impl Worst<'_> {
    fn cost(&self, output: u64) -> u64 {
        let dearest = self.prices.iter().map(|price| self.pico_usd(price, output)).max().unwrap_or(0);
        let nano = u64::try_from(dearest.div_ceil(PICO_PER_NANO)).unwrap_or(u64::MAX);
        self.tier.markup_percent.on_top_of(nano)
    }

    /// Writing a prompt to a provider's cache costs more than reading it plainly.
    fn pico_usd(&self, price: &Price, output: u64) -> u128 {
        let input = u128::from(self.input) * u128::from(price.input.max(price.input_cache_write));
        input.saturating_add(u128::from(output) * u128::from(price.output))
    }
}

/// The output limit for a caller who gave none: what the candidates allow or,
/// if the balance does not cover that, the most that it does cover. Below the
/// configured floor the hold is left to be denied.
fn affordable_output(config: &Config, request: &LlmRequest, worst: &Worst<'_>, ledger: &impl Ledger) -> u64 {
    let allowed = request.candidates.iter().map(|candidate| allowed_output(config, candidate)).min();
    let allowed = allowed.unwrap_or(config.default_max_output_tokens);
    if !worst.tier.prepaid {
        return allowed;
    }
    // A ledger that cannot answer now will deny the hold itself.
    let Ok(balance) = ledger.balance(&request.caller.tenant) else { return allowed };
    let available = balance
        .credited_nano_usd
        .saturating_sub(balance.spent_nano_usd)
        .saturating_sub(balance.held_nano_usd);
    let available = u64::try_from(available).unwrap_or(0);
    largest_within(available, allowed, worst).max(config.min_output_tokens.min(allowed))
}

fn allowed_output(config: &Config, candidate: &Candidate) -> u64 {
    candidate.max_output_tokens.unwrap_or(config.default_max_output_tokens)
}

/// The largest output up to `limit` whose worst case fits; 0 if none does.
fn largest_within(available: u64, limit: u64, worst: &Worst<'_>) -> u64 {
    if worst.cost(limit) <= available {
        return limit;
    }
    // Invariant: `low` fits (or is 0), `high` does not.
    let (mut low, mut high) = (0, limit);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if worst.cost(middle) <= available {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn with_safety(tokens: u64) -> u64 {
    tokens.saturating_mul(INPUT_SAFETY.0).div_ceil(INPUT_SAFETY.1)
}

fn monthly_cap(tier: &Tier, unix_ms: u64) -> Vec<Cap> {
    let cap = tier.monthly_cap_usd.map(|limit| Cap {
        name: format!("month:{}", month(unix_ms)),
        limit_nano_usd: limit.0,
        ttl_seconds: CAP_TTL_SECONDS,
    });
    cap.into_iter().collect()
}

fn without_price(model: &str) -> Refusal {
    Refusal {
        reason: RefusalReason::Forbidden,
        message: format!("model `{model}` has no known price and is not served to metered callers"),
    }
}

#[cfg(test)]
mod tests;
