//! Takes a located tree apart, noting every mistake instead of stopping at the first.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use super::{
    ByteSize, ConfigError, Name,
    scalar::{self, Refusal},
    substitute::{Text, substitute},
    suggest::nearest,
    yaml::{Entry, Flaw, Node, Place, Value},
};

pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the readers of all sections share.
pub(super) struct Context<'a> {
    pub env: Env<'a>,
    /// The configuration files; a `Place` holds an index of this.
    pub sources: &'a [PathBuf],
    pub names: Names,
    errors: RefCell<Vec<ConfigError>>,
    watched: RefCell<Vec<PathBuf>>,
}

/// Everything that may be referred to, known before any reference is read.
#[derive(Default)]
pub(super) struct Names {
    pub entrypoints: Vec<String>,
    pub services: Vec<String>,
    pub middlewares: Vec<String>,
    pub plugins: Vec<String>,
    pub resolvers: Vec<String>,
    pub tls_options: Vec<String>,
}

/// One value of the tree and its dotted path.
#[derive(Clone)]
pub(super) struct Item<'a> {
    context: &'a Context<'a>,
    node: &'a Node,
    /// Where the key stands; mistakes about the value as a whole are reported here.
    key_at: Place,
    path: String,
}

/// A mapping from which known keys are taken; what is left over is unknown.
pub(super) struct Fields<'a> {
    owner: Item<'a>,
    entries: &'a [Entry],
    taken: Vec<&'static str>,
}

impl<'a> Context<'a> {
    pub(super) fn new(env: Env<'a>, sources: &'a [PathBuf]) -> Self {
        Self {
            env,
            sources,
            names: Names::default(),
            errors: RefCell::default(),
            watched: RefCell::new(sources.to_vec()),
        }
    }

    pub(super) fn flaw(&self, flaw: Flaw) {
        self.push(flaw.at, flaw.path, Refusal::new(flaw.message));
    }

    pub(super) fn push(&self, at: Place, path: String, refusal: Refusal) {
        self.errors.borrow_mut().push(ConfigError {
            file: self.sources[at.file].clone(),
            line: at.line,
            column: at.column,
            path,
            message: refusal.message,
            suggestion: refusal.suggestion,
        });
    }

    /// All mistakes and all files that the configuration depends on.
    pub(super) fn finish(self) -> (Vec<ConfigError>, Vec<PathBuf>) {
        let mut watched = self.watched.into_inner();
        let mut seen = std::collections::HashSet::new();
        watched.retain(|path| seen.insert(path.clone()));
        (self.errors.into_inner(), watched)
    }
}

impl<'a> Item<'a> {
    pub(super) fn root(context: &'a Context<'a>, node: &'a Node) -> Self {
        Self { context, node, key_at: node.at, path: String::new() }
    }

