//! Order, entrypoints, conflicts; and the index against a plain walk.

use std::time::Instant;

use super::*;
use crate::config::route::Fields;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn route(route_name: &str, matcher: Matcher) -> Route {
    Route {
        name: name(route_name),
        matcher,
        priority: None,
        entrypoints: Vec::new(),
        strip_path: None,
        chain: Vec::new(),
        service: name("s"),
    }
}

fn rule(route_name: &str, text: &str) -> Route {
    route(route_name, Matcher::Rule(text.to_owned()))
}

fn on(mut route: Route, entrypoints: &[&str]) -> Route {
    route.entrypoints = entrypoints.iter().map(|entrypoint| name(entrypoint)).collect();
    route
}

fn matching(route_name: &str, hosts: &[&str], paths: &[&str]) -> Route {
    let text = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    route(route_name, Matcher::Fields(Fields { hosts: text(hosts), paths: text(paths), ..Fields::default() }))
}

fn find_on<'a>(routes: &'a [Route], entrypoint: &str, host: &str, path: &str) -> Option<&'a str> {
    let table = Table::build(routes).unwrap();
    lookup(&table, entrypoint, host, path).map(|at| routes[at].name.as_str())
}

fn find<'a>(routes: &'a [Route], host: &str, path: &str) -> Option<&'a str> {
    find_on(routes, "web", host, path)
}

fn lookup(table: &Table, entrypoint: &str, host: &str, path: &str) -> Option<usize> {
    table.lookup(&RequestView {
        entrypoint,
        host,
        path,
        exact_path: false,
        query: None,
        method: &Method::GET,
        headers: &HeaderMap::new(),
        client: [192, 0, 2, 1].into(),
        sni: None,
    })
}

#[test]
fn the_longer_rule_wins_unless_a_priority_says_otherwise() {
    let mut routes = vec![rule("all", "PathPrefix(`/`)"), rule("api", "PathPrefix(`/api`)")];
    assert_eq!(find(&routes, "a", "/api/x"), Some("api"));
    assert_eq!(find(&routes, "a", "/x"), Some("all"));
    routes[0].priority = Some(1_000);
    assert_eq!(find(&routes, "a", "/api/x"), Some("all"));
    routes[0].priority = Some(-1);
    assert_eq!(find(&routes, "a", "/api/x"), Some("api"));
    routes[0].priority = Some(0);
    assert_eq!(find(&routes, "a", "/api/x"), Some("api"));
}

#[test]
fn fields_match_by_specificity() {
    let routes = vec![
        matching("pattern", &[], &["~/a/[0-9]+"]),
        matching("segment", &[], &["/a"]),
        matching("raw", &[], &["/ab*"]),
        matching("exact", &[], &["=/a/b"]),
        matching("wild", &["*.example.com"], &[]),
        matching("host", &["www.example.com"], &["/only"]),
        matching("rest", &[], &[]),
    ];
    for (host, path, expected) in [
        ("x", "/a", "segment"),
        ("x", "/a/7", "segment"),
        ("x", "/abc", "raw"),
        ("x", "/ac", "rest"),
        ("x", "/a/b", "exact"),
        ("x", "/a/b/", "segment"),
        ("www.example.com", "/only/x", "host"),
        ("www.example.com", "/a/b", "wild"),
        ("a.b.example.com", "/", "rest"),
        ("example.com", "/", "rest"),
        ("", "/", "rest"),
    ] {
        assert_eq!(find(&routes, host, path), Some(expected), "{host}{path}");
    }
}

#[test]
fn patterns_in_fields_are_anchored_at_the_start() {
    let routes = vec![matching("pattern", &[], &["~/a|/b"])];
    assert_eq!(find(&routes, "x", "/b/c"), Some("pattern"));
    assert_eq!(find(&routes, "x", "/c/a"), None);
}

