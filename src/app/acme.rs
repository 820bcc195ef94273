//! Certificates by ACME, between the rooms: what it gets is served by the doors,
//! what it proves is answered by the corridor.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::{
    acme::{Acme, Front, Parts},
    config::{Config, Secret, state::Backend},
    proxy::Shared,
    server::Certificates,
};

/// Keeps nothing yet.
pub(super) fn open(shared: &Shared, certificates: Arc<Certificates>, backend: &Backend) -> Arc<Acme> {
    Acme::new(Parts {
        store: shared.store.clone(),
        secrets: shared.secrets.clone(),
        shared: matches!(backend, Backend::Redis { .. }),
        challenges: shared.challenges.clone(),
        front: Arc::new(Doorplate(certificates)),
        metrics: shared.metrics.clone(),
    })
}

/// Keeps what the configuration in service wants, the one of now first.
pub(super) async fn keep(acme: &Arc<Acme>, mut configurations: watch::Receiver<Option<Arc<Config>>>) {
    let first = configurations.borrow_and_update().clone();
    if let Some(config) = first {
        acme.apply(config).await;
    }
    tokio::spawn(follow(Arc::downgrade(acme), configurations));
}

async fn follow(acme: Weak<Acme>, mut configurations: watch::Receiver<Option<Arc<Config>>>) {
    while configurations.changed().await.is_ok() {
        let config = configurations.borrow_and_update().clone();
        let (Some(acme), Some(config)) = (acme.upgrade(), config) else { return };
        acme.apply(config).await;
    }
}

/// The doors' certificates, as `acme` sees them.
struct Doorplate(Arc<Certificates>);

impl Front for Doorplate {
    fn install(&self, names: &[String], chain_pem: &str, key_pem: &Secret) -> Result<(), String> {
        let installed = self.0.insert(names, chain_pem.as_bytes(), key_pem.expose().as_bytes());
        installed.map_err(|error| error.to_string())
    }

    fn remove(&self, names: &[String]) {
        self.0.remove(names);
    }

    fn present_tls_alpn(&self, name: &str, certificate_pem: &str, key_pem: &str) -> Result<(), String> {
        let presented = self.0.tls_alpn_challenge(name, certificate_pem.as_bytes(), key_pem.as_bytes());
        presented.map_err(|error| error.to_string())
    }

    fn withdraw_tls_alpn(&self, name: &str) {
        self.0.remove_challenge(name);
    }
}
