//! Readers of `tls`: options, resolvers, and what entrypoints say about them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use url::Url;

use crate::config::{
    Name,
    reader::{Fields, Item},
    scalar::{self, Refusal},
    tls::{
        Acme, Alpn, CertificateFiles, Challenge, ClientAuth, DnsHook, EntrypointTls, Resolver, TlsOptions,
        TlsVersion,
    },
};

use super::{access, named};

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The section `tls`.
#[derive(Default)]
pub(super) struct Section {
    pub(super) options: BTreeMap<Name, TlsOptions>,
    pub(super) resolvers: BTreeMap<Name, Resolver>,
}

pub(super) fn section(item: &Item<'_>) -> Option<Section> {
    item.fields(|f| {
        let options = f.take("options").map(|item| named(&item, |_, item| options(item)));
        let resolvers = f.take("resolvers").map(|item| named(&item, |_, item| resolver(item)));
        Some(Section { options: options.unwrap_or_default(), resolvers: resolvers.unwrap_or_default() })
    })
}

pub(super) fn entrypoint(item: &Item<'_>, known: &BTreeMap<Name, TlsOptions>) -> Option<EntrypointTls> {
    let names = &item.context().names;
    let tls = item.fields(|f| {
        let certificates = f.take("certificates").map(|item| item.list(certificate));
        let resolver = f.take("resolver").map(|item| item.reference("resolver", &names.resolvers));
        let options = f.take("options").map(|item| options_of(&item, known));
        let hosts = f.take("hosts").map(|item| hosts(&item, known)).unwrap_or_default();
        Some(EntrypointTls {
            certificates: certificates.unwrap_or_default(),
            resolver: resolver.flatten(),
            options: options.flatten().unwrap_or_default(),
            hosts,
        })
    })?;
    if tls.certificates.is_empty() && tls.resolver.is_none() && !item.has_any(&["certificates", "resolver"]) {
        return item.fail_key("certificates or a resolver is needed");
    }
    Some(tls)
}

/// The name of options, or options on the spot.
fn options_of(item: &Item<'_>, known: &BTreeMap<Name, TlsOptions>) -> Option<TlsOptions> {
    if item.is_map() {
        return options(item);
    }
    let name = item.reference("TLS options", &item.context().names.tls_options)?;
    known.get(&name).cloned()
}

fn hosts(item: &Item<'_>, known: &BTreeMap<Name, TlsOptions>) -> BTreeMap<String, TlsOptions> {
    let mut hosts = BTreeMap::new();
    for (key, item) in item.named() {
        let host = match scalar::host(key) {
            Ok(host) => host,
            Err(refusal) => {
                item.refuse_key::<()>(refusal);
                continue;
            }
        };
        let Some(options) = options_of(&item, known) else { continue };
        if hosts.insert(host, options).is_some() {
            item.fail_key::<()>("this name has options already; upper and lower case are one name");
        }
    }
    hosts
}

fn certificate(item: &Item<'_>) -> Option<CertificateFiles> {
    item.fields(|f| {
        let cert_file = f.require("cert_file").and_then(|item| item.file());
        let key_file = f.require("key_file").and_then(|item| item.file());
        Some(CertificateFiles { cert_file: cert_file?, key_file: key_file? })
    })
}

