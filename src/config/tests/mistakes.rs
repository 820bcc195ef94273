//! Every mistake is found, with its place and what was probably meant.

use super::*;

#[test]
fn all_at_once_with_places_and_suggestions() {
    let text = "version: 1
entrypoints:
  web: { adress: ':80' }
  other: { address: 8080 }
services:
  echo:
    targets: [{ url: 'http://a', wait: 2 }]
    timeouts: { conect: 2s, idle: 5sec }
middlewares:
  five: { rate_limit: { limit: 5/mins } }
plugins:
  metring: { on_error: rejekt }
routes:
  echo:
    rule: x
    entrypoints: [webb]
    chain: [fife, 'plugin:metrin', metring]
    service: ecko
stat: {}
";
    assert_eq!(
        mistakes(text),
        [
            "3:10: entrypoints.web.adress: unknown key; did you mean \"address\"?",
            "4:21: entrypoints.other.address: expected an address such as 127.0.0.1:8080, [::1]:8080 or :8080 \
             for all interfaces; did you mean \":8080\"?",
            "7:34: services.echo.targets[0].wait: unknown key",
            "8:17: services.echo.timeouts.conect: unknown key; did you mean \"connect\"?",
            "8:35: services.echo.timeouts.idle: expected a duration such as 250ms, 2s, 5m or 1h; did you mean \"5s\"?",
            "10:32: middlewares.five.rate_limit.limit: expected a rate such as 10/s, 5/min, 100/hour, 1000/day or \
             10000/month; did you mean \"5/min\"?",
            "12:3: plugins.metring: \"module\" is missing; only metering, byok, fallback, admin are built in; did you \
             mean \"metering\"?",
            "12:24: plugins.metring.on_error: unknown policy, known are reject, continue; did you mean \"reject\"?",
            "16:19: routes.echo.entrypoints[0]: no entrypoint named \"webb\"; did you mean \"web\"?",
            "17:13: routes.echo.chain[0]: no middleware named \"fife\"; did you mean \"five\"?",
            "17:19: routes.echo.chain[1]: no plugin named \"metrin\"; did you mean \"plugin:metring\"?",
            "17:36: routes.echo.chain[2]: no middleware named \"metring\", but a plugin; did you mean \
             \"plugin:metring\"?",
            "18:14: routes.echo.service: no service named \"ecko\"; did you mean \"echo\"?",
            "19:1: stat: unknown key; did you mean \"state\"?",
        ]
    );
}

