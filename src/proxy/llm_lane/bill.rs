//! What a request used and what is booked for it, once, on every exit path:
//! the open hold settles itself when the request's future is dropped.

use super::{Exchange, unix_ms};
use crate::{
    config::{llm::Price, plugin::OnError},
    ledger::OpenHold,
    llm::Usage,
    plugin::api,
    proxy::context::RequestContext,
    state::UsageRow,
    telemetry::TokenKind,
};

pub(super) struct Bill {
    hold: OpenHold,
    pub(super) ending: api::Ending,
    /// The candidate that answered.
    pub(super) answered: Option<usize>,
    pub(super) usage: Option<Usage>,
    /// True if the provider reported `usage`.
    pub(super) reported: bool,
    pub(super) own_key: bool,
    pub(super) attempts: u32,
}

impl Bill {
    pub(super) fn new(hold: OpenHold) -> Self {
        Self {
            hold,
            ending: api::Ending::Failed,
            answered: None,
            usage: None,
            reported: false,
            own_key: false,
            attempts: 0,
        }
    }

    /// Asks the settlement plugin, books, and fills in the access record.
    pub(super) async fn settle(self, exchange: &Exchange<'_>, ctx: &mut RequestContext) {
        let candidate = self.answered.map(|index| &exchange.candidates[index]);
        let usage = self.usage.unwrap_or_default();
        let price = candidate.and_then(|candidate| candidate.candidate.price);
        let cost = match (candidate, price) {
            (None, _) => Some(0),
            (Some(_), Some(price)) => Some(usage.cost_nano_usd(&price)),
            (Some(_), None) => None,
        };
        let outcome = self.outcome(exchange, &usage, cost);
        let (amount, tags) = booking(exchange, &outcome, cost, self.own_key, ctx).await;
        let row = self.row(exchange, ctx, &usage, cost, amount, tags);
        record(ctx, &row, candidate.map(|candidate| candidate.candidate.model.as_str()));
        count(exchange, ctx, &usage, cost);
        self.hold.settle(amount, row);
    }

    /// What is booked, at the provider's cost, if the request never comes to
    /// `settle` because its future is dropped.
    pub(super) fn insure(
        &mut self,
        exchange: &Exchange<'_>,
        index: usize,
        usage: &Usage,
        ctx: &RequestContext,
    ) {
        let price = exchange.candidates[index].candidate.price;
        let cost = price.map(|price| usage.cost_nano_usd(&price));
        let amount = if self.own_key { 0 } else { cost.unwrap_or(0) };
        let row = UsageRow {
            ending: ending(api::Ending::Broken).to_owned(),
            ..self.row(exchange, ctx, usage, cost, amount, Vec::new())
        };
        self.hold.if_dropped(amount, row);
    }

    fn outcome(&self, exchange: &Exchange<'_>, usage: &Usage, cost: Option<i64>) -> api::Outcome {
        let candidate = self.answered.map(|index| &exchange.candidates[index]);
        api::Outcome {
            ending: self.ending,
            provider: candidate.map(|candidate| candidate.provider.name.to_string()),
            model: candidate.map(|candidate| candidate.candidate.model.clone()),
            price: candidate.and_then(|candidate| candidate.candidate.price).map(told_price),
            usage: api::Usage {
                input: usage.input,
                input_cache_read: usage.input_cache_read,
                input_cache_write: usage.input_cache_write,
                output: usage.output,
                output_reasoning: usage.output_reasoning,
                reported: self.reported,
            },
            attempts: self.attempts,
            own_key: self.own_key,
            held_nano_usd: self.hold.amount().max(0) as u64,
            cost_nano_usd: cost.map(|cost| cost.max(0) as u64),
        }
    }

