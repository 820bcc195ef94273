//! Certificates that come at run time, from whoever gets them: each takes
//! effect for the next handshake on every entrypoint, without a reload.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
};

use super::{
    FrontEvents,
    by_name::ByName,
    certificate::{self, Certificate, CertificateError},
};

/// The protocol of tls-alpn-01 (RFC 8737 section 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// What [`FrontEvents::certificates`] calls the entrypoint of certificates that
/// every entrypoint has.
const EVERYWHERE: &str = "*";

/// Certificates beside those from files, which win where both serve a name.
/// Shared by all entrypoints; every method may be called from anywhere.
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    events: Arc<dyn FrontEvents>,
    held: ArcSwap<ByName>,
    challenges: ArcSwap<HashMap<String, Arc<ServerConfig>>>,
    /// One change at a time; readers never wait.
    changing: Mutex<()>,
}

impl Certificates {
    /// None yet. `events` hears of every change of what is held.
    pub fn new(events: Arc<dyn FrontEvents>) -> Arc<Self> {
        Arc::new(Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            events,
            held: ArcSwap::default(),
            challenges: ArcSwap::default(),
            changing: Mutex::default(),
        })
    }

    /// Serves `names` (`*.` for one more label) with this chain, leaf first, and
    /// key, both PEM, in place of what served them before.
    ///
    /// # Errors
    /// When PEM or key cannot be read, they do not belong together, or the
    /// certificate does not serve one of the names. Nothing has changed then.
    pub fn insert(&self, names: &[String], chain_pem: &[u8], key_pem: &[u8]) -> Result<(), CertificateError> {
        let certificate = Certificate::from_pem(&self.provider, chain_pem, key_pem)?;
        let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        if let Some(name) = names.iter().find(|name| !certificate.serves(name)) {
            return Err(CertificateError::NotFor(name.clone()));
        }
        let certificate = Arc::new(certificate);
        self.change(|held| {
            for name in &names {
                held.put(name, certificate.clone());
            }
        });
        Ok(())
    }

    /// What is not there is no error.
    pub fn remove(&self, names: &[String]) {
        self.change(|held| {
            for name in names {
                held.remove(&name.to_ascii_lowercase());
            }
        });
    }

    /// All names with a certificate, sorted.
    pub fn names(&self) -> Vec<String> {
        self.held.load().names()
    }

    /// The end of the certificate that was inserted for exactly this name.
    pub fn not_after(&self, name: &str) -> Option<SystemTime> {
        self.held.load().under(&name.to_ascii_lowercase()).first().map(|held| held.not_after)
    }

    /// Answers validations of `name` by tls-alpn-01 (RFC 8737) with this
    /// certificate and key, both PEM, until [`Certificates::remove_challenge`].
    /// Only handshakes that offer `acme-tls/1` alone get it; they are closed
    /// after it.
    pub fn tls_alpn_challenge(
        &self,
        name: &str,
        cert_pem: &[u8],
        key_pem: &[u8],
    ) -> Result<(), CertificateError> {
        let key = certificate::challenge_key(&self.provider, cert_pem, key_pem)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let _changing = self.changing.lock();
        let mut challenges = HashMap::clone(&self.challenges.load());
        challenges.insert(name.to_ascii_lowercase(), Arc::new(config));
        self.challenges.store(Arc::new(challenges));
        Ok(())
    }

    /// What is not there is no error.
    pub fn remove_challenge(&self, name: &str) {
        let _changing = self.changing.lock();
        let mut challenges = HashMap::clone(&self.challenges.load());
        challenges.remove(&name.to_ascii_lowercase());
        self.challenges.store(Arc::new(challenges));
    }

    /// `name` in lower case.
    pub(super) fn challenge(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.challenges.load().get(name).cloned()
    }

    pub(super) fn held(&self) -> arc_swap::Guard<Arc<ByName>> {
        self.held.load()
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    fn change(&self, change: impl FnOnce(&mut ByName)) {
        let _changing = self.changing.lock();
        let mut held = ByName::clone(&self.held.load());
        change(&mut held);
        let ends: Vec<_> = held
            .names()
            .into_iter()
            .filter_map(|name| {
                let end = held.under(&name).first()?.not_after;
                Some((name, end))
            })
            .collect();
        self.held.store(Arc::new(held));
        self.events.certificates(EVERYWHERE, &ends);
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("names", &self.names()).finish_non_exhaustive()
    }
}
