//! The request map: OpenAI's members to Anthropic's.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{STRUCTURED_OUTPUT_TOOL, messages, model::Version};
use crate::llm::{ChatRequest, LlmError, UpstreamRequest};

/// Used when neither the caller nor the gateway sets a limit; the API demands one.
const DEFAULT_MAX_TOKENS: u64 = 4096;
/// The API's smallest thinking budget.
const LEAST_BUDGET: u64 = 1024;

/// Members that are read here or mean nothing to the provider.
const HANDLED: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "stop",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "reasoning_effort",
    "thinking",
    "user",
    "safety_identifier",
    "service_tier",
];

/// Known members without an equivalent.
const WITHOUT_EQUIVALENT: &[&str] = &[
    "audio",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "metadata",
    "modalities",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "seed",
    "store",
    "top_logprobs",
    "verbosity",
    "web_search_options",
];

pub(crate) fn request(
    request: &ChatRequest,
    model: &str,
    ceiling: Option<u64>,
) -> Result<UpstreamRequest, LlmError> {
    let given: Map<String, Value> =
        serde_json::from_slice(request.body()).map_err(|error| LlmError::NotJson(error.to_string()))?;
    if request.choices() > 1 {
        return Err(LlmError::unsupported("n", "must be 1 with this model"));
    }
    for legacy in ["functions", "function_call"] {
        if given.get(legacy).is_some_and(|value| !value.is_null()) {
            return Err(LlmError::unsupported(legacy, "is not supported with this model; use `tools`"));
        }
    }
    let wanted = request.max_output_tokens();
    let limit = match (wanted, ceiling) {
        (Some(wanted), Some(ceiling)) => wanted.min(ceiling),
        (one, other) => one.or(other).unwrap_or(DEFAULT_MAX_TOKENS),
    };
    let turns = messages::convert(&given["messages"])?;
    let mut map =
        RequestMap { given: &given, version: Version::of(model), out: Map::new(), dropped: Vec::new() };
    if turns.moved_system {
        map.dropped.push("position of system messages");
    }
    map.out.insert("model".into(), model.into());
    map.out.insert("max_tokens".into(), limit.into());
    if !turns.system.is_empty() {
        map.out.insert("system".into(), turns.system.into());
    }
    map.tools()?;
    map.tool_choice()?;
    map.response_format()?;
    map.thinking(limit, ceiling, turns.calls_without_thinking);
    map.out.insert("messages".into(), turns.turns.into());
    map.sampling();
    map.stop()?;
    map.caller();
    if request.stream() {
        map.out.insert("stream".into(), true.into());
    }
    map.report_dropped();
    let RequestMap { out, dropped, .. } = map;
    Ok(UpstreamRequest {
        path: "/messages",
        headers: headers(request.stream()),
        body: Bytes::from(Value::Object(out).to_string()),
        dropped,
    })
}

fn headers(stream: bool) -> Vec<(HeaderName, HeaderValue)> {
    let accept = if stream { "text/event-stream" } else { "application/json" };
    vec![
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ACCEPT, HeaderValue::from_static(accept)),
        // The newest version refuses sampling parameters that callers may send.
        (HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01")),
    ]
}

struct RequestMap<'a> {
    given: &'a Map<String, Value>,
    version: Version,
    out: Map<String, Value>,
    dropped: Vec<&'static str>,
}

