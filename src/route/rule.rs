//! The Traefik v3 rule language: text to expression. Traefik reads rules with
//! Go's expression parser, hence Go's strings and Go's line breaks.
//!
//! ```text
//! any   := all ( "||" all )*
//! all   := unary ( "&&" unary )*
//! unary := "!" unary | "(" any ")" | NAME "(" STRING ("," STRING)* ")"
//! ```

mod literal;
mod matcher;

pub(super) use matcher::host;
use thiserror::Error;

use super::expression::Expression;

/// Where a rule is wrong and why. `offset` is in bytes.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("at byte {offset}: {reason}")]
pub(super) struct RuleError {
    pub(super) offset: usize,
    pub(super) reason: String,
}

/// Deeper nesting is refused, because each level is a stack frame here and at each lookup.
const MAX_DEPTH: usize = 64;

pub(super) fn parse(rule: &str) -> Result<Expression, RuleError> {
    let mut parser = Parser { text: rule, at: 0, depth: 0 };
    parser.space();
    let expression = parser.any()?;
    parser.gap()?;
    if parser.at < rule.len() {
        return Err(parser.error("expected `&&`, `||` or the end of the rule"));
    }
    Ok(expression)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Expression, RuleError> {
        let mut left = self.all()?;
        loop {
            self.gap()?;
            if !self.eat("||") {
                return Ok(left);
            }
            self.space();
            left = left.or(self.all()?);
        }
    }

    fn all(&mut self) -> Result<Expression, RuleError> {
        let mut left = self.unary()?;
        loop {
            self.gap()?;
            if !self.eat("&&") {
                return Ok(left);
            }
            self.space();
            left = left.and(self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Expression, RuleError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let expression = if self.eat("!") {
            self.space();
            Expression::Not(Box::new(self.unary()?))
        } else if self.eat("(") {
            self.group()?
        } else {
            self.call()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn group(&mut self) -> Result<Expression, RuleError> {
        self.space();
        let inner = self.any()?;
        self.gap()?;
        if self.eat(")") { Ok(inner) } else { Err(self.error("expected `&&`, `||` or `)`")) }
    }

    fn call(&mut self) -> Result<Expression, RuleError> {
        let start = self.at;
        let name = self.name();
        if name.is_empty() {
            return Err(self.error("expected a matcher such as Host(`example.com`)"));
        }
        self.gap()?;
        if !self.eat("(") {
            return Err(self.error("expected `(` after the name of a matcher"));
        }
        let arguments = self.arguments()?;
        matcher::condition(start, name, &arguments).map(Expression::Is)
    }

    fn name(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Up to and with the closing parenthesis.
    fn arguments(&mut self) -> Result<Vec<Argument>, RuleError> {
        let mut arguments = Vec::with_capacity(2);
        self.space();
        if self.eat(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.string()?);
            self.gap()?;
            if self.eat(")") {
                return Ok(arguments);
            }
            if !self.eat(",") {
                return Err(self.error("expected `,` or `)`"));
            }
            self.space();
        }
    }

    fn string(&mut self) -> Result<Argument, RuleError> {
        let offset = self.at;
        let (value, used) = literal::string(self.rest())
            .map_err(|(at, reason)| RuleError { offset: offset + at, reason: reason.to_owned() })?;
        self.at += used;
        Ok(Argument { offset, value })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Space where a line break means nothing: before an operand.
    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Space after an operand. Go inserts a semicolon at a line break there, so
    /// only the end of the rule may follow one.
    fn gap(&mut self) -> Result<(), RuleError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
        if !self.rest().starts_with('\n') {
            return Ok(());
        }
        let line_break = self.at;
        self.space();
        if self.at < self.text.len() {
            let reason = "a line break ends the rule here; put it after the operator".to_owned();
            return Err(RuleError { offset: line_break, reason });
        }
        Ok(())
    }

    fn error(&self, reason: &str) -> RuleError {
        RuleError { offset: self.at, reason: reason.to_owned() }
    }
}

/// One string argument and where it starts.
struct Argument {
    offset: usize,
    value: String,
}

#[cfg(test)]
mod tests;
