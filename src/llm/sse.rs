//! Server-sent events from any chunking. An event that arrived within one
//! chunk is slices of that chunk; only events across chunks are copied.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// An event that grows beyond this is refused, which bounds memory per stream.
const MAX_EVENT: usize = 8 << 20;

/// One block of lines up to and including the blank line that ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// All of its bytes, line ends included.
    pub raw: Bytes,
    /// The `event` field; empty if absent.
    pub name: Bytes,
    /// The `data` lines joined by LF; `None` if there are none (a comment).
    pub data: Option<Bytes>,
}

/// The stream sent an event larger than the parser keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversized;

/// Feed with [`SseParser::push`], then take events until there are none.
#[derive(Debug, Default)]
pub struct SseParser {
    /// Not yet looked at. Empty while `carry` holds the start of an event.
    ready: Bytes,
    /// The start of an event whose end has not arrived.
    carry: BytesMut,
    /// In `carry`: the start of the last line, which has no end yet.
    line: usize,
    /// In `carry`: up to here there is no line end after `line`.
    scanned: usize,
    started: bool,
}

impl SseParser {
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.ready.is_empty(), "events of the last chunk were not taken");
        if self.carry.is_empty() {
            self.ready = chunk;
        } else {
            self.carry.extend_from_slice(&chunk);
        }
    }

    /// The next complete event, if it has arrived.
    pub fn next_event(&mut self) -> Result<Option<SseEvent>, Oversized> {
        if self.carry.is_empty() {
            return self.next_ready();
        }
        let mut scan = Scan { line: self.line, at: self.scanned };
        let Some(end) = scan.blank_line(&self.carry) else {
            (self.line, self.scanned) = (scan.line, scan.at);
            return if self.carry.len() > MAX_EVENT { Err(Oversized) } else { Ok(None) };
        };
        let raw = self.carry.split_to(end).freeze();
        self.ready = self.carry.split().freeze();
        (self.line, self.scanned) = (0, 0);
        Ok(Some(self.event(&raw)))
    }

    /// What is left when the stream ends, as if the blank line had come.
    pub fn finish(&mut self) -> Option<SseEvent> {
        let mut rest = std::mem::take(&mut self.carry);
        rest.extend_from_slice(&std::mem::take(&mut self.ready));
        if rest.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            return None;
        }
        // One line end if the last line has its own, else two.
        let ends = if rest.ends_with(b"\n") || rest.ends_with(b"\r") { &b"\n"[..] } else { b"\n\n" };
        rest.extend_from_slice(ends);
        Some(self.event(&rest.freeze()))
    }

    fn next_ready(&mut self) -> Result<Option<SseEvent>, Oversized> {
        let mut scan = Scan { line: 0, at: 0 };
        if let Some(end) = scan.blank_line(&self.ready) {
            let raw = self.ready.split_to(end);
            return Ok(Some(self.event(&raw)));
        }
        self.carry.extend_from_slice(&std::mem::take(&mut self.ready));
        (self.line, self.scanned) = (scan.line, scan.at);
        if self.carry.len() > MAX_EVENT { Err(Oversized) } else { Ok(None) }
    }

    fn event(&mut self, raw: &Bytes) -> SseEvent {
        // A byte order mark may stand before the first line.
        let skip = if !self.started && raw.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        self.started = true;
        let mut event = SseEvent { raw: raw.clone(), name: Bytes::new(), data: None };
        let mut from = skip;
        while let Some(length) = memchr2(b'\r', b'\n', &raw[from..]) {
            let line = raw.slice(from..from + length);
            from += length + 1;
            if raw[from - 1] == b'\r' && raw.get(from) == Some(&b'\n') {
                from += 1;
            }
            field(&mut event, &line);
        }
        event
    }
}

