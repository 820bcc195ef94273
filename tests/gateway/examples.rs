//! Every file in `config/` passes `tollgate check`.

use std::path::Path;

use tokio::process::Command;
use tollgate_fakes::Authority;

use crate::harness::{gateway::binary, guests::guest};

#[tokio::test]
async fn every_example_is_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let certificates = tempfile::tempdir().unwrap();
    let certificate = Authority::new().unwrap().certify(&["localhost"]).unwrap();
    certificate.write(certificates.path(), "localhost").unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir(directory).expect("config/ is there").flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let output = check(&entry.path(), certificates.path()).output().await.expect("the binary starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", entry.path().display());
        checked += 1;
    }
    assert!(checked > 0, "config/ holds no example");
}

/// Whatever an example names of its environment, stood in for.
fn check(example: &Path, certificates: &Path) -> Command {
    let mut command = binary();
    command.arg("check").arg(example);
    for name in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_KEY", "ANTHROPIC_KEY", "TEAM_KEY"] {
        command.env(name, "stand-in");
    }
    for name in ["TOLLGATE_ADMIN_TOKEN", "TOLLGATE_CALLER_KEY", "ADMIN_TOKEN"] {
        command.env(name, "stand-in");
    }
    let (certificate, key) = (certificates.join("localhost.crt"), certificates.join("localhost.key"));
    command.env("CERT_FILE", &certificate).env("KEY_FILE", &key);
    command.env("TOLLGATE_DEMO_CERT", &certificate).env("TOLLGATE_DEMO_KEY", &key);
    command.env("MINE_WASM", guest("noop-filter"));
    command
}
