//! One record per finished request. It has no field for headers, query or body,
//! so none of these can be logged by mistake.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

/// What is left out of the JSON when absent is an `Option`.
#[derive(Debug, Serialize)]
pub struct AccessRecord<'a> {
    /// Arrival of the request; RFC 3339, milliseconds, UTC.
    #[serde(serialize_with = "timestamp")]
    pub ts: SystemTime,
    pub request_id: &'a str,
    pub entrypoint: &'a str,
    pub client: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    /// Where the answer came from, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<&'a str>,
    pub status: u16,
    pub request_bytes: u64,
    pub response_bytes: u64,
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// From the start of the upstream request to the head of its response.
    #[serde(
        rename = "upstream_ms",
        serialize_with = "some_milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub upstream: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<&'a str>,
    /// Subject of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<&'a str>,
    /// Label of the fault that ended the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm: Option<LlmRecord<'a>>,
}

#[derive(Debug, Serialize)]
pub struct LlmRecord<'a> {
    /// As the caller named it.
    pub model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_model: Option<&'a str>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Written as a decimal string. Absent means unknown, never free.
    #[serde(rename = "cost_usd", serialize_with = "usd", skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<i64>,
    pub attempts: u32,
    /// From the start of the request to the first content.
    #[serde(
        rename = "ttft_ms",
        serialize_with = "some_milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub first_token: Option<Duration>,
    pub stream: bool,
    pub ending: &'a str,
}

pub(super) fn timestamp<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Rfc3339(*time))
}

pub(super) fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: more digits would only be noise.
    serializer.serialize_f64(duration.as_micros() as f64 / 1_000.0)
}

fn some_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds(&duration.unwrap_or_default(), serializer)
}

fn usd<S: Serializer>(nano_usd: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Usd(nano_usd.unwrap_or_default()))
}

/// Exact, without trailing zeros: `0.0012`.
struct Usd(i64);

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}", amount / 1_000_000_000)?;
        let (mut fraction, mut width) = (amount % 1_000_000_000, 9);
        if fraction == 0 {
            return Ok(());
        }
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")
    }
}

struct Rfc3339(SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let milli = time.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// Year, month and day of a number of days since 1970. Counts in years that
/// start in March, so that the leap day is the last of its year (Hinnant's
/// `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::telemetry) fn record(request_id: &str) -> AccessRecord<'_> {
        AccessRecord {
            ts: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
            request_id,
            entrypoint: "web",
            client: [192, 0, 2, 1].into(),
            method: "GET",
            host: "example.com",
            path: "/a",
            protocol: "HTTP/1.1",
            route: None,
            service: None,
            target: None,
            status: 200,
            request_bytes: 1,
            response_bytes: 2,
            duration: Duration::from_nanos(1_234_567),
            upstream: None,
            tls_version: None,
            client_certificate: None,
            caller: None,
            fault: None,
            llm: None,
        }
    }

    #[test]
    fn absent_fields_are_left_out() {
        let text = serde_json::to_string(&record("r1")).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"ts":"2023-11-14T22:13:20.042Z","request_id":"r1","entrypoint":"web","#,
                r#""client":"192.0.2.1","method":"GET","host":"example.com","path":"/a","protocol":"HTTP/1.1","#,
                r#""status":200,"request_bytes":1,"response_bytes":2,"duration_ms":1.234}"#
            )
        );
    }

    #[test]
    fn an_llm_request_says_what_it_cost() {
        let llm = LlmRecord {
            model: "m",
            provider: Some("openai"),
            provider_model: None,
            input_tokens: 3,
            output_tokens: 4,
            cost_nano_usd: Some(1_200_000),
            attempts: 2,
            first_token: Some(Duration::from_millis(80)),
            stream: true,
            ending: "complete",
        };
        let text = serde_json::to_value(AccessRecord { llm: Some(llm), ..record("r1") }).unwrap();
        assert_eq!(text["llm"]["cost_usd"], "0.0012");
        assert_eq!(text["llm"]["ttft_ms"], 80.0);
        assert!(text["llm"].get("provider_model").is_none());
    }

    #[test]
    fn amounts_are_exact() {
        for (nano, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (-1_500_000_000, "-1.5"),
            (20_000_000_000, "20"),
            (i64::MIN, "-9223372036.854775808"),
        ] {
            assert_eq!(Usd(nano).to_string(), text);
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), text);
        }
    }
}
