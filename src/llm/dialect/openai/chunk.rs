//! The stream of a compatible provider: events go on as they came, one cheap
//! look at each tells content, usage, errors and the end.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Call, call_id, in_band_fault, name_call, observe_usage};
use crate::llm::{
    BadUpstream, ChatRequest, StreamFault, Usage,
    patch::{Patch, Raw},
    sse::SseEvent,
    stream::{Outgoing, Step},
    usage::OpenAiUsage,
};

pub(crate) struct ChunkStream {
    request: ChatRequest,
    usage: OpenAiUsage,
    content_bytes: u64,
    /// Tool calls (choice, index) that were begun.
    calls: Vec<(u64, u64)>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
    #[serde(borrow, default)]
    usage: Raw<'a>,
    #[serde(borrow, default)]
    x_groq: Raw<'a>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Raw<'a>,
    #[serde(borrow, default)]
    refusal: Raw<'a>,
    #[serde(borrow, default)]
    reasoning: Raw<'a>,
    #[serde(borrow, default)]
    reasoning_content: Raw<'a>,
    #[serde(borrow, default)]
    audio: Raw<'a>,
    #[serde(borrow, default)]
    images: Raw<'a>,
    #[serde(borrow, default)]
    function_call: Raw<'a>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<&'a RawValue>>,
}

impl ChunkStream {
    pub(crate) fn new(request: &ChatRequest) -> Self {
        Self { request: request.clone(), usage: OpenAiUsage::default(), content_bytes: 0, calls: Vec::new() }
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage.usage()
    }

    pub(crate) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    pub(crate) fn take(&mut self, event: SseEvent, out: &mut Outgoing) -> Result<Step, StreamFault> {
        let Some(data) = &event.data else {
            out.forward(event.raw);
            return Ok(Step::Passed);
        };
        if data.trim_ascii() == b"[DONE]" {
            out.forward(event.raw);
            return Ok(Step::Done);
        }
        let text = std::str::from_utf8(data).map_err(|_| not_json())?;
        let chunk: Chunk<'_> = match serde_json::from_str(text) {
            Ok(chunk) => chunk,
            Err(_) => return pass_unknown(text, event.raw, out),
        };
        observe_usage(&mut self.usage, chunk.x_groq, chunk.usage);
        if chunk.error.value().is_some() || event.name == "error" {
            // An error is one even if `[DONE]` follows it.
            return Err(in_band_fault(text).unwrap_or_else(|| {
                BadUpstream::bad_stream("the provider reported an error inside the stream")
            }));
        }
        let choices = chunk.choices.unwrap_or_default();
        if choices.is_empty() && chunk.usage.value().is_some() && !self.request.wants_usage() {
            return Ok(Step::Passed);
        }
        let (mut content, mut patch) = (0, Patch::default());
        for choice in &choices {
            let Some(delta) = &choice.delta else { continue };
            content += delta.content_bytes();
            for (at, call) in delta.tool_calls.iter().flatten().enumerate() {
                content += self.take_call(&mut patch, text, call, chunk.id, (choice.index, at as u64));
            }
        }
        let patched = (!patch.is_empty()).then(|| patch.apply(data));
        match patched {
            // A call without an id was given one; such events are rare.
            Some(data) => write_event(&event.name, &data, out),
            None => out.forward(event.raw),
        }
        self.content_bytes += content;
        Ok(if content > 0 { Step::Content } else { Step::Passed })
    }

    /// Looks at one fragment of a tool call; answers its bytes of content.
    fn take_call(
        &mut self,
        patch: &mut Patch<'static>,
        text: &str,
        call: &RawValue,
        answer: Raw<'_>,
        (choice, at): (u64, u64),
    ) -> u64 {
        let Ok(parsed) = serde_json::from_str::<Call<'_>>(call.get()) else { return 0 };
        let key = (choice, parsed.index.unwrap_or(at));
        if !self.calls.contains(&key) {
            self.calls.push(key);
            name_call(patch, text, call, || call_id(&self.request, answer, key.0, key.1));
        }
        let function = parsed.function.unwrap_or_default();
        [function.name, function.arguments].iter().filter_map(|part| part.value()).map(payload).sum::<usize>()
            as u64
    }
}

impl Delta<'_> {
    /// Bytes of what a reader would see, apart from tool calls.
    fn content_bytes(&self) -> u64 {
        let parts = [
            self.content,
            self.refusal,
            self.reasoning,
            self.reasoning_content,
            self.audio,
            self.images,
            self.function_call,
        ];
        let texts = parts.iter().filter_map(|part| part.value()).map(payload);
        texts.sum::<usize>() as u64
    }
}

/// The bytes between the quotes, brackets or braces.
fn payload(json: &str) -> usize {
    json.len().saturating_sub(2)
}

/// JSON that is no chunk is not ours to judge; what is no JSON never goes on.
fn pass_unknown(text: &str, raw: Bytes, out: &mut Outgoing) -> Result<Step, StreamFault> {
    if let Some(fault) = in_band_fault(text) {
        return Err(fault);
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| not_json())?;
    out.forward(raw);
    Ok(Step::Passed)
}

fn not_json() -> StreamFault {
    BadUpstream::bad_stream("the provider sent an event that is not JSON")
}

fn write_event(name: &[u8], data: &[u8], out: &mut Outgoing) {
    let buffer = out.buffer();
    if !name.is_empty() {
        buffer.extend_from_slice(b"event: ");
        buffer.extend_from_slice(name);
        buffer.extend_from_slice(b"\n");
    }
    for line in data.split(|byte| *byte == b'\n') {
        buffer.extend_from_slice(b"data: ");
        buffer.extend_from_slice(line);
        buffer.extend_from_slice(b"\n");
    }
    buffer.extend_from_slice(b"\n");
}
