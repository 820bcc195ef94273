//! Kong-style `match:` fields, compiled to the same expressions as rules.

use super::{condition::Condition, expression::Expression, pattern::Pattern, rule};
use crate::config::route::Fields;

/// Which field is wrong, its text and why.
pub(super) struct FieldError {
    pub(super) field: &'static str,
    pub(super) value: String,
    pub(super) reason: String,
}

/// Every given field must match; within a field any value may. No field at all
/// matches everything.
pub(super) fn compile(fields: &Fields) -> Result<Expression, FieldError> {
    let mut all = Vec::new();
    push_any(&mut all, each("hosts", &fields.hosts, |text| rule::host(text).map_err(str::to_owned))?);
    push_any(&mut all, each("paths", &fields.paths, path)?);
    push_any(&mut all, fields.methods.iter().map(|m| Condition::Method(m.as_str().to_owned())).collect());
    for (name, values) in &fields.headers {
        push_any(
            &mut all,
            values.iter().map(|value| Condition::Header(name.clone(), value.clone())).collect(),
        );
    }
    for (key, values) in &fields.query {
        let conditions = match values.as_slice() {
            [] => vec![Condition::QueryKey(key.clone())],
            values => values.iter().map(|value| Condition::Query(key.clone(), value.clone())).collect(),
        };
        push_any(&mut all, conditions);
    }
    push_any(&mut all, fields.client_ip.iter().map(Condition::Client).collect());
    push_any(&mut all, fields.sni.iter().map(|name| sni(name)).collect());
    Ok(Expression::All(all))
}

fn sni(name: &str) -> Condition {
    match name.strip_prefix("*.") {
        Some(domain) => Condition::SniUnder(domain.to_owned()),
        None => Condition::Sni(name.to_owned()),
    }
}

fn each(
    field: &'static str,
    values: &[String],
    compile: impl Fn(&str) -> Result<Condition, String>,
) -> Result<Vec<Condition>, FieldError> {
    let one =
        |value: &String| compile(value).map_err(|reason| FieldError { field, value: value.clone(), reason });
    values.iter().map(one).collect()
}

fn push_any(all: &mut Vec<Expression>, conditions: Vec<Condition>) {
    let mut expressions: Vec<_> = conditions.into_iter().map(Expression::Is).collect();
    match expressions.len() {
        0 => {}
        1 => all.append(&mut expressions),
        _ => all.push(Expression::Any(expressions)),
    }
}

/// `/x` by segment, `/x*` raw prefix, `=/x` exact, `~/x` a pattern anchored at
/// the start only, as in Kong.
fn path(text: &str) -> Result<Condition, String> {
    if let Some(pattern) = text.strip_prefix('~') {
        let anchored = format!("^(?:{pattern})");
        return Pattern::new(&anchored)
            .map(Condition::PathPattern)
            .map_err(|reason| format!("not a regular expression: {reason}"));
    }
    let (exact, path) = text.strip_prefix('=').map_or((false, text), |path| (true, path));
    if !path.starts_with('/') {
        return Err("a path must start with `/`, `=/` or `~`".to_owned());
    }
    Ok(match path.strip_suffix('*') {
        _ if exact => Condition::Path(path.to_owned()),
        Some(prefix) => Condition::PathPrefix(prefix.to_owned()),
        None => Condition::PathUnder(path.to_owned()),
    })
}
