//! A matcher as a tree of conditions, whatever language it was written in.

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
