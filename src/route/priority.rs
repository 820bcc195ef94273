//! Which of two matching routes wins.
//!
//! A `rule` weighs its length in bytes, as in Traefik. A `match` weighs by what
//! it names, so that each line outweighs all lines under it:
//!
//! | what | weight |
//! |---|---|
//! | exact host | 2,097,152 |
//! | wildcard host | 1,048,576 |
//! | exact path | 131,072 + 8 per byte |
//! | path prefix | 16 + 8 per byte, the bytes counted up to 8,191 |
//! | path pattern | 8 |
//! | method, each header, each query key, address, SNI | 1, up to 7 |
//!
//! Of several hosts or paths in one `match` the least specific one counts, so
//! that an alternative never wins by its neighbour. A `match` with a host thus
//! comes before every `rule`; one without a host and a `rule` of similar length
//! are close, and where that matters a `priority` should say who wins.

use crate::config::route::{Fields, Matcher, Route};

const EXACT_HOST: i64 = 1 << 21;
const WILDCARD_HOST: i64 = 1 << 20;
const EXACT_PATH: i64 = 1 << 17;
const PREFIX: i64 = 16;
const PATTERN: i64 = 8;
const PER_BYTE: i64 = 8;
const MOST_BYTES: usize = 8_191;
const MOST_CONDITIONS: usize = 7;

/// The explicit priority unless that is absent or 0, which is unset in Traefik;
/// else the computed weight. Higher wins.
pub fn priority(route: &Route) -> i64 {
    match (route.priority, &route.matcher) {
        (Some(explicit), _) if explicit != 0 => explicit,
        (_, Matcher::Rule(rule)) => i64::try_from(rule.len()).unwrap_or(i64::MAX),
        (_, Matcher::Fields(fields)) => specificity(fields),
    }
}

fn specificity(fields: &Fields) -> i64 {
    let host = fields.hosts.iter().map(|host| host_weight(host)).min().unwrap_or(0);
    let path = fields.paths.iter().map(|path| path_weight(path)).min().unwrap_or(0);
    let present = |given: bool| usize::from(given);
    let conditions = fields.headers.len()
        + fields.query.len()
        + present(!fields.methods.is_empty())
        + present(!fields.client_ip.is_empty())
        + present(!fields.sni.is_empty());
    host + path + count(conditions, MOST_CONDITIONS)
}

fn host_weight(host: &str) -> i64 {
    match host {
        "*" => 0,
        _ if host.starts_with("*.") => WILDCARD_HOST,
        _ => EXACT_HOST,
    }
}

fn path_weight(path: &str) -> i64 {
    let bytes = |path: &str| PER_BYTE * count(path.len(), MOST_BYTES);
    match path.as_bytes().first() {
        Some(b'~') => PATTERN,
        Some(b'=') => EXACT_PATH + bytes(&path[1..]),
        _ => PREFIX + bytes(path.trim_end_matches('*')),
    }
}

fn count(number: usize, most: usize) -> i64 {
    // Invariant: `most` is far below `i64::MAX`.
    i64::try_from(number.min(most)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(hosts: &[&str], paths: &[&str], headers: usize) -> i64 {
        let text = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let headers =
            (0..headers).map(|n| (format!("x-{n}").parse().unwrap(), vec!["1".to_owned()])).collect();
        specificity(&Fields { hosts: text(hosts), paths: text(paths), headers, ..Fields::default() })
    }

    #[test]
    fn each_line_outweighs_all_lines_under_it() {
        let long = format!("/{}", "x".repeat(20_000));
        let ladder = [
            fields(&["a.example"], &[], 0),
            fields(&["*.example"], &[&format!("={long}")], 100),
            fields(&["*.example"], &[], 0),
            fields(&[], &[&format!("={long}")], 100),
            fields(&[], &["=/"], 0),
            fields(&[], &[&long], 100),
            fields(&[], &["/ab"], 0),
            fields(&[], &["/a"], 100),
            fields(&[], &["/"], 0),
            fields(&[], &["~/long-pattern"], 100),
            fields(&[], &["~/"], 0),
            fields(&[], &[], 100),
            fields(&[], &[], 1),
            fields(&[], &[], 0),
        ];
        assert!(ladder.windows(2).all(|pair| pair[0] > pair[1]), "{ladder:?}");
    }

    #[test]
    fn the_least_specific_alternative_counts() {
        assert_eq!(fields(&["a.example", "*.example"], &[], 0), WILDCARD_HOST);
        assert_eq!(fields(&[], &["=/x", "/"], 0), fields(&[], &["/"], 0));
    }
}