/// One mistake each, in the body after `version: 1`, so lines start at 2.
#[test]
fn one_by_one() {
    for (text, expected) in [
        // Exactly one of.
        ("services: { a: {} }", "2:13: services.a: one of targets, llm, plugin, tcp is needed"),
        (
            "plugins: { byok: }\nservices: { a: { plugin: byok, targets: [{ url: 'http://x' }] } }",
            "3:13: services.a: only one of targets, plugin may be given",
        ),
        (
            "middlewares: { m: { api_key: , request_id: } }",
            "2:16: middlewares.m: only one of request_id, api_key may be given",
        ),
        (
            "plugins: { byok: }\nservices: { s: { plugin: byok } }\nroutes: { r: { service: s } }",
            "4:11: routes.r: one of rule, match is needed",
        ),
        (
            "plugins: { byok: }\nservices: { s: { plugin: byok } }\nroutes: { r: { service: s, rule: x, match: { paths: [/] } } }",
            "4:11: routes.r: only one of rule, match may be given",
        ),
        // Missing.
        ("entrypoints: { web: }", "2:16: entrypoints.web: \"address\" is missing"),
        ("services: { a: { targets: [] } }", "2:27: services.a.targets: at least one target is needed"),
        // Names.
        ("services: { a: { plugin: byok } }", "2:26: services.a.plugin: no plugin named \"byok\""),
        (
            "entrypoints: { 'a b': { address: ':1' } }",
            "2:16: entrypoints.a b: a name is 1 to 64 of a-z A-Z 0-9 - _ .",
        ),
        (
            "entrypoints: { admin: { address: ':1' } }",
            "2:16: entrypoints.admin: the name admin is reserved for the listener of the admin section",
        ),
        (
            "services: { l: { llm: { providers: { here: { api: openai, url: 'http://x' } }, models: { m: { provider: hre, name: n } } } } }",
            "2:105: services.l.llm.models.m.provider: no provider named \"hre\"; did you mean \"here\"?",
        ),
        // Addresses.
        (
            "entrypoints: { a: { address: ':1' }, b: { address: '[::]:1' } }",
            "2:38: entrypoints.b: the address [::]:1 belongs to a already",
        ),
        // URLs.
        (
            "services: { a: { targets: [{ url: 'app:80' }] } }",
            "2:35: services.a.targets[0].url: expected http://host[:port] or https://host[:port]",
        ),
        (
            "services: { a: { targets: [{ url: 'ftp://app' }] } }",
            "2:35: services.a.targets[0].url: expected http://host[:port] or https://host[:port]",
        ),
        (
            "services: { a: { targets: [{ url: 'http://app/x' }] } }",
            "2:35: services.a.targets[0].url: a target has no path",
        ),
        (
            "services: { a: { targets: [{ url: 'http://u:p@app' }] } }",
            "2:35: services.a.targets[0].url: a URL may not hold credentials",
        ),
        // Files.
        (
            "plugins: { mine: { module: no/such.wasm } }",
            "2:28: plugins.mine.module: cannot read /etc/tollgate/no/such.wasm: No such file or directory (os error 2)",
        ),
        (
            "plugins: { mine: }",
            "2:12: plugins.mine: \"module\" is missing; only metering, byok, fallback, admin are built in",
        ),
        // Stripping.
        (
            "plugins: { byok: }\nservices: { s: { plugin: byok } }\nroutes: { r: { service: s, rule: x, strip_path: true } }",
            "4:49: routes.r.strip_path: true needs match; with a rule write the path, such as /api",
        ),
        (
            "plugins: { byok: }\nservices: { s: { plugin: byok } }\nroutes: { r: { service: s, match: { paths: [/a, /b] }, strip_path: true } }",
            "4:68: routes.r.strip_path: true needs match.paths with exactly one prefix; write the path, such as /api",
        ),
        // Values.
        (
            "middlewares: { m: { api_key: { hide: yes } } }",
            "2:38: middlewares.m.api_key.hide: expected true or false; did you mean \"true\"?",
        ),
        (
            "middlewares: { m: { rate_limit: { limit: 1/s, by: ip } } }",
            "2:51: middlewares.m.rate_limit.by: expected consumer, address, all or header:NAME; did you mean \"address\"?",
        ),
        (
            "plugins: { byok: { limits: { instances: 0 } } }",
            "2:41: plugins.byok.limits.instances: expected a number from 1 to 10000",
        ),
        (
            "plugins: { byok: { limits: { memory: 1KB } } }",
            "2:38: plugins.byok.limits.memory: expected a size from 65536 to 4294967296 bytes",
        ),
        ("plugins: [byok]", "2:10: plugins: expected a mapping"),
        (
            "consumers: { c: { opening_credit: '-1' } }",
            "2:35: consumers.c.opening_credit: expected an amount of USD such as \"0.15\"",
        ),
        // Entrypoints, TLS, streams.
        (
            "entrypoints: { web: { address: ':1', redirect_to: webs } }",
            "2:51: entrypoints.web.redirect_to: no entrypoint named \"webs\"; did you mean \"web\"?",
        ),
        (
            "entrypoints: { web: { address: ':1', tls: {} } }",
            "2:38: entrypoints.web.tls: certificates or a resolver is needed",
        ),
        (
            "entrypoints: { web: { address: ':1', trusted_proxies: [10.0.0.1/8] } }",
            "2:56: entrypoints.web.trusted_proxies[0]: bits are set beyond the prefix; did you mean \"10.0.0.0/8\"?",
        ),
        (
            "tls: { options: { o: { min_version: '1.3', max_version: '1.2' } } }",
            "2:22: tls.options.o: min_version is above max_version",
        ),
        (
            "services: { s: { tcp: { targets: ['a:1'] } }, h: { targets: [{ url: 'http://a' }] } }\nroutes: { r: { rule: x, service: s } }",
            "3:34: routes.r.service: a TCP service is reached by streams, not by routes",
        ),
        (
            "entrypoints: { web: { address: ':1' } }\nservices: { s: { tcp: { targets: ['a:1'] } } }\nstreams: { t: { hosts: [a.test], entrypoints: [web], tls: terminate, service: s } }",
            "4:59: streams.t.tls: TLS cannot end on web, which has none",
        ),
        // The text itself.
        ("routes: {}\nroutes: {}", "3:1: routes: is here twice, first in line 2"),
        ("state: &s { data_dir: *s }", "2:23: state.data_dir: an alias may not stand inside what it names"),
        ("state: !custom {}", "2:16: state: tags are not supported"),
        ("---\nversion: 1", "2:1: a file holds one document"),
        // Substitution.
        (
            "state: { data_dir: '${env:NOWHERE}' }",
            "2:20: state.data_dir: the environment variable NOWHERE is not set",
        ),
        (
            "state: { data_dir: 'x${env:HOME}' }",
            "2:20: state.data_dir: ${…} stands for a whole value, not for a part of one",
        ),
        (
            "state: { data_dir: '${var:HOME}' }",
            "2:20: state.data_dir: only ${env:NAME}, ${env:NAME:-default} and ${file:PATH} are known",
        ),
    ] {
        assert_eq!(mistakes(&format!("version: 1\n{text}\n")), [expected], "{text}");
    }
}

