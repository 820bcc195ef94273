//! A chain with its key, ready to sign; read from PEM.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::x509;
use crate::config::tls::CertificateFiles;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {source}", file.display())]
    Unreadable { file: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{}: {source}", file.display())]
    InFile { file: PathBuf, source: Box<CertificateError> },
    #[error("{} and {}: {source}", cert_file.display(), key_file.display())]
    InFiles { cert_file: PathBuf, key_file: PathBuf, source: Box<CertificateError> },
    #[error("not PEM: {0}")]
    NotPem(rustls::pki_types::pem::Error),
    #[error("no certificate in it")]
    Empty,
    #[error("malformed certificate: {0}")]
    Malformed(String),
    #[error("no DNS name in its subject alternative names")]
    Nameless,
    #[error("the certificate does not serve {0}")]
    NotFor(String),
    #[error("{0}")]
    Unusable(rustls::Error),
    #[error("an entrypoint with TLS needs a certificate")]
    None,
}

#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names in lower case; a wildcard keeps its `*.`.
    pub(super) names: Vec<String>,
    pub(super) not_after: SystemTime,
}

impl Certificate {
    /// Reads from disk; call it off the runtime's workers or rarely. Only the
    /// first certificate of an entrypoint, which serves clients without a name,
    /// may be `nameless`.
    pub(super) fn load(
        provider: &CryptoProvider,
        files: &CertificateFiles,
        nameless: bool,
    ) -> Result<Self, CertificateError> {
        let in_file =
            |source| CertificateError::InFile { file: files.cert_file.clone(), source: Box::new(source) };
        let chain = read_chain(&files.cert_file)?;
        let key = PrivateKeyDer::from_pem_file(&files.key_file)
            .map_err(|source| CertificateError::Unreadable { file: files.key_file.clone(), source })?;
        let certificate = Self::new(provider, chain, key).map_err(|error| match error {
            CertificateError::Unusable(_) => CertificateError::InFiles {
                cert_file: files.cert_file.clone(),
                key_file: files.key_file.clone(),
                source: Box::new(error),
            },
            error => in_file(error),
        })?;
        if certificate.names.is_empty() && !nameless {
            return Err(in_file(CertificateError::Nameless));
        }
        Ok(certificate)
    }

    pub(super) fn from_pem(
        provider: &CryptoProvider,
        chain: &[u8],
        key: &[u8],
    ) -> Result<Self, CertificateError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::NotPem)?;
        Self::new(provider, chain_from_pem(chain)?, key)
    }

    fn new(
        provider: &CryptoProvider,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::Empty)?;
        let names = names(leaf)?;
        let not_after = x509::not_after(leaf)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(CertificateError::Unusable)?;
        Ok(Self { key: Arc::new(key), names, not_after })
    }

    /// Whether a client that asks for `name` would accept it. A wildcard is
    /// served by the same wildcard only.
    pub(super) fn serves(&self, name: &str) -> bool {
        self.names.iter().any(|own| {
            own == name
                || own.strip_prefix("*.").is_some_and(|rest| {
                    !name.starts_with("*.") && name.split_once('.').is_some_and(|(_, parent)| parent == rest)
                })
        })
    }
}

/// The key pair of a challenge certificate, whose critical extension for the
/// challenge (RFC 8737) keeps it from being read like others.
pub(super) fn challenge_key(
    provider: &CryptoProvider,
    chain: &[u8],
    key: &[u8],
) -> Result<CertifiedKey, CertificateError> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::NotPem)?;
    let key = provider.key_provider.load_private_key(key).map_err(CertificateError::Unusable)?;
    Ok(CertifiedKey::new(chain_from_pem(chain)?, key))
}

/// The certificates of a PEM file; never empty.
pub(super) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable { file: file.to_owned(), source };
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if chain.is_empty() {
        return Err(CertificateError::InFile {
            file: file.to_owned(),
            source: Box::new(CertificateError::Empty),
        });
    }
    Ok(chain)
}

fn chain_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(CertificateError::NotPem)?;
    if chain.is_empty() { Err(CertificateError::Empty) } else { Ok(chain) }
}

fn names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, CertificateError> {
    let leaf = webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| CertificateError::Malformed(error.to_string()))?;
    Ok(leaf.valid_dns_names().map(str::to_ascii_lowercase).collect())
}
