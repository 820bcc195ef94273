//! The examples in the documentation work as written.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;
use tollgate_fakes::Provider;

use crate::harness::{
    Gateway,
    gateway::{binary, key_hash},
    guests::guest,
    llm::{llm_with, outside},
};

/// Where the pages have the demo's gateway.
const WEB: &str = "http://127.0.0.1:8080";
const ADMIN: &str = "http://127.0.0.1:9900";
/// A refused request fails its example.
const STRICT: &str = "set -eu\ncurl() { command curl --silent --show-error --fail --max-time 20 \"$@\"; }\n";

struct Page {
    name: String,
    text: String,
}

/// A fenced block.
struct Example {
    page: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let entries = std::fs::read_dir(root().join("docs")).expect("docs/ is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "md"));
    files.push(root().join("README.md"));
    files.sort();
    let page = |file: &PathBuf| Page {
        name: file.display().to_string(),
        text: std::fs::read_to_string(file).expect("the page is readable"),
    };
    files.iter().map(page).collect()
}

/// The fenced blocks of a language, in the order of the pages.
fn examples(language: &str) -> Vec<Example> {
    let fence = format!("\n```{language}\n");
    let mut found = Vec::new();
    for Page { name, text } in pages() {
        for rest in text.split(&fence).skip(1) {
            let (block, _) = rest.split_once("\n```").expect("every fence is closed");
            found.push(Example { page: name.clone(), text: format!("{block}\n") });
        }
    }
    found
}

/// The words that follow `marker`.
fn after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(marker)
        .map(|(at, _)| &text[at + marker.len()..])
        .map(|rest| rest.split_once(|c: char| !word(c)).map_or(rest, |(first, _)| first))
        .collect()
}

#[tokio::test]
async fn every_configuration_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("stamp.wasm"), "").unwrap();
    // Each variable below is its own name, and files are found beside the configuration.
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("CERT_FILE"), certified.cert.pem()).unwrap();
    std::fs::write(directory.path().join("KEY_FILE"), certified.signing_key.serialize_pem()).unwrap();
    let file = directory.path().join("example.yaml");
    let found = examples("yaml");
    assert!(found.len() >= 8, "the pages have configurations");

    for Example { page, text } in found {
        std::fs::write(&file, &text).unwrap();
        let mut check = binary();
        check.arg("check").arg(&file);
        for name in after(&text, "${env:") {
            check.env(name, name);
        }
        let output = check.output().await.expect("the binary starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{page}: {told}\n{text}");
    }
}

#[tokio::test]
async fn every_command_exists() {
    let xtask = include_str!("../../xtask/src/main.rs");
    for Page { name, text } in pages() {
        for command in after(&text, "cargo xtask ") {
            assert!(xtask.contains(&format!("\n  {command} ")), "{name}: cargo xtask {command}");
        }
        for command in after(&text, "`tollgate ") {
            help(&name, command).await;
        }
    }
    for Example { page, text } in examples("sh") {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [program, command, arguments @ ..] = words.as_slice()
                && program.rsplit('/').next() == Some("tollgate")
            {
                let help = help(&page, command).await;
                let known = |word: &&str| {
                    if word.starts_with('-') {
                        help.contains(*word)
                    } else {
                        !is_file(word) || root().join(word).exists()
                    }
                };
                assert!(arguments.iter().all(known), "{page}: {line}");
            }
        }
    }
}

/// Words that are no files: methods, URLs, headers.
fn is_file(word: &str) -> bool {
    (word.contains('/') || word.ends_with(".yaml")) && !word.contains(':')
}

async fn help(page: &str, command: &str) -> String {
    let output = binary().args([command, "--help"]).output().await.expect("the binary starts");
    assert!(output.status.success(), "{page}: tollgate {command}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn every_request_is_answered() {
    let (openai, anthropic, flaky) =
        (Provider::openai().await, Provider::anthropic().await, Provider::flaky().await);
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(guest("noop-filter"), directory.path().join("stamp.wasm")).unwrap();
    let config = llm_with(&openai, &anthropic, like_the_demo(&flaky));
    let gateway = Gateway::in_directory(directory, config).await;
    let at = |entrypoint| format!("http://{}", gateway.address(entrypoint));
    let (web, admin) = (at("web"), at("admin"));
    let mut ran = 0;

    for Example { page, text } in examples("sh") {
        if !only_requests(&text) {
            continue;
        }
        let script = format!("{STRICT}{}", text.replace(WEB, &web).replace(ADMIN, &admin));
        let mut bash = Command::new("bash");
        let output = bash.args(["-c", &script]).current_dir(gateway.directory()).output();
        let output = output.await.expect("bash runs");
        let (answer, told) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{page}:\n{text}\n{told}{answer}");
        ran += 1;
    }

    assert!(ran >= 8, "the pages have requests");
}

/// Every line is a `curl` or continues one.
fn only_requests(text: &str) -> bool {
    text.lines().all(|line| line.starts_with("curl ") || line.starts_with(' '))
}

/// The names, keys and models of `config/demo.yaml`, and the plugin of `docs/plugins.md`.
fn like_the_demo(flaky: &Provider) -> Value {
    let price = json!({"input": "0.15", "output": "0.60"});
    let one = |provider: &str| json!({"provider": provider, "name": "m", "price": price});
    json!({
        "admin": {"token": key_hash("demo-admin-token")},
        "consumers": {"demo": {"tier": "free", "api_keys": [key_hash("tg_demo_key")], "opening_credit": "10.00"}},
        "services": {
            "llm": {"llm": {
                "providers": {"flaky": {"api": "openai", "url": flaky.url(), "key": outside("sk-x")}},
                "models": {
                    "demo-openai": one("openai"),
                    "demo-anthropic": one("anthropic"),
                    "demo-flaky": {"candidates": [one("flaky"), one("openai")]},
                },
            }},
            "account": {"plugin": "metering"},
        },
        "plugins": {"stamp": {"module": "stamp.wasm"}},
        "routes": {"account": {
            "rule": "PathPrefix(`/credits`) || PathPrefix(`/usage`)",
            "chain": ["ids", "key"],
            "service": "account",
        }},
    })
}
