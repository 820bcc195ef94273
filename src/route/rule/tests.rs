//! Traefik's own vectors, and what they do not cover.

use http::{HeaderMap, HeaderName, Method};
use serde_json::Value;

use super::*;
use crate::route::{canonical, condition::Head};

/// One request of a vector, as it would arrive.
struct Sent {
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
    client: std::net::IpAddr,
}

impl Sent {
    /// Or why this request cannot arrive here.
    fn read(case: &Value) -> Result<Self, &'static str> {
        let url = case["url"].as_str().unwrap_or("https://example.com");
        let rest = url.split_once("://").unwrap().1;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (host, path) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, path.into()));
        let client = case["client"].as_str().unwrap_or("192.0.2.1");
        Ok(Self {
            host: host.to_owned(),
            path: format!("/{path}"),
            query: query.map(str::to_owned),
            method: case["method"].as_str().unwrap_or("GET").parse().unwrap(),
            headers: headers(&case["headers"])?,
            client: client.parse().map_err(|_| "a peer address is typed here, so `1` cannot arrive")?,
        })
    }

    fn matches(&self, expression: &Expression) -> bool {
        expression.matches(&Head {
            host: &canonical::host(&self.host),
            path: &canonical::routing_path(&self.path),
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            client: self.client,
            sni: None,
        })
    }
}

fn headers(given: &Value) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::new();
    for (name, values) in given.as_object().into_iter().flatten() {
        if name.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err("a Go map with a key that Go's server would have made canonical");
        }
        let name: HeaderName = name.parse().unwrap();
        for value in values.as_array().unwrap() {
            headers.append(name.clone(), value.as_str().unwrap().parse().unwrap());
        }
    }
    Ok(headers)
}

#[test]
fn traefik_vectors() {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/traefik_http_rules.json")).unwrap();
    let (mut refused, mut requests, mut set_aside) = (0, 0, Vec::new());
    for vector in file["vectors"].as_array().unwrap() {
        let rule = vector["rule"].as_str().unwrap();
        if vector["parse_error"] == true {
            assert!(parse(rule).is_err(), "must be refused: {rule}");
            refused += 1;
            continue;
        }
        let expression = parse(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
        for case in vector["cases"].as_array().unwrap() {
            requests += 1;
            match Sent::read(case) {
                Ok(sent) => assert_eq!(sent.matches(&expression), case["match"] == true, "{rule}: {case}"),
                Err(reason) => set_aside.push(reason),
            }
        }
    }
    assert_eq!((refused, requests), (51, 233));
    // Four of them are header keys, one is the peer address; see `Sent::read`.
    assert_eq!(set_aside.len(), 5, "{set_aside:?}");
}

#[test]
fn line_breaks_follow_operators() {
    for rule in ["Host(`a`) &&\n Path(`/b`)", "Host(`a`)\n", "\n(\nHost(\n`a`) )", "Query(`a`,\n`b`)\n\n"] {
        assert!(parse(rule).is_ok(), "{rule:?}");
    }
    for (rule, offset) in [
        ("Host(`a`)\n&& Path(`/b`)", 9),
        ("Host(`a`) \n|| Path(`/b`)", 10),
        ("Host(`a`\n)", 8),
        ("(Host(`a`)\n)", 10),
        ("Host\n(`a`)", 4),
    ] {
        assert_eq!(parse(rule).unwrap_err().offset, offset, "{rule:?}");
    }
}

#[test]
fn errors_say_where_and_why() {
    for (rule, offset, reason) in [
        ("Host('a')", 5, "not in '"),
        ("Host(`.`)", 5, "must not be empty"),
        ("Host(`a`,)", 9, "expected a string"),
        ("Host(1)", 5, "expected a string"),
        ("hOst(`a`)", 0, "unknown matcher `hOst`"),
        ("Host(`a`) && Nope(`b`)", 13, "unknown matcher `Nope`"),
        ("Host(`a`) && Path(`b`)", 18, "must start with `/`"),
        ("Host(`a`) Path(`/b`)", 10, "expected `&&`"),
        ("Host(`a`) & Path(`/b`)", 10, "expected `&&`"),
        ("Host(`a`) &&", 12, "expected a matcher"),
        ("(Host(`a`)", 10, "or `)`"),
        ("Host(`a`", 8, "expected `,` or `)`"),
        ("Host(`a", 5, "not closed"),
        ("Host(\"a\\q\")", 7, "unknown escape"),
        ("PathRegexp(`/(`)", 11, "unclosed group"),
        ("Method(`a`, `b`)", 0, "takes 1 argument(s), not 2"),
        ("Query(`a`, `b`, `c`)", 0, "takes 1 or 2"),
        ("Header(`a b`, `c`)", 7, "not a header name"),
        ("Query(`a`, ``)", 11, "must not be empty"),
    ] {
        let error = parse(rule).unwrap_err();
        assert_eq!(error.offset, offset, "{rule}: {error}");
        assert!(error.reason.contains(reason), "{rule}: {error}");
    }
}

#[test]
fn strings_are_read_as_go_reads_them() {
    for (literal, value) in [
        (r#""a\tb\"\\""#, "a\tb\"\\"),
        (r#""\x41\101\u00e9\U0001F9ad""#, "AA\u{e9}\u{1f9ad}"),
        (r#""\xc3\xa9""#, "\u{e9}"),
        ("`a\\n\"b`", "a\\n\"b"),
        ("`a\r\nb`", "a\nb"),
    ] {
        assert_eq!(literal::string(literal).unwrap(), (value.to_owned(), literal.len()), "{literal}");
    }
    for bad in
        [r#""\'""#, r#""\xff""#, r#""\400""#, r#""\ud800""#, r#""\x+1""#, "\"a\nb\"", r#""\"#, "\"\\é\""]
    {
        assert!(literal::string(bad).is_err(), "{bad}");
    }
}

#[test]
fn nesting_is_bounded() {
    let rule = format!("{}Host(`a`)", "!".repeat(100_000));
    assert!(parse(&rule).unwrap_err().reason.contains("deep"));
    let wide = vec!["Host(`a`)"; 10_000].join(" || ");
    assert!(parse(&wide).is_ok());
}

#[test]
fn the_host_header_is_not_a_header() {
    let expression = parse("Header(`Host`, `example.com`)").unwrap();
    let case = serde_json::json!({ "headers": { "Host": ["example.com"] } });
    assert!(!Sent::read(&case).unwrap().matches(&expression));
}
