//! tls-alpn-01 (RFC 8737): challenge certificates, and following those of other
//! nodes. The front cannot wait for the store within a handshake, so each node
//! looks for new ones all the time and the one that orders gives it time to.

use std::{collections::BTreeSet, time::Duration};

use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use super::{AcmeError, Front, vault::SPACE};
use crate::state::{Result, Store};

/// How often a node looks for challenges of others.
pub(super) const FOLLOW: Duration = Duration::from_secs(1);
/// Until all nodes must have seen one.
pub(super) const SPREAD: Duration = Duration::from_secs(3);
const PREFIX: &str = "tls-alpn-01/";
/// More at one time are not followed.
const MOST: usize = 1000;

/// Names whose challenges are answered here: this node's own, and others'.
#[derive(Default)]
pub(super) struct Followed {
    own: Mutex<BTreeSet<String>>,
    others: Mutex<BTreeSet<String>>,
}

impl Followed {
    pub(super) fn own(&self, name: &str) {
        self.own.lock().insert(name.to_owned());
    }

    pub(super) fn disown(&self, name: &str) {
        self.own.lock().remove(name);
    }

    /// Answers what other nodes have presented since, and nothing that they withdrew.
    pub(super) async fn follow(&self, store: &dyn Store, front: &dyn Front) -> Result<()> {
        let keys = store.kv_keys(SPACE, PREFIX, MOST).await?;
        let own = self.own.lock().clone();
        let there: BTreeSet<String> = keys
            .iter()
            .filter_map(|key| key.strip_prefix(PREFIX))
            .filter(|name| !own.contains(*name))
            .map(str::to_owned)
            .collect();
        let before = self.others.lock().clone();
        for name in before.difference(&there).filter(|name| !own.contains(*name)) {
            front.withdraw_tls_alpn(name);
        }
        self.others.lock().retain(|name| there.contains(name));
        for name in there.difference(&before) {
            let Some(digest) = store.kv_get(SPACE, &key(name)).await? else { continue };
            match present(front, name, &digest) {
                Ok(()) => drop(self.others.lock().insert(name.clone())),
                Err(error) => tracing::warn!(name, %error, "another node's challenge is not answered here"),
            }
        }
        Ok(())
    }
}

pub(super) fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// A certificate that nobody signed, with the digest of the key authorization
/// in its critical extension (RFC 8737 section 3).
pub(super) fn present(front: &dyn Front, name: &str, digest: &[u8]) -> std::result::Result<(), AcmeError> {
    let unusable = |error: rcgen::Error| AcmeError::Unusable(error.to_string());
    if digest.len() != 32 {
        return Err(AcmeError::Unusable("a digest has 32 bytes".to_owned()));
    }
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(unusable)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(unusable)?;
    let certificate = params.self_signed(&key).map_err(unusable)?;
    front.present_tls_alpn(name, &certificate.pem(), &key.serialize_pem()).map_err(AcmeError::Unusable)
}
