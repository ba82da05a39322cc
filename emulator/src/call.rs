//! A parsed request to the emulator, and its answer.

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::ApiError;

/// A parsed request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// The path, percent-decoded, without query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// Host name that the client intended, without port.
    pub(crate) host: String,
    pub(crate) bearer: Option<String>,
    /// True when `Metadata-Flavor: Google` was sent.
    pub(crate) metadata_flavor: bool,
    pub(crate) body: Bytes,
}

impl Call {
    /// The first value of a query parameter; an empty value counts as absent.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        form_value(&self.query, name)
    }

    /// A whole-number parameter.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.parameter(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::invalid(format!("Invalid value at '{name}' (TYPE_INT32), \"{text}\"")))
            })
            .transpose()
    }
}

/// A value of an `application/x-www-form-urlencoded` text.
pub(crate) fn form_value(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        (decode(key) == name && !value.is_empty()).then(|| decode(value))
    })
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Json(u16, Value),
    Error(ApiError),
    /// An injected error and its `Retry-After`.
    Injected(u16, Value, Option<u64>),
    Html(u16),
    /// The plain text of a metadata server.
    Text(String),
    /// Any bytes under the JSON content type.
    Raw(u16, Bytes),
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Json(status, _) | Self::Html(status) | Self::Raw(status, _) | Self::Injected(status, ..) => *status,
            Self::Error(error) => error.code,
            Self::Text(_) => 200,
        }
    }
}

impl From<Result<Value, ApiError>> for Reply {
    fn from(result: Result<Value, ApiError>) -> Self {
        match result {
            Ok(value) => Self::Json(200, value),
            Err(error) => Self::Error(error),
        }
    }
}
