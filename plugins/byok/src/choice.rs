//! Which key goes with an attempt.

use tollgate_sdk::{
    Refusal, RefusalReason,
    credentials::{Attempt, Credential},
    host::Secrets,
};

use crate::SCOPE;

/// The tenant's own key if it has one for the provider, else the platform's.
///
/// Invariant: the choice does not depend on earlier attempts. A tenant whose
/// key is dead must not be served with the platform's: that would move its
/// prompts and its bill without asking. For the same reason a store that
/// cannot tell is a refusal, not a reason to take the platform's key.
pub(crate) fn credential_for(attempt: &Attempt, secrets: &impl Secrets) -> Result<Credential, Refusal> {
    if attempt.caller.tenant.is_empty() {
        return Ok(Credential::Platform);
    }
    let handle = format!("{SCOPE}/{}/{}", attempt.caller.tenant, attempt.provider);
    match secrets.exists(&handle) {
        Ok(true) => Ok(Credential::Secret(handle)),
        Ok(false) => Ok(Credential::Platform),
        Err(_) => Err(Refusal {
            reason: RefusalReason::Unavailable,
            message: "stored keys cannot be looked up now".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::{Caller, host::SecretsError, testing::MemorySecrets};

    use super::*;

    fn attempt(tenant: &str, provider: &str) -> Attempt {
        Attempt {
            request_id: "r1".to_owned(),
            caller: Caller { id: "k1".to_owned(), tenant: tenant.to_owned(), tier: String::new() },
            provider: provider.to_owned(),
            model: "m".to_owned(),
        }
    }

    #[test]
    fn an_own_key_is_always_used() {
        let secrets = MemorySecrets::default();
        secrets.seal("byok", "team", "openai", "sk-own-key").unwrap();
        let own = Credential::Secret("byok/team/openai".to_owned());
        for _ in 0..3 {
            assert_eq!(credential_for(&attempt("team", "openai"), &secrets), Ok(own.clone()));
        }
    }

    #[test]
    fn other_tenants_and_providers_get_the_platforms() {
        let secrets = MemorySecrets::default();
        secrets.seal("byok", "team", "openai", "sk-own-key").unwrap();
        for (tenant, provider) in [("other", "openai"), ("team", "anthropic"), ("", "openai")] {
            assert_eq!(credential_for(&attempt(tenant, provider), &secrets), Ok(Credential::Platform));
        }
    }

    #[test]
    fn a_store_that_cannot_tell_is_a_refusal() {
        let secrets = MemorySecrets { failure: Some(SecretsError::Unavailable), ..MemorySecrets::default() };
        let refusal = credential_for(&attempt("team", "openai"), &secrets).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Unavailable);
    }
}
