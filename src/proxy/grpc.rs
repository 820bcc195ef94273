//! gRPC as far as a proxy must know it: which requests are gRPC, and how a failure
//! is told to a client that reads the status from trailers.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::fault::Fault;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// `application/grpc`, also with a subtype or parameters. gRPC-Web is not: it is
/// ordinary HTTP and needs no trailers.
pub(super) fn is_grpc(head: &RequestHeader) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let Some(rest) = kind.strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// A response without messages whose head is the trailers as well
/// ("Trailers-Only" in the gRPC over HTTP/2 protocol).
pub(super) fn refusal(fault: &Fault) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(6))?;
    head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))?;
    for (name, value) in trailers(fault) {
        if let Some(name) = name {
            head.insert_header(name, value)?;
        }
    }
    Ok(head)
}

/// The end of a response that failed after its head was sent.
pub(super) fn trailers(fault: &Fault) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(STATUS, HeaderValue::from(status(fault.kind.status())));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&fault.message)) {
        trailers.insert(MESSAGE, message);
    }
    trailers
}

/// The status code of gRPC that says what an HTTP status says. Where it is
/// finer than gRPC's own table for foreign responses, it is because we know
/// more: a limit is `RESOURCE_EXHAUSTED`, a timeout `DEADLINE_EXCEEDED`.
fn status(http: u16) -> u16 {
    match http {
        401 => 16,
        402 | 413 | 429 | 431 => 8,
        403 => 7,
        404 | 405 | 501 | 505 => 12,
        408 | 504 => 4,
        421 | 502 | 503 => 14,
        499 => 1,
        400 | 500 => 13,
        _ => 2,
    }
}

/// Printable ASCII but `%` stays as it is; other bytes become `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => {
                let _ = write!(encoded, "%{byte:02X}");
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;

    #[test]
    fn only_grpc_itself_is_grpc() {
        let is = |kind: &str| {
            let mut head = RequestHeader::build("POST", b"/", None).unwrap();
            head.insert_header("content-type", kind).unwrap();
            is_grpc(&head)
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("application/grpc-web+proto") && !is("application/json"));
        assert!(!is_grpc(&RequestHeader::build("POST", b"/", None).unwrap()));
    }

    #[test]
    fn a_fault_is_told_in_two_fields() {
        let told = |kind, message: &'static str| {
            let trailers = trailers(&Fault::new(kind, message));
            (trailers[STATUS].clone(), trailers[MESSAGE].clone())
        };
        assert_eq!(
            told(FaultKind::UpstreamConnect, "gone: 100 %"),
            ("14".parse().unwrap(), "gone: 100 %25".parse().unwrap())
        );
        assert_eq!(told(FaultKind::RateLimited, "zu viel ü").1, "zu viel %C3%BC");
        assert_eq!(told(FaultKind::UpstreamTimeout, "").0, "4");
    }
}
