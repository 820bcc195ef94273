//! HTTP for endpoint plugins: a request in, a response out, both able to stream.

use std::fmt;

use serde::Serialize;

mod problem;
mod query;
#[doc(hidden)]
pub mod wasi;

pub use problem::Problem;

/// A request as the host passes it on. The identity headers are set by the
/// host; a client's own are removed before they get here.
pub struct Request {
    /// As sent, for example `GET`.
    pub method: String,
    /// Still percent-encoded, without the query.
    pub path: String,
    pub query: Option<String>,
    /// Names in lower case. Values that are not valid UTF-8 are left out.
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

/// Who asks, as the host established it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holder of the admin token: may see and change everything.
    Operator,
    /// An authenticated caller of its tenant.
    Caller,
    /// Nobody known.
    Anonymous,
}

impl Request {
    /// A request without headers and body, for tests to start from.
    pub fn new(method: &str, path_and_query: &str) -> Self {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (path_and_query, None),
        };
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            headers: Vec::new(),
            body: Body::empty(),
        }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::from(body.into());
        self
    }

    /// First value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn role(&self) -> Role {
        match self.header("tollgate-role") {
            Some("operator") => Role::Operator,
            Some("caller") => Role::Caller,
            _ => Role::Anonymous,
        }
    }

    /// The asking tenant; empty for an operator.
    pub fn tenant(&self) -> &str {
        self.header("tollgate-tenant").unwrap_or_default()
    }

    pub fn request_id(&self) -> &str {
        self.header("tollgate-request-id").unwrap_or_default()
    }

    /// Decoded path segments after the optional `/api/v1`. An escape that is
    /// not UTF-8 or holds a slash is left as it was sent.
    pub fn segments(&self) -> Vec<String> {
        let path = match self.path.strip_prefix("/api/v1") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ => &self.path,
        };
        path.split('/').filter(|segment| !segment.is_empty()).map(query::decode_segment).collect()
    }

    /// First value of a query parameter, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        query::parameter(self.query.as_deref()?, name)
    }
}

/// A request body, read in the pieces in which it arrives.
pub struct Body(Box<dyn Iterator<Item = Result<Vec<u8>, BodyError>>>);

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    /// The client or the host ended it early.
    Broken,
}

impl Body {
    pub fn empty() -> Self {
        Self(Box::new(std::iter::empty()))
    }

    /// All of it, if it is no longer than `limit` bytes.
    pub fn read(self, limit: usize) -> Result<Vec<u8>, BodyError> {
        let mut bytes = Vec::new();
        for piece in self {
            let piece = piece?;
            if bytes.len() + piece.len() > limit {
                return Err(BodyError::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Box::new(std::iter::once(Ok(bytes))))
    }
}

impl Iterator for Body {
    type Item = Result<Vec<u8>, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

/// An answer. `Content-Length` is set by the SDK for a whole body.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: ResponseBody,
}

pub enum ResponseBody {
    Whole(Vec<u8>),
    /// Sent piece by piece, each flushed. An error cuts the response short, so
    /// that the client sees it as broken.
    Stream(Box<dyn Iterator<Item = Result<Vec<u8>, BodyError>>>),
}

impl Response {
    /// No body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: ResponseBody::Whole(Vec::new()) }
    }

    pub fn json(status: u16, value: &impl Serialize) -> Self {
        // Only a map with keys that are not strings, or a failing Serialize,
        // cannot be written; neither exists in a response type.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Self::whole(status, "application/json", body)
    }

    pub fn whole(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: ResponseBody::Whole(body.into()),
        }
    }

    pub fn stream(
        content_type: &str,
        pieces: impl Iterator<Item = Result<Vec<u8>, BodyError>> + 'static,
    ) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: ResponseBody::Stream(Box::new(pieces)),
        }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}
