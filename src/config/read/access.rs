//! Readers of `admin`, `consumers` and of secrets.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};
use url::Url;

use crate::config::{
    Name, Secret,
    admin::Admin,
    consumer::{Consumer, KeyHash},
    reader::{Fields, Item},
    scalar::{self, Refusal},
};

/// Endpoints of the standard plugins, longest first.
const ENDPOINTS: &[(&str, &str)] = &[
    ("/api/v1/credits", "metering"),
    ("/api/v1/usage", "metering"),
    ("/api/v1/byok", "byok"),
    ("/", "admin"),
];

pub(super) fn admin(item: &Item<'_>) -> Option<Admin> {
    item.fields(|f| {
        let address = f.require("address").and_then(|item| item.parse(scalar::address));
        let token = f.require("token").and_then(|item| key_hash(&item));
        let endpoints = match f.take_present("endpoints") {
            Some(item) => endpoints(&item),
            None => default_endpoints(item),
        };
        Some(Admin { address: address?, token: token?, endpoints })
    })
}

fn default_endpoints(item: &Item<'_>) -> Vec<(String, Name)> {
    let configured = &item.context().names.plugins;
    let endpoint = |(prefix, plugin): &(&str, &str)| {
        let present = configured.iter().any(|name| name == plugin);
        present.then(|| plugin.parse().ok().map(|plugin| ((*prefix).to_owned(), plugin))).flatten()
    };
    ENDPOINTS.iter().filter_map(endpoint).collect()
}

fn endpoints(item: &Item<'_>) -> Vec<(String, Name)> {
    let mut endpoints = Vec::new();
    for (prefix, item) in item.named() {
        if !prefix.starts_with('/') {
            item.fail_key::<()>("a path prefix starts with /");
        }
        let plugin = item.reference("plugin", &item.context().names.plugins);
        endpoints.extend(plugin.map(|plugin| (prefix.to_owned(), plugin)));
    }
    endpoints.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then(a.cmp(b)));
    endpoints
}

pub(super) fn consumer(name: &Name, item: &Item<'_>) -> Option<Consumer> {
    item.fields(|f| {
        let tenant = match f.take("tenant") {
            Some(item) => item.name(),
            None => Some(name.clone()),
        };
        let tier = match f.take("tier") {
            Some(item) => item.name().map(|tier| tier.to_string()),
            None => Some(String::new()),
        };
        let api_keys = f.take("api_keys").map(|item| item.list(key_hash)).unwrap_or_default();
        let opening_credit_nano_usd = f.or("opening_credit", 0, scalar::usd);
        Some(Consumer { tenant: tenant?, tier: tier?, api_keys, opening_credit_nano_usd })
    })
}

/// A key that two consumers share would make either of them pay.
pub(super) fn unique_keys(f: &mut Fields<'_>, consumers: &BTreeMap<Name, Consumer>) {
    let Some(section) = f.take("consumers") else { return };
    let mut owners: HashMap<KeyHash, &str> = HashMap::new();
    for (name, item) in section.named() {
        for key in consumers.get(name).into_iter().flat_map(|consumer| &consumer.api_keys) {
            if let Some(other) = owners.insert(*key, name) {
                item.fail_key::<()>(format!("an API key is here twice, first at \"{other}\""));
            }
        }
    }
}

/// `sha256:HEX`, or a key from the environment or a file, which is hashed.
pub(super) fn key_hash(item: &Item<'_>) -> Option<KeyHash> {
    let text = item.text()?;
    if let Some(hex) = text.value.strip_prefix("sha256:") {
        return scalar::digest(hex)
            .map_or_else(|refusal| item.refuse(refusal), |digest| Some(KeyHash(digest)));
    }
    if !text.substituted {
        return item.refuse(literal_secret("; write sha256: and its hash, or where it comes from"));
    }
    if text.value.is_empty() {
        return item.fail("is empty");
    }
    Some(KeyHash(Sha256::digest(text.value.as_bytes()).into()))
}

/// A credential that has to be known in the clear, so it comes from outside.
pub(super) fn secret(item: &Item<'_>) -> Option<Secret> {
    let text = item.text()?;
    if !text.substituted {
        return item.refuse(literal_secret("; write where it comes from"));
    }
    if text.value.is_empty() {
        return item.fail("is empty");
    }
    Some(Secret::new(text.value))
}

/// Literal only if it holds no password.
pub(super) fn redis_url(item: &Item<'_>) -> Option<Secret> {
    let text = item.text()?;
    let parsed = Url::parse(&text.value).ok().filter(|url| url.scheme() == "redis" && url.has_host());
    let Some(url) = parsed else { return item.fail("expected redis://[user:password@]host[:port][/db]") };
    if url.password().is_some() && !text.substituted {
        return item.refuse(literal_secret("; write where the whole URL comes from"));
    }
    Some(Secret::new(text.value))
}

fn literal_secret(advice: &str) -> Refusal {
    Refusal::new(format!("a secret may not stand in the file{advice}")).suggesting(Some("${env:NAME}"))
}
