//! One resolver's dealings with its authority: account, orders, advice on renewal.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::{
    AcmeError,
    certificate::Facts,
    courier::Courier,
    import::Import,
    schedule::Window,
    stage::Performance,
    vault::{Issued, Vault},
};
use crate::{
    config::{
        Name, Secret,
        tls::{Acme, Challenge},
    },
    upstream::Web,
};

/// The authority has seen our answer, or has issued what it agreed to issue.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(180));
/// RFC 9773 section 4.3.3: between a minute and a day.
const ADVICE_AT_LEAST: Duration = Duration::from_secs(60);
const ADVICE_AT_MOST: Duration = Duration::from_secs(86_400);

pub(super) struct Desk {
    pub(super) resolver: Name,
    pub(super) acme: Acme,
    pub(super) web: Web,
    pub(super) import: Arc<Import>,
    courier: Courier,
    vault: Vault,
    account: Mutex<Option<Account>>,
}

impl Desk {
    pub(super) fn new(resolver: Name, acme: Acme, web: Web, import: Arc<Import>, vault: Vault) -> Self {
        let courier = Courier::new(web.clone());
        Self { resolver, acme, web, import, courier, vault, account: Mutex::default() }
    }

    /// Proves the names and gets a certificate for a fresh key.
    pub(super) async fn order(
        &self,
        names: &[String],
        replaces: Option<CertificateIdentifier<'static>>,
        performance: &Performance<'_>,
    ) -> Result<Issued, AcmeError> {
        let account = self.account().await?;
        let mut order = self.place(&account, names, replaces).await?;
        self.prove(&mut order, performance).await?;
        let key_pem = Secret::new(order.finalize().await.map_err(|error| self.refusal(error))?);
        let chain_pem = order.poll_certificate(&POLLING).await.map_err(|error| self.refusal(error))?;
        let facts = Facts::read(&chain_pem)?;
        match names.iter().find(|name| !facts.serves(name)) {
            Some(name) => Err(AcmeError::Unusable(format!("it does not serve {name}"))),
            None => Ok(Issued { chain_pem, key_pem }),
        }
    }

