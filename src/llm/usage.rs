//! Tokens used, as disjoint counts, from what each dialect reports.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

use crate::config::llm::Price;

/// Disjoint counts: each token is in exactly one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Neither read from nor written to a prompt cache.
    pub input: u64,
    pub input_cache_read: u64,
    pub input_cache_write: u64,
    /// Without reasoning.
    pub output: u64,
    pub output_reasoning: u64,
}

impl Usage {
    pub fn total_input(&self) -> u64 {
        self.input.saturating_add(self.input_cache_read).saturating_add(self.input_cache_write)
    }

    pub fn total_output(&self) -> u64 {
        self.output.saturating_add(self.output_reasoning)
    }

    /// Rounded up to the next nano-USD, so that use is never free by rounding.
    pub fn cost_nano_usd(&self, price: &Price) -> i64 {
        let of = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let pico = of(self.input, price.input)
            + of(self.input_cache_read, price.input_cache_read)
            + of(self.input_cache_write, price.input_cache_write)
            + of(self.total_output(), price.output);
        i64::try_from(pico.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

/// A number of tokens; what is not a number counts as not reported.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    // Some servers write counts as floats; a cast saturates, negatives are 0.
    Ok(value.as_u64().or_else(|| value.as_f64().map(|number| number as u64)))
}

/// Anything that is not the object it should be counts as not reported.
fn details<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(text.get()).ok())
}

fn keep_last(kept: &mut Option<u64>, seen: Option<u64>) {
    if seen.is_some() {
        *kept = seen;
    }
}

#[derive(Deserialize)]
struct OpenAiReport {
    #[serde(default, deserialize_with = "count")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "details")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default, deserialize_with = "details")]
    completion_tokens_details: Option<CompletionDetails>,
    /// Together and some others: cached tokens outside the details.
    #[serde(default, deserialize_with = "count")]
    cached_tokens: Option<u64>,
    /// DeepSeek's name for it.
    #[serde(default, deserialize_with = "count")]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default, deserialize_with = "count")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default, deserialize_with = "count")]
    reasoning_tokens: Option<u64>,
}

/// What OpenAI-like providers reported so far: the last value wins, field by
/// field, since chunks may be cumulative and later ones may lack fields.
#[derive(Debug, Default)]
pub(crate) struct OpenAiUsage {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
}

impl OpenAiUsage {
    /// Takes a `usage` member; one that is no object is ignored.
    pub(crate) fn observe(&mut self, json: &str) {
        let Ok(report) = serde_json::from_str::<OpenAiReport>(json) else { return };
        keep_last(&mut self.prompt, report.prompt_tokens);
        keep_last(&mut self.completion, report.completion_tokens);
        keep_last(&mut self.total, report.total_tokens);
        keep_last(&mut self.cached, report.prompt_cache_hit_tokens);
        keep_last(&mut self.cached, report.cached_tokens);
        if let Some(details) = report.prompt_tokens_details {
            keep_last(&mut self.cached, details.cached_tokens);
            keep_last(&mut self.cache_write, details.cache_write_tokens);
        }
        if let Some(details) = report.completion_tokens_details {
            keep_last(&mut self.reasoning, details.reasoning_tokens);
        }
    }

    /// `None` until a prompt or completion count was seen.
    pub(crate) fn usage(&self) -> Option<Usage> {
        if self.prompt.is_none() && self.completion.is_none() {
            return None;
        }
        let (prompt, completion) = (self.prompt.unwrap_or(0), self.completion.unwrap_or(0));
        // Parts larger than their total happen; the total is what is billed.
        let read = self.cached.unwrap_or(0).min(prompt);
        let write = self.cache_write.unwrap_or(0).min(prompt - read);
        let reasoning = self.reasoning.unwrap_or(0);
        // Some count reasoning beside the completion; only their total tells.
        let beside =
            reasoning > 0 && self.total == Some(prompt.saturating_add(completion).saturating_add(reasoning));
        let (output, reasoning) = if beside {
            (completion, reasoning)
        } else {
            let reasoning = reasoning.min(completion);
            (completion - reasoning, reasoning)
        };
        Some(Usage {
            input: prompt - read - write,
            input_cache_read: read,
            input_cache_write: write,
            output,
            output_reasoning: reasoning,
        })
    }
}

#[derive(Deserialize)]
struct AnthropicReport {
    #[serde(default, deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "details")]
    cache_creation: Option<CacheCreation>,
    #[serde(default, deserialize_with = "count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "details")]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct CacheCreation {
    #[serde(default, deserialize_with = "count")]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "count")]
    thinking_tokens: Option<u64>,
}

/// What Anthropic reported so far; last value wins, field by field.
#[derive(Debug, Default)]
pub(crate) struct AnthropicUsage {
    input: Option<u64>,
    read: Option<u64>,
    write: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
}

