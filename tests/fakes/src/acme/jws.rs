//! Signed requests: flattened JWS with ES256, and HS256 for external accounts.

use aws_lc_rs::{
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A request whose signature holds.
pub(super) struct Signed {
    pub(super) signer: Signer,
    pub(super) nonce: String,
    pub(super) url: String,
    /// Null for POST-as-GET.
    pub(super) payload: Value,
}

pub(super) enum Signer {
    /// A JWK.
    Key(Value),
    /// The number of an account.
    Account(usize),
}

/// Checks the signature with the key in it, or with that of the account that it names.
pub(super) fn open(body: &[u8], accounts: &[Value]) -> Result<Signed, String> {
    let jws: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let header = decoded_json(&jws["protected"])?;
    if header["alg"] != "ES256" {
        return Err(format!("algorithm {} is not ES256", header["alg"]));
    }
    let (signer, key) = match (header.get("jwk"), header["kid"].as_str()) {
        (Some(jwk), None) => (Signer::Key(jwk.clone()), jwk),
        (None, Some(kid)) => {
            let number = kid.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
            let number = number.filter(|number| *number < accounts.len()).ok_or("no such account")?;
            (Signer::Account(number), &accounts[number])
        }
        _ => return Err("exactly one of jwk and kid is needed".to_owned()),
    };
    verify(&jws, key)?;
    let text = |name: &str| header[name].as_str().map(str::to_owned).ok_or(format!("no {name}"));
    let payload = match jws["payload"].as_str() {
        Some("") => Value::Null,
        _ => decoded_json(&jws["payload"])?,
    };
    Ok(Signed { signer, nonce: text("nonce")?, url: text("url")?, payload })
}

fn verify(jws: &Value, key: &Value) -> Result<(), String> {
    let mut point = vec![4];
    point.extend(decoded(&key["x"])?);
    point.extend(decoded(&key["y"])?);
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let verified = public.verify(signing_input(jws)?.as_bytes(), &decoded(&jws["signature"])?);
    verified.map_err(|_| "the signature does not hold".to_owned())
}

/// RFC 8555 section 7.3.4.
pub(super) fn check_binding(binding: &Value, id: &str, key: &[u8], jwk: &Value) -> Result<(), String> {
    let header = decoded_json(&binding["protected"])?;
    if header["alg"] != "HS256" || header["kid"] != id {
        return Err("bound with another key or algorithm".to_owned());
    }
    if decoded_json(&binding["payload"])? != *jwk {
        return Err("another key is bound".to_owned());
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let verified = hmac::verify(&key, signing_input(binding)?.as_bytes(), &decoded(&binding["signature"])?);
    verified.map_err(|_| "the binding's signature does not hold".to_owned())
}

/// RFC 7638.
pub(super) fn thumbprint(jwk: &Value) -> String {
    let canonical = json!({"crv": jwk["crv"], "kty": jwk["kty"], "x": jwk["x"], "y": jwk["y"]});
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.to_string()))
}

fn signing_input(jws: &Value) -> Result<String, String> {
    let text = |name: &str| jws[name].as_str().ok_or(format!("no {name}"));
    Ok(format!("{}.{}", text("protected")?, text("payload")?))
}

fn decoded(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("a text is missing")?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string())
}

fn decoded_json(value: &Value) -> Result<Value, String> {
    serde_json::from_slice(&decoded(value)?).map_err(|error| error.to_string())
}
