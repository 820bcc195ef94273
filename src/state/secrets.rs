//! Credentials at rest: sealed with AES-256-GCM before they reach the store,
//! opened only in memory, and only for the host.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use parking_lot::RwLock;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Result, SealedSecret, Store, StoreError, clock::unix_ms};
use crate::config::Secret;

#[cfg(test)]
mod tests;

const KEY_FILE: &str = "sealing.key";
const KEY_LEN: usize = 32;
const MAX_VALUE: usize = 64 * 1024;
const MAX_PART: usize = 128;
/// Of a shorter value, four characters would give away too much.
const HINTED: usize = 12;

/// All sealed credentials, still sealed, in memory: reading one never waits.
pub struct Secrets {
    store: Arc<dyn Store>,
    key: SealingKey,
    sealed: RwLock<BTreeMap<String, SealedSecret>>,
    /// One change at a time, so that store and memory end with the same.
    changing: tokio::sync::Mutex<()>,
}

/// What may be told of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretInfo {
    /// `scope/owner/name`.
    pub handle: String,
    pub scope: String,
    pub owner: String,
    pub name: String,
    /// The last four characters; empty for a short value.
    pub hint: String,
    pub created_unix_ms: u64,
    /// It cannot be opened, as it was sealed with another key: bring that key
    /// back, or seal the value again.
    pub needs_attention: bool,
}