    async fn place(
        &self,
        account: &Account,
        names: &[String],
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, AcmeError> {
        let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        if let Some(replaces) = replaces {
            let order = NewOrder::new(&identifiers).replaces(replaces);
            match account.new_order(&order).await {
                // No longer known, or replaced already: then it is a new one.
                Err(instant_acme::Error::Api(problem)) if !is_limit(&problem) && !no_account(&problem) => {
                    tracing::debug!(%problem, "ordered without naming what it replaces");
                }
                Err(instant_acme::Error::Unsupported(_)) => {}
                placed => return self.placed(placed).await,
            }
        }
        let placed = account.new_order(&NewOrder::new(&identifiers)).await;
        self.placed(placed).await
    }

    /// An account that the authority has forgotten is forgotten here, too.
    async fn placed(&self, placed: Result<Order, instant_acme::Error>) -> Result<Order, AcmeError> {
        if let Err(instant_acme::Error::Api(problem)) = &placed
            && no_account(problem)
        {
            *self.account.lock().await = None;
            self.vault.forget_account(&self.account_id()).await?;
        }
        placed.map_err(|error| self.refusal(error))
    }

    async fn prove(&self, order: &mut Order, performance: &Performance<'_>) -> Result<(), AcmeError> {
        if order.state().status == OrderStatus::Ready {
            return Ok(());
        }
        if self.present(order, performance).await? {
            performance.spread().await;
            self.announce(order).await?;
        }
        match order.poll_ready(&POLLING).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(self.why_invalid(order).await),
            Err(instant_acme::Error::Api(problem)) if !is_limit(&problem) => {
                match self.why_invalid(order).await {
                    AcmeError::Refused(reason) if !reason.is_empty() => Err(AcmeError::Refused(reason)),
                    _ => Err(self.refusal(instant_acme::Error::Api(problem))),
                }
            }
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// `false` if every name was proved before.
    async fn present(&self, order: &mut Order, performance: &Performance<'_>) -> Result<bool, AcmeError> {
        let mut any = false;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.refusal(error))?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(AcmeError::Refused(format!("an authorization is {other:?}"))),
            }
            let challenge = authorization.challenge(self.challenge()).ok_or_else(|| {
                AcmeError::Refused("the authority does not offer this challenge".to_owned())
            })?;
            let Identifier::Dns(name) = challenge.identifier().identifier else {
                return Err(AcmeError::Refused(
                    "the authority asks for something else than a name".to_owned(),
                ));
            };
            performance.present(name, &challenge.token, &challenge.key_authorization()).await?;
            any = true;
        }
        Ok(any)
    }

    /// Tells the authority that it may look.
    async fn announce(&self, order: &mut Order) -> Result<(), AcmeError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.refusal(error))?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(self.challenge())
            {
                challenge.set_ready().await.map_err(|error| self.refusal(error))?;
            }
        }
        Ok(())
    }

    /// What the authority says of each name that it could not prove.
    async fn why_invalid(&self, order: &mut Order) -> AcmeError {
        let mut reasons = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = authorization.refresh().await else { continue };
            let name = state.identifier().to_string();
            let problems = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            reasons.extend(problems.map(|problem| format!("{name}: {}", told(problem))));
        }
        AcmeError::Refused(reasons.join("; "))
    }

    fn challenge(&self) -> ChallengeType {
        match self.acme.challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Dns01 { .. } => ChallengeType::Dns01,
        }
    }

    /// When the authority would renew this certificate, and when to ask again;
    /// no window if it gives no advice.
    pub(super) async fn advice(&self, facts: &Facts) -> Result<(Option<Window>, Duration), AcmeError> {
        let Some(id) = &facts.id else { return Ok((None, ADVICE_AT_MOST)) };
        match self.account().await?.renewal_info(id).await {
            Ok((info, again)) => {
                let window = Window {
                    start: SystemTime::from(info.suggested_window.start),
                    end: SystemTime::from(info.suggested_window.end),
                };
                Ok((Some(window), again.clamp(ADVICE_AT_LEAST, ADVICE_AT_MOST)))
            }
            Err(instant_acme::Error::Unsupported(_)) => Ok((None, ADVICE_AT_MOST)),
            Err(error) => Err(self.refusal(error)),
        }
    }

    async fn account(&self) -> Result<Account, AcmeError> {
        let mut held = self.account.lock().await;
        if let Some(account) = &*held {
            return Ok(account.clone());
        }
        let account = match self.known().await? {
            Some(credentials) => self.log_in(&credentials).await?,
            None => self.register().await?,
        };
        *held = Some(account.clone());
        Ok(account)
    }

    async fn known(&self) -> Result<Option<Secret>, AcmeError> {
        if let Some(stored) = self.vault.account(&self.account_id()).await? {
            return Ok(Some(stored));
        }
        let Some(imported) = self.import.account(self.resolver.as_str(), &self.acme.directory) else {
            return Ok(None);
        };
        self.vault.keep_account(&self.account_id(), &imported).await?;
        tracing::info!(resolver = self.resolver.as_str(), "account taken over from acme.json");
        Ok(Some(imported))
    }

    async fn log_in(&self, credentials: &Secret) -> Result<Account, AcmeError> {
        let credentials: AccountCredentials = serde_json::from_str(credentials.expose())
            .map_err(|_| AcmeError::Unusable("the stored account is malformed".to_owned()))?;
        let builder = Account::builder_with_http(Box::new(self.courier.clone()));
        builder.from_credentials(credentials).await.map_err(|error| self.refusal(error))
    }

    async fn register(&self) -> Result<Account, AcmeError> {
        let contact = self.acme.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = self.acme.external_account.as_ref().map(external_account).transpose()?;
        let builder = Account::builder_with_http(Box::new(self.courier.clone()));
        let (account, credentials) = builder
            .create(&new, self.acme.directory.clone(), binding.as_ref())
            .await
            .map_err(|error| self.refusal(error))?;
        let json = serde_json::to_string(&credentials)
            .map_err(|_| AcmeError::Unusable("the account cannot be written".to_owned()))?;
        let id = self.account_id();
        if self.vault.keep_account(&id, &Secret::new(json)).await? {
            tracing::info!(resolver = self.resolver.as_str(), account = account.id(), "account registered");
            return Ok(account);
        }
        // Another node was faster; one account is enough.
        match self.vault.account(&id).await? {
            Some(theirs) => self.log_in(&theirs).await,
            None => Ok(account),
        }
    }

    /// Resolvers with the same authority and contact share an account.
    fn account_id(&self) -> String {
        let binding = self.acme.external_account.as_ref().map_or("", |(id, _)| id);
        let text =
            format!("{}\n{}\n{binding}", self.acme.directory, self.acme.email.as_deref().unwrap_or(""));
        hex::encode(&Sha256::digest(text)[..16])
    }

    fn refusal(&self, error: instant_acme::Error) -> AcmeError {
        let asked = self.courier.take_asked();
        match error {
            instant_acme::Error::Api(problem) if is_limit(&problem) || asked.is_some() => {
                AcmeError::ComeBack { reason: told(&problem), asked }
            }
            instant_acme::Error::Api(problem) => AcmeError::Refused(told(&problem)),
            error => AcmeError::Protocol(error.to_string()),
        }
    }
}

fn external_account((id, key): &(String, Secret)) -> Result<ExternalAccountKey, AcmeError> {
    let key = BASE64_URL_SAFE_NO_PAD
        .decode(key.expose().trim_end_matches('='))
        .map_err(|_| AcmeError::Unusable("external_account.hmac_key is not base64url".to_owned()))?;
    Ok(ExternalAccountKey::new(id.clone(), &key))
}

fn is_limit(problem: &Problem) -> bool {
    is(problem, "rateLimited") || problem.status == Some(429)
}

fn no_account(problem: &Problem) -> bool {
    is(problem, "accountDoesNotExist")
}

fn is(problem: &Problem, error: &str) -> bool {
    let known = problem.r#type.as_deref().and_then(|kind| kind.strip_prefix("urn:ietf:params:acme:error:"));
    known == Some(error)
}

/// The authority's words, on one line and not without end.
fn told(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("no detail");
    let kind = problem.r#type.as_deref().unwrap_or("").trim_start_matches("urn:ietf:params:acme:error:");
    let mut text = format!("{kind}: {detail}");
    for subproblem in &problem.subproblems {
        text.push_str(&format!("; {subproblem}"));
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
