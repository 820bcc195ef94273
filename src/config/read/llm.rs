//! Readers of LLM services.

use std::{collections::BTreeMap, time::Duration};

use crate::config::{
    ByteSize,
    llm::{Api, Candidate, Llm, LlmLimits, LlmTimeouts, Model, Price, Provider},
    reader::{Fields, Item},
    scalar,
};

use super::{access, named, service};

const APIS: &[(&str, Api)] = &[("openai", Api::OpenAi), ("anthropic", Api::Anthropic)];

pub(super) fn llm(item: &Item<'_>) -> Option<Llm> {
    item.fields(|f| {
        let section = f.require("providers");
        let known: Vec<String> =
            section.iter().flat_map(Item::named).map(|(name, _)| name.to_owned()).collect();
        let providers = section.map(|item| named(&item, |_, item| provider(item)));
        let models = f.require("models").map(|item| models(&item, &known));
        let limits = f.take_present("limits").and_then(|item| item.fields(|f| Some(limits(f))));
        let timeouts = f.take_present("timeouts").and_then(|item| item.fields(|f| Some(timeouts(f))));
        Some(Llm {
            providers: providers?,
            models: models?,
            limits: limits.unwrap_or_default(),
            timeouts: timeouts.unwrap_or_default(),
        })
    })
}

fn provider(item: &Item<'_>) -> Option<Provider> {
    item.fields(|f| {
        let api = f.require("api").and_then(|item| item.choice("api", APIS));
        let url = f.require("url").and_then(|item| item.parse(service::origin));
        let key = f.take("key").map(|item| access::secret(&item));
        let key = match key {
            None => None,
            Some(key) => Some(key?),
        };
        let (target, base_path) = url?;
        Some(Provider { api: api?, target, base_path, key })
    })
}

fn models(item: &Item<'_>, providers: &[String]) -> BTreeMap<String, Model> {
    let mut models = BTreeMap::new();
    for (name, item) in item.named() {
        if name.is_empty() || name.len() > 256 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            item.fail_key::<()>("the name of a model is 1 to 256 bytes without blanks");
        }
        if let Some(model) = model(&item, providers) {
            models.insert(name.to_owned(), model);
        }
    }
    models
}

fn model(item: &Item<'_>, providers: &[String]) -> Option<Model> {
    item.fields(|f| {
        if f.only_one(&["provider", "candidates"])? == "provider" {
            return candidate(f, providers).map(|candidate| Model { candidates: vec![candidate] });
        }
        let list = f.require("candidates")?;
        if list.items().is_some_and(|items| items.is_empty()) {
            list.fail::<()>("at least one candidate is needed");
        }
        let candidates = list.list(|item| item.fields(|f| candidate(f, providers)));
        Some(Model { candidates })
    })
}

fn candidate(f: &mut Fields<'_>, providers: &[String]) -> Option<Candidate> {
    let provider = f.require("provider").and_then(|item| item.reference("provider", providers));
    let model = f.require("name").and_then(|item| item.string());
    let price = f.take("price").map(|item| price(&item));
    let max_output_tokens = f.take("max_output_tokens").map(|item| item.parse(positive));
    let price = match price {
        None => None,
        Some(price) => Some(price?),
    };
    Some(Candidate {
        provider: provider?,
        model: model?,
        price,
        max_output_tokens: max_output_tokens.flatten(),
    })
}

fn positive(text: &str) -> scalar::Result<u64> {
    match scalar::integer(text)? {
        0 => Err(scalar::Refusal::new("expected a number of at least 1")),
        number => Ok(number),
    }
}

fn price(item: &Item<'_>) -> Option<Price> {
    item.fields(|f| {
        let input = f.require("input").and_then(|item| item.parse(scalar::price));
        let output = f.require("output").and_then(|item| item.parse(scalar::price));
        let fallback = input.unwrap_or(0);
        let input_cache_read = f.or("cache_read", fallback, scalar::price);
        let input_cache_write = f.or("cache_write", fallback, scalar::price);
        Some(Price { input: input?, input_cache_read, input_cache_write, output: output? })
    })
}

impl Default for LlmLimits {
    fn default() -> Self {
        Self { max_body: ByteSize(10 << 20), max_attempts: 4 }
    }
}

fn limits(f: &mut Fields<'_>) -> LlmLimits {
    let max_body = f.size_or("max_body", 10 << 20, 1 << 10..=1 << 30);
    let max_attempts = f.number_or("max_attempts", 4, 1..=100);
    LlmLimits { max_body, max_attempts: u32::try_from(max_attempts).unwrap_or(100) }
}

impl Default for LlmTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_token: Duration::from_secs(60),
            inter_token: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}

fn timeouts(f: &mut Fields<'_>) -> LlmTimeouts {
    let default = LlmTimeouts::default();
    LlmTimeouts {
        connect: f.or("connect", default.connect, scalar::duration),
        first_token: f.or("first_token", default.first_token, scalar::duration),
        inter_token: f.or("inter_token", default.inter_token, scalar::duration),
        total: f.or("total", default.total, scalar::duration),
    }
}
