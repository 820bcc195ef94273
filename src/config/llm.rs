//! An LLM service: providers, models, prices.

use std::{collections::BTreeMap, time::Duration};

use super::{ByteSize, Name, Secret, service::Target};

#[derive(Debug, Clone)]
pub struct Llm {
    pub providers: BTreeMap<Name, Provider>,
    /// Keyed by the name that callers use; may contain `/` and `:`.
    pub models: BTreeMap<String, Model>,
    pub limits: LlmLimits,
    pub timeouts: LlmTimeouts,
}

#[derive(Debug, Clone)]
pub struct Provider {
    pub api: Api,
    pub target: Target,
    /// Path before the API's own, for example `/v1`. Empty or starting with `/`, no trailing `/`.
    pub base_path: String,
    /// The platform's key; absent when only callers' own keys are used.
    pub key: Option<Secret>,
}

/// The dialect a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI chat completions and everything compatible with them.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
}

#[derive(Debug, Clone)]
pub struct Model {
    /// In order of preference; never empty.
    pub candidates: Vec<Candidate>,
}

#[derive(Debug, Clone)]
pub struct Candidate {
    pub provider: Name,
    pub model: String,
    /// Absent means unknown, never free.
    pub price: Option<Price>,
    pub max_output_tokens: Option<u64>,
}

/// pico-USD per token; 1 USD per million tokens is 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub input_cache_read: u64,
    pub input_cache_write: u64,
    pub output: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct LlmLimits {
    /// Default 10 MiB. Exceeded: 413.
    pub max_body: ByteSize,
    /// Attempts of one request, the first included. Default 4.
    pub max_attempts: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct LlmTimeouts {
    /// Default 2 s.
    pub connect: Duration,
    /// From the end of the request to the first content. Default 60 s.
    pub first_token: Duration,
    /// Between two reads of a stream after that. Default 60 s.
    pub inter_token: Duration,
    /// The whole request, all attempts. Default 600 s.
    pub total: Duration,
}
