use std::path::Path;

use super::*;

fn plan(text: &str, in_files: &[&str]) -> Plan {
    let loaded = Config::parse(text, Path::new("/nowhere/test.yaml"), &|_| None);
    let config = loaded.unwrap_or_else(|errors| panic!("{errors}")).config;
    Plan::of(&config, |_| in_files.iter().map(|name| (*name).to_owned()).collect())
}

fn names(plan: &Plan) -> Vec<Vec<&str>> {
    plan.wanted.iter().map(|wanted| wanted.names.iter().map(String::as_str).collect()).collect()
}

const BASE: &str = "
version: 1
entrypoints:
  web: { address: '127.0.0.1:80' }
  websecure: { address: '127.0.0.1:443', tls: { resolver: le } }
services:
  s: { targets: [{ url: 'http://127.0.0.1:1' }] }
";

#[test]
fn hosts_of_routes_on_the_entrypoint_are_wanted_once() {
    let plan = plan(
        &format!(
            "{BASE}
tls: {{ resolvers: {{ le: {{ acme: {{ }} }} }} }}
routes:
  a: {{ rule: 'Host(`B.test`) || Host(`a.test`)', service: s }}
  b: {{ match: {{ hosts: [b.test, c.d.test] }}, service: s, entrypoints: [websecure] }}
  c: {{ rule: 'Host(`plain.test`)', service: s, entrypoints: [web] }}
  d: {{ rule: 'HostRegexp(`^x[.]test$`)', service: s }}
  e: {{ rule: 'Host(`*.w.test`) || Host(`localhost`) || Host(`10.0.0.1`)', service: s }}
"
        ),
        &["*.d.test"],
    );

    assert_eq!(names(&plan), [["a.test"], ["b.test"]]);
    let left_out: Vec<&str> = plan.left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left_out, ["the patterns of route d", "*.w.test", "10.0.0.1", "localhost"]);
}

#[test]
fn lists_come_first_and_cover_hosts() {
    let plan = plan(
        &format!(
            "{BASE}
tls:
  resolvers:
    le:
      acme:
        challenge: {{ dns-01: {{ exec: [hook] }} }}
        domains: [[a.test, '*.a.test'], b.test]
    unused: {{ acme: {{ domains: [nobody.test] }} }}
routes:
  r: {{ rule: 'Host(`x.a.test`) || Host(`y.x.a.test`) || Host(`*.w.test`)', service: s }}
"
        ),
        &[],
    );

    assert_eq!(
        names(&plan),
        [vec!["a.test", "*.a.test"], vec!["b.test"], vec!["*.w.test"], vec!["y.x.a.test"]]
    );
    assert!(plan.left_out.is_empty(), "{:?}", plan.left_out);
}

#[test]
fn an_id_is_of_the_authority_and_the_set_of_names() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let one = id("https://one/", &names(&["a.test", "b.test"]));
    assert_eq!(one, id("https://one/", &names(&["b.test", "a.test"])));
    assert_ne!(one, id("https://two/", &names(&["a.test", "b.test"])));
    assert_ne!(one, id("https://one/", &names(&["a.test"])));
}
