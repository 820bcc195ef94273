//! One record per connection that was passed on as bytes. Like a request's, it
//! has no field for what was said on it.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::access_record::{milliseconds, timestamp};

#[derive(Debug, Serialize)]
pub struct StreamRecord<'a> {
    /// Arrival of the connection; RFC 3339, milliseconds, UTC.
    #[serde(serialize_with = "timestamp")]
    pub ts: SystemTime,
    pub entrypoint: &'a str,
    pub client: IpAddr,
    /// `TLS` where a ClientHello was seen, otherwise `TCP`.
    pub protocol: &'a str,
    /// The name that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
    pub stream: &'a str,
    pub service: &'a str,
    /// `host:port`; absent when no target took the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<&'a str>,
    /// From the client, as passed on.
    pub request_bytes: u64,
    /// To the client.
    pub response_bytes: u64,
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Where TLS was ended here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<&'a str>,
    /// Why it ended before both sides had finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_are_left_out() {
        let record = StreamRecord {
            ts: SystemTime::UNIX_EPOCH,
            entrypoint: "db",
            client: [192, 0, 2, 1].into(),
            protocol: "TCP",
            sni: None,
            stream: "all",
            service: "postgres",
            target: None,
            request_bytes: 1,
            response_bytes: 2,
            duration: Duration::from_millis(3),
            tls_version: None,
            fault: Some("upstream-connect"),
        };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            concat!(
                r#"{"ts":"1970-01-01T00:00:00.000Z","entrypoint":"db","client":"192.0.2.1","protocol":"TCP","#,
                r#""stream":"all","service":"postgres","request_bytes":1,"response_bytes":2,"duration_ms":3.0,"#,
                r#""fault":"upstream-connect"}"#
            )
        );
    }
}
