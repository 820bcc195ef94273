//! Whether two matchers can hold for one request, as far as that can be told.

use super::{
    condition::{Condition, parent_domain},
    expression::Expression,
};

/// Alternatives of one matcher; with more of them nothing is told.
const MOST_ALTERNATIVES: usize = 64;

/// A conjunction: every condition, or its negation, must hold.
type Alternative<'a> = Vec<(bool, &'a Condition)>;

/// `Some(true)` if there is a request that both match, `Some(false)` if there is
/// none, `None` where patterns or sheer size leave it open.
pub(super) fn overlap(left: &Expression, right: &Expression) -> Option<bool> {
    let (left, right) = (alternatives(left, true)?, alternatives(right, true)?);
    let mut told = Some(false);
    for left in &left {
        for right in &right {
            match both(left, right) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => told = None,
            }
        }
    }
    told
}

/// The disjunctive normal form; `None` if it is too large.
fn alternatives(expression: &Expression, holds: bool) -> Option<Vec<Alternative<'_>>> {
    match (expression, holds) {
        (Expression::Is(condition), holds) => Some(vec![vec![(holds, condition)]]),
        (Expression::Not(part), holds) => alternatives(part, !holds),
        (Expression::All(parts), true) | (Expression::Any(parts), false) => {
            let mut joined: Vec<Alternative<'_>> = vec![Vec::new()];
            for part in parts {
                let more = alternatives(part, holds)?;
                if joined.len() * more.len() > MOST_ALTERNATIVES {
                    return None;
                }
                joined = joined
                    .iter()
                    .flat_map(|one| more.iter().map(move |two| [one.as_slice(), two].concat()))
                    .collect();
            }
            Some(joined)
        }
        (Expression::Any(parts), true) | (Expression::All(parts), false) => {
            let mut found = Vec::new();
            for part in parts {
                found.extend(alternatives(part, holds)?);
            }
            (found.len() <= MOST_ALTERNATIVES).then_some(found)
        }
    }
}

/// Whether one request can meet all conditions of both.
fn both(left: &Alternative<'_>, right: &Alternative<'_>) -> Option<bool> {
    let all: Vec<_> = left.iter().chain(right).copied().collect();
    let mut told = Some(true);
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            match pair(*one, *other) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => told = None,
            }
        }
    }
    told
}

/// Whether two conditions go together.
fn pair((left_holds, left): (bool, &Condition), (right_holds, right): (bool, &Condition)) -> Option<bool> {
    match (left_holds, right_holds) {
        (true, true) => together(left, right),
        (false, false) => Some(true),
        // A negation excludes what it names, and with it everything narrower.
        (true, false) => {
            if implies(left, right) {
                Some(false)
            } else {
                Some(true)
            }
        }
        (false, true) => {
            if implies(right, left) {
                Some(false)
            } else {
                Some(true)
            }
        }
    }
}

fn together(left: &Condition, right: &Condition) -> Option<bool> {
    use Condition as C;
    Some(match (left, right) {
        (C::Host(a), C::Host(b)) | (C::Sni(a), C::Sni(b)) => a == b,
        (C::Host(host), C::Subdomain(domain)) | (C::Subdomain(domain), C::Host(host)) => {
            parent_domain(host) == Some(domain)
        }
        (C::Sni(name), C::SniUnder(domain)) | (C::SniUnder(domain), C::Sni(name)) => {
            parent_domain(name) == Some(domain)
        }
        (C::Subdomain(a), C::Subdomain(b)) | (C::SniUnder(a), C::SniUnder(b)) => a == b,
        (C::Host(host), C::HostPattern(pattern)) | (C::HostPattern(pattern), C::Host(host)) => {
            pattern.matches(host.as_bytes())
        }
        (C::Path(path), C::PathPattern(pattern)) | (C::PathPattern(pattern), C::Path(path)) => {
            pattern.matches(path.as_bytes())
        }
        (C::Method(a), C::Method(b)) => a == b,
        (C::Client(a), C::Client(b)) => a.contains(b) || b.contains(a),
        (C::HostPattern(a), C::HostPattern(b)) | (C::PathPattern(a), C::PathPattern(b)) if a != b => {
            return None;
        }
        (C::HostPattern(_), C::Subdomain(_)) | (C::Subdomain(_), C::HostPattern(_)) => return None,
        _ => match (path(left), path(right)) {
            (Some(a), Some(b)) => paths(&a, &b),
            // A pattern beside a prefix.
            (Some(_), None) if matches!(right, C::PathPattern(_)) => return None,
            (None, Some(_)) if matches!(left, C::PathPattern(_)) => return None,
            _ => true,
        },
    })
}

