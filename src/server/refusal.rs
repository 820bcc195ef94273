//! What the front answers by itself, before there is a request for the engine.

use http::StatusCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) detail: &'static str,
}

impl Refusal {
    pub(super) const METHOD: Self = Self { status: 405, detail: "the method is not supported" };
    pub(super) const TOO_SLOW: Self = Self { status: 408, detail: "the request head did not arrive in time" };
    pub(super) const TARGET_TOO_LONG: Self = Self { status: 414, detail: "the request target is too long" };
    pub(super) const EXPECTATION: Self = Self { status: 417, detail: "the expectation cannot be met" };
    pub(super) const TOO_LARGE: Self = Self { status: 431, detail: "the request head is too large" };
    pub(super) const CODING: Self = Self { status: 501, detail: "the transfer coding is not supported" };
    pub(super) const VERSION: Self = Self { status: 505, detail: "the version of HTTP is not supported" };

    pub(super) const fn bad(detail: &'static str) -> Self {
        Self { status: 400, detail }
    }

    /// A whole response: problem+json (RFC 9457), and the connection ends.
    pub(super) fn answer(self) -> Vec<u8> {
        let title = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default();
        let body = serde_json::json!({
            "type": format!("urn:tollgate:problem:{}", title.to_ascii_lowercase().replace(' ', "-")),
            "title": title,
            "status": self.status,
            "detail": self.detail,
        })
        .to_string();
        // Required with 405 (RFC 9110 section 15.5.6).
        let allow = match self.status {
            405 => "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {} {title}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             {allow}connection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }
}
