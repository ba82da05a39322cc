//! Errors in the envelope that every Google API uses.

use serde_json::{Map, Value, json};

/// An error: HTTP status, canonical status word and message, with optional details.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) status: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Box<Value>>,
    pub(crate) retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(code: u16, status: &'static str, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into(), details: None, retry_after: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "INVALID_ARGUMENT", message)
    }

    pub(crate) fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The JSON body. Like Cloud Run, it omits the legacy array `errors[]`.
    pub(crate) fn body(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), json!(self.code));
        error.insert("message".into(), json!(self.message));
        error.insert("status".into(), json!(self.status));
        if let Some(details) = &self.details {
            error.insert("details".into(), Value::clone(details));
        }
        json!({ "error": error })
    }
}

/// The canonical status word of an HTTP status.
pub(crate) fn status_word(code: u16) -> &'static str {
    match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        412 => "FAILED_PRECONDITION",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        code if code < 500 => "UNKNOWN",
        _ => "INTERNAL",
    }
}

/// The text of an optimistic-concurrency conflict.
pub(crate) const CONFLICT: &str =
    "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.";

/// An HTML page like that of a front end when the API behind it was not reached.
pub(crate) fn html_page(code: u16) -> String {
    let text = match code {
        404 => "The requested URL was not found on this server.",
        413 => "Your client issued a request that was too large.",
        _ => {
            "The server encountered a temporary error and could not complete your request. Please try again in 30 seconds."
        }
    };
    format!(
        "<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>Error {code}</title>\n<p><b>{code}.</b> <ins>That's an error.</ins>\n<p>{text}\n</html>\n"
    )
}
