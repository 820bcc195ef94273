//! A matcher as a tree of conditions, whatever language it was written in.

use std::fmt;

use super::condition::{Condition, Head};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Is(Condition),
}

impl Expression {
    pub(super) fn matches(&self, head: &Head<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(head)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(head)),
            Self::Not(part) => !part.matches(head),
            Self::Is(condition) => condition.holds(head),
        }
    }

    /// What of the expression does not hold, one line for each part that all
    /// must hold; empty if it matches.
    pub(super) fn unmet(&self, head: &Head<'_>) -> Vec<String> {
        match self {
            _ if self.matches(head) => Vec::new(),
            Self::All(parts) => parts.iter().flat_map(|part| part.unmet(head)).collect(),
            _ => vec![self.to_string()],
        }
    }

    /// Joins under `All`, flat, so that `a && b && c` is one level.
    pub(super) fn and(self, other: Self) -> Self {
        match self {
            Self::All(mut parts) => {
                parts.push(other);
                Self::All(parts)
            }
            first => Self::All(vec![first, other]),
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        match self {
            Self::Any(mut parts) => {
                parts.push(other);
                Self::Any(parts)
            }
            first => Self::Any(vec![first, other]),
        }
    }
}

/// As a rule says it.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => join(f, parts, " && "),
            Self::Any(parts) => join(f, parts, " || "),
            Self::Not(part) => write!(f, "!({part})"),
            Self::Is(condition) => write!(f, "{condition}"),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, parts: &[Expression], operator: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        match part {
            Expression::All(_) | Expression::Any(_) => write!(f, "({part})")?,
            _ => write!(f, "{part}")?,
        }
    }
    Ok(())
}
