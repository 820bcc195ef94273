//! Routes of equal priority between which nobody could say who wins.

use std::collections::{BTreeSet, HashMap};

use super::{
    index::{HostKey, hosts},
    overlap::overlap,
    priority::priority,
    table::{Entry, RouteError},
};
use crate::config::route::Route;

/// Pairs that are compared at most. Beyond it only equal matchers are found:
/// a table of thousands must still be built in a moment.
const MOST_PAIRS: usize = 200_000;

/// `entries` in order of priority.
pub(super) fn conflicts(entries: &[Entry], routes: &[Route]) -> Vec<RouteError> {
    let mut found = BTreeSet::new();
    let mut left = MOST_PAIRS;
    let mut start = 0;
    while start < entries.len() {
        let of = |at: usize| priority(&routes[entries[at].route]);
        let end =
            start + entries[start..].iter().take_while(|e| priority(&routes[e.route]) == of(start)).count();
        equal_matchers(start, &entries[start..end], &mut found);
        overlapping(start, &entries[start..end], &mut left, &mut found);
        start = end;
    }
    let error = |(first, second): (usize, usize)| {
        let (first, second) = (&routes[entries[first].route], &routes[entries[second].route]);
        RouteError::Conflict {
            first: first.name.clone(),
            second: second.name.clone(),
            priority: priority(first),
        }
    };
    found.into_iter().map(error).collect()
}

fn equal_matchers(start: usize, entries: &[Entry], found: &mut BTreeSet<(usize, usize)>) {
    let mut seen: HashMap<String, Vec<usize>> = HashMap::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        // The debug text names every part of an expression, so it is its identity.
        let same = seen.entry(format!("{:?}", entry.expression)).or_default();
        if let Some(other) = same.iter().find(|other| entries[**other].shares_entrypoint(entry)) {
            found.insert((start + other, start + at));
        }
        same.push(at);
    }
}

fn overlapping(start: usize, entries: &[Entry], left: &mut usize, found: &mut BTreeSet<(usize, usize)>) {
    let mut by_host: HashMap<HostKey, Vec<usize>> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        for host in hosts(&entry.expression) {
            by_host.entry(host).or_default().push(at);
        }
    }
    for (at, entry) in entries.iter().enumerate() {
        for host in hosts(&entry.expression) {
            for other in host.may_meet(&by_host).flatten().copied().filter(|other| *other != at) {
                if *left == 0 {
                    return;
                }
                *left -= 1;
                let pair = (start + other.min(at), start + other.max(at));
                if !found.contains(&pair)
                    && entries[other].shares_entrypoint(entry)
                    && overlap(&entries[other].expression, &entry.expression) == Some(true)
                {
                    found.insert(pair);
                }
            }
        }
    }
}
