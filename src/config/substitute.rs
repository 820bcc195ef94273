//! `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` as whole scalars.

use std::{fs, path::Path};

use super::{
    reader::Item,
    scalar::{self, Refusal},
};

/// The text of a scalar and whether it was written in the file itself.
pub(super) struct Text {
    pub value: String,
    pub substituted: bool,
}

/// One `${…}` taken apart.
enum Source<'a> {
    Env { name: &'a str, default: Option<&'a str> },
    File(&'a str),
}

/// Puts in what a scalar refers to. Text without a reference stays as it is.
pub(super) fn substitute(written: &str, item: &Item<'_>) -> scalar::Result<Text> {
    let Some(source) = source(written)? else {
        return Ok(Text { value: written.to_owned(), substituted: false });
    };
    let value = match source {
        Source::Env { name, default } => (item.context().env)(name)
            .or_else(|| default.map(str::to_owned))
            .ok_or_else(|| Refusal::new(format!("the environment variable {name} is not set")))?,
        Source::File(path) => read(&item.watched_path(path))?,
    };
    Ok(Text { value, substituted: true })
}

fn source(written: &str) -> scalar::Result<Option<Source<'_>>> {
    if !written.contains("${env:") && !written.contains("${file:") {
        return match written.strip_prefix("${") {
            Some(_) if written.ends_with('}') => {
                Err(Refusal::new("only ${env:NAME}, ${env:NAME:-default} and ${file:PATH} are known"))
            }
            _ => Ok(None),
        };
    }
    let inner = written.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let whole = inner.filter(|inner| !inner.contains("${"));
    let Some(inner) = whole else {
        return Err(Refusal::new("${…} stands for a whole value, not for a part of one"));
    };
    if let Some(path) = inner.strip_prefix("file:") {
        return if path.is_empty() {
            Err(Refusal::new("${file:} names no file"))
        } else {
            Ok(Some(Source::File(path)))
        };
    }
    let variable = inner.strip_prefix("env:").unwrap_or_default();
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(valid) {
        return Err(Refusal::new("the name of an environment variable is made of letters, digits and _"));
    }
    Ok(Some(Source::Env { name, default }))
}

/// The file's text without the line break that editors put at its end.
fn read(path: &Path) -> scalar::Result<String> {
    let text = fs::read_to_string(path)
        .map_err(|error| Refusal::new(format!("cannot read {}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
