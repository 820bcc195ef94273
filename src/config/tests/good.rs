//! What a configuration becomes: values, defaults, substitutions.

use super::*;

#[test]
fn absent_keys_have_defaults() {
    let config = good(
        "version: 1
entrypoints:
  web: { address: ':8080' }
services:
  app: { targets: [{ url: 'http://app:8000' }, { url: 'https://[::1]' }] }
middlewares:
  ids: { request_id: }
  key: { api_key: {} }
  five: { rate_limit: { limit: 5/min } }
routes:
  all: { rule: 'PathPrefix(`/`)', service: app }
",
    );
    let web = &config.entrypoints["web"];
    assert_eq!(web.address.to_string(), "[::]:8080");
    assert_eq!(web.timeouts.idle, Duration::from_secs(75));
    assert_eq!(web.limits.max_header, ByteSize(65_536));
    assert_eq!(web.limits.max_connections, 20_000);
    assert!(config.admin.is_none());
    assert_eq!(config.state.data_dir, Path::new("/etc/tollgate/data"));
    assert_eq!(config.state.backend, Backend::Embedded);
    let Service::Http(app) = &config.services["app"] else { panic!("targets") };
    assert_eq!(app.targets[0].host, "app");
    assert!(app.targets[1].tls);
    assert_eq!((app.targets[1].host.as_str(), app.targets[1].port), ("::1", 443));
    assert_eq!(app.timeouts.first_byte, Duration::from_secs(30));
    let Middleware::RequestId(ids) = &config.middlewares["ids"] else { panic!("request_id") };
    assert_eq!((ids.header.as_str(), ids.trust_incoming), ("x-request-id", false));
    let Middleware::ApiKey(key) = &config.middlewares["key"] else { panic!("api_key") };
    assert_eq!((key.headers.len(), key.hide), (2, true));
    let Middleware::RateLimit(five) = &config.middlewares["five"] else { panic!("rate_limit") };
    assert_eq!((five.limit, five.window, &five.by), (5, Duration::from_secs(60), &LimitBy::Consumer));
    assert!(five.headers.ietf && five.headers.kong);
    let route = &config.routes[0];
    assert_eq!(route.matcher, Matcher::Rule("PathPrefix(`/`)".into()));
    assert!(route.entrypoints.is_empty() && route.chain.is_empty() && route.priority.is_none());
}

#[test]
fn prices_and_credit_are_exact() {
    let config = good(
        "version: 1
consumers:
  demo: { opening_credit: 10.05 }
services:
  llm:
    llm:
      providers:
        mine: { api: anthropic, url: 'http://127.0.0.1:9/base/v1/' }
      models:
        a/b:c: { provider: mine, name: big, price: { input: 0.15, output: '0.60', cache_write: 0.1875 } }
        free: { candidates: [{ provider: mine, name: x }, { provider: mine, name: y, max_output_tokens: 7 }] }
",
    );
    assert_eq!(config.consumers["demo"].opening_credit_nano_usd, 10_050_000_000);
    assert_eq!(config.consumers["demo"].tenant.as_str(), "demo");
    let Service::Llm(llm) = &config.services["llm"] else { panic!("llm") };
    assert_eq!(llm.providers["mine"].base_path, "/base/v1");
    assert!(llm.providers["mine"].key.is_none());
    let price = llm.models["a/b:c"].candidates[0].price.expect("priced");
    assert_eq!((price.input, price.output), (150_000, 600_000));
    assert_eq!((price.input_cache_read, price.input_cache_write), (150_000, 187_500));
    let free = &llm.models["free"].candidates;
    assert_eq!((free.len(), free[0].price, free[1].max_output_tokens), (2, None, Some(7)));
    assert_eq!((llm.limits.max_attempts, llm.timeouts.total), (4, Duration::from_secs(600)));
}

#[test]
fn routes_resolve_their_chain_and_prefix() {
    let config = good(
        "version: 1
entrypoints: { web: { address: ':1' } }
services: { app: { targets: [{ url: 'http://a' }] } }
middlewares: { key: { api_key: } }
plugins: { byok: }
routes:
  a: { match: { paths: [/a/] }, strip_path: true, service: app, chain: [key, 'plugin:byok'], priority: -3 }
  b: { match: { paths: ['/b*'], headers: { X-V: '2', x-w: [a, b] }, methods: [GET] }, strip_path: true, service: app, entrypoints: [web] }
  c: { rule: 'Path(`/c`)', strip_path: /c/, service: app }
  d: { rule: 'Path(`/d`)', strip_path: false, service: app }
",
    );
    let strip: Vec<_> = config.routes.iter().map(|route| route.strip_path.as_deref()).collect();
    assert_eq!(strip, [Some("/a"), Some("/b"), Some("/c"), None]);
    let name = |text: &str| text.parse::<Name>().unwrap();
    assert_eq!(config.routes[0].chain, [Step::Middleware(name("key")), Step::Plugin(name("byok"))]);
    assert_eq!(config.routes[0].priority, Some(-3));
    let Matcher::Fields(fields) = &config.routes[1].matcher else { panic!("match") };
    assert_eq!(fields.headers[0].1, ["2"]);
    assert_eq!(fields.headers[1].1, ["a", "b"]);
}

