//! What an answer of Google means, and what to do about it.

use std::time::Duration;

use crate::target::{ErrorClass, ErrorKind, RefusalCause, Refused, TargetError};

/// Why a call to Google gave no result. `message` is Google's own text, without control characters and of bounded
/// length; it may name a person, so that it belongs into status, not into logs at level info or below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoogleError {
    /// 409 `ABORTED`: the policy changed since it was read.
    #[error("the policy changed between read and write")]
    Conflict,
    /// 403.
    #[error("google denied the call: {message}")]
    Denied {
        /// The permission that is missing, when the answer names it.
        permission: Option<String>,
        /// Google's text.
        message: String,
    },
    /// 403 because the API is switched off in the project.
    #[error("the API is not enabled in the project: {message}")]
    ApiDisabled {
        /// Google's text.
        message: String,
    },
    /// 404 from the API itself: the resource does not exist. A 404 page of a front end is [`GoogleError::Unavailable`].
    #[error("google has no such resource: {message}")]
    NotFound {
        /// Google's text.
        message: String,
    },
    /// 400, and other answers that say the request itself is wrong.
    #[error("google refused the request: {message}")]
    Refused {
        /// Which refusal.
        cause: RefusalCause,
        /// Google's text.
        message: String,
        /// The member of the written policy that Google complains about, when the text tells.
        member: Option<String>,
        /// The role that Google complains about, when the text tells.
        role: Option<String>,
    },
    /// 429, or the 403 that is a quota.
    #[error("google's quota is spent: {message}")]
    Throttled {
        /// How long Google asks to wait, if it does.
        retry_after: Option<Duration>,
        /// Google's text.
        message: String,
    },
    /// Google cannot be reached, or a read failed on its side. Nothing was committed.
    #[error("google is unavailable: {message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// A write that may have been committed: timeout, connection lost, any 5xx, an answer that cannot be read.
    #[error("the outcome of the write is unknown: {message}")]
    Unknown {
        /// What happened.
        message: String,
    },
    /// A read was answered with something that is not what the API documents.
    #[error("google's answer cannot be understood: {message}")]
    Malformed {
        /// What is wrong with it.
        message: String,
    },
    /// 401, or no credentials could be had.
    #[error("the credentials were not accepted: {message}")]
    Unauthenticated {
        /// What happened.
        message: String,
    },
    /// A policy without etag, read or about to be written. Writing it would overwrite whatever is there.
    #[error("the policy has no etag, so it cannot be written safely")]
    EtagMissing,
    /// A policy of a version that does not exist today.
    #[error("the policy has version {version}, of which only 0, 1 and 3 are known")]
    PolicyUnknownVersion {
        /// The version it has.
        version: i32,
    },
    /// A policy in which conditions were replaced by `_withcond_` role names. Writing it would lose the conditions.
    #[error("the policy shows conditions as role names only (`{role}`), so it cannot be written safely")]
    ConditionsHidden {
        /// The first such role.
        role: String,
    },
}

impl GoogleError {
    /// Every word that [`GoogleError::reason`] gives, for the lists that must know them all.
    pub const REASONS: &[&str] = &[
        "EtagConflict",
        "PermissionDenied",
        "ApiDisabled",
        "ResourceNotFound",
        "MemberRefused",
        "DomainRestricted",
        "RoleNotSupported",
        "PolicyFull",
        "PolicyRefused",
        "Throttled",
        "GoogleUnavailable",
        "OutcomeUnknown",
        "GoogleMalformed",
        "Unauthenticated",
        "EtagMissing",
        "PolicyUnknownVersion",
        "ConditionsHidden",
    ];

    /// The one stable word for conditions, events, metrics and the audit row.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict => "EtagConflict",
            Self::Denied { .. } => "PermissionDenied",
            Self::ApiDisabled { .. } => "ApiDisabled",
            Self::NotFound { .. } => "ResourceNotFound",
            Self::Refused { cause, .. } => cause.reason(),
            Self::Throttled { .. } => "Throttled",
            Self::Unavailable { .. } => "GoogleUnavailable",
            Self::Unknown { .. } => "OutcomeUnknown",
            Self::Malformed { .. } => "GoogleMalformed",
            Self::Unauthenticated { .. } => "Unauthenticated",
            Self::EtagMissing => "EtagMissing",
            Self::PolicyUnknownVersion { .. } => "PolicyUnknownVersion",
            Self::ConditionsHidden { .. } => "ConditionsHidden",
        }
    }

    /// What follows from it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.kind().class()
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict => ErrorKind::Conflict,
            Self::Throttled { retry_after, .. } => ErrorKind::Throttled { retry_after: *retry_after },
            Self::Unknown { .. } => ErrorKind::Unknown,
            Self::Unavailable { .. } | Self::Malformed { .. } | Self::Unauthenticated { .. } | Self::EtagMissing => {
                ErrorKind::Unavailable
            }
            Self::Denied { permission, .. } => ErrorKind::Denied { permission: permission.clone() },
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Refused { cause, message, member, role } => ErrorKind::Refused(Refused {
                cause: *cause,
                member: member.clone(),
                role: role.clone(),
                message: message.clone(),
            }),
            Self::ApiDisabled { .. } | Self::PolicyUnknownVersion { .. } | Self::ConditionsHidden { .. } => {
                ErrorKind::Rejected
            }
        }
    }

    /// How long Google asks to wait before the next call, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<GoogleError> for TargetError {
    fn from(error: GoogleError) -> Self {
        Self { kind: error.kind(), reason: error.reason(), message: error.to_string() }
    }
}
