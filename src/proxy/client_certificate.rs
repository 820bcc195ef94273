//! How plugins are told who a client proved to be. Nobody else is: requests go
//! to their upstream without it, and clients cannot set these headers.

use std::{borrow::Cow, time::SystemTime};

use super::arrival::ClientIdentity;

/// Names and values, all printable ASCII; lists are joined with `, `.
pub(super) fn headers(identity: &ClientIdentity) -> impl Iterator<Item = (&'static str, String)> {
    let until = identity.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let common_name = identity.common_name.as_deref().map(Cow::Borrowed);
    let names = (!identity.names.is_empty()).then(|| Cow::Owned(identity.names.join(", ")));
    [
        ("tollgate-client-cert-subject", Some(Cow::Borrowed(identity.subject.as_str()))),
        ("tollgate-client-cert-common-name", common_name),
        ("tollgate-client-cert-names", names),
        ("tollgate-client-cert-serial", Some(Cow::Borrowed(identity.serial.as_str()))),
        ("tollgate-client-cert-fingerprint", Some(Cow::Borrowed(identity.sha256.as_str()))),
        ("tollgate-client-cert-not-after", Some(Cow::Owned(until.as_secs().to_string()))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?.into_owned())))
}
