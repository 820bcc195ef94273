//! Regular expressions as Go's RE2 reads them, on the `regex` crate.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// A compiled pattern. Compares and prints by what was written.
#[derive(Clone)]
pub(super) struct Pattern {
    source: String,
    regex: Regex,
}

/// Compiled size of one pattern. The crate's default of 10 MiB is too much for
/// a table that may hold thousands.
const SIZE_LIMIT: usize = 1 << 20;

impl Pattern {
    /// The reason is one line, without the crate's picture of the pattern.
    pub(super) fn new(source: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(&from_re2(source))
            .size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| last_line(&error.to_string()))?;
        Ok(Self { source: source.to_owned(), regex })
    }

    pub(super) fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Rewrites what the two dialects read differently: a `{` that counts nothing is
/// literal in RE2, `\d \s \w \b` are ASCII there, and a class there knows no
/// nesting and no set operations.
fn from_re2(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 8);
    let mut rest = source;
    let mut class_start = None;
    while let Some(char) = rest.chars().next() {
        let mut used = char.len_utf8();
        match (char, class_start) {
            ('\\', _) => used = escape(rest, class_start.is_some(), &mut out),
            ('[', None) => {
                used = open_class(rest, &mut out);
                class_start = Some(out.len());
            }
            ('[', Some(_)) if !rest.starts_with("[:") => out.push_str("\\["),
            ('[', Some(_)) => used = named_class(rest, &mut out),
            (']', Some(_)) => {
                class_start = None;
                out.push(']');
            }
            ('&' | '~', Some(_)) => out.extend(['\\', char]),
            ('-', Some(_)) if rest.starts_with("--") => out.push_str("\\-"),
            ('{', None) if !counts(rest) => out.push_str("\\{"),
            _ => out.push(char),
        }
        rest = &rest[used..];
    }
    out
}

/// Copies `[`, `[^` and a `]` right after them, which is literal.
fn open_class(rest: &str, out: &mut String) -> usize {
    let negated = rest.starts_with("[^");
    let opening = if negated { "[^" } else { "[" };
    out.push_str(opening);
    if rest[opening.len()..].starts_with(']') {
        out.push_str("\\]");
        return opening.len() + 1;
    }
    opening.len()
}

fn named_class(rest: &str, out: &mut String) -> usize {
    let end = rest.find(":]").map_or(1, |at| at + 2);
    out.push_str(&rest[..end]);
    end
}

fn escape(rest: &str, in_class: bool, out: &mut String) -> usize {
    let Some(char) = rest[1..].chars().next() else {
        out.push('\\');
        return 1;
    };
    match char {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'B' if !in_class => out.push_str(r"(?-u:\B)"),
        'Q' if !in_class => {
            let quoted = &rest[2..];
            let end = quoted.find("\\E").unwrap_or(quoted.len());
            out.push_str(&regex::escape(&quoted[..end]));
            return (end + 4).min(rest.len());
        }
        _ => out.extend(['\\', char]),
    }
    1 + char.len_utf8()
}

/// Whether the text starts with `{n}`, `{n,}` or `{n,m}`.
fn counts(rest: &str) -> bool {
    let Some((inner, _)) = rest[1..].split_once('}') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inner.split_once(',') {
        Some((low, high)) => digits(low) && (high.is_empty() || digits(high)),
        None => digits(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text.as_bytes())
    }

    #[test]
    fn braces_that_count_nothing_are_literal() {
        assert!(check("http{secure:s?}", "http{secure:s}"));
        assert!(check("^/a{2}$", "/aa"));
        assert!(check("^/a{2,}$", "/aaa"));
        assert!(!check("^/a{2,3}$", "/aaaa"));
    }

    #[test]
    fn classes_are_flat_and_ascii() {
        assert!(check(r"^[[a]+$", "[a["));
        assert!(check(r"^[]a]+$", "]a"));
        assert!(check(r"^[a&&b]+$", "a&b"));
        assert!(check(r"^[[:alpha:]]+$", "abc"));
        assert!(check(r"^[^\d]+$", "abc"));
        assert!(!check(r"^\d$", "٣"));
        assert!(check(r"^\w+\b$", "a_1"));
        assert!(check(r"^\Qa.b\E+$", "a.bb"));
        assert!(!check(r"^\Qa.b\E$", "axb"));
    }

    #[test]
    fn what_re2_refuses_is_refused_with_a_reason() {
        assert_eq!(Pattern::new("(a").unwrap_err(), "unclosed group");
        assert!(Pattern::new("(?=a)").is_err());
        assert!(Pattern::new(r"(a)\1").is_err());
    }
}