#[test]
fn literal_secrets_are_refused_and_not_repeated() {
    let text = "version: 1
admin: { address: ':0', token: hunter2 }
consumers: { c: { api_keys: [hunter2, 'sha256:hunter2'] } }
state: { redis: { url: 'redis://u:hunter2@h/0' } }
services: { l: { llm: { providers: { p: { api: openai, url: 'http://x', key: hunter2 } }, models: } } }
";
    let found = mistakes(text);
    assert!(found.iter().all(|mistake| !mistake.contains("hunter2")), "{found:#?}");
    let refused = found.iter().filter(|mistake| mistake.ends_with("did you mean \"${env:NAME}\"?"));
    assert_eq!(refused.count(), 4, "{found:#?}");
    assert!(
        found.iter().any(|mistake| mistake.starts_with("3:39: consumers.c.api_keys[1]: expected a SHA-256"))
    );
}

#[test]
fn a_secret_in_the_wrong_variable_is_not_repeated() {
    let env = |_: &str| Some("hunter2".to_owned());
    let text = "version: 1
entrypoints: { web: { address: '${env:A}' } }
services: { a: { targets: [{ url: '${env:A}' }] }, b: { plugin: '${env:A}' } }
routes: { r: { rule: x, service: '${env:A}', chain: ['${env:A}'] } }
";
    let errors = Config::parse(text, Path::new("edge.yaml"), &env).unwrap_err();
    assert_eq!(errors.iter().count(), 5, "{errors}");
    assert!(!errors.to_string().contains("hunter2"), "{errors}");
}

#[test]
fn an_api_key_belongs_to_one_consumer() {
    let key = "sha256:0000000000000000000000000000000000000000000000000000000000000001";
    let text =
        format!("version: 1\nconsumers:\n  a: {{ api_keys: ['{key}'] }}\n  b: {{ api_keys: ['{key}'] }}\n");
    assert_eq!(mistakes(&text), ["4:3: consumers.b: an API key is here twice, first at \"a\""]);
}

#[test]
fn aliases_unfold_within_bounds() {
    good("version: 1\nentrypoints: { a: &a { address: ':0' }, b: *a }\n");
    let mut bomb = "version: 1\nx0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("x{level}: &a{level} [{aliases}]\n"));
    }
    assert!(mistakes(&bomb)[0].ends_with("more than 500000 values"));
    let deep = format!("version: 1\nx: {}{}\n", "[".repeat(100), "]".repeat(100));
    assert!(mistakes(&deep)[0].ends_with("nested deeper than 64"), "{:?}", mistakes(&deep));
    let mut tower = "version: 1\nx0: &a0 [0]\n".to_owned();
    for level in 1..70 {
        tower.push_str(&format!("x{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(mistakes(&tower)[0].ends_with("nested deeper than 64"));
}

#[test]
fn text_that_is_not_yaml_is_one_mistake_with_a_place() {
    let found = mistakes("version: 1\nroutes:\n  a: { rule: x\n  b: 2\n");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("not YAML: "), "{found:#?}");
    let line: usize = found[0].split(':').next().unwrap().parse().unwrap();
    assert!((3..=5).contains(&line), "{found:#?}");
}

#[test]
fn a_missing_file_says_so() {
    let errors = Config::load(Path::new("/no/such/edge.yaml")).unwrap_err();
    assert!(errors.to_string().starts_with("/no/such/edge.yaml: cannot read: "), "{errors}");
    assert_eq!(mistakes(""), ["1:1: \"version\" is missing"]);
    assert_eq!(mistakes("# nothing yet\n"), ["1:1: \"version\" is missing"]);
    assert_eq!(mistakes("version: 2\n"), ["1:10: version: the only known version is 1; did you mean \"1\"?"]);
}
