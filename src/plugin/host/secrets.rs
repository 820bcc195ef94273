//! `secrets`: values go in, handles come out.

use crate::{
    config::Secret,
    plugin::{
        bindings::imports::secrets::{Error, Host, SecretInfo},
        instance::InstanceState,
    },
    state::{self, StoreError},
};

use super::bounded;

const MAX_PART: usize = 128;
const MAX_VALUE: usize = 8 * 1024;

impl InstanceState {
    fn may_use(&self, scope: &str) -> Result<(), Error> {
        let granted = self.identity.grants.secrets.iter().any(|granted| granted == scope);
        if granted { Ok(()) } else { Err(Error::Denied) }
    }

    fn may_use_handle(&self, handle: &str) -> Result<(), Error> {
        let scope = handle.split('/').next().unwrap_or_default();
        self.may_use(scope)
    }
}

impl Host for InstanceState {
    async fn seal(
        &mut self,
        scope: String,
        owner: String,
        name: String,
        value: String,
    ) -> Result<String, Error> {
        // Wrapped first, so that no early return leaves it in a plain string.
        let value = Secret::new(value);
        self.may_use(&scope)?;
        check_part(&owner)?;
        check_part(&name)?;
        if value.expose().is_empty() || value.expose().len() > MAX_VALUE {
            return Err(Error::Invalid);
        }
        Ok(bounded(self.host.services.secrets.seal(&scope, &owner, &name, &value)).await?)
    }

    fn list(&mut self, scope: String, owner: Option<String>) -> Result<Vec<SecretInfo>, Error> {
        self.may_use(&scope)?;
        let secrets = self.host.services.secrets.list(&scope, owner.as_deref());
        Ok(secrets.into_iter().map(SecretInfo::from).collect())
    }

    fn exists(&mut self, handle: String) -> Result<bool, Error> {
        self.may_use_handle(&handle)?;
        Ok(self.host.services.secrets.exists(&handle))
    }

    async fn remove(&mut self, handle: String) -> Result<bool, Error> {
        self.may_use_handle(&handle)?;
        Ok(bounded(self.host.services.secrets.remove(&handle)).await?)
    }
}

/// A handle is `scope/owner/name`: a slash in a part would forge another one.
fn check_part(part: &str) -> Result<(), Error> {
    let valid =
        !part.is_empty() && part.len() <= MAX_PART && part.chars().all(|c| c.is_ascii_graphic() && c != '/');
    if valid { Ok(()) } else { Err(Error::Invalid) }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid(_) => Self::Invalid,
            _ => Self::Unavailable,
        }
    }
}

impl From<state::SecretInfo> for SecretInfo {
    fn from(info: state::SecretInfo) -> Self {
        Self {
            handle: info.handle,
            owner: info.owner,
            name: info.name,
            hint: info.hint,
            created_unix_ms: info.created_unix_ms,
        }
    }
}
