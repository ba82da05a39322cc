//! Error answers of the server (RFC 7644 §3.12).

use serde_json::{Map, Value, json};

use super::finding::{FindingCode, Findings, Limit, Refusal};
use super::parse;
use super::schema::{ERROR_URN, ResourceType};
use crate::model::Reason;

/// A refusal. Every variant is one situation with one status, at most one `scimType` and one stable reason word. The
/// text says what is wrong, where, and how to fix it, and never repeats a token or much of a person's data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScimError {
    /// The body is not JSON of the expected form (400 `invalidSyntax`).
    #[error("{0}")]
    InvalidSyntax(String),
    /// The filter does not parse, is too large, or uses an attribute that cannot be filtered on (400 `invalidFilter`).
    #[error("{0}")]
    InvalidFilter(String),
    /// The PATCH path does not parse or leads to nothing that can be changed this way (400 `invalidPath`).
    #[error("{0}")]
    InvalidPath(String),
    /// An operation has no target (400 `noTarget`).
    #[error("{0}")]
    NoTarget(String),
    /// A value is missing or of the wrong type (400 `invalidValue`).
    #[error("{0}")]
    InvalidValue(String),
    /// The attribute cannot be changed (400 `mutability`).
    #[error("{0}")]
    Mutability(String),
    /// The request exceeds the work limit of one request (400 `tooMany`).
    #[error("{0}")]
    TooMany(String),
    /// The cursor is not one of this server, or of another list (400 `invalidCursor`, RFC 9865).
    #[error("the cursor is not one of this list; begin again with an empty `cursor`")]
    InvalidCursor,
    /// The cursor is too old (400 `expiredCursor`, RFC 9865).
    #[error("the cursor has expired; begin again with an empty `cursor`")]
    ExpiredCursor,
    /// `count` is no number of results (400 `invalidCount`, RFC 9865).
    #[error("`count` must be a whole number that is not negative")]
    InvalidCount,
    /// The value already belongs to another resource (409 `uniqueness`).
    #[error("{0}")]
    Uniqueness(String),
    /// No acceptable token (401). All causes have the same text, so that it reveals nothing.
    #[error("the bearer token is missing or not accepted here")]
    Unauthorized,
    /// Filtering discovery documents is not allowed (403, RFC 7644 §4).
    #[error("{0}")]
    Forbidden(String),
    /// No such resource or route (404).
    #[error("{0}")]
    NotFound(String),
    /// The route has no such method (405).
    #[error("the method is not allowed here; use {0}")]
    MethodNotAllowed(&'static str),
    /// The request was not complete in time (408).
    #[error("the request took too long")]
    RequestTimeout,
    /// `If-Match` has another version (412).
    #[error("the resource has changed since the version that `If-Match` names; read it again")]
    PreconditionFailed,
    /// The body is over the limit (413).
    #[error("the request body is larger than {limit} bytes; send fewer members or resources in one request")]
    PayloadTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A bulk request of too many operations (413, RFC 7644 §3.7.3).
    #[error("a bulk request has at most {limit} operations; send them in several requests")]
    TooManyOperations {
        /// The limit.
        limit: usize,
    },
    /// Not a JSON media type (415).
    #[error("the content type must be `application/scim+json` or `application/json`")]
    UnsupportedMediaType,
    /// Over a limit of the token or of the provider (429), or over one of the whole server (503).
    #[error("{}; try again in {retry_after} s", .limit.as_text())]
    TooManyRequests {
        /// The limit.
        limit: Limit,
        /// Seconds to wait.
        retry_after: u64,
    },
    /// An internal error (500). The cause is in the log, not in the answer.
    #[error("the server could not answer; its log has the cause")]
    Internal,
    /// A part of SCIM that this server does not implement (501).
    #[error("{0}")]
    NotImplemented(String),
    /// The identity provider has reached its storage quota (507).
    #[error("{0}")]
    QuotaExceeded(String),
    /// Nothing was stored; the same request may be retried (503).
    #[error("the directory cannot be reached now, and nothing was stored; try again in {retry_after} s")]
    Unavailable {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// The stored data belongs to a former provider of this name; nothing is read or stored (503).
    #[error(
        "the stored people and groups belong to a former IdentityProvider of this name: nothing is read or \
         stored until an administrator accepts them (`rolecall store accept-provider`) or deletes them (`rolecall store \
         purge-provider`)"
    )]
    FormerDirectory {
        /// Seconds to wait.
        retry_after: u64,
    },
}

