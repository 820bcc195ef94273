//! Answers to http-01 challenges (RFC 8555 section 8.3), given before routing
//! on every entrypoint but the admin one: the authority knows of no routes and redirects.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method};
use parking_lot::RwLock;
use pingora::proxy::Session;
use tokio::{sync::Semaphore, time::timeout};

use super::{context::RequestContext, reply};
use crate::fault::{Fault, FaultKind};

const PREFIX: &str = "/.well-known/acme-challenge/";
/// RFC 8555 wants 128 bits of entropy; nobody sends much more.
const MAX_TOKEN: usize = 128;
/// Anybody may ask for tokens, so few ask the other nodes at a time.
const MAX_LOOKUPS: usize = 32;
const LOOKUP_DEADLINE: Duration = Duration::from_secs(2);

/// Where other nodes leave their answers.
#[async_trait]
pub trait SharedAnswers: Send + Sync + 'static {
    /// The key authorization of a token; none if it is unknown or cannot be asked for.
    async fn find(&self, token: &str) -> Option<String>;
}

/// Key authorizations by token: this node's, and those of others behind it.
pub struct Challenges {
    own: RwLock<HashMap<String, String>>,
    shared: RwLock<Option<Arc<dyn SharedAnswers>>>,
    lookups: Semaphore,
}

impl Default for Challenges {
    fn default() -> Self {
        let (own, shared) = (RwLock::default(), RwLock::default());
        Self { own, shared, lookups: Semaphore::new(MAX_LOOKUPS) }
    }
}

impl Challenges {
    /// Asks `shared` for tokens that are not this node's; `None` asks nobody.
    pub fn share(&self, shared: Option<Arc<dyn SharedAnswers>>) {
        *self.shared.write() = shared;
    }

    pub fn present(&self, token: &str, key_authorization: &str) {
        self.own.write().insert(token.to_owned(), key_authorization.to_owned());
    }

    pub fn withdraw(&self, token: &str) {
        self.own.write().remove(token);
    }

    async fn answer(&self, token: &str) -> Option<String> {
        if let Some(own) = self.own.read().get(token) {
            return Some(own.clone());
        }
        let shared = self.shared.read().clone()?;
        let lookup = async {
            let _permit = self.lookups.acquire().await.ok()?;
            shared.find(token).await
        };
        timeout(LOOKUP_DEADLINE, lookup).await.ok().flatten()
    }
}

/// Answers if the request asks for a known token; `false` leaves it to the routes.
pub(super) async fn serve(
    challenges: &Challenges,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<bool, Fault> {
    let head = session.req_header();
    let Some(token) = head.uri.path().strip_prefix(PREFIX).filter(|token| is_token(token)) else {
        return Ok(false);
    };
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(false);
    }
    let Some(answer) = challenges.answer(token).await else { return Ok(false) };
    let content_type = HeaderValue::from_static("application/octet-stream");
    match reply::whole(session, ctx, 200, content_type, Bytes::from(answer)).await {
        Ok(()) => Ok(true),
        Err(error) => {
            Err(Fault::new(FaultKind::ClientClosed, "the client went away").because(error.to_string()))
        }
    }
}

/// base64url without padding, not empty (RFC 8555 section 8.3).
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Elsewhere;

    #[async_trait]
    impl SharedAnswers for Elsewhere {
        async fn find(&self, token: &str) -> Option<String> {
            (token == "theirs").then(|| "theirs.key".to_owned())
        }
    }

    #[tokio::test]
    async fn own_answers_come_first_then_those_of_other_nodes() {
        let challenges = Challenges::default();
        challenges.present("mine", "mine.key");

        assert_eq!(challenges.answer("mine").await.as_deref(), Some("mine.key"));
        assert_eq!(challenges.answer("theirs").await, None);
        challenges.share(Some(Arc::new(Elsewhere)));
        assert_eq!(challenges.answer("theirs").await.as_deref(), Some("theirs.key"));
        challenges.withdraw("mine");
        assert_eq!(challenges.answer("mine").await, None);
    }

    #[test]
    fn only_tokens_are_looked_up() {
        assert!(is_token("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"));
        for bad in ["", "a/b", "a.b", "..", "a%2f", "a=", &"a".repeat(129)] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