impl AnthropicUsage {
    /// Takes a `usage` member; one that is no object is ignored.
    pub(crate) fn observe(&mut self, json: &str) {
        let Ok(report) = serde_json::from_str::<AnthropicReport>(json) else { return };
        keep_last(&mut self.input, report.input_tokens);
        keep_last(&mut self.read, report.cache_read_input_tokens);
        // The plain member is the sum of the parts by lifetime.
        let parts = report.cache_creation.and_then(|by| {
            let sum = by.ephemeral_5m_input_tokens.unwrap_or(0) + by.ephemeral_1h_input_tokens.unwrap_or(0);
            (sum > 0).then_some(sum)
        });
        keep_last(&mut self.write, report.cache_creation_input_tokens.or(parts));
        keep_last(&mut self.output, report.output_tokens);
        keep_last(&mut self.thinking, report.output_tokens_details.and_then(|by| by.thinking_tokens));
    }

    /// `None` until an input or output count was seen.
    pub(crate) fn usage(&self) -> Option<Usage> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        let output = self.output.unwrap_or(0);
        let reasoning = self.thinking.unwrap_or(0).min(output);
        Some(Usage {
            input: self.input.unwrap_or(0),
            input_cache_read: self.read.unwrap_or(0),
            input_cache_write: self.write.unwrap_or(0),
            output: output - reasoning,
            output_reasoning: reasoning,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai(reports: &[&str]) -> Option<Usage> {
        let mut seen = OpenAiUsage::default();
        reports.iter().for_each(|report| seen.observe(report));
        seen.usage()
    }

    #[test]
    fn cumulative_reports_are_not_summed_and_absent_fields_do_not_erase() {
        let usage = openai(&[
            r#"{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}"#,
            r#"{"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":3}}"#,
            r#"{"completion_tokens":null,"prompt_tokens_details":null}"#,
        ]);
        let expected =
            Usage { input: 6, input_cache_read: 4, input_cache_write: 0, output: 4, output_reasoning: 3 };
        assert_eq!(usage, Some(expected));
    }

    #[test]
    fn parts_never_exceed_the_totals() {
        let usage = openai(&[r#"{"prompt_tokens":3,"completion_tokens":10,"total_tokens":13,
            "prompt_tokens_details":{"cached_tokens":9,"cache_write_tokens":9},
            "completion_tokens_details":{"reasoning_tokens":11}}"#])
        .unwrap();
        assert_eq!((usage.total_input(), usage.total_output()), (3, 10));
    }

    #[test]
    fn reasoning_beside_the_completion_is_added() {
        let usage = openai(&[r#"{"prompt_tokens":5,"completion_tokens":10,"total_tokens":45,
            "completion_tokens_details":{"reasoning_tokens":30}}"#])
        .unwrap();
        assert_eq!((usage.output, usage.output_reasoning), (10, 30));
    }

    #[test]
    fn odd_values_do_not_break_counting() {
        let usage = openai(&[r#"{"prompt_tokens":12.0,"completion_tokens":-4,
            "prompt_tokens_details":"none","completion_tokens_details":{"reasoning_tokens":"many"}}"#]);
        assert_eq!(usage, Some(Usage { input: 12, ..Usage::default() }));
        assert_eq!(openai(&["7", "{}"]), None);
    }

    #[test]
    fn anthropic_input_excludes_the_cache() {
        let mut seen = AnthropicUsage::default();
        seen.observe(
            r#"{"input_tokens":3,"cache_read_input_tokens":100,"cache_creation_input_tokens":20,
            "cache_creation":{"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":15},"output_tokens":1}"#,
        );
        seen.observe(r#"{"output_tokens":9,"output_tokens_details":{"thinking_tokens":4}}"#);
        let expected =
            Usage { input: 3, input_cache_read: 100, input_cache_write: 20, output: 5, output_reasoning: 4 };
        assert_eq!(seen.usage(), Some(expected));
    }

    #[test]
    fn cost_is_exact_and_rounds_up() {
        let price =
            Price { input: 150_000, input_cache_read: 75_000, input_cache_write: 187_500, output: 600_000 };
        let usage =
            Usage { input: 1, input_cache_read: 2, input_cache_write: 3, output: 4, output_reasoning: 5 };
        // 150000 + 150000 + 562500 + 5400000 = 6262500 pico
        assert_eq!(usage.cost_nano_usd(&price), 6263);
        assert_eq!(Usage::default().cost_nano_usd(&price), 0);
        let huge = Usage { input: u64::MAX, ..Usage::default() };
        assert_eq!(huge.cost_nano_usd(&price), i64::MAX);
    }
}