    fn row(
        &self,
        exchange: &Exchange<'_>,
        ctx: &RequestContext,
        usage: &Usage,
        cost: Option<i64>,
        amount: i64,
        tags: Vec<(String, String)>,
    ) -> UsageRow {
        let candidate = self.answered.map(|index| &exchange.candidates[index]);
        UsageRow {
            request_id: ctx.id.to_string(),
            unix_ms: unix_ms(),
            account: exchange.told.caller.tenant.clone(),
            caller: exchange.told.caller.id.clone(),
            route: exchange.told.route.clone(),
            model: exchange.told.model.clone(),
            provider: candidate.map(|candidate| candidate.provider.name.to_string()).unwrap_or_default(),
            input_tokens: usage.input,
            input_cache_read_tokens: usage.input_cache_read,
            input_cache_write_tokens: usage.input_cache_write,
            output_tokens: usage.total_output(),
            reasoning_tokens: usage.output_reasoning,
            cost,
            amount,
            ending: ending(self.ending).to_owned(),
            attempts: self.attempts,
            tags,
        }
    }
}

/// What the settlement plugin books. Without one, or when it fails or names a
/// foreign account, the provider's cost is booked: billing cannot be skipped.
/// A caller's own key is billed by its provider, so that fallback is nothing.
async fn booking(
    exchange: &Exchange<'_>,
    outcome: &api::Outcome,
    cost: Option<i64>,
    own_key: bool,
    ctx: &RequestContext,
) -> (i64, Vec<(String, String)>) {
    let at_cost = if own_key { 0 } else { cost.unwrap_or(0) };
    let Some(version) = exchange.deciders.settlement() else { return (at_cost, Vec::new()) };
    match version.settle(&exchange.told, outcome).await {
        Ok(booking) if booking.account == exchange.told.caller.tenant => {
            (i64::try_from(booking.amount_nano_usd).unwrap_or(i64::MAX), booking.tags)
        }
        Ok(_) => {
            tracing::error!(request_id = %ctx.id, plugin = version.name(), "settlement named a foreign account; booked at cost");
            (at_cost, Vec::new())
        }
        Err(fault) => {
            let policy = if version.on_error() == OnError::Continue { "continue" } else { "reject" };
            tracing::error!(request_id = %ctx.id, plugin = version.name(), %fault, policy, "settlement failed; booked at cost");
            (at_cost, Vec::new())
        }
    }
}

fn count(exchange: &Exchange<'_>, ctx: &RequestContext, usage: &Usage, cost: Option<i64>) {
    let metrics = &exchange.model.metrics;
    let kinds = [
        (TokenKind::Input, usage.input),
        (TokenKind::InputCacheRead, usage.input_cache_read),
        (TokenKind::InputCacheWrite, usage.input_cache_write),
        (TokenKind::Output, usage.output),
        (TokenKind::OutputReasoning, usage.output_reasoning),
    ];
    for (kind, tokens) in kinds.into_iter().filter(|(_, tokens)| *tokens > 0) {
        metrics.tokens(kind, tokens);
    }
    if let Some(cost) = cost {
        metrics.cost(cost);
    }
    if let Some(after) = ctx.llm.as_ref().and_then(|llm| llm.time_to_first_token) {
        metrics.first_token(after);
    }
}

fn record(ctx: &mut RequestContext, row: &UsageRow, provider_model: Option<&str>) {
    let Some(llm) = &mut ctx.llm else { return };
    llm.provider.clone_from(&row.provider);
    llm.provider_model = provider_model.unwrap_or_default().to_owned();
    llm.input_tokens = row.input_tokens + row.input_cache_read_tokens + row.input_cache_write_tokens;
    llm.output_tokens = row.output_tokens;
    llm.cost_nano_usd = row.cost;
    llm.attempts = row.attempts;
    llm.ending = match row.ending.as_str() {
        "complete" => "complete",
        "cancelled" => "cancelled",
        "broken" => "broken",
        _ => "failed",
    };
}

fn ending(ending: api::Ending) -> &'static str {
    match ending {
        api::Ending::Complete => "complete",
        api::Ending::Cancelled => "cancelled",
        api::Ending::Broken => "broken",
        api::Ending::Failed => "failed",
    }
}

pub(super) fn told_price(price: Price) -> api::Price {
    api::Price {
        input: price.input,
        input_cache_read: price.input_cache_read,
        input_cache_write: price.input_cache_write,
        output: price.output,
    }
}
