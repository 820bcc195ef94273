//! Matcher names and arguments to conditions.

use http::HeaderName;

use super::{Argument, RuleError};
use crate::route::{
    condition::{self, Condition},
    pattern::Pattern,
};

/// Name, and the least and the most arguments it takes.
const MATCHERS: &[(&str, usize, usize)] = &[
    ("Host", 1, 1),
    ("HostRegexp", 1, 1),
    ("Path", 1, 1),
    ("PathPrefix", 1, 1),
    ("PathRegexp", 1, 1),
    ("Method", 1, 1),
    ("Header", 2, 2),
    ("HeaderRegexp", 2, 2),
    ("Query", 1, 2),
    ("QueryRegexp", 1, 2),
    ("ClientIP", 1, 1),
];

pub(super) fn condition(at: usize, name: &str, arguments: &[Argument]) -> Result<Condition, RuleError> {
    let &(matcher, least, most) = MATCHERS
        .iter()
        .find(|(matcher, ..)| is_spelling_of(name, matcher))
        .ok_or_else(|| RuleError { offset: at, reason: format!("unknown matcher `{name}`") })?;
    if !(least..=most).contains(&arguments.len()) {
        let count = arguments.len();
        let takes = if least == most { format!("{least}") } else { format!("{least} or {most}") };
        let reason = format!("{matcher} takes {takes} argument(s), not {count}");
        return Err(RuleError { offset: at, reason });
    }
    if let Some(empty) = arguments.iter().find(|argument| argument.value.is_empty()) {
        return Err(empty.error("an argument must not be empty"));
    }
    one(matcher, &arguments[0], arguments.get(1))
}

/// Traefik accepts the name itself, all lower, all upper and Title case.
fn is_spelling_of(name: &str, matcher: &str) -> bool {
    let title = || {
        let (first, rest) = name.split_at(1);
        matcher.starts_with(first) && rest == matcher[1..].to_ascii_lowercase()
    };
    name.eq_ignore_ascii_case(matcher)
        && (name == matcher
            || name == matcher.to_ascii_lowercase()
            || name == matcher.to_ascii_uppercase()
            || title())
}

fn one(matcher: &str, first: &Argument, second: Option<&Argument>) -> Result<Condition, RuleError> {
    Ok(match (matcher, second) {
        ("Host", _) => host(&first.value).map_err(|reason| first.error(reason))?,
        ("HostRegexp", _) => Condition::HostPattern(first.ascii()?.pattern()?),
        ("Path", _) => Condition::Path(first.path()?),
        ("PathPrefix", _) => Condition::PathPrefix(first.path()?),
        ("PathRegexp", _) => Condition::PathPattern(first.pattern()?),
        ("Method", _) => Condition::Method(first.value.to_ascii_uppercase()),
        ("Header", Some(value)) => Condition::Header(first.header()?, value.value.clone()),
        ("HeaderRegexp", Some(value)) => Condition::HeaderPattern(first.header()?, value.pattern()?),
        ("QueryRegexp", Some(value)) => Condition::QueryPattern(first.value.clone(), value.pattern()?),
        ("Query", Some(value)) => Condition::Query(first.value.clone(), value.value.clone()),
        ("Query" | "QueryRegexp", None) => Condition::Query(first.value.clone(), String::new()),
        _ => Condition::Client(
            condition::network(&first.value)
                .ok_or_else(|| first.error("expected an address or a CIDR block"))?,
        ),
    })
}

/// `*`, `*.domain` or a name, of which case and a trailing dot do not count.
pub(in crate::route) fn host(text: &str) -> Result<Condition, &'static str> {
    if !text.is_ascii() {
        return Err("a host must be ASCII; write other names in punycode");
    }
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host.is_empty() {
        return Err("a host must not be empty");
    }
    Ok(match host.strip_prefix("*.") {
        _ if host == "*" => Condition::AnyHost,
        Some(domain) => Condition::Subdomain(domain.to_owned()),
        None => Condition::Host(host),
    })
}

impl Argument {
    fn error(&self, reason: impl Into<String>) -> RuleError {
        RuleError { offset: self.offset, reason: reason.into() }
    }

    fn ascii(&self) -> Result<&Self, RuleError> {
        if self.value.is_ascii() { Ok(self) } else { Err(self.error("a host pattern must be ASCII")) }
    }

    fn path(&self) -> Result<String, RuleError> {
        if self.value.starts_with('/') {
            return Ok(self.value.clone());
        }
        Err(self.error("a path must start with `/`"))
    }

    fn pattern(&self) -> Result<Pattern, RuleError> {
        Pattern::new(&self.value).map_err(|reason| self.error(format!("not a regular expression: {reason}")))
    }

    fn header(&self) -> Result<HeaderName, RuleError> {
        self.value.parse().map_err(|_| self.error("not a header name"))
    }
}