#[test]
fn fields_are_all_needed_and_any_value_will_do() {
    let mut fields = Fields { hosts: vec!["a".into(), "b".into()], ..Fields::default() };
    fields.methods = vec![Method::POST, Method::GET];
    fields.headers = vec![("x-v".parse().unwrap(), vec!["1".into(), "2".into()])];
    let table = Table::build(&[route("r", Matcher::Fields(fields))]).unwrap();
    let headers = |value: &str| HeaderMap::from_iter([("x-v".parse().unwrap(), value.parse().unwrap())]);
    let found = |host: &str, method: Method, headers: HeaderMap| {
        let view = RequestView {
            entrypoint: "web",
            host,
            path: "/",
            exact_path: false,
            query: None,
            method: &method,
            headers: &headers,
            client: [192, 0, 2, 1].into(),
            sni: None,
        };
        table.lookup(&view).is_some()
    };
    assert!(found("b", Method::GET, headers("2")));
    assert!(!found("c", Method::GET, headers("2")));
    assert!(!found("b", Method::PUT, headers("2")));
    assert!(!found("b", Method::GET, headers("3")));
    assert!(!found("b", Method::GET, HeaderMap::new()));
}

#[test]
fn entrypoints_bound_a_route() {
    let routes = vec![
        on(rule("secure", "Host(`a`) && PathPrefix(`/`)"), &["websecure"]),
        on(rule("operator", "PathPrefix(`/x`)"), &["admin"]),
        rule("open", "PathPrefix(`/`)"),
    ];
    assert_eq!(find_on(&routes, "websecure", "a", "/x"), Some("secure"));
    assert_eq!(find_on(&routes, "web", "a", "/x"), Some("open"));
    assert_eq!(find_on(&routes, "admin", "a", "/x"), Some("operator"));
    assert_eq!(find_on(&routes, "admin", "a", "/"), None);
}

#[test]
fn spelling_does_not_slip_past_a_route() {
    let routes =
        vec![rule("guarded", "Host(`a.example`) && PathPrefix(`/admin`)"), rule("open", "PathPrefix(`/`)")];
    for path in ["/admin", "/%61dmin", "//admin", "/x/../admin", "/x/%2e%2E/admin", "/./admin/"] {
        assert_eq!(find(&routes, "A.Example.:8443", path), Some("guarded"), "{path}");
    }
    assert_eq!(find(&routes, "a.example", "/%2Fadmin"), Some("open"));
}

#[test]
fn an_exact_path_is_matched_as_it_is() {
    let routes = vec![rule("guarded", "PathPrefix(`/admin`)"), rule("open", "PathPrefix(`/`)")];
    let table = Table::build(&routes).unwrap();
    for (path, route) in [("/%61dmin", "guarded"), ("//admin", "open"), ("/x/../admin", "open")] {
        let view = RequestView {
            entrypoint: "web",
            host: "a",
            path,
            exact_path: true,
            query: None,
            method: &Method::GET,
            headers: &HeaderMap::new(),
            client: [192, 0, 2, 1].into(),
            sni: None,
        };
        let found = table.lookup(&view).map(|at| routes[at].name.as_str());
        assert_eq!(found, Some(route), "{path}");
    }
}

#[test]
fn every_fault_is_reported_at_once() {
    let routes =
        vec![rule("one", "Host(`a`) && Nope(`b`)"), matching("two", &[], &["x"]), rule("three", "Host(`a`)")];
    let errors = Table::build(&routes).err().unwrap();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "route one: rule `Host(`a`) && Nope(`b`)`, byte 13: unknown matcher `Nope`",
            "route two: paths `x`: a path must start with `/`, `=/` or `~`",
        ]
    );
}

#[test]
fn the_same_matcher_twice_is_a_conflict() {
    let conflict = |first: Route, second: Route| Table::build(&[first, second]).is_err();
    let (a, b) = (rule("a", "Host(`x`)"), rule("b", "host(`X`)"));
    assert!(conflict(a.clone(), b.clone()));
    assert!(conflict(on(a.clone(), &["web"]), b.clone()));
    assert!(conflict(b.clone(), on(a.clone(), &["web"])));
    assert!(conflict(on(a.clone(), &["web", "other"]), on(b.clone(), &["web"])));
    assert!(!conflict(on(a.clone(), &["web"]), on(b.clone(), &["other"])));
    assert!(!conflict(on(a.clone(), &["admin"]), b.clone()));
    assert!(!conflict(Route { priority: Some(3), ..a.clone() }, b.clone()));
    assert!(!conflict(a.clone(), rule("b", "Host(`y`)")));
    let error = Table::build(&[b, a]).err().unwrap().remove(0);
    assert_eq!(error, RouteError::Conflict { first: name("a"), second: name("b"), priority: 9 });
}