enum PathSet<'a> {
    Exact(&'a str),
    Raw(&'a str),
    Under(&'a str),
}

fn path(condition: &Condition) -> Option<PathSet<'_>> {
    match condition {
        Condition::Path(path) => Some(PathSet::Exact(path)),
        Condition::PathPrefix(prefix) => Some(PathSet::Raw(prefix)),
        Condition::PathUnder(prefix) => Some(PathSet::Under(prefix)),
        _ => None,
    }
}

fn paths(left: &PathSet<'_>, right: &PathSet<'_>) -> bool {
    use PathSet::{Exact, Raw, Under};
    let under = |path: &str, prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    };
    match (left, right) {
        (Exact(a), Exact(b)) => a == b,
        (Exact(path), Raw(prefix)) | (Raw(prefix), Exact(path)) => path.starts_with(prefix),
        (Exact(path), Under(prefix)) | (Under(prefix), Exact(path)) => under(path, prefix),
        (Raw(a), Raw(b)) => a.starts_with(b) || b.starts_with(a),
        (Under(a), Under(b)) => under(a, b) || under(b, a),
        (Raw(raw), Under(prefix)) | (Under(prefix), Raw(raw)) => {
            prefix.starts_with(raw) || under(raw, prefix)
        }
    }
}

/// Whatever meets `narrow` meets `wide`; false where it cannot be told.
fn implies(narrow: &Condition, wide: &Condition) -> bool {
    use Condition as C;
    match (narrow, wide) {
        _ if narrow == wide => true,
        (_, C::AnyHost) => true,
        (C::Host(host), C::Subdomain(domain)) => parent_domain(host) == Some(domain),
        (C::Sni(name), C::SniUnder(domain)) => parent_domain(name) == Some(domain),
        (C::Host(host), C::HostPattern(pattern)) => pattern.matches(host.as_bytes()),
        (C::Path(path), C::PathPattern(pattern)) => pattern.matches(path.as_bytes()),
        (C::Path(_) | C::PathPrefix(_), C::PathPrefix(wide)) => {
            matches!(narrow, C::Path(p) | C::PathPrefix(p) if p.starts_with(wide))
        }
        (C::Path(path), C::PathUnder(_)) | (C::PathUnder(path), C::PathUnder(_)) => match path_of_under(wide)
        {
            Some(prefix) => paths(&PathSet::Exact(path), &PathSet::Under(prefix)),
            None => false,
        },
        (C::PathUnder(narrow), C::PathPrefix(wide)) => narrow.starts_with(wide),
        (C::Client(narrow), C::Client(wide)) => wide.contains(narrow),
        (C::Query(key, _) | C::QueryPattern(key, _), C::QueryKey(wide)) => key == wide,
        _ => false,
    }
}

fn path_of_under(condition: &Condition) -> Option<&str> {
    match condition {
        Condition::PathUnder(prefix) => Some(prefix),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::rule;

    fn told(left: &str, right: &str) -> Option<bool> {
        let parse = |text| rule::parse(text).map_err(|error| error.reason).unwrap();
        let (left, right) = (parse(left), parse(right));
        let answer = overlap(&left, &right);
        assert_eq!(answer, overlap(&right, &left), "the order does not matter");
        answer
    }

    #[test]
    fn what_can_be_told_is_told() {
        for (left, right, expected) in [
            ("Host(`a.x`)", "Host(`b.x`)", Some(false)),
            ("Host(`a.x`)", "Host(`*.x`)", Some(true)),
            ("Host(`a.b.x`)", "Host(`*.x`)", Some(false)),
            ("Host(`a.x`)", "PathPrefix(`/a`)", Some(true)),
            ("Host(`a.x`)", "HostRegexp(`^a`)", Some(true)),
            ("Host(`a.x`)", "HostRegexp(`^b`)", Some(false)),
            ("HostRegexp(`^a`)", "HostRegexp(`^b`)", None),
            ("PathPrefix(`/a`)", "PathPrefix(`/ab`)", Some(true)),
            ("PathPrefix(`/a`)", "PathPrefix(`/b`)", Some(false)),
            ("PathPrefix(`/a`)", "PathRegexp(`^/b`)", None),
            ("Path(`/a`)", "PathRegexp(`^/b`)", Some(false)),
            ("Method(`GET`)", "Method(`PUT`)", Some(false)),
            ("ClientIP(`10.0.0.0/8`)", "ClientIP(`10.1.0.0/16`)", Some(true)),
            ("ClientIP(`10.0.0.0/8`)", "ClientIP(`11.0.0.0/8`)", Some(false)),
            ("Header(`a`, `1`)", "Header(`a`, `2`)", Some(true)),
            ("Header(`a`, `1`)", "!Header(`a`, `1`)", Some(false)),
            ("PathPrefix(`/a/b`)", "!PathPrefix(`/a`)", Some(false)),
            ("PathPrefix(`/a`)", "!PathPrefix(`/a/b`)", Some(true)),
            ("Host(`a`) || Host(`b`)", "Host(`b`) || Host(`c`)", Some(true)),
            ("Host(`a`) || Host(`b`)", "Host(`c`) || Host(`d`)", Some(false)),
            ("Host(`a`) && (Path(`/x`) || Path(`/y`))", "Host(`a`) && Path(`/z`)", Some(false)),
        ] {
            assert_eq!(told(left, right), expected, "{left} | {right}");
        }
    }
}
