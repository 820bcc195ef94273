//! Edits to JSON text by span, so that everything else keeps its bytes.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A member's text as it stands in the body. Unlike an `Option`, it tells
/// `null` from absent: inserting a member that is there as `null` would
/// duplicate it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw<'a>(pub(crate) Option<&'a RawValue>);

impl<'a> Raw<'a> {
    /// The text, unless absent or `null`.
    pub(crate) fn value(self) -> Option<&'a str> {
        self.0.map(RawValue::get).filter(|text| *text != "null")
    }

    /// Where it stands in `body`, which must be the text it was read from.
    pub(crate) fn span(self, body: &str) -> Option<Range<usize>> {
        self.0.map(|raw| span_of(raw.get(), body))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

/// Where `part` stands in `whole`, of which it must be a part.
pub(crate) fn span_of(part: &str, whole: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// Replacements, each of one span. An empty span inserts.
#[derive(Debug, Default)]
pub(crate) struct Patch<'a>(Vec<(Range<usize>, Cow<'a, str>)>);

impl<'a> Patch<'a> {
    pub(crate) fn replace(&mut self, span: Range<usize>, text: impl Into<Cow<'a, str>>) {
        self.0.push((span, text.into()));
    }

    pub(crate) fn insert(&mut self, at: usize, text: impl Into<Cow<'a, str>>) {
        self.replace(at..at, text);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of `body` with all edits; spans must not overlap. Without any,
    /// this is `body` itself, uncopied.
    pub(crate) fn apply(mut self, body: &Bytes) -> Bytes {
        if self.0.is_empty() {
            return body.clone();
        }
        self.0.sort_by_key(|(span, _)| span.start);
        let grown: usize = self.0.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(body.len() + grown);
        let mut from = 0;
        for (span, text) in &self.0 {
            out.extend_from_slice(&body[from..span.start]);
            out.extend_from_slice(text.as_bytes());
            from = span.end;
        }
        out.extend_from_slice(&body[from..]);
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_any_order() {
        let mut patch = Patch::default();
        patch.replace(4..5, "E");
        patch.insert(1, "--");
        assert_eq!(patch.apply(&Bytes::from("abcdef")), "a--bcdEf");
    }

    #[test]
    fn null_is_not_absent() {
        #[derive(Deserialize)]
        struct Pair<'a> {
            #[serde(borrow, default)]
            a: Raw<'a>,
            #[serde(borrow, default)]
            b: Raw<'a>,
        }
        let body = r#"{"a": null }"#;
        let pair: Pair<'_> = serde_json::from_str(body).unwrap();
        assert_eq!((pair.a.span(body), pair.a.value()), (Some(6..10), None));
        assert_eq!(pair.b.span(body), None);
    }
}