fn options(item: &Item<'_>) -> Option<TlsOptions> {
    let versions = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
    let protocols = [("h2", Alpn::Http2), ("http/1.1", Alpn::Http11)];
    let options = item.fields(|f| {
        let default = TlsOptions::default();
        let mut version = |key| f.take(key).and_then(|item: Item<'_>| item.choice("TLS version", &versions));
        let (min_version, max_version) = (version("min_version"), version("max_version"));
        Some(TlsOptions {
            min_version: min_version.unwrap_or(default.min_version),
            max_version: max_version.unwrap_or(default.max_version),
            cipher_suites: strings(f, "cipher_suites"),
            curves: strings(f, "curves"),
            alpn: f
                .take("alpn")
                .map(|item| item.list(|item| item.choice("protocol", &protocols)))
                .unwrap_or(default.alpn),
            sni_strict: f.or("sni_strict", default.sni_strict, scalar::boolean),
            client_auth: f
                .take("client_auth")
                .and_then(|item| client_auth(&item))
                .unwrap_or(default.client_auth),
        })
    })?;
    if options.min_version > options.max_version {
        return item.fail("min_version is above max_version");
    }
    Some(options)
}

fn strings(f: &mut Fields<'_>, key: &'static str) -> Vec<String> {
    f.take(key).map(|item| item.list(Item::string)).unwrap_or_default()
}

fn client_auth(item: &Item<'_>) -> Option<ClientAuth> {
    item.fields(|f| {
        let mode = f.require("mode").and_then(|item| {
            item.choice("mode", &[("none", "none"), ("request", "request"), ("require", "require")])
        });
        let ca_files: Option<Vec<PathBuf>> =
            f.take("ca_files").map(|item| item.list(Item::file)).filter(|files| !files.is_empty());
        match mode? {
            "none" => Some(ClientAuth::None),
            mode => {
                let Some(ca_files) = ca_files else { return item.fail("ca_files is missing") };
                Some(match mode {
                    "request" => ClientAuth::Request { ca_files },
                    _ => ClientAuth::Require { ca_files },
                })
            }
        }
    })
}

fn resolver(item: &Item<'_>) -> Option<Resolver> {
    item.fields(|f| f.require("acme").and_then(|item| acme(&item))).map(|acme| Resolver { acme })
}

fn acme(item: &Item<'_>) -> Option<Acme> {
    item.fields(|f| {
        let directory = f.take("directory").map(|item| item.parse(url));
        let challenge = f.take("challenge").map(|item| challenge(&item));
        let external_account = f.take("external_account").map(|item| external_account(&item));
        let acme = Acme {
            directory: LETS_ENCRYPT.to_owned(),
            ca_file: f.take("ca_file").and_then(|item| item.file()),
            email: f.take("email").and_then(|item| item.string()),
            challenge: Challenge::Http01,
            external_account: None,
            domains: f
                .take("domains")
                .map(|item| item.list(|item| Some(domains(item)).filter(|names| !names.is_empty())))
                .unwrap_or_default(),
            renew_before: f.or("renew_before", Duration::from_secs(30 * 86_400), scalar::long_duration),
            import_acme_json: f.take("import_acme_json").and_then(|item| item.file()),
        };
        let directory = match directory {
            None => acme.directory.clone(),
            Some(directory) => directory?,
        };
        let challenge = match challenge {
            None => Challenge::Http01,
            Some(challenge) => challenge?,
        };
        let external_account = match external_account {
            None => None,
            Some(account) => Some(account?),
        };
        Some(Acme { directory, challenge, external_account, ..acme })
    })
}

/// One name, or a list of those that share a certificate.
fn domains(item: &Item<'_>) -> Vec<String> {
    if item.is_list() {
        item.list(|item| item.parse(scalar::host))
    } else {
        item.parse(scalar::host).into_iter().collect()
    }
}

fn external_account(item: &Item<'_>) -> Option<(String, crate::config::Secret)> {
    item.fields(|f| {
        let key_id = f.require("key_id").and_then(|item| item.string());
        let hmac_key = f.require("hmac_key").and_then(|item| access::secret(&item));
        Some((key_id?, hmac_key?))
    })
}

/// `http-01`, `tls-alpn-01`, or `dns-01: {...}`.
fn challenge(item: &Item<'_>) -> Option<Challenge> {
    if !item.is_map() {
        return item.parse(|text| match text {
            "http-01" => Ok(Challenge::Http01),
            "tls-alpn-01" => Ok(Challenge::TlsAlpn01),
            "dns-01" => Err(Refusal::new("dns-01 needs a hook: { dns-01: { exec: [COMMAND] } }")),
            _ => Err(Refusal::new("unknown challenge, known are http-01, tls-alpn-01, dns-01")),
        });
    }
    item.fields(|f| f.require("dns-01")?.fields(|f| dns01(f)))
}

fn dns01(f: &mut Fields<'_>) -> Option<Challenge> {
    let kind = f.only_one(&["exec", "webhook"])?;
    let timeout = f.or("timeout", Duration::from_secs(60), scalar::duration);
    let propagation = f.or("propagation", Duration::from_secs(30), scalar::duration);
    let hook = if kind == "exec" {
        let item = f.require("exec")?;
        let command = item.list(Item::string);
        if command.is_empty() {
            return item.fail("a command is needed");
        }
        DnsHook::Exec { command, timeout }
    } else {
        f.require("webhook")?.fields(|f| {
            let url = f.require("url").and_then(|item| item.parse(url));
            let bearer = f.take("bearer").and_then(|item| access::secret(&item));
            Some(DnsHook::Webhook { url: url?, bearer, timeout })
        })?
    };
    Some(Challenge::Dns01 { hook, propagation })
}

fn url(text: &str) -> scalar::Result<String> {
    let expected = || Refusal::new("expected an http or https URL");
    let url = Url::parse(text).map_err(|_| expected())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(expected());
    }
    Ok(text.to_owned())
}