impl ScimError {
    /// The HTTP status code.
    #[must_use]
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::InvalidSyntax(_)
            | Self::InvalidFilter(_)
            | Self::InvalidPath(_)
            | Self::NoTarget(_)
            | Self::InvalidValue(_)
            | Self::Mutability(_)
            | Self::TooMany(_)
            | Self::InvalidCursor
            | Self::ExpiredCursor
            | Self::InvalidCount => 400,
            Self::Unauthorized => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::RequestTimeout => 408,
            Self::Uniqueness(_) => 409,
            Self::PreconditionFailed => 412,
            Self::PayloadTooLarge { .. } | Self::TooManyOperations { .. } => 413,
            Self::UnsupportedMediaType => 415,
            Self::TooManyRequests { limit, .. } if *limit != Limit::ServerRequests => 429,
            Self::Internal => 500,
            Self::NotImplemented(_) => 501,
            Self::TooManyRequests { .. } | Self::Unavailable { .. } | Self::FormerDirectory { .. } => 503,
            Self::QuotaExceeded(_) => 507,
        }
    }

    /// The `scimType` of RFC 7644 table 9, if there is one.
    #[must_use]
    pub(crate) fn scim_type(&self) -> Option<&'static str> {
        match self {
            Self::InvalidSyntax(_) => Some("invalidSyntax"),
            Self::InvalidFilter(_) => Some("invalidFilter"),
            Self::InvalidPath(_) => Some("invalidPath"),
            Self::NoTarget(_) => Some("noTarget"),
            Self::InvalidValue(_) => Some("invalidValue"),
            Self::Mutability(_) => Some("mutability"),
            Self::TooMany(_) => Some("tooMany"),
            Self::InvalidCursor => Some("invalidCursor"),
            Self::ExpiredCursor => Some("expiredCursor"),
            Self::InvalidCount => Some("invalidCount"),
            Self::Uniqueness(_) => Some("uniqueness"),
            _ => None,
        }
    }

    /// A stable word for logs and metrics.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::InvalidSyntax(_) => "InvalidSyntax",
            Self::InvalidFilter(_) => "InvalidFilter",
            Self::InvalidPath(_) => "InvalidPath",
            Self::NoTarget(_) => "NoTarget",
            Self::InvalidValue(_) => "InvalidValue",
            Self::Mutability(_) => "Mutability",
            Self::TooMany(_) => "TooMany",
            Self::InvalidCursor => "InvalidCursor",
            Self::ExpiredCursor => "ExpiredCursor",
            Self::InvalidCount => "InvalidCount",
            Self::Uniqueness(_) => "Uniqueness",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden(_) => "Forbidden",
            Self::NotFound(_) => "NotFound",
            Self::MethodNotAllowed(_) => "MethodNotAllowed",
            Self::RequestTimeout => "RequestTimeout",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::PayloadTooLarge { .. } => "PayloadTooLarge",
            Self::TooManyOperations { .. } => "TooManyOperations",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::TooManyRequests { .. } => "TooManyRequests",
            Self::Internal => "Internal",
            Self::NotImplemented(_) => "NotImplemented",
            Self::Unavailable { .. } => "Unavailable",
            Self::FormerDirectory { .. } => Reason::IdentityProviderChanged.word(),
            Self::QuotaExceeded(_) => Reason::QuotaExceeded.word(),
        }
    }

    /// What the provider's status says about this refusal; none where it is no mistake of the client (404 of a resource, 412) or
    /// reported elsewhere.
    #[must_use]
    pub(crate) fn finding(&self) -> Option<FindingCode> {
        let refusal = match self {
            Self::InvalidSyntax(_) => Refusal::InvalidSyntax,
            Self::InvalidFilter(_) => Refusal::InvalidFilter,
            Self::InvalidPath(_) => Refusal::InvalidPath,
            Self::NoTarget(_) => Refusal::NoTarget,
            Self::InvalidValue(_) | Self::InvalidCursor | Self::InvalidCount => Refusal::InvalidValue,
            Self::Mutability(_) => Refusal::Mutability,
            Self::TooMany(_) => Refusal::TooMany,
            Self::Uniqueness(_) => Refusal::Uniqueness,
            Self::MethodNotAllowed(_) => Refusal::MethodNotAllowed,
            Self::RequestTimeout => Refusal::RequestTimeout,
            Self::PayloadTooLarge { .. } | Self::TooManyOperations { .. } => Refusal::PayloadTooLarge,
            Self::UnsupportedMediaType => Refusal::UnsupportedMediaType,
            Self::TooManyRequests { limit, .. } => Refusal::TooManyRequests(*limit),
            Self::NotImplemented(_) => Refusal::NotImplemented,
            Self::QuotaExceeded(_) => Refusal::QuotaExceeded,
            Self::Unauthorized
            | Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::PreconditionFailed
            // A cursor that has expired is part of paging.
            | Self::ExpiredCursor
            | Self::Internal
            | Self::Unavailable { .. }
            | Self::FormerDirectory { .. } => return None,
        };
        Some(FindingCode::Refused(refusal))
    }

    /// The attribute that the refusal is about, if its text names one. Never a value: texts may quote what the client sent.
    #[must_use]
    pub(crate) fn attribute(&self) -> Option<String> {
        if let Self::TooManyRequests { limit, .. } = self {
            return Some(limit.field().to_owned());
        }
        let text = self.to_string();
        let unknown = text.split_once("has no attribute `").map(|(_, name)| name);
        let subject = || {
            let text =
                text.strip_prefix("operation ").and_then(|rest| rest.split_once(": ")).map_or(&*text, |(_, text)| text);
            text.strip_prefix('`')
        };
        let name = unknown.or_else(subject)?.split('`').next()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-$".contains(&byte);
        let is_known = || {
            let path = parse::patch_path(name, &mut Findings::new()).ok()?;
            ResourceType::ALL.into_iter().find_map(|of| of.resolve(&path.attribute))
        };
        let is_name = name.len() <= 100 && name.bytes().all(plain) && (unknown.is_some() || is_known().is_some());
        is_name.then(|| name.to_owned())
    }

    /// Seconds after which the client may try again: the `Retry-After` header of 429 and 503.
    #[must_use]
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests { retry_after, .. }
            | Self::Unavailable { retry_after }
            | Self::FormerDirectory { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// The error message of RFC 7644 §3.12; `status` is a string there.
    #[must_use]
    pub(crate) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("schemas".into(), json!([ERROR_URN]));
        body.insert("status".into(), Value::String(self.status().to_string()));
        if let Some(scim_type) = self.scim_type() {
            body.insert("scimType".into(), Value::String(scim_type.into()));
        }
        body.insert("detail".into(), Value::String(self.to_string()));
        Value::Object(body)
    }

    /// The same in the body of a POST or PUT. In a PUT the id of the URL counts; another one in the body is a wrong value
    /// (RFC 7644 §3.5.1). The keys of a body are not paths.
    #[must_use]
    pub(super) fn of_body(self) -> Self {
        match self {
            Self::Mutability(text) | Self::InvalidPath(text) => Self::InvalidValue(text),
            other => other,
        }
    }

    /// The same refusal, with the index of the operation before its text.
    #[must_use]
    pub(super) fn in_operation(self, index: usize) -> Self {
        let at = |text: String| format!("operation {index}: {text}");
        match self {
            Self::InvalidSyntax(text) => Self::InvalidSyntax(at(text)),
            Self::InvalidFilter(text) => Self::InvalidFilter(at(text)),
            Self::InvalidPath(text) => Self::InvalidPath(at(text)),
            Self::NoTarget(text) => Self::NoTarget(at(text)),
            Self::InvalidValue(text) => Self::InvalidValue(at(text)),
            Self::Mutability(text) => Self::Mutability(at(text)),
            Self::TooMany(text) => Self::TooMany(at(text)),
            other => other,
        }
    }
}

/// At most 60 characters of `text`, so that an error identifies the input without repeating all of it.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}
