//! YAML text becomes a tree that knows where everything was written.
//!
//! The tree is built from parser events because a typed deserializer stops at
//! the first mistake and turns decimal numbers into floats.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

/// Bounds on what a file may unfold to, aliases included.
const MAX_NODES: usize = 500_000;
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the file among those that are read together.
    pub file: usize,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub value: Value,
    pub at: Place,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Place,
    pub node: Node,
}

/// A mistake in the text itself.
#[derive(Debug)]
pub(super) struct Flaw {
    pub at: Place,
    pub path: String,
    pub message: String,
}

/// Reads one document. The flaws are all that a reader can go on after plus at
/// most one that it cannot, and then there is no tree.
pub(super) fn parse(text: &str, file: usize) -> (Option<Node>, Vec<Flaw>) {
    let mut tree = Tree::new(file);
    for next in Parser::new_from_str(text) {
        let step = match next {
            Ok((event, span)) => tree.event(event, span),
            Err(error) => {
                let marker = error.marker();
                let at = Place { file, line: marker.line(), column: marker.col() + 1 };
                Err(tree.flaw(at, format!("not YAML: {}", error.info())))
            }
        };
        if let Err(flaw) = step {
            tree.flaws.push(flaw);
            return (None, tree.flaws);
        }
    }
    (tree.root, tree.flaws)
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.depth()).max().unwrap_or(0),
        }
    }
}

/// A list or mapping whose end has not been seen.
struct Open {
    at: Place,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashMap<String, usize>, key: Option<(String, Place)> },
}

struct Tree {
    file: usize,
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    flaws: Vec<Flaw>,
}

impl Tree {
    fn new(file: usize) -> Self {
        Self { file, root: None, open: Vec::new(), anchors: HashMap::new(), nodes: 0, flaws: Vec::new() }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Flaw> {
        let at = Place { file: self.file, line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(self.flaw(at, "a file holds one document".into()))
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => Err(self.flaw(at, "tags are not supported".into())),
            Event::Scalar(text, style, anchor, None) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.complete(Node { value, at }, anchor)
            }
            Event::SequenceStart(_, anchor, None) => self.push(at, anchor, OpenKind::List(Vec::new())),
            Event::MappingStart(_, anchor, None) => {
                let kind = OpenKind::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.push(at, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Ok(()),
        }
    }

    fn push(&mut self, at: Place, anchor: usize, kind: OpenKind) -> Result<(), Flaw> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.flaw(at, format!("nested deeper than {MAX_DEPTH}")));
        }
        self.open.push(Open { at, anchor, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Flaw> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { entries, .. } => Value::Map(entries),
        };
        self.complete(Node { value, at: open.at }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<(), Flaw> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(self.flaw(at, "an alias may not stand inside what it names".into()));
        };
        if self.open.len() + node.depth() > MAX_DEPTH {
            return Err(self.flaw(at, format!("nested deeper than {MAX_DEPTH}")));
        }
        let node = node.clone();
        self.charge(node.size(), at)?;
        self.attach(node)
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Flaw> {
        self.charge(1, node.at)?;
        if anchor != 0 {
            self.charge(node.size(), node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.attach(node)
    }

    /// Aliases make small files large: all nodes count, copies too.
    fn charge(&mut self, nodes: usize, at: Place) -> Result<(), Flaw> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self.flaw(at, format!("more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn attach(&mut self, node: Node) -> Result<(), Flaw> {
        let path = self.path();
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let (entries, seen, key) = match &mut open.kind {
            OpenKind::List(items) => {
                items.push(node);
                return Ok(());
            }
            OpenKind::Map { entries, seen, key } => (entries, seen, key),
        };
        let Some((key, key_at)) = key.take() else {
            let Value::Scalar { text, .. } = node.value else {
                return Err(Flaw { at: node.at, path, message: "a key must be plain text".into() });
            };
            *key = Some((text, node.at));
            return Ok(());
        };
        if let Some(first) = seen.insert(key.clone(), key_at.line) {
            let message = format!("is here twice, first in line {first}");
            self.flaws.push(Flaw { at: key_at, path, message });
            return Ok(());
        }
        entries.push(Entry { key, key_at, node });
        Ok(())
    }

    fn flaw(&self, at: Place, message: String) -> Flaw {
        Flaw { at, path: self.path(), message }
    }

    /// Where the reader stands, dotted.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.kind {
                OpenKind::List(items) => path.push_str(&format!("[{}]", items.len())),
                OpenKind::Map { key: Some((key, _)), .. } => {
                    let dot = if path.is_empty() { "" } else { "." };
                    path.push_str(&format!("{dot}{key}"));
                }
                OpenKind::Map { key: None, .. } => {}
            }
        }
        path
    }
}
