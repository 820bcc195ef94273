//! Errors as `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use serde::Serialize;

use super::{BodyError, Request, Response, Role};

/// Why an endpoint refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: u16,
    /// The document's `type`, the same labels as the gateway's own errors.
    pub label: &'static str,
    pub detail: Cow<'static, str>,
    /// Methods for the `Allow` header of a 405.
    pub allow: Option<&'static str>,
}

impl Problem {
    pub fn new(status: u16, label: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, label, detail: detail.into(), allow: None }
    }

    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "bad-request", detail)
    }

    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(403, "forbidden", detail)
    }

    pub fn not_found() -> Self {
        Self::new(404, "not-found", "there is nothing at this path")
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(405, "method-not-allowed", format!("use {allow}")) }
    }

    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(503, "store-unavailable", detail)
    }

    /// The error unless an operator asks.
    pub fn unless_operator(request: &Request) -> Result<(), Self> {
        match request.role() {
            Role::Operator => Ok(()),
            Role::Caller | Role::Anonymous => Err(Self::forbidden("this needs the admin token")),
        }
    }

    pub fn into_response(self, request_id: &str) -> Response {
        let document = Document {
            kind: format!("urn:tollgate:problem:{}", self.label),
            title: title(self.status),
            status: self.status,
            detail: &self.detail,
            request_id,
        };
        let mut response = Response::json(self.status, &document);
        response.headers = vec![("content-type".to_owned(), "application/problem+json".to_owned())];
        match self.allow {
            Some(allow) => response.with_header("allow", allow),
            None => response,
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::new(413, "body-too-large", "the body is too large"),
            BodyError::Broken => Self::bad_request("the body ended early"),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        503 => "Service Unavailable",
        _ => "Error",
    }
}