#[test]
fn plugins_have_grants_limits_and_json() {
    let config = good(
        "version: 1
plugins:
  metering:
    on_error: continue
    sha256: '00000000000000000000000000000000000000000000000000000000000000ff'
    grants: { log: true, ledger: write, key_value: [a, b], secrets: [byok], control: [read, load-plugin] }
    limits: { memory: 1MiB, instances: 2 }
    config: { a: 1, b: '1', c: [true, null, 0.5, x], d: { cap: \"5.00\" } }
  byok:
",
    );
    let metering = &config.plugins["metering"];
    assert_eq!(metering.module, Module::Embedded("metering".parse().unwrap()));
    assert_eq!(metering.on_error, OnError::Continue);
    assert_eq!(metering.sha256.expect("pinned")[31], 0xff);
    assert_eq!(metering.grants.ledger, LedgerGrant::Write);
    assert_eq!(metering.grants.control, [ControlVerb::Read, ControlVerb::LoadPlugin]);
    assert_eq!((metering.limits.memory, metering.limits.instances), (ByteSize(1 << 20), 2));
    assert_eq!(metering.config, r#"{"a":1,"b":"1","c":[true,null,0.5,"x"],"d":{"cap":"5.00"}}"#);
    assert_eq!(config.plugins["byok"].config, "null");
    assert_eq!(config.plugins["byok"].on_error, OnError::Reject);
}

#[test]
fn admin_endpoints_follow_the_configured_plugins() {
    let admin = |plugins: &str, more: &str| {
        let token = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";
        let text = format!(
            "version: 1\nadmin: {{ address: ':0', token: '{token}'{more} }}\nplugins: {{ {plugins} }}\n"
        );
        let admin = good(&text).admin.expect("an admin section");
        let shown = admin.endpoints.iter().map(|(prefix, plugin)| format!("{prefix}={plugin}"));
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(admin("admin: , byok: ", ""), "/api/v1/byok=byok /=admin");
    assert_eq!(admin("metering: ", ""), "/api/v1/credits=metering /api/v1/usage=metering");
    assert_eq!(admin("", ""), "");
    assert_eq!(admin("byok: ", ", endpoints: { /: byok, /long: byok }"), "/long=byok /=byok");
}

#[test]
fn values_come_from_outside_and_secrets_do_not_show() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("token"), "from-a-file\n").unwrap();
    let env = |name: &str| (name == "KEY").then(|| "sk-from-env".to_owned());
    let text = "version: 1
admin: { address: '${env:ADMIN:-127.0.0.1:0}', token: '${file:token}' }
consumers: { demo: { api_keys: ['${env:KEY}'] } }
state: { redis: { url: '${env:URL:-redis://me:hidden@localhost/1}' } }
services:
  llm: { llm: { providers: { p: { api: openai, url: 'http://x', key: \"${env:KEY}\" } }, models: { } } }
plugins: { byok: { config: { key: '${env:KEY}' } } }
";
    let loaded = Config::parse(text, &directory.path().join("edge.yaml"), &env).unwrap();
    let config = &loaded.config;
    let hash = |text: &str| {
        use sha2::{Digest, Sha256};
        consumer::KeyHash(Sha256::digest(text.as_bytes()).into())
    };
    assert!(config.admin.as_ref().unwrap().token == hash("from-a-file"), "hashed without the line break");
    assert!(config.consumers["demo"].api_keys[0] == hash("sk-from-env"));
    let Service::Llm(llm) = &config.services["llm"] else { panic!("llm") };
    assert_eq!(llm.providers["p"].key.as_ref().unwrap().expose(), "sk-from-env");
    assert_eq!(config.plugins["byok"].config, r#"{"key":"sk-from-env"}"#);
    assert_eq!(loaded.files, [directory.path().join("edge.yaml"), directory.path().join("token")]);
    let shown = format!("{loaded:?}");
    for secret in ["sk-from-env", "hidden", "from-a-file", &hex::encode(hash("sk-from-env").0)] {
        assert!(!shown.contains(secret), "{secret} shows in {shown}");
    }
}

#[test]
fn a_directory_is_one_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("10-edge.yaml", "version: 1\nentrypoints: { web: { address: ':0' } }\nroutes:\n");
    write(
        "20-app.yml",
        "services: { app: { targets: [{ url: 'http://a' }] } }\nroutes: { a: { rule: x, service: app } }\n",
    );
    write("30-more.yaml", "version: 1\nroutes: { b: { rule: y, service: app } }\n");
    write(".swap.yaml", "nonsense: [");
    write("notes.txt", "nonsense: [");
    let loaded = Config::load(directory.path()).unwrap();
    assert_eq!(loaded.config.routes.len(), 2);
    let names: Vec<_> = loaded.files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert_eq!(names, ["10-edge.yaml", "20-app.yml", "30-more.yaml"]);

    write("40-again.yaml", "\nroutes: { b: { rule: y, service: app } }\n");
    let errors = Config::load(directory.path()).unwrap_err().to_string();
    let expected = format!(
        "{dir}/40-again.yaml:2:11: routes.b: is defined in {dir}/30-more.yaml:2 already",
        dir = directory.path().display()
    );
    assert_eq!(errors, expected);
}