#[test]
fn ties_that_cannot_be_told_are_ordered_by_name() {
    let tie = |text: &str| Route { priority: Some(5), ..rule(text, &format!("PathRegexp(`{text}`)")) };
    assert_eq!(find(&[tie("b"), tie("a")], "h", "/ab"), Some("a"));
    assert_eq!(find(&[tie("a"), tie("b")], "h", "/ab"), Some("a"));
}

#[test]
fn routes_that_overlap_with_one_priority_are_a_conflict() {
    let tie = |name: &str, text: &str| Route { priority: Some(5), ..rule(name, text) };
    for (left, right, conflict) in [
        ("Host(`a.x`)", "PathPrefix(`/a`)", true),
        ("Host(`a.x`) && PathPrefix(`/b`)", "Host(`*.x`) && PathPrefix(`/b/c`)", true),
        ("Host(`a.x`) && PathPrefix(`/b/c`)", "Host(`*.x`) && PathPrefix(`/b`)", true),
        ("Host(`a.x`)", "Host(`b.x`)", false),
        ("Host(`a.x`) && Method(`GET`)", "Host(`a.x`) && Method(`PUT`)", false),
    ] {
        for routes in [[tie("l", left), tie("r", right)], [tie("r", left), tie("l", right)]] {
            assert_eq!(Table::build(&routes).is_err(), conflict, "{left} | {right}");
        }
        let apart = [on(tie("l", left), &["web"]), on(tie("r", right), &["other"])];
        assert!(Table::build(&apart).is_ok(), "{left} | {right}");
    }
}

#[test]
fn what_is_told_of_overlaps_holds_for_requests() {
    let mut dice = Dice(11);
    let mut told = 0;
    for _ in 0..3_000 {
        let (left, right) = (dice.rule(2), dice.rule(2));
        let parse = |text: &str| rule::parse(text).map_err(|error| error.reason).unwrap();
        let (a, b) = (parse(&left), parse(&right));
        if crate::route::overlap::overlap(&a, &b) != Some(false) {
            continue;
        }
        told += 1;
        for host in ["a.x", "b.x", "c.x", "x", ""] {
            for path in ["/", "/a", "/ab", "/a/b", "/a/bc", "/b", "/c", "*"] {
                assert!(!(holds(&a, host, path) && holds(&b, host, path)), "{left} | {right}: {host}{path}");
            }
        }
    }
    assert!(told > 100, "{told}");
}

#[test]
fn query_address_and_sni_are_fields_too() {
    let fields = Fields {
        query: vec![("v".into(), vec!["1".into(), "2".into()]), ("flag".into(), vec![])],
        client_ip: crate::config::Networks::new(["192.0.2.0/24".parse().unwrap()]),
        sni: vec!["*.x".into()],
        ..Fields::default()
    };
    let table = Table::build(&[route("r", Matcher::Fields(fields))]).unwrap();
    let found = |query: &str, client: [u8; 4], sni: Option<&str>| {
        let headers = HeaderMap::new();
        let view = RequestView {
            entrypoint: "web",
            host: "h",
            path: "/",
            exact_path: false,
            query: Some(query),
            method: &Method::GET,
            headers: &headers,
            client: client.into(),
            sni,
        };
        table.lookup(&view).is_some()
    };
    assert!(found("v=2&flag", [192, 0, 2, 9], Some("a.x")));
    assert!(found("flag=z&v=1", [192, 0, 2, 9], Some("a.x")));
    assert!(!found("v=3&flag", [192, 0, 2, 9], Some("a.x")));
    assert!(!found("v=1", [192, 0, 2, 9], Some("a.x")));
    assert!(!found("v=1&flag", [192, 0, 3, 9], Some("a.x")));
    assert!(!found("v=1&flag", [192, 0, 2, 9], Some("a.b.x")));
    assert!(!found("v=1&flag", [192, 0, 2, 9], None));
}

