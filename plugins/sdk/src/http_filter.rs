//! Conveniences on the generated filter types.

use crate::{RequestHead, ResponseHead};

impl RequestHead {
    /// First value of a subscribed header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

impl ResponseHead {
    /// First value of a subscribed header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

fn first<'a>(headers: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// Edits in few words.
pub mod edit {
    use crate::Edit;

    /// Replaces all values of a header.
    pub fn set(name: &str, value: &str) -> Edit {
        Edit::SetHeader((name.to_owned(), value.to_owned()))
    }

    /// Adds one more value.
    pub fn append(name: &str, value: &str) -> Edit {
        Edit::AppendHeader((name.to_owned(), value.to_owned()))
    }

    pub fn remove(name: &str) -> Edit {
        Edit::RemoveHeader(name.to_owned())
    }

    /// Replaces path and query of a request.
    pub fn path(path_and_query: &str) -> Edit {
        Edit::SetPath(path_and_query.to_owned())
    }

    /// Replaces the status of a response.
    pub fn status(status: u16) -> Edit {
        Edit::SetStatus(status)
    }
}
