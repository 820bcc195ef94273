//! A decision as response headers: the IETF draft's, Kong's and `Retry-After`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};

use super::{Decision, Policy, policy::whole_seconds};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

impl Decision {
    /// Adds the headers of this decision to those of earlier policies or of the
    /// upstream: the draft's fields are lists, and of Kong's, which are not, the
    /// ones with the least remaining stay.
    pub fn write_headers(&self, policy: &Policy, headers: &mut HeaderMap) {
        let tightest = remaining_in(headers).is_none_or(|other| self.remaining <= other);
        self.each_header(policy, |name, value| {
            if name == RATELIMIT || name == RATELIMIT_POLICY {
                headers.append(name, value);
            } else if tightest || !headers.contains_key(&name) {
                headers.insert(name, value);
            }
        });
    }

    /// Every header of this decision alone, for heads that are no [`HeaderMap`].
    pub fn each_header(&self, policy: &Policy, mut put: impl FnMut(HeaderName, HeaderValue)) {
        let reset = whole_seconds(self.reset);
        if policy.headers.ietf {
            put(RATELIMIT_POLICY, policy.description.clone());
            put(RATELIMIT, self.state(policy, reset));
        }
        if policy.headers.kong {
            put(RATELIMIT_LIMIT, self.limit.into());
            put(RATELIMIT_REMAINING, self.remaining.into());
            put(RATELIMIT_RESET, reset.into());
            if let Some((limit, remaining)) = &policy.unit_headers {
                put(limit.clone(), self.limit.into());
                put(remaining.clone(), self.remaining.into());
            }
        }
        if let Some(wait) = self.retry_after {
            put(RETRY_AFTER, whole_seconds(wait).into());
        }
    }

    /// `"name";r=4;t=60`
    fn state(&self, policy: &Policy, reset: u64) -> HeaderValue {
        let mut digits = itoa::Buffer::new();
        let name = policy.name.as_str();
        let mut text = Vec::with_capacity(name.len() + 48);
        for part in ["\"", name, "\";r=", digits.format(self.remaining), ";t="] {
            text.extend_from_slice(part.as_bytes());
        }
        text.extend_from_slice(digits.format(reset).as_bytes());
        // Invariant: a `Name` is of visible ASCII and has no quote.
        HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

fn remaining_in(headers: &HeaderMap) -> Option<u64> {
    headers.get(RATELIMIT_REMAINING)?.to_str().ok()?.trim().parse().ok()
}