impl Secrets {
    /// Reads the sealing key of `data_dir`, making one at the first start, and
    /// loads what is sealed.
    pub async fn open(store: Arc<dyn Store>, data_dir: &Path) -> Result<Arc<Self>> {
        let path = data_dir.join(KEY_FILE);
        let key = tokio::task::spawn_blocking(move || SealingKey::load_or_make(&path))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))??;
        let (sealed, changing) = (RwLock::default(), tokio::sync::Mutex::default());
        let secrets = Arc::new(Self { store, key, sealed, changing });
        secrets.refresh().await?;
        Ok(secrets)
    }

    /// Reads again what is sealed: another node may have changed it.
    pub async fn refresh(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        let all: BTreeMap<_, _> = self
            .store
            .secret_list()
            .await?
            .into_iter()
            .map(|sealed| (sealed.handle.clone(), sealed))
            .collect();
        let unreadable = all.values().filter(|sealed| self.key.open(sealed).is_err()).count();
        if unreadable > 0 {
            tracing::error!(secrets = unreadable, "sealed with another key: they stay, but cannot be opened");
        }
        *self.sealed.write() = all;
        Ok(())
    }

    /// Seals a value, in place of an earlier one if there is any, and returns
    /// its handle `scope/owner/name`.
    pub async fn seal(&self, scope: &str, owner: &str, name: &str, value: &Secret) -> Result<String> {
        let handle = handle(scope, owner, name)?;
        if value.expose().is_empty() || value.expose().len() > MAX_VALUE {
            return Err(StoreError::Invalid("a secret is 1 byte to 64 KiB"));
        }
        let sealed = SealedSecret {
            nonce_and_ciphertext: self.key.seal(&handle, value)?,
            handle: handle.clone(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            scope: scope.to_owned(),
            hint: hint(value),
            created_unix_ms: unix_ms().cast_unsigned(),
            key_id: self.key.id.clone(),
        };
        let _changing = self.changing.lock().await;
        self.store.secret_put(&sealed).await?;
        self.sealed.write().insert(handle.clone(), sealed);
        Ok(handle)
    }

    /// Opens a secret; `None` if there is no such handle. Without I/O.
    pub fn reveal(&self, handle: &str) -> Result<Option<Secret>> {
        self.sealed.read().get(handle).map(|sealed| self.key.open(sealed)).transpose()
    }

    /// Those of a scope, of one owner if named, by handle.
    pub fn list(&self, scope: &str, owner: Option<&str>) -> Vec<SecretInfo> {
        let sealed = self.sealed.read();
        let asked =
            |sealed: &&SealedSecret| sealed.scope == scope && owner.is_none_or(|owner| sealed.owner == owner);
        sealed.values().filter(asked).map(|sealed| self.info(sealed)).collect()
    }

    pub fn exists(&self, handle: &str) -> bool {
        self.sealed.read().contains_key(handle)
    }

    /// False if there was none.
    pub async fn remove(&self, handle: &str) -> Result<bool> {
        let _changing = self.changing.lock().await;
        let was_stored = self.store.secret_remove(handle).await?;
        let was_known = self.sealed.write().remove(handle).is_some();
        Ok(was_stored || was_known)
    }

    /// Seals a value that its owner keeps in a record of its own in the store,
    /// as private keys are: never listed here. It opens with the same `context` only.
    pub fn seal_value(&self, context: &str, value: &Secret) -> Result<Vec<u8>> {
        let text = self.key.seal(&value_context(context), value)?;
        Ok([self.key.id.as_bytes(), &text].concat())
    }

    /// Opens what [`Secrets::seal_value`] gave.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it was sealed with another key or for another context.
    pub fn open_value(&self, context: &str, sealed: &[u8]) -> Result<Secret> {
        sealed
            .strip_prefix(self.key.id.as_bytes())
            .and_then(|text| self.key.opened(&value_context(context), text))
            .ok_or_else(|| StoreError::Corrupt(format!("{context} was sealed with another key")))
    }

    fn info(&self, sealed: &SealedSecret) -> SecretInfo {
        SecretInfo {
            handle: sealed.handle.clone(),
            scope: sealed.scope.clone(),
            owner: sealed.owner.clone(),
            name: sealed.name.clone(),
            hint: sealed.hint.clone(),
            created_unix_ms: sealed.created_unix_ms,
            needs_attention: self.key.open(sealed).is_err(),
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("count", &self.sealed.read().len()).finish_non_exhaustive()
    }
}

/// Parts have no slash, so that no two secrets share a handle.
fn handle(scope: &str, owner: &str, name: &str) -> Result<String> {
    let is_part = |part: &str| {
        !part.is_empty() && part.len() <= MAX_PART && !part.contains(|c: char| c == '/' || c.is_control())
    };
    if ![scope, owner, name].into_iter().all(is_part) {
        return Err(StoreError::Invalid("scope, owner and name are 1 to 128 bytes without slash"));
    }
    Ok(format!("{scope}/{owner}/{name}"))
}

/// Handles have no control characters, so that no value passes for a secret.
fn value_context(context: &str) -> String {
    format!("\0{context}")
}

fn hint(value: &Secret) -> String {
    let count = value.expose().chars().count();
    if count < HINTED { String::new() } else { value.expose().chars().skip(count - 4).collect() }
}

/// The key, and the id by which records say that they were sealed with it.
struct SealingKey {
    id: String,
    key: LessSafeKey,
}

impl SealingKey {
    fn load_or_make(path: &Path) -> Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(path)?,
            Err(error) => return Err(file_error(path, &error)),
        };
        warn_if_others_can_read(path);
        Self::new(&bytes)
            .ok_or_else(|| StoreError::Corrupt(format!("{}: not a key of 32 bytes", path.display())))
    }

    fn new(bytes: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
        let id = hex::encode(&Sha256::digest(bytes)[..8]);
        Some(Self { id, key: LessSafeKey::new(key) })
    }

    /// A fresh random nonce, then the ciphertext with its tag. The handle is
    /// authenticated: a record moved to another handle does not open.
    fn seal(&self, handle: &str, value: &Secret) -> Result<Vec<u8>> {
        let failed = |_| StoreError::Unavailable("sealing failed".to_owned());
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(failed)?;
        let mut text = value.expose().as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(unique, Aad::from(handle), &mut text).map_err(failed)?;
        Ok([&nonce[..], &text].concat())
    }

    fn open(&self, sealed: &SealedSecret) -> Result<Secret> {
        self.try_open(sealed).ok_or_else(|| {
            StoreError::Corrupt(format!("secret {} was sealed with another key", sealed.handle))
        })
    }

    fn try_open(&self, sealed: &SealedSecret) -> Option<Secret> {
        if sealed.key_id != self.id {
            return None;
        }
        self.opened(&sealed.handle, &sealed.nonce_and_ciphertext)
    }

    fn opened(&self, handle: &str, sealed: &[u8]) -> Option<Secret> {
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = ciphertext.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(handle), &mut text).ok()?;
        std::str::from_utf8(opened).ok().map(Secret::new)
    }
}

/// Linked into place when complete: a crash leaves no half key, and of two
/// processes that start together both use the same.
fn make_key(path: &Path) -> Result<Vec<u8>> {
    let mut key = vec![0; KEY_LEN];
    rand::fill(&mut key).map_err(|_| StoreError::Unavailable("no random numbers".to_owned()))?;
    let draft = path.with_extension(format!("key.{}", std::process::id()));
    let failed = |error| file_error(path, &error);
    let _ = fs::remove_file(&draft);
    let mut file =
        fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft).map_err(failed)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(failed)?;
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn warn_if_others_can_read(path: &Path) {
    if let Ok(about) = fs::metadata(path)
        && about.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "the sealing key can be read by others; make it 0600");
    }
}

fn file_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}
