//! The host names that a route is for, as far as they can be listed.

use super::{condition::Condition, expression::Expression, table};
use crate::config::route::Route;

/// The hosts that a route names, sorted, each once: exact names, and `*.DOMAIN`
/// for one more label. Hosts that a rule excludes are not among them, nor are
/// patterns (see [`names_hosts_by_pattern`]) and "any host".
pub fn hosts(route: &Route) -> Vec<String> {
    let mut found = Vec::new();
    visit(route, |condition| match condition {
        Condition::Host(host) => found.push(host.clone()),
        Condition::Subdomain(domain) => found.push(format!("*.{domain}")),
        _ => {}
    });
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a `HostRegexp` stands for hosts that nobody can list.
pub fn names_hosts_by_pattern(route: &Route) -> bool {
    let mut found = false;
    visit(route, |condition| found |= matches!(condition, Condition::HostPattern(_)));
    found
}

/// A route that does not compile has no conditions; it is refused elsewhere.
fn visit(route: &Route, mut see: impl FnMut(&Condition)) {
    if let Ok(expression) = table::compile(route) {
        walk(&expression, &mut see);
    }
}

fn walk(expression: &Expression, see: &mut impl FnMut(&Condition)) {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => parts.iter().for_each(|part| walk(part, see)),
        Expression::Not(_) => {}
        Expression::Is(condition) => see(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::route::{Fields, Matcher};

    fn route(matcher: Matcher) -> Route {
        Route {
            name: "r".parse().unwrap(),
            matcher,
            priority: None,
            entrypoints: Vec::new(),
            strip_path: None,
            chain: Vec::new(),
            service: "s".parse().unwrap(),
        }
    }

    #[test]
    fn rules_and_fields_name_hosts() {
        for (rule, expected, pattern) in [
            (
                "Host(`B.example.com`) || Host(`a.example.com.`)",
                &["a.example.com", "b.example.com"][..],
                false,
            ),
            ("Host(`a.test`) && (PathPrefix(`/x`) || Host(`b.test`))", &["a.test", "b.test"], false),
            ("Host(`*.a.test`) && PathPrefix(`/`)", &["*.a.test"], false),
            ("PathPrefix(`/`) && !Host(`a.test`)", &[], false),
            ("HostRegexp(`^.+\\.a\\.test$`) || Host(`a.test`)", &["a.test"], true),
            ("Host(`*`)", &[], false),
            ("not a rule", &[], false),
        ] {
            let route = route(Matcher::Rule(rule.to_owned()));
            assert_eq!(hosts(&route), expected, "{rule}");
            assert_eq!(names_hosts_by_pattern(&route), pattern, "{rule}");
        }
        let fields = Fields { hosts: vec!["x.test".into(), "*.y.test".into()], ..Fields::default() };
        assert_eq!(hosts(&route(Matcher::Fields(fields))), ["*.y.test", "x.test"]);
    }
}
