//! Carries the protocol's requests, and notes what the protocol's library does
//! not pass on: how long a refusal asks to wait.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;

use crate::upstream::Web;

/// Of one request to the authority.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Courier {
    web: Web,
    /// Until when the last refusal asks to wait.
    asked: Arc<Mutex<Option<SystemTime>>>,
}

impl Courier {
    pub(super) fn new(web: Web) -> Self {
        Self { web, asked: Arc::default() }
    }

    /// What the last refusal asked for, once.
    pub(super) fn take_asked(&self) -> Option<Duration> {
        self.asked.lock().take()?.duration_since(SystemTime::now()).ok()
    }

    async fn carry(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let answer = self
            .web
            .send(Request::from_parts(head, body), DEADLINE)
            .await
            .map_err(|error| Error::Other(Box::new(error)))?;
        let (parts, body) = answer.into_parts();
        if parts.status.is_client_error() || parts.status.is_server_error() {
            *self.asked.lock() = retry_after(&parts.headers);
        }
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

impl HttpClient for Courier {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().carry(request))
    }
}

/// Seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        // A number that no clock can hold asks for nothing.
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers)
        };
        let in_two_minutes = asked("120").unwrap().duration_since(SystemTime::now()).unwrap();
        assert!((119..=120).contains(&in_two_minutes.as_secs()));
        assert!(asked("Fri, 31 Dec 2100 23:59:59 GMT").unwrap() > SystemTime::now());
        for bad in ["soon", "", "18446744073709551615"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }
}