    pub(super) fn context(&self) -> &'a Context<'a> {
        self.context
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Nothing stands after the key.
    pub(super) fn is_null(&self) -> bool {
        self.node.is_null()
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Whether any of the keys stands in the mapping.
    pub(super) fn has_any(&self, keys: &[&str]) -> bool {
        matches!(&self.node.value, Value::Map(entries) if entries.iter().any(|e| keys.contains(&e.key.as_str())))
    }

    /// The value of a key, without taking it.
    pub(super) fn peek(&self, key: &str) -> Option<Self> {
        let Value::Map(entries) = &self.node.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| self.child(entry))
    }

    /// Notes a mistake about the value; `None` for the caller to hand on.
    pub(super) fn refuse<T>(&self, refusal: Refusal) -> Option<T> {
        self.context.push(self.node.at, self.path.clone(), refusal);
        None
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Option<T> {
        self.refuse(Refusal::new(message))
    }

    /// Like `refuse`, but points at the key: for what is wrong with it or missing below it.
    pub(super) fn refuse_key<T>(&self, refusal: Refusal) -> Option<T> {
        self.context.push(self.key_at, self.path.clone(), refusal);
        None
    }

    pub(super) fn fail_key<T>(&self, message: impl Into<String>) -> Option<T> {
        self.refuse_key(Refusal::new(message))
    }

    /// Reads a mapping; keys that `read` does not take are mistakes. Nothing
    /// after a key counts as an empty mapping.
    pub(super) fn fields<T>(&self, read: impl FnOnce(&mut Fields<'a>) -> Option<T>) -> Option<T> {
        let entries = self.entries()?;
        let mut fields = Fields { owner: self.clone(), entries, taken: Vec::new() };
        let value = read(&mut fields);
        fields.refuse_rest();
        value
    }

    /// The values of a mapping whose keys are free.
    pub(super) fn named(&self) -> Vec<(&'a str, Item<'a>)> {
        let entries = self.entries().unwrap_or_default();
        entries.iter().map(|entry| (entry.key.as_str(), self.child(entry))).collect()
    }

    fn entries(&self) -> Option<&'a [Entry]> {
        match &self.node.value {
            Value::Map(entries) => Some(entries),
            _ if self.node.is_null() => Some(&[]),
            _ => self.fail("expected a mapping"),
        }
    }

    fn child(&self, entry: &'a Entry) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{}", self.path, entry.key);
        Self { context: self.context, node: &entry.node, key_at: entry.key_at, path }
    }

    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let Value::List(nodes) = &self.node.value else { return self.fail("expected a list") };
        let item = |(index, node): (usize, &'a Node)| Self {
            context: self.context,
            node,
            key_at: node.at,
            path: format!("{}[{index}]", self.path),
        };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    /// Every element that reads well; the mistakes of the others are noted.
    pub(super) fn list<T>(&self, read: impl Fn(&Self) -> Option<T>) -> Vec<T> {
        self.items().unwrap_or_default().iter().filter_map(read).collect()
    }

    pub(super) fn text(&self) -> Option<Text> {
        let Value::Scalar { text, .. } = &self.node.value else {
            return self.fail("expected a single value");
        };
        substitute(text, self).map_or_else(|refusal| self.refuse(refusal), Some)
    }

    /// Text that must not be empty.
    pub(super) fn string(&self) -> Option<String> {
        self.parse(|text| if text.is_empty() { Err(Refusal::new("is empty")) } else { Ok(text.to_owned()) })
    }

    pub(super) fn parse<T>(&self, read: impl FnOnce(&str) -> scalar::Result<T>) -> Option<T> {
        let text = self.text()?;
        match read(&text.value) {
            Ok(value) => Some(value),
            // The value may be a secret that was put into the wrong variable.
            Err(refusal) if text.substituted => self.fail(refusal.message),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, what: &str, choices: &[(&'static str, T)]) -> Option<T> {
        self.parse(|text| match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                let message = format!("unknown {what}, known are {}", words.join(", "));
                Err(Refusal::new(message).suggesting(nearest(text, words)))
            }
        })
    }

    pub(super) fn name(&self) -> Option<Name> {
        self.parse(|text| text.parse().map_err(Refusal::new))
    }

    /// A name that must be among `known`.
    pub(super) fn reference(&self, kind: &str, known: &[String]) -> Option<Name> {
        let text = self.text()?;
        self.resolve(kind, &text, &text.value, known, str::to_owned)
    }

    /// Like `reference` for a `name` that is a part of `text`; `write` makes the text of a name.
    pub(super) fn resolve(
        &self,
        kind: &str,
        text: &Text,
        name: &str,
        known: &[String],
        write: impl Fn(&str) -> String,
    ) -> Option<Name> {
        if known.iter().any(|candidate| candidate == name) {
            // A malformed name is reported where it is defined.
            return name.parse().ok();
        }
        if text.substituted {
            return self.fail(format!("no {kind} of the name that is put in here"));
        }
        let suggestion = nearest(name, known.iter().map(String::as_str)).map(write);
        self.refuse(Refusal::new(format!("no {kind} named \"{name}\"")).suggesting(suggestion))
    }

    /// A path relative to the file that names it.
    pub(super) fn path_of(&self, written: &str) -> PathBuf {
        let file = &self.context.sources[self.node.at.file];
        file.parent().unwrap_or(Path::new("")).join(written)
    }

    /// The same, of a file whose changes matter.
    pub(super) fn watched_path(&self, written: &str) -> PathBuf {
        let path = self.path_of(written);
        self.context.watched.borrow_mut().push(path.clone());
        path
    }

    /// A file that must be readable now.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let written = self.string()?;
        let path = self.watched_path(written.strip_prefix("file://").unwrap_or(&written));
        let readable =
            fs::File::open(&path).and_then(|file| file.metadata()).map(|metadata| metadata.is_file());
        match readable {
            Ok(true) => Some(path),
            Ok(false) => self.fail(format!("{} is not a file", path.display())),
            Err(error) => self.fail(format!("cannot read {}: {error}", path.display())),
        }
    }

    /// The value with its substitutions as JSON.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        match &self.node.value {
            Value::Scalar { plain, .. } => {
                let text = self.text()?;
                Some(if *plain { plain_json(text.value) } else { text.value.into() })
            }
            Value::List(_) => {
                let items = self.items()?;
                Some(items.iter().map(Self::json).collect::<Option<Vec<_>>>()?.into())
            }
            Value::Map(_) => {
                let members =
                    self.named().into_iter().map(|(key, item)| Some((key.to_owned(), item.json()?)));
                Some(serde_json::Value::Object(members.collect::<Option<_>>()?))
            }
        }
    }
}

