//! When a provider says that it may be asked again.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// A longer wait than a day is a mistake of the provider's.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What the headers of a refusal say. Never ask this of a 2xx: some providers
/// send `retry-after` with good answers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RetrySignals {
    /// `x-should-retry`, which overrides the status.
    pub(crate) should_retry: Option<bool>,
    pub(crate) after: Option<Duration>,
}

impl RetrySignals {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let should_retry = match text(headers, "x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        let millis = text(headers, "retry-after-ms").and_then(|ms| duration(ms, 0.001));
        let after = text(headers, "retry-after").and_then(|value| {
            duration(value, 1.0).or_else(|| until(value, text(headers, header::DATE.as_str())))
        });
        // Azure sends `retry-after-ms: 0` beside `retry-after: 1`: the larger counts.
        Self { should_retry, after: millis.max(after) }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn duration(number: &str, unit: f64) -> Option<Duration> {
    // `f64` would also parse `inf`, `nan` and signs.
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let seconds = number.parse::<f64>().ok()? * unit;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST))
}

/// The wait until an HTTP date, by the sender's clock if it tells its time.
fn until(date: &str, sent: Option<&str>) -> Option<Duration> {
    let then = httpdate::parse_http_date(date).ok()?;
    let now = sent.and_then(|sent| httpdate::parse_http_date(sent).ok()).unwrap_or_else(SystemTime::now);
    Some(then.duration_since(now).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        RetrySignals::read(&headers).after
    }

    #[test]
    fn all_forms_of_the_wait_are_read() {
        let seconds = |s| Some(Duration::from_secs_f64(s));
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[("retry-after", "3")]), seconds(3.0));
        assert_eq!(after(&[("retry-after", " 1.5 ")]), seconds(1.5));
        assert_eq!(after(&[("retry-after-ms", "250")]), seconds(0.25));
        assert_eq!(after(&[("retry-after-ms", "0"), ("retry-after", "1")]), seconds(1.0));
        assert_eq!(after(&[("retry-after", "inf")]), None);
        assert_eq!(after(&[("retry-after", "-1")]), None);
        assert_eq!(after(&[("retry-after", "1e300")]), Some(LONGEST));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(after(&[("retry-after", date), ("date", "Sun, 06 Nov 1994 08:49:07 GMT")]), seconds(30.0));
        assert_eq!(after(&[("retry-after", date)]), seconds(0.0));
    }

    #[test]
    fn should_retry_is_read() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-should-retry", value.parse().unwrap());
            RetrySignals::read(&headers).should_retry
        };
        assert_eq!((read("true"), read("false"), read("maybe")), (Some(true), Some(false), None));
    }
}
