//! What proves to an authority that a name is ours: presented before it looks,
//! withdrawn afterwards on every path.

use std::{sync::Arc, time::Duration};

use instant_acme::KeyAuthorization;
use parking_lot::Mutex;

use super::{
    AcmeError, Front,
    hook::{self, Action},
    tls_alpn::{self, Followed},
    vault::SPACE,
};
use crate::{
    config::tls::{Challenge, DnsHook},
    proxy::Challenges,
    state::Store,
    upstream::Web,
};

/// Left behind by a node that died, an answer is gone after this long.
const TTL: Duration = Duration::from_secs(15 * 60);

/// Where challenges are answered.
pub(super) struct Stage {
    pub(super) store: Arc<dyn Store>,
    /// Whether other nodes may be asked for the answer as well.
    pub(super) shared: bool,
    pub(super) http: Arc<Challenges>,
    pub(super) front: Arc<dyn Front>,
    pub(super) followed: Followed,
}

/// What one order has presented.
pub(super) struct Performance<'a> {
    stage: &'a Stage,
    challenge: &'a Challenge,
    web: &'a Web,
    presented: Mutex<Vec<Presented>>,
}

enum Presented {
    Http { token: String },
    TlsAlpn { name: String },
    Dns { fqdn: String, value: String },
}

impl<'a> Performance<'a> {
    pub(super) fn new(stage: &'a Stage, challenge: &'a Challenge, web: &'a Web) -> Self {
        Self { stage, challenge, web, presented: Mutex::default() }
    }

    /// `name` without `*.`.
    pub(super) async fn present(
        &self,
        name: &str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> Result<(), AcmeError> {
        match self.challenge {
            Challenge::Http01 => self.present_http(token, authorization).await,
            Challenge::TlsAlpn01 => self.present_tls_alpn(name, authorization).await,
            Challenge::Dns01 { hook, .. } => self.present_dns(hook, name, authorization).await,
        }
    }

    async fn present_http(&self, token: &str, authorization: &KeyAuthorization) -> Result<(), AcmeError> {
        self.note(Presented::Http { token: token.to_owned() });
        self.stage.http.present(token, authorization.as_str());
        self.share(&http_key(token), authorization.as_str().as_bytes()).await
    }

    async fn present_tls_alpn(&self, name: &str, authorization: &KeyAuthorization) -> Result<(), AcmeError> {
        let digest = authorization.digest();
        self.note(Presented::TlsAlpn { name: name.to_owned() });
        self.stage.followed.own(name);
        tls_alpn::present(&*self.stage.front, name, digest.as_ref())?;
        self.share(&tls_alpn::key(name), digest.as_ref()).await
    }

    async fn present_dns(
        &self,
        hook: &DnsHook,
        name: &str,
        authorization: &KeyAuthorization,
    ) -> Result<(), AcmeError> {
        let (fqdn, value) = (format!("_acme-challenge.{name}"), authorization.dns_value());
        // Noted first: a hook that failed or took too long may have set it.
        self.note(Presented::Dns { fqdn: fqdn.clone(), value: value.clone() });
        hook::call(hook, self.web, Action::Present, &fqdn, &value).await
    }

    /// Until everybody who may be asked has what was presented.
    pub(super) async fn spread(&self) {
        match self.challenge {
            Challenge::Dns01 { propagation, .. } => tokio::time::sleep(*propagation).await,
            Challenge::TlsAlpn01 if self.stage.shared => tokio::time::sleep(tls_alpn::SPREAD).await,
            _ => {}
        }
    }

    /// Everything; what cannot be withdrawn is logged and runs out by itself, a
    /// record in somebody's DNS excepted.
    pub(super) async fn withdraw(self) {
        for presented in self.presented.into_inner() {
            match presented {
                Presented::Http { token } => {
                    self.stage.http.withdraw(&token);
                    unshare(self.stage, &http_key(&token)).await;
                }
                Presented::TlsAlpn { name } => {
                    self.stage.front.withdraw_tls_alpn(&name);
                    self.stage.followed.disown(&name);
                    unshare(self.stage, &tls_alpn::key(&name)).await;
                }
                Presented::Dns { fqdn, value } => {
                    let Challenge::Dns01 { hook, .. } = self.challenge else { continue };
                    if let Err(error) = hook::call(hook, self.web, Action::Cleanup, &fqdn, &value).await {
                        tracing::warn!(%error, "a DNS challenge record was not removed");
                    }
                }
            }
        }
    }

    fn note(&self, presented: Presented) {
        self.presented.lock().push(presented);
    }

    async fn share(&self, key: &str, value: &[u8]) -> Result<(), AcmeError> {
        if self.stage.shared {
            self.stage.store.kv_set(SPACE, key, value, Some(TTL)).await?;
        }
        Ok(())
    }
}

async fn unshare(stage: &Stage, key: &str) {
    if stage.shared {
        // It runs out by itself.
        let _ = stage.store.kv_delete(SPACE, key).await;
    }
}

pub(super) fn http_key(token: &str) -> String {
    format!("http-01/{token}")
}