impl<'a> RequestMap<'a> {
    fn value(&self, name: &str) -> Option<&'a Value> {
        self.given.get(name).filter(|value| !value.is_null())
    }

    fn tools(&mut self) -> Result<(), LlmError> {
        let Some(tools) = self.value("tools") else { return Ok(()) };
        let tools = tools.as_array().ok_or_else(|| LlmError::invalid("tools", "must be an array"))?;
        let mut out = Vec::with_capacity(tools.len());
        for (at, tool) in tools.iter().enumerate() {
            let function = &tool["function"];
            if tool["type"].as_str().is_some_and(|kind| kind != "function") {
                return Err(LlmError::unsupported(format!("tools[{at}].type"), "must be `function`"));
            }
            let Some(name) = function["name"].as_str() else {
                return Err(LlmError::invalid(format!("tools[{at}].function.name"), "must be a string"));
            };
            let mut mapped = json!({"name": name});
            for (from, to) in [("description", "description"), ("strict", "strict")] {
                if !function[from].is_null() {
                    mapped[to] = function[from].clone();
                }
            }
            mapped["input_schema"] = match &function["parameters"] {
                Value::Object(schema) if !schema.is_empty() => Value::Object(schema.clone()),
                _ => json!({"type": "object", "properties": {}}),
            };
            if !tool["cache_control"].is_null() {
                mapped["cache_control"] = tool["cache_control"].clone();
            }
            out.push(mapped);
        }
        if !out.is_empty() {
            self.out.insert("tools".into(), out.into());
        }
        Ok(())
    }

    fn tool_choice(&mut self) -> Result<(), LlmError> {
        let wrong = || LlmError::invalid("tool_choice", "is not a known choice");
        let single = self.value("parallel_tool_calls") == Some(&Value::Bool(false));
        if !self.out.contains_key("tools") {
            return Ok(());
        }
        let mut choice = match self.value("tool_choice") {
            None if single => json!({"type": "auto"}),
            None => return Ok(()),
            Some(Value::String(word)) => mode(word).ok_or_else(wrong)?,
            Some(choice) => match choice["type"].as_str() {
                Some("function") => {
                    let name = choice["function"]["name"].as_str().ok_or_else(wrong)?;
                    json!({"type": "tool", "name": name})
                }
                Some("allowed_tools") => {
                    let allowed = match &choice["allowed_tools"] {
                        Value::Null => choice,
                        nested => nested,
                    };
                    self.keep_tools(&allowed["tools"]).ok_or_else(wrong)?;
                    mode(allowed["mode"].as_str().unwrap_or("auto")).ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            },
        };
        if single && choice["type"] != "none" {
            choice["disable_parallel_tool_use"] = true.into();
        }
        self.out.insert("tool_choice".into(), choice);
        Ok(())
    }

    /// Leaves the tools that are listed; `None` if the list is none.
    fn keep_tools(&mut self, listed: &Value) -> Option<()> {
        let names: Vec<_> = listed
            .as_array()?
            .iter()
            .filter_map(|tool| tool["function"]["name"].as_str().or(tool["name"].as_str()))
            .collect();
        let tools = self.out.get_mut("tools")?.as_array_mut()?;
        tools.retain(|tool| tool["name"].as_str().is_some_and(|name| names.contains(&name)));
        (!tools.is_empty()).then_some(())
    }

    fn response_format(&mut self) -> Result<(), LlmError> {
        let Some(format) = self.value("response_format") else { return Ok(()) };
        match format["type"].as_str() {
            Some("text") => Ok(()),
            Some("json_schema") => {
                let Some(schema) = format.pointer("/json_schema/schema").filter(|s| s.is_object()) else {
                    let param = "response_format.json_schema.schema";
                    return Err(LlmError::invalid(param, "must be an object"));
                };
                self.schema(schema);
                Ok(())
            }
            Some(_) => {
                self.dropped.push("response_format");
                Ok(())
            }
            None => Err(LlmError::invalid("response_format.type", "is missing")),
        }
    }

    fn schema(&mut self, schema: &Value) {
        if self.version.takes_output_format() {
            let format = json!({"type": "json_schema", "schema": schema});
            self.out.insert("output_config".into(), json!({"format": format}));
            return;
        }
        if self.out.contains_key("tools") {
            // A forced call would keep the caller's own tools from being used.
            self.dropped.push("response_format");
            return;
        }
        self.out.insert("tools".into(), json!([{"name": STRUCTURED_OUTPUT_TOOL, "input_schema": schema}]));
        self.out.insert("tool_choice".into(), json!({"type": "tool", "name": STRUCTURED_OUTPUT_TOOL}));
    }

    fn thinking(&mut self, limit: u64, ceiling: Option<u64>, calls_without_thinking: bool) {
        let asked = self.value("reasoning_effort").and_then(Value::as_str).filter(|effort| *effort != "none");
        let explicit = self.value("thinking").filter(|thinking| thinking.is_object());
        if asked.is_none() && explicit.is_none() {
            return;
        }
        let name = if explicit.is_some() { "thinking" } else { "reasoning_effort" };
        let forced =
            matches!(self.out.get("tool_choice").and_then(|c| c["type"].as_str()), Some("any" | "tool"));
        let off = explicit.is_some_and(|thinking| thinking["type"] == "disabled");
        // With thinking on, a tool turn must begin with its thinking block.
        if !off && (forced || calls_without_thinking || !self.version.thinks()) {
            self.dropped.push(name);
            return;
        }
        if let Some(thinking) = explicit {
            self.out.insert("thinking".into(), thinking.clone());
        } else if let Some(effort) = asked {
            self.effort(effort, limit, ceiling);
        }
    }

    fn effort(&mut self, effort: &str, limit: u64, ceiling: Option<u64>) {
        if self.version.takes_effort() {
            let level = match effort {
                "minimal" | "low" => "low",
                "medium" => "medium",
                "max" => "max",
                _ => "high",
            };
            self.out.insert("thinking".into(), json!({"type": "adaptive"}));
            let config = self.out.entry("output_config").or_insert_with(|| json!({}));
            config["effort"] = level.into();
            return;
        }
        let budget = match effort {
            "minimal" | "low" => LEAST_BUDGET,
            "medium" => 2048,
            "xhigh" => 8192,
            "max" => 16_384,
            _ => 4096,
        };
        // The answer comes on top of the budget, but never above the ceiling.
        let total = (limit + budget).min(ceiling.unwrap_or(u64::MAX));
        let budget = budget.min(total.saturating_sub(1));
        if budget < LEAST_BUDGET {
            self.dropped.push("reasoning_effort");
            return;
        }
        self.out.insert("max_tokens".into(), total.into());
        self.out.insert("thinking".into(), json!({"type": "enabled", "budget_tokens": budget}));
    }

    fn sampling(&mut self) {
        let thinks = self.out.get("thinking").is_some_and(|thinking| thinking["type"] != "disabled");
        let temperature = self.value("temperature").and_then(Value::as_f64);
        for name in ["temperature", "top_p", "top_k"] {
            let Some(value) = self.value(name) else { continue };
            let one_only = name == "top_p" && temperature.is_some();
            if thinks || (one_only && self.version.takes_one_sampling_parameter()) {
                self.dropped.push(name);
                continue;
            }
            // OpenAI's scale ends at 2, Anthropic's at 1.
            let value = match temperature {
                Some(high) if name == "temperature" && high > 1.0 => json!(1.0),
                _ => value.clone(),
            };
            self.out.insert(name.into(), value);
        }
    }

    fn stop(&mut self) -> Result<(), LlmError> {
        let wrong = || LlmError::invalid("stop", "must be a string or an array of strings");
        let stops: Vec<&str> = match self.value("stop") {
            None => return Ok(()),
            Some(Value::String(stop)) => vec![stop],
            Some(Value::Array(stops)) => {
                stops.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        // The API refuses blank sequences.
        let kept: Vec<_> = stops.iter().filter(|stop| !stop.trim().is_empty()).copied().collect();
        if kept.len() < stops.len() {
            self.dropped.push("stop");
        }
        if !kept.is_empty() {
            self.out.insert("stop_sequences".into(), kept.into());
        }
        Ok(())
    }

    fn caller(&mut self) {
        let user = self.value("safety_identifier").or_else(|| self.value("user"));
        if let Some(user) = user.and_then(Value::as_str) {
            // The API wants no names or addresses, which callers do send.
            let id = hex::encode(&Sha256::digest(user.as_bytes())[..16]);
            self.out.insert("metadata".into(), json!({"user_id": id}));
        }
        match self.value("service_tier").and_then(Value::as_str) {
            None => {}
            Some("auto") => drop(self.out.insert("service_tier".into(), "auto".into())),
            Some("default") => drop(self.out.insert("service_tier".into(), "standard_only".into())),
            Some(_) => self.dropped.push("service_tier"),
        }
    }

    fn report_dropped(&mut self) {
        for name in WITHOUT_EQUIVALENT {
            if self.value(name).is_some() {
                self.dropped.push(name);
            }
        }
        let known = |name: &str| HANDLED.contains(&name) || WITHOUT_EQUIVALENT.contains(&name);
        if self.given.keys().any(|name| !known(name)) {
            self.dropped.push("other");
        }
    }
}

fn mode(word: &str) -> Option<Value> {
    let mode = match word {
        "auto" => "auto",
        "none" => "none",
        "required" => "any",
        _ => return None,
    };
    Some(json!({"type": mode}))
}

#[cfg(test)]
mod tests;
