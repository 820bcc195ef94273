//! Every configuration in `config/` and in the documentation is good.

use super::*;
use crate::config::{entrypoint::Limits, tls::TlsOptions};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Variables without a default name an existing file, which also serves as a secret.
fn env(name: &str) -> Option<String> {
    let file =
        matches!(name, "CERT_FILE" | "KEY_FILE" | "MINE_WASM" | "TOLLGATE_DEMO_CERT" | "TOLLGATE_DEMO_KEY");
    let secret = matches!(name, "REDIS_URL") || name.starts_with("TOLLGATE_DEMO") || name == "TOLLGATE_DATA";
    match (file, secret || matches!(name, "TOLLGATE_HTTP" | "TOLLGATE_HTTPS" | "TOLLGATE_ADMIN")) {
        (true, _) => Some(root().join("Cargo.toml").display().to_string()),
        (false, true) => None,
        (false, false) => Some(format!("value-of-{name}")),
    }
}

fn shipped(name: &str) -> Config {
    let path = root().join("config").join(name);
    let text = fs::read_to_string(&path).unwrap();
    Config::parse(&text, &path, &env).unwrap_or_else(|errors| panic!("{errors}")).config
}

#[test]
fn every_file_loads() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("config")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert_eq!(names, ["demo.yaml", "full.yaml", "llm.yaml", "minimal.yaml"]);
    names.iter().for_each(|name| drop(shipped(name)));
}

#[test]
fn every_example_in_the_documentation_loads() {
    let page = root().join("docs/configuration.md");
    let text = fs::read_to_string(&page).unwrap();
    let blocks: Vec<_> =
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 5, "the page has examples");
    for block in blocks {
        if let Err(errors) = Config::parse(block, &page, &env) {
            panic!("{errors}\n{block}");
        }
    }
}

/// The reference would otherwise rot as keys are added: its comments state the defaults.
#[test]
fn the_reference_states_the_defaults() {
    let full = shipped("full.yaml");
    let web = &full.entrypoints["web"];
    let secure = &full.entrypoints["websecure"];
    let limits = Limits {
        max_body: None,
        max_connections_per_client: None,
        max_requests_per_connection: None,
        ..secure.limits.clone()
    };
    assert_eq!((&web.timeouts, &web.limits, web.path), (&secure.timeouts, &limits, secure.path));
    let modern = &secure.tls.as_ref().unwrap().options;
    let default = TlsOptions { cipher_suites: vec![], curves: vec![], ..modern.clone() };
    assert_eq!(default, TlsOptions::default());
    assert_eq!(full.plugins["metering"].limits, full.plugins["byok"].limits);
    let Service::Llm(chat) = &full.services["chat"] else { panic!("llm") };
    assert_eq!(format!("{:?}", chat.limits), format!("{:?}", llm::LlmLimits::default()));
    assert_eq!(format!("{:?}", chat.timeouts), format!("{:?}", llm::LlmTimeouts::default()));
    let Service::Http(app) = &full.services["app"] else { panic!("targets") };
    assert_eq!(app.timeouts, service::UpstreamTimeouts::default());
    assert_eq!(
        full.routes.iter().find(|route| route.name.as_str() == "legacy").unwrap().strip_path.as_deref(),
        Some("/legacy")
    );
}

#[test]
fn the_demo_has_its_fixed_names() {
    use sha2::{Digest, Sha256};
    let demo = shipped("demo.yaml");
    let hash = |text: &str| consumer::KeyHash(Sha256::digest(text.as_bytes()).into());
    assert!(demo.consumers["demo"].api_keys == [hash("tg_demo_key")]);
    assert_eq!(demo.consumers["demo"].opening_credit_nano_usd, 10_000_000_000);
    let admin = demo.admin.as_ref().expect("an admin section");
    assert!(admin.token == hash("demo-admin-token"));
    assert_eq!((admin.address.port(), admin.endpoints.len()), (9900, 4));
    assert_eq!(demo.entrypoints["web"].address.to_string(), "127.0.0.1:8080");
    let Service::Llm(llm) = &demo.services["llm"] else { panic!("llm") };
    assert_eq!(llm.models.keys().collect::<Vec<_>>(), ["demo-anthropic", "demo-flaky", "demo-openai"]);
    assert_eq!(llm.models["demo-flaky"].candidates[0].provider.as_str(), "flaky");
}
