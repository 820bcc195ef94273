//! TLS options as configured become what rustls takes, or a reason why not.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, kx_group},
    },
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

use super::certificate::{self, CertificateError};
use crate::config::{
    nearest,
    tls::{Alpn, ClientAuth, TlsOptions, TlsVersion},
};

/// Key exchange groups by their names in the configuration, the post-quantum
/// hybrid first.
const GROUPS: [(&str, &dyn SupportedKxGroup); 4] = [
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("X25519", kx_group::X25519),
    ("secp256r1", kx_group::SECP256R1),
    ("secp384r1", kx_group::SECP384R1),
];

#[derive(Debug, thiserror::Error)]
pub enum TlsOptionsError {
    #[error("unknown {what} \"{name}\"{}; known are {}", did_you_mean(.suggestion.as_deref()), known.join(", "))]
    Unknown { what: &'static str, name: String, suggestion: Option<String>, known: Vec<String> },
    #[error("none of the cipher suites is one of TLS {version}: {remedy}")]
    NoSuite { version: &'static str, remedy: &'static str },
    #[error("none of the curves can be used with TLS 1.2: add one, or set min_version \"1.3\"")]
    NoGroup,
    #[error("client_auth: {0}")]
    Authority(CertificateError),
    #[error("client_auth: {}: not usable as an authority: {source}", file.display())]
    NotAuthority { file: PathBuf, source: rustls::Error },
    #[error("{0}")]
    Unusable(rustls::Error),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean \"{name}\"")).unwrap_or_default()
}

/// One set of options, checked.
pub(super) struct CompiledOptions {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) alpn: Vec<Vec<u8>>,
    /// The order of the suites is the operator's will, not the client's.
    pub(super) own_order: bool,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Equal for equal demands on client certificates, across reloads too.
    pub(super) client_policy: [u8; 32],
}

/// Reads the authorities of client certificates from disk.
pub(super) fn compile(options: &TlsOptions) -> Result<CompiledOptions, TlsOptionsError> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = groups(options)?;
    if !options.cipher_suites.is_empty() {
        provider.cipher_suites = suites(options)?;
    }
    let provider = Arc::new(provider);
    let (verifier, client_policy) = client_auth(&options.client_auth, &provider)?;
    Ok(CompiledOptions {
        provider,
        versions: versions(options),
        alpn: options.alpn.iter().map(|protocol| alpn(*protocol).to_vec()).collect(),
        own_order: !options.cipher_suites.is_empty(),
        verifier,
        client_policy,
    })
}

fn versions(options: &TlsOptions) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (options.min_version, options.max_version) {
        (TlsVersion::V13, _) => &ALL[..1],
        (_, TlsVersion::V12) => &ALL[1..],
        _ => &ALL,
    }
}

fn alpn(protocol: Alpn) -> &'static [u8] {
    match protocol {
        Alpn::Http2 => b"h2",
        Alpn::Http11 => b"http/1.1",
    }
}

fn groups(options: &TlsOptions) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsOptionsError> {
    if options.curves.is_empty() {
        return Ok(GROUPS.map(|(_, group)| group).to_vec());
    }
    let known = || GROUPS.map(|(name, _)| name.to_owned()).to_vec();
    let find = |name: &String| {
        let found = GROUPS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, group)| *group).ok_or_else(|| unknown("curve", name, known()))
    };
    let groups: Vec<_> = options.curves.iter().map(find).collect::<Result<_, _>>()?;
    let tls12 = options.min_version == TlsVersion::V12;
    if tls12 && !groups.iter().any(|group| group.usable_for_version(TLS12.version)) {
        return Err(TlsOptionsError::NoGroup);
    }
    Ok(groups)
}

/// Suites of TLS 1.3 need not be listed, as in other servers: a list without
/// any leaves them as they are. One without a suite of TLS 1.2 would close that
/// version without saying so, and is refused.
fn suites(options: &TlsOptions) -> Result<Vec<SupportedCipherSuite>, TlsOptionsError> {
    let mut suites = options.cipher_suites.iter().map(|name| suite(name)).collect::<Result<Vec<_>, _>>()?;
    let has = |suites: &[SupportedCipherSuite], version: &SupportedProtocolVersion| {
        suites.iter().any(|suite| suite.version().version == version.version)
    };
    let (tls12, tls13) = (has(&suites, &TLS12), has(&suites, &TLS13));
    if options.min_version == TlsVersion::V12 && !tls12 {
        let remedy = match options.max_version {
            TlsVersion::V12 => "add one, or allow TLS 1.3",
            TlsVersion::V13 => "add one, or set min_version \"1.3\"",
        };
        return Err(TlsOptionsError::NoSuite { version: "1.2", remedy });
    }
    if options.min_version == TlsVersion::V13 && !tls13 {
        let remedy = "add one, or leave the list out: those of TLS 1.3 are all good";
        return Err(TlsOptionsError::NoSuite { version: "1.3", remedy });
    }
    if !tls13 {
        let defaults = aws_lc_rs::DEFAULT_CIPHER_SUITES.iter().copied();
        suites.extend(defaults.filter(|suite| suite.version().version == TLS13.version));
    }
    Ok(suites)
}

/// By its IANA name, or by the provider's, which has `TLS13_` for suites of TLS 1.3.
fn suite(name: &str) -> Result<SupportedCipherSuite, TlsOptionsError> {
    let all = aws_lc_rs::ALL_CIPHER_SUITES;
    let iana: Vec<String> = all
        .iter()
        .map(|suite| suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1))
        .collect();
    let wanted = name.to_ascii_uppercase().replacen("TLS13_", "TLS_", 1);
    match iana.iter().position(|known| *known == wanted) {
        Some(index) => Ok(all[index]),
        None => Err(unknown("cipher suite", name, iana)),
    }
}

fn unknown(what: &'static str, name: &str, known: Vec<String>) -> TlsOptionsError {
    let suggestion = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
    TlsOptionsError::Unknown { what, name: name.to_owned(), suggestion, known }
}

fn client_auth(
    policy: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, [u8; 32]), TlsOptionsError> {
    let (files, required) = match policy {
        ClientAuth::None => return Ok((Arc::new(NoClientAuth), Sha256::digest(b"none").into())),
        ClientAuth::Request { ca_files } => (ca_files, false),
        ClientAuth::Require { ca_files } => (ca_files, true),
    };
    let mut fingerprint = Sha256::new();
    fingerprint.update(if required { b"require" } else { b"request" });
    let mut roots = RootCertStore::empty();
    for file in files {
        for authority in certificate::read_chain(file).map_err(TlsOptionsError::Authority)? {
            fingerprint.update(Sha256::digest(&authority));
            roots
                .add(authority)
                .map_err(|source| TlsOptionsError::NotAuthority { file: file.clone(), source })?;
        }
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder
        .build()
        .map_err(|error| TlsOptionsError::Unusable(rustls::Error::General(error.to_string())))?;
    Ok((verifier, fingerprint.finalize().into()))
}
