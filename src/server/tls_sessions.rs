//! Resumption: tickets and the sessions of clients without tickets.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use rustls::{
    crypto::aws_lc_rs,
    server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions},
};

/// Sessions of TLS 1.2 clients that know no tickets.
const CACHED: usize = 4096;

/// What resumes sessions that were made under one demand on client
/// certificates. A session of another demand is unreadable here: resuming skips
/// the certificate request, so it must never lead into a stricter host.
pub(super) struct Sessions {
    /// Keys change every 6 hours and are accepted for 12.
    pub(super) tickets: Arc<dyn ProducesTickets>,
    pub(super) cache: Arc<dyn StoresServerSessions>,
}

/// By client policy; each as long as an entrypoint has that policy, so that
/// sessions outlive reloads.
#[derive(Default)]
pub(super) struct SessionBook(Mutex<HashMap<[u8; 32], Weak<Sessions>>>);

impl SessionBook {
    pub(super) fn of(&self, client_policy: [u8; 32]) -> Result<Arc<Sessions>, rustls::Error> {
        let mut book = self.0.lock();
        if let Some(known) = book.get(&client_policy).and_then(Weak::upgrade) {
            return Ok(known);
        }
        book.retain(|_, sessions| sessions.strong_count() > 0);
        let sessions = Arc::new(Sessions {
            tickets: aws_lc_rs::Ticketer::new()?,
            cache: ServerSessionMemoryCache::new(CACHED),
        });
        book.insert(client_policy, Arc::downgrade(&sessions));
        Ok(sessions)
    }
}
