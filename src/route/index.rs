//! Which routes could match a host and a path: hash by host, then a sorted list
//! of path prefixes. It may name too many routes, never too few.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    condition::{Condition, parent_domain},
    expression::Expression,
};

/// A position in the order of priority; the smaller wins.
pub(super) type Rank = u32;

#[derive(Default)]
pub(super) struct Index {
    hosts: HashMap<String, Prefixes>,
    subdomains: HashMap<String, Prefixes>,
    any: Prefixes,
}

/// What a request must have for an expression to hold, as far as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    host: HostKey,
    prefix: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum HostKey {
    Any,
    Exact(Arc<str>),
    Under(Arc<str>),
}

/// Alternatives of one expression; with more of them it is filed under "any".
const MOST_KEYS: usize = 64;

impl Index {
    /// The expressions in order of priority.
    pub(super) fn build<'a>(expressions: impl Iterator<Item = (Rank, &'a Expression)>) -> Self {
        let mut drafts: HashMap<HostKey, Draft> = HashMap::new();
        for (rank, expression) in expressions {
            for key in keys(expression) {
                let ranks =
                    drafts.entry(key.host).or_default().entry(key.prefix.as_bytes().into()).or_default();
                // Two alternatives of one expression may share a key.
                if ranks.last() != Some(&rank) {
                    ranks.push(rank);
                }
            }
        }
        let mut index = Self::default();
        for (host, draft) in drafts {
            let prefixes = Prefixes::build(draft);
            match host {
                HostKey::Any => index.any = prefixes,
                HostKey::Exact(host) => drop(index.hosts.insert(host.as_ref().to_owned(), prefixes)),
                HostKey::Under(domain) => drop(index.subdomains.insert(domain.as_ref().to_owned(), prefixes)),
            }
        }
        index
    }

    /// The first rank that could match and for which `matches` holds.
    pub(super) fn first(&self, host: &str, path: &[u8], matches: impl Fn(Rank) -> bool) -> Option<Rank> {
        let mut best = Rank::MAX;
        let exact = self.hosts.get(host);
        let under = parent_domain(host).and_then(|domain| self.subdomains.get(domain));
        for prefixes in [exact, under, Some(&self.any)].into_iter().flatten() {
            prefixes.lower(path, &mut best, &matches);
        }
        (best != Rank::MAX).then_some(best)
    }
}

type Draft = BTreeMap<Box<[u8]>, Vec<Rank>>;

/// Path prefixes in byte order. Each knows the longest other one that it starts
/// with, so all prefixes of a path are one binary search and a walk up.
#[derive(Default)]
struct Prefixes {
    nodes: Vec<Node>,
}

struct Node {
    prefix: Box<[u8]>,
    parent: Option<usize>,
    /// Ascending.
    ranks: Box<[Rank]>,
}

impl Prefixes {
    fn build(draft: Draft) -> Self {
        let mut nodes: Vec<Node> = Vec::with_capacity(draft.len());
        for (prefix, ranks) in draft {
            let mut parent = nodes.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !prefix.starts_with(&nodes[*at].prefix)) {
                parent = nodes[at].parent;
            }
            nodes.push(Node { prefix, parent, ranks: ranks.into() });
        }
        Self { nodes }
    }

    /// Lowers `best` to the first matching rank below it.
    fn lower(&self, path: &[u8], best: &mut Rank, matches: &impl Fn(Rank) -> bool) {
        // Everything between a prefix of the path and the path itself starts
        // with that prefix, so the chain of parents misses none.
        let mut next = self.nodes.partition_point(|node| *node.prefix <= *path).checked_sub(1);
        while let Some(at) = next {
            let node = &self.nodes[at];
            next = node.parent;
            if path.starts_with(&node.prefix) {
                let better = node.ranks.iter().take_while(|rank| **rank < *best);
                if let Some(rank) = better.copied().find(|rank| matches(*rank)) {
                    *best = rank;
                }
            }
        }
    }
}

/// The hosts of which a matching request has one.
pub(super) fn hosts(expression: &Expression) -> Vec<HostKey> {
    let mut hosts: Vec<HostKey> = Vec::new();
    for key in keys(expression) {
        if !hosts.contains(&key.host) {
            hosts.push(key.host);
        }
    }
    hosts
}

impl HostKey {
    /// What is filed under hosts that one request may have together with this
    /// one, seen from the narrower side: a domain does not list its hosts.
    pub(super) fn may_meet<'a, T>(&self, by_host: &'a HashMap<Self, T>) -> impl Iterator<Item = &'a T> {
        let everything = *self == Self::Any;
        let under = match self {
            Self::Exact(host) => parent_domain(host).map(|domain| Self::Under(domain.into())),
            _ => None,
        };
        let keys = [Some(self.clone()), under, Some(Self::Any)];
        let listed = keys.into_iter().flatten().filter_map(|key| by_host.get(&key));
        by_host.values().filter(move |_| everything).chain(listed.filter(move |_| !everything))
    }
}

/// The keys of which a matching request has at least one.
fn keys(expression: &Expression) -> Vec<Key> {
    match expression {
        Expression::Is(condition) => vec![key(condition)],
        Expression::Not(_) => vec![Key::anything()],
        Expression::Any(parts) => {
            let keys: Vec<Key> = parts.iter().flat_map(keys).collect();
            if keys.is_empty() || keys.len() > MOST_KEYS { vec![Key::anything()] } else { keys }
        }
        Expression::All(parts) => {
            parts.iter().map(keys).reduce(both).unwrap_or_else(|| vec![Key::anything()])
        }
    }
}

/// Keys of a conjunction: each pair joined, or one side alone if that is too many.
fn both(left: Vec<Key>, right: Vec<Key>) -> Vec<Key> {
    if left.len() * right.len() > MOST_KEYS {
        return if left.len() <= right.len() { left } else { right };
    }
    left.iter().flat_map(|left| right.iter().map(|right| left.joined(right))).collect()
}

fn key(condition: &Condition) -> Key {
    let host = match condition {
        Condition::Host(host) => HostKey::Exact(host.as_str().into()),
        Condition::Subdomain(domain) => HostKey::Under(domain.as_str().into()),
        _ => HostKey::Any,
    };
    let prefix = match condition {
        Condition::Path(path) | Condition::PathPrefix(path) | Condition::PathUnder(path) => {
            path.as_str().into()
        }
        _ => "".into(),
    };
    Key { host, prefix }
}

impl Key {
    fn anything() -> Self {
        Self { host: HostKey::Any, prefix: "".into() }
    }

    /// Both sides are necessary, so the narrower of each kind is too.
    fn joined(&self, other: &Self) -> Self {
        let host = match (&self.host, &other.host) {
            (HostKey::Any, host) | (HostKey::Under(_), host @ HostKey::Exact(_)) => host.clone(),
            (host, _) => host.clone(),
        };
        let longer = if self.prefix.len() >= other.prefix.len() { self } else { other };
        Key { host, prefix: longer.prefix.clone() }
    }
}