fn field(event: &mut SseEvent, line: &Bytes) {
    let value = |name: usize| match line.get(name) {
        None => Some(Bytes::new()),
        Some(b':') => Some(line.slice(name + 1 + usize::from(line.get(name + 1) == Some(&b' '))..)),
        Some(_) => None,
    };
    if line.starts_with(b"data") {
        let Some(value) = value(4) else { return };
        event.data = Some(match event.data.take() {
            None => value,
            Some(before) => [&before[..], b"\n", &value[..]].concat().into(),
        });
    } else if line.starts_with(b"event")
        && let Some(value) = value(5)
    {
        event.name = value;
    }
}

struct Scan {
    line: usize,
    at: usize,
}

impl Scan {
    /// The end of the first blank line. A CR at the very end may be half of a
    /// CRLF, so it is left for the next call.
    fn blank_line(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(length) = memchr2(b'\r', b'\n', &bytes[self.at..]) {
            let end = self.at + length;
            let after = match (bytes[end], bytes.get(end + 1)) {
                (b'\r', None) => {
                    self.at = end;
                    return None;
                }
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            let blank = end == self.line;
            (self.line, self.at) = (after, after);
            if blank {
                return Some(after);
            }
        }
        self.at = bytes.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&[u8]]) -> (Vec<SseEvent>, Option<SseEvent>) {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = parser.next_event().unwrap() {
                events.push(event);
            }
        }
        let rest = parser.finish();
        (events, rest)
    }

    fn shape(event: &SseEvent) -> (String, Option<String>) {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&event.name), event.data.as_ref().map(text))
    }

    const MIXED: &str = "\u{feff}event: a\r\ndata: {\"x\":\r\ndata:  1}\r\n\r\n: note\n\ndata:ü\revent:b\r\rdata\n\n\
        id: 7\nretry: 1\ndatax: no\ndata: last\n\n";

    #[test]
    fn every_chunking_gives_the_same_events() {
        let (whole, rest) = parse(&[MIXED.as_bytes()]);
        assert_eq!(rest, None);
        let shapes: Vec<_> = whole.iter().map(shape).collect();
        let expected =
            [("a", Some("{\"x\":\n 1}")), ("", None), ("b", Some("ü")), ("", Some("")), ("", Some("last"))];
        let expected: Vec<_> =
            expected.map(|(name, data)| (name.to_owned(), data.map(str::to_owned))).to_vec();
        assert_eq!(shapes, expected);
        let raw: Vec<u8> = whole.iter().flat_map(|event| event.raw.to_vec()).collect();
        assert_eq!(raw, MIXED.as_bytes());
        let bytes: Vec<&[u8]> = MIXED.as_bytes().chunks(1).collect();
        assert_eq!(parse(&bytes).0, whole);
        for cut in 0..MIXED.len() {
            let (head, tail) = MIXED.as_bytes().split_at(cut);
            assert_eq!(parse(&[head, tail]).0, whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_within_a_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: one\n\ndata: two\n\n");
        let mut parser = SseParser::default();
        parser.push(chunk.clone());
        for start in [0, 11] {
            let event = parser.next_event().unwrap().unwrap();
            assert_eq!(event.raw.as_ptr(), chunk[start..].as_ptr());
            assert_eq!(event.data.unwrap().as_ptr(), chunk[start + 6..].as_ptr());
        }
    }

    #[test]
    fn what_is_left_at_the_end_gets_its_blank_line() {
        let (events, rest) = parse(&[b"data: a\n\ndata: [DONE]"]);
        assert_eq!(events.len(), 1);
        let rest = rest.unwrap();
        assert_eq!(rest.raw, "data: [DONE]\n\n");
        assert_eq!(rest.data.unwrap(), "[DONE]");
        assert_eq!(parse(&[b"data: x\n"]).1.unwrap().raw, "data: x\n\n");
        assert_eq!(parse(&[b"data: x\r\n\r"]).1.unwrap().data.unwrap(), "x");
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let chunk = Bytes::from(vec![b'x'; 1 << 20]);
        let refused = (0..10).any(|_| {
            parser.push(chunk.clone());
            parser.next_event() == Err(Oversized)
        });
        assert!(refused);
    }
}
