//! One provider's event stream, turned into the caller's.

use bytes::{Bytes, BytesMut};

use super::{
    ChatRequest, Usage,
    dialect::{anthropic, openai},
    error::{BadUpstream, StreamFault},
    sse::{SseEvent, SseParser},
};
use crate::config::llm::Api;

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamState {
    /// No content yet: another provider may still be asked.
    Waiting,
    /// Content was produced: this provider's answer is the answer.
    Content,
    /// The provider ended the stream properly.
    Done,
    /// Final. A provider that closes without its terminator counts as broken
    /// too, since clients would take the clean end for a complete answer.
    Broken(StreamFault),
}

/// What one piece of input led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStep {
    /// For the caller; may be empty. With [`StreamState::Broken`] these are the
    /// events before the fault: to be sent if the answer is committed already,
    /// to be dropped if another provider is asked.
    pub out: Bytes,
    pub state: StreamState,
}

/// What one event means.
pub(crate) enum Step {
    /// Goes on; nothing of it is content.
    Passed,
    Content,
    Done,
}

enum Machine {
    OpenAi(Box<openai::ChunkStream>),
    Anthropic(Box<anthropic::MessageStream>),
}

/// Feed what the provider sends, in any chunking; send on what comes out.
pub struct Stream {
    parser: SseParser,
    machine: Machine,
    state: StreamState,
}

/// Collects outgoing bytes; a single forwarded slice is never copied.
#[derive(Default)]
pub(crate) struct Outgoing {
    first: Bytes,
    rest: BytesMut,
}

impl Outgoing {
    pub(crate) fn forward(&mut self, raw: Bytes) {
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = raw;
        } else {
            self.buffer().extend_from_slice(&raw);
        }
    }

    /// For bytes that are written rather than forwarded.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        if !self.first.is_empty() {
            // Neighbours in one chunk arrive one by one; joining them copies once.
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        &mut self.rest
    }

    fn take(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

impl Stream {
    pub fn new(api: Api, request: &ChatRequest) -> Self {
        let machine = match api {
            Api::OpenAi => Machine::OpenAi(Box::new(openai::ChunkStream::new(request))),
            Api::Anthropic => Machine::Anthropic(Box::new(anthropic::MessageStream::new(request))),
        };
        Self { parser: SseParser::default(), machine, state: StreamState::Waiting }
    }

    /// Takes bytes as they arrive. After `Done` and `Broken` nothing more comes out.
    pub fn push(&mut self, chunk: Bytes) -> StreamStep {
        let mut out = Outgoing::default();
        if !self.is_over() {
            self.parser.push(chunk);
        }
        while !self.is_over() {
            match self.parser.next_event() {
                Ok(Some(event)) => self.take_event(event, &mut out),
                Ok(None) => break,
                Err(_) => self.broken(BadUpstream::bad_stream("the provider sent an oversized event")),
            }
        }
        StreamStep { out: out.take(), state: self.state.clone() }
    }

    /// The provider closed the stream.
    pub fn end(&mut self) -> StreamStep {
        let mut out = Outgoing::default();
        if !self.is_over() {
            // Some servers leave out the last blank line; anything but a
            // terminator in it is the torn start of an event.
            if let Some(event) = self.parser.finish() {
                let mut last = Outgoing::default();
                self.take_event(event, &mut last);
                if self.state == StreamState::Done {
                    out = last;
                }
            }
            if self.state != StreamState::Done {
                self.broken(BadUpstream::bad_stream("the provider closed the stream before its end"));
            }
        }
        StreamStep { out: out.take(), state: self.state.clone() }
    }

    /// What the provider reported so far; it may change until the end.
    pub fn usage(&self) -> Option<Usage> {
        match &self.machine {
            Machine::OpenAi(machine) => machine.usage(),
            Machine::Anthropic(machine) => machine.usage(),
        }
    }

    /// Tokens of output produced so far, guessed from the bytes; for streams
    /// that end without a report.
    pub fn delivered_output_estimate(&self) -> u64 {
        let bytes = match &self.machine {
            Machine::OpenAi(machine) => machine.content_bytes(),
            Machine::Anthropic(machine) => machine.content_bytes(),
        };
        bytes.div_ceil(4)
    }

    fn take_event(&mut self, event: SseEvent, out: &mut Outgoing) {
        let step = match &mut self.machine {
            Machine::OpenAi(machine) => machine.take(event, out),
            Machine::Anthropic(machine) => machine.take(&event, out),
        };
        match step {
            Ok(Step::Passed) => {}
            Ok(Step::Content) => self.state = StreamState::Content,
            Ok(Step::Done) => self.state = StreamState::Done,
            Err(fault) => self.broken(fault),
        }
    }

    fn broken(&mut self, fault: StreamFault) {
        // Errored is final: a late chunk must not reopen the stream.
        self.state = StreamState::Broken(fault);
    }

    fn is_over(&self) -> bool {
        matches!(self.state, StreamState::Done | StreamState::Broken(_))
    }
}