/// Types of YAML's core schema.
fn plain_json(text: String) -> serde_json::Value {
    match text.as_str() {
        "" | "~" | "null" => serde_json::Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        // What JSON takes for a number is one in YAML too.
        _ => match serde_json::from_str::<serde_json::Number>(&text) {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        },
    }
}

impl<'a> Fields<'a> {
    /// The value of a key; a key with nothing after it counts as absent.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.take_present(key).filter(|item| !item.node.is_null())
    }

    /// The value of a key even if nothing follows it.
    pub(super) fn take_present(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.taken.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(self.owner.child(entry))
    }

    /// Notes a mistake if the key is absent.
    pub(super) fn require(&mut self, key: &'static str) -> Option<Item<'a>> {
        let item = self.take(key);
        if item.is_none() {
            // A misspelt key is reported as such and would only be told twice.
            let misspelt =
                self.entries.iter().any(|entry| nearest(&entry.key, [key]).is_some() && entry.key != key);
            if !misspelt {
                self.owner.fail_key::<()>(format!("\"{key}\" is missing"));
            }
        }
        item
    }

    /// The scalar of a key, or `default` if it is absent.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&str) -> scalar::Result<T>,
    ) -> T {
        self.take(key).and_then(|item| item.parse(read)).unwrap_or(default)
    }

    /// The same for a number within limits.
    pub(super) fn number_or(
        &mut self,
        key: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        self.or(key, default, |text| {
            let number = scalar::integer(text)?;
            if range.contains(&number) {
                return Ok(number);
            }
            Err(Refusal::new(format!("expected a number from {} to {}", range.start(), range.end())))
        })
    }

    /// A number within limits, or nothing.
    pub(super) fn optional_number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        self.take(key)?;
        Some(self.number_or(key, *range.start(), range))
    }

    /// A size within limits, or nothing.
    pub(super) fn optional_size(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        self.take(key)?;
        Some(self.size_or(key, *range.start(), range).0)
    }

    /// The same for a size.
    pub(super) fn size_or(
        &mut self,
        key: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> ByteSize {
        self.or(key, ByteSize(default), |text| {
            let size = scalar::size(text)?;
            if range.contains(&size.0) {
                return Ok(size);
            }
            Err(Refusal::new(format!("expected a size from {} to {} bytes", range.start(), range.end())))
        })
    }

    /// Which of several keys is there; exactly one must be.
    pub(super) fn only_one(&mut self, keys: &[&'static str]) -> Option<&'static str> {
        let found: Vec<_> =
            keys.iter().copied().filter(|key| self.entries.iter().any(|entry| entry.key == *key)).collect();
        self.taken.extend_from_slice(keys);
        match found.as_slice() {
            [key] => Some(*key),
            [] => {
                let misspelt =
                    self.entries.iter().any(|entry| nearest(&entry.key, keys.iter().copied()).is_some());
                if misspelt {
                    return None;
                }
                self.owner.fail_key(format!("one of {} is needed", keys.join(", ")))
            }
            _ => self.owner.fail_key(format!("only one of {} may be given", found.join(", "))),
        }
    }

    fn refuse_rest(&self) {
        for entry in self.entries.iter().filter(|entry| !self.taken.contains(&entry.key.as_str())) {
            let absent =
                self.taken.iter().copied().filter(|key| !self.entries.iter().any(|entry| entry.key == *key));
            let suggestion = nearest(&entry.key, absent);
            let path = self.owner.child(entry).path;
            self.owner.context.push(entry.key_at, path, Refusal::new("unknown key").suggesting(suggestion));
        }
    }
}
