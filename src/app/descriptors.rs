//! How many descriptors the process may have, and how many clients that allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Listeners, the store, files that are read, connections of the operator.
const RESERVE: u64 = 64;
/// A client may need a connection to an origin besides its own.
const FOR_EACH_CLIENT: u64 = 2;
const FEWEST: usize = 16;

/// Raises the soft limit to the hard one. Returns how many client connections
/// there may be; `None` without a limit.
pub(super) fn raise_limit() -> Option<usize> {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit on open files stays as it is");
        }
    }
    let limit = getrlimit(Resource::Nofile).current?;
    let clients = clients_of(limit);
    tracing::debug!(descriptors = limit, clients, "limit on open files");
    Some(clients)
}

fn clients_of(descriptors: u64) -> usize {
    let clients = descriptors.saturating_sub(RESERVE) / FOR_EACH_CLIENT;
    usize::try_from(clients).unwrap_or(usize::MAX).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_room_for_its_origin() {
        assert_eq!(clients_of(1024), 480);
        assert_eq!(clients_of(20), FEWEST);
        assert_eq!(clients_of(u64::MAX), usize::try_from((u64::MAX - RESERVE) / 2).unwrap());
    }
}