#[test]
fn an_explanation_says_what_is_missing() {
    let routes = [
        rule("post", "Host(`a.x`) && PathPrefix(`/v1`) && Method(`POST`)"),
        rule("get", "Host(`a.x`) && PathPrefix(`/v1`)"),
        on(rule("elsewhere", "Host(`a.x`)"), &["other"]),
    ];
    let table = Table::build(&routes).unwrap();
    let headers = HeaderMap::new();
    let view = RequestView {
        entrypoint: "web",
        host: "a.x",
        path: "/v1/x",
        exact_path: false,
        query: None,
        method: &Method::GET,
        headers: &headers,
        client: [192, 0, 2, 1].into(),
        sni: None,
    };
    let verdicts: Vec<_> = table
        .explain(&routes, &view)
        .into_iter()
        .map(|verdict| (routes[verdict.route].name.to_string(), verdict.unmet.join("; ")))
        .collect();
    let expected = [("post", "Method(`POST`)"), ("get", ""), ("elsewhere", "is not on entrypoint web")];
    assert_eq!(verdicts, expected.map(|(name, unmet)| (name.to_owned(), unmet.to_owned())));
}

/// A small generator, seeded, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.roll(list.len())]
    }

    fn rule(&mut self, depth: usize) -> String {
        const LEAVES: &[&str] = &[
            "Host(`a.x`)",
            "Host(`b.x`)",
            "Host(`*.x`)",
            "Host(`*`)",
            "HostRegexp(`^a`)",
            "Path(`/`)",
            "Path(`/a/b`)",
            "PathPrefix(`/`)",
            "PathPrefix(`/a`)",
            "PathPrefix(`/ab`)",
            "PathPrefix(`/a/b`)",
            "PathPrefix(`/b`)",
            "PathRegexp(`b$`)",
            "Method(`GET`)",
            "Method(`PUT`)",
            "Header(`X`, `y`)",
        ];
        match self.roll(if depth == 0 { 4 } else { 8 }) {
            0..4 => self.pick(LEAVES).to_owned(),
            4..6 => format!("{} && {}", self.rule(depth - 1), self.rule(depth - 1)),
            6 => format!("({} || {})", self.rule(depth - 1), self.rule(depth - 1)),
            _ => format!("!({})", self.rule(depth - 1)),
        }
    }
}

#[test]
fn the_index_agrees_with_a_walk_over_all_routes() {
    let mut dice = Dice(7);
    for _ in 0..200 {
        let routes: Vec<Route> = (0..12)
            .map(|n| Route { priority: Some(n + 1), ..rule(&format!("r{n}"), &dice.rule(3)) })
            .collect();
        let table = Table::build(&routes).unwrap();
        for _ in 0..50 {
            let host = dice.pick(&["a.x", "b.x", "c.x", "x", "a.b.x", "", "A.X:80"]);
            let path = dice.pick(&["/", "/a", "/ab", "/a/", "/a/b", "/a/bc", "/b", "/c", "/%61/b", "*"]);
            let walked = table.entries.iter().find(|entry| holds(&entry.expression, host, path));
            let texts: Vec<_> = routes.iter().map(|route| &route.matcher).collect();
            let found = lookup(&table, "web", host, path);
            assert_eq!(found, walked.map(|entry| entry.route), "{host}{path} {texts:?}");
        }
    }
}

/// Without the index.
fn holds(expression: &Expression, host: &str, path: &str) -> bool {
    expression.matches(&Head {
        host: &canonical::host(host),
        path: &canonical::routing_path(path),
        query: None,
        method: &Method::GET,
        headers: &HeaderMap::new(),
        client: [192, 0, 2, 1].into(),
        sni: None,
    })
}

#[test]
fn ten_thousand_routes_are_built_and_found() {
    let routes: Vec<Route> = (0..10_000)
        .map(|n| rule(&format!("r{n}"), &format!("Host(`h{}.example`) && PathPrefix(`/p{n}/`)", n % 100)))
        .collect();
    let start = Instant::now();
    let table = Table::build(&routes).unwrap();
    // A guard against quadratic work only; the bench says how long it takes.
    assert!(start.elapsed().as_secs() < 30);
    assert_eq!(lookup(&table, "web", "h42.example", "/p4242/x"), Some(4_242));
    assert_eq!(lookup(&table, "web", "h41.example", "/p4242/x"), None);
}
