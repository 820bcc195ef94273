//! TLS: certificates and where they come from, versions, ciphers, client certificates.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{Name, Secret};

/// TLS of one entrypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrypointTls {
    /// Files. The first one also serves clients whose SNI names no certificate,
    /// unless the options say `sni_strict`.
    pub certificates: Vec<CertificateFiles>,
    /// Gets certificates for the hosts of the routes on this entrypoint that no
    /// file covers. A key of [`super::Config::resolvers`].
    pub resolver: Option<Name>,
    /// For names that `hosts` does not list.
    pub options: TlsOptions,
    /// Options of single names: exact, or `*.` for one more label. Lower case.
    pub hosts: BTreeMap<String, TlsOptions>,
}

/// PEM files. The names a certificate serves are read from the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// Default 1.3.
    pub max_version: TlsVersion,
    /// IANA names in order of preference, known to the provider; empty is its
    /// own choice, in the client's order. Suites of TLS 1.3 need not be listed.
    /// Checked at load.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups, chosen in the client's order: `X25519MLKEM768`,
    /// `X25519`, `secp256r1`, `secp384r1`. Empty is all of them.
    pub curves: Vec<String>,
    /// Default h2, http/1.1.
    pub alpn: Vec<Alpn>,
    /// Clients that name no known host are refused. Default false.
    pub sni_strict: bool,
    pub client_auth: ClientAuth,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::V12,
            max_version: TlsVersion::V13,
            cipher_suites: Vec::new(),
            curves: Vec::new(),
            alpn: vec![Alpn::Http2, Alpn::Http11],
            sni_strict: false,
            client_auth: ClientAuth::None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V12,
    V13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    Http2,
    Http11,
}

/// Whether clients show a certificate; one that is shown must be signed by an
/// authority of `ca_files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    /// Clients without a certificate come in, too.
    Request {
        ca_files: Vec<PathBuf>,
    },
    Require {
        ca_files: Vec<PathBuf>,
    },
}

/// Where certificates are got from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    pub acme: Acme,
}

/// RFC 8555.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The authority's directory URL. Default: Let's Encrypt's production directory.
    pub directory: String,
    /// PEM authorities to trust for `directory` beside the system's: private authorities.
    pub ca_file: Option<PathBuf>,
    /// Contact of the account. Default: none.
    pub email: Option<String>,
    pub challenge: Challenge,
    /// External account binding: key id and HMAC key (base64url).
    pub external_account: Option<(String, Secret)>,
    /// Names to hold certificates for beside those of the routes' hosts. Each
    /// entry is one certificate: its first name and further ones.
    pub domains: Vec<Vec<String>>,
    /// Renewed when so much of its life is left, unless the authority suggests
    /// a window (ARI, RFC 9773). Default 30 days, at most a third of its life.
    pub renew_before: Duration,
    /// Traefik's `acme.json` whose certificates and account are taken over where
    /// the store has none.
    pub import_acme_json: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// Answered on every plain entrypoint, before anything else. Default.
    Http01,
    /// Answered on the TLS entrypoints.
    TlsAlpn01,
    Dns01 {
        hook: DnsHook,
        /// From the hook's success to the authority being asked to look. Default 30 s.
        propagation: Duration,
    },
}

/// Sets and removes the TXT record `_acme-challenge.NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsHook {
    /// Run as `COMMAND present|cleanup FQDN VALUE`; a status other than 0 is a failure.
    Exec { command: Vec<String>, timeout: Duration },
    /// `POST URL` with `{"action","fqdn","value"}`; a status other than 2xx is a failure.
    Webhook { url: String, bearer: Option<Secret>, timeout: Duration },
}
