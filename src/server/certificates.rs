//! PEM files become signing keys and the names that they serve.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::config::tls::CertificateFiles;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {source}", file.display())]
    Unreadable { file: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{}: no certificate in it", file.display())]
    Empty { file: PathBuf },
    #[error("{}: {source}", file.display())]
    Malformed { file: PathBuf, source: webpki::Error },
    #[error("{}: no DNS name in its subject alternative names", file.display())]
    Nameless { file: PathBuf },
    #[error("{} and {}: {source}", cert_file.display(), key_file.display())]
    Unusable { cert_file: PathBuf, key_file: PathBuf, source: rustls::Error },
    #[error("an entrypoint with TLS needs a certificate")]
    None,
}

/// A chain with its key.
pub(super) struct Certificate {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// DNS names in lower case; a wildcard keeps its `*.`.
    pub(super) names: Vec<String>,
}

/// Reads from disk; call it off the runtime's workers or rarely. Only the first
/// certificate of an entrypoint, which serves clients without a name, may be
/// `nameless`.
pub(super) fn load(files: &CertificateFiles, nameless: bool) -> Result<Certificate, CertificateError> {
    let chain = read_chain(&files.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|source| CertificateError::Unreadable { file: files.key_file.clone(), source })?;
    let names = names(&chain[0], &files.cert_file)?;
    if names.is_empty() && !nameless {
        return Err(CertificateError::Nameless { file: files.cert_file.clone() });
    }
    Ok(Certificate { chain, key, names })
}

/// Never empty.
fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable { file: file.to_owned(), source };
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { file: file.to_owned() });
    }
    Ok(chain)
}

fn names(leaf: &CertificateDer<'_>, file: &Path) -> Result<Vec<String>, CertificateError> {
    let leaf = webpki::EndEntityCert::try_from(leaf)
        .map_err(|source| CertificateError::Malformed { file: file.to_owned(), source })?;
    Ok(leaf.valid_dns_names().map(str::to_ascii_lowercase).collect())
}
