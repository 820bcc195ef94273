//! Traefik's `acme.json`: certificates and accounts to take over. Read only.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use super::{certificate::Facts, vault::Issued};
use crate::config::Secret;

/// What another gateway left; empty if it left nothing that can be used.
#[derive(Default)]
pub(super) struct Import {
    certificates: Vec<(Facts, Issued)>,
    accounts: Vec<Imported>,
}

struct Imported {
    resolver: String,
    uri: String,
    key_der: Vec<u8>,
}

/// The file, by resolver. Keys that are not read here are Traefik's own.
type File = std::collections::BTreeMap<String, Option<Section>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Section {
    account: Option<Account>,
    certificates: Option<Vec<Certificate>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Account {
    #[serde(default)]
    private_key: String,
    registration: Option<Registration>,
}

#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    uri: String,
}

/// PEM in base64, both.
#[derive(Deserialize)]
struct Certificate {
    certificate: String,
    key: String,
}

impl Import {
    /// Blocks on the file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read(path)?;
        if fs::metadata(path)?.permissions().mode() & 0o004 != 0 {
            tracing::warn!(path = %path.display(), "private keys in it can be read by everybody; make it 0600");
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        // The parser's own words may show a piece of the text, which holds keys.
        let file: File = serde_json::from_slice(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("not an acme.json (line {line}, column {column})"),
            )
        })?;
        Ok(Self::of(file))
    }

    fn of(file: File) -> Self {
        let mut import = Self::default();
        for (resolver, section) in file {
            let Some(section) = section else { continue };
            for certificate in section.certificates.unwrap_or_default() {
                match certificate.decode() {
                    Some(certificate) => import.certificates.push(certificate),
                    None => tracing::warn!(resolver, "a certificate in acme.json cannot be read"),
                }
            }
            if let Some(account) = section.account
                && let Some(registration) = account.registration
                && let Ok(key_der) = BASE64_STANDARD.decode(&account.private_key)
            {
                import.accounts.push(Imported { resolver, uri: registration.uri, key_der });
            }
        }
        import
    }

    /// The certificate that serves all `names` for the longest time, if it still does.
    pub(super) fn certificate(&self, names: &[String]) -> Option<&Issued> {
        self.certificates
            .iter()
            .filter(|(facts, _)| facts.not_after > SystemTime::now())
            .filter(|(facts, _)| names.iter().all(|name| facts.serves(name)))
            .max_by_key(|(facts, _)| facts.not_after)
            .map(|(_, issued)| issued)
    }

    /// Credentials as JSON of the account that the resolver of this name had, or
    /// the only one. It must belong to the authority of `directory`.
    ///
    /// Only P-256 keys can sign here; Traefik's own accounts have RSA keys, for
    /// which a new account is made.
    pub(super) fn account(&self, resolver: &str, directory: &str) -> Option<Secret> {
        let named = self.accounts.iter().find(|account| account.resolver == resolver);
        let only = || self.accounts.first().filter(|_| self.accounts.len() == 1);
        let account = named.or_else(only)?;
        let host = |url: &str| url::Url::parse(url).ok()?.host_str().map(str::to_owned);
        if host(&account.uri).is_none() || host(&account.uri) != host(directory) {
            return None;
        }
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(account.key_der.clone());
        if instant_acme::Key::from_pkcs8_der(key).is_err() {
            tracing::info!(resolver, "the account in acme.json has no P-256 key; a new account is made");
            return None;
        }
        let key = BASE64_URL_SAFE_NO_PAD.encode(&account.key_der);
        let credentials: Value =
            serde_json::json!({ "id": account.uri, "key_pkcs8": key, "directory": directory });
        Some(Secret::new(credentials.to_string()))
    }
}

impl Certificate {
    fn decode(&self) -> Option<(Facts, Issued)> {
        let text = |encoded: &str| String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok();
        let chain_pem = text(&self.certificate)?;
        let facts = Facts::read(&chain_pem).ok()?;
        Some((facts, Issued { chain_pem, key_pem: Secret::new(text(&self.key)?) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn certificate(names: &[&str], until: (i32, u8, u8)) -> Value {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        json!({
            "domain": {"main": "ignored"},
            "certificate": BASE64_STANDARD.encode(pem),
            "key": BASE64_STANDARD.encode(key.serialize_pem()),
            "Store": "default",
        })
    }

    fn import(file: &Value) -> Import {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acme.json");
        fs::write(&path, file.to_string()).unwrap();
        Import::read(&path).unwrap()
    }

    #[test]
    fn the_certificate_that_serves_all_names_longest_is_taken() {
        let import = import(&json!({
            "le": {"Account": null, "Certificates": [
                certificate(&["a.test", "b.test"], (2200, 1, 1)),
                certificate(&["a.test"], (2201, 1, 1)),
                certificate(&["old.test"], (2001, 1, 1)),
                {"certificate": "!", "key": "!"},
            ]},
            "empty": {"Account": null, "Certificates": null},
        }));
        let end = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found = import.certificate(&names)?;
            Some(Facts::read(&found.chain_pem).unwrap().names)
        };
        assert_eq!(end(&["a.test"]).unwrap(), ["a.test"]);
        assert_eq!(end(&["b.test", "a.test"]).unwrap(), ["a.test", "b.test"]);
        assert!(end(&["old.test"]).is_none());
        assert!(end(&["c.test"]).is_none());
    }

    #[test]
    fn an_account_needs_a_usable_key_and_the_same_authority() {
        let account = |key: &[u8]| {
            json!({"Email": "x@y.test", "PrivateKey": BASE64_STANDARD.encode(key),
                "Registration": {"uri": "https://ca.test/acct/1", "body": {}}, "KeyType": "4096"})
        };
        let (_, key) = instant_acme::Key::generate_pkcs8().unwrap();
        let import = import(&json!({
            "le": {"Account": account(key.secret_pkcs8_der())},
            "rsa": {"Account": account(b"not P-256")},
        }));
        let found = import.account("le", "https://ca.test/dir").unwrap();
        assert!(found.expose().contains("https://ca.test/acct/1"));
        assert!(import.account("le", "https://other.test/dir").is_none());
        assert!(import.account("rsa", "https://ca.test/dir").is_none());
        assert!(import.account("unknown", "https://ca.test/dir").is_none());
    }

    #[test]
    fn a_broken_file_is_named_without_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acme.json");
        fs::write(&path, r#"{"le": {"Account": {"PrivateKey": "c2VjcmV0" }}"#).unwrap();
        let error = Import::read(&path).err().unwrap().to_string();
        assert!(error.contains("line 1") && !error.contains("c2VjcmV0"), "{error}");
        fs::write(&path, " \n").unwrap();
        assert!(Import::read(&path).unwrap().certificates.is_empty());
    }
}
