//! The meaning of Google's errors, and the reaction to them.

use crate::model::Reason;
use std::time::Duration;

use crate::target::{ErrorKind, RefusalCause, Refused, TargetError};

/// Why a call to Google failed. `message` is Google's own text, without control characters and of bounded length; it
/// may name a person, so it belongs into status, not into logs at level info or below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GoogleError {
    /// 409 `ABORTED`: the policy changed since it was read.
    #[error("the policy changed between read and write")]
    Conflict,
    /// 403.
    #[error("google denied the call: {message}")]
    Denied {
        /// The missing permission, if the answer names it.
        permission: Option<String>,
        /// Google's text.
        message: String,
    },
    /// 403 because the API is disabled in the project.
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
        /// The cause.
        cause: RefusalCause,
        /// Google's text.
        message: String,
        /// The refused member of the written policy, if the text names it.
        member: Option<String>,
        /// Further members that the details name.
        others: Vec<String>,
        /// The refused role, if the text names it.
        role: Option<String>,
    },
    /// 429, or a 403 that means a quota.
    #[error("google's quota is spent: {message}")]
    Throttled {
        /// The delay that Google asks for, if any.
        retry_after: Option<Duration>,
        /// The calls per minute that the quota permits, if the answer says so.
        per_minute: Option<u32>,
        /// Google's text.
        message: String,
    },
    /// Google cannot be reached, or a read failed on its side. Nothing was committed.
    #[error("google is unavailable: {message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// A write that may have been committed: timeout, connection lost, any 5xx, or an unreadable answer.
    #[error("the outcome of the write is unknown: {message}")]
    Unknown {
        /// What happened.
        message: String,
    },
    /// The answer to a read does not conform to the API's documentation.
    #[error("google's answer cannot be understood: {message}")]
    Malformed {
        /// What is wrong with it.
        message: String,
    },
    /// 401, or no credentials could be obtained.
    #[error("the credentials were not accepted: {message}")]
    Unauthenticated {
        /// What happened.
        message: String,
    },
    /// A policy without etag, read or about to be written. Writing it would overwrite whatever is stored.
    #[error("the policy has no etag, so it cannot be written safely")]
    EtagMissing,
    /// A policy of an unknown version.
    #[error("the policy has version {version}, of which only 0, 1 and 3 are known")]
    PolicyUnknownVersion {
        /// The version.
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
    /// The one stable word for conditions, events, metrics and the audit row.
    #[must_use]
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Conflict => Reason::EtagConflict,
            Self::Denied { .. } => Reason::PermissionDenied,
            Self::ApiDisabled { .. } => Reason::ApiDisabled,
            Self::NotFound { .. } => Reason::ResourceNotFound,
            Self::Refused { cause, .. } => cause.reason(),
            Self::Throttled { .. } => Reason::Throttled,
            Self::Unavailable { .. } => Reason::GoogleUnavailable,
            Self::Unknown { .. } => Reason::OutcomeUnknown,
            Self::Malformed { .. } => Reason::GoogleMalformed,
            Self::Unauthenticated { .. } => Reason::Unauthenticated,
            Self::EtagMissing => Reason::EtagMissing,
            Self::PolicyUnknownVersion { .. } => Reason::PolicyUnknownVersion,
            Self::ConditionsHidden { .. } => Reason::ConditionsHidden,
        }
    }

    /// The reaction to this error.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn class(&self) -> crate::target::ErrorClass {
        self.kind().class()
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict => ErrorKind::Conflict,
            Self::Throttled { retry_after, per_minute, .. } => {
                ErrorKind::Throttled { retry_after: *retry_after, per_minute: *per_minute }
            }
            Self::Unknown { .. } => ErrorKind::Unknown,
            Self::Unavailable { .. } | Self::Malformed { .. } | Self::Unauthenticated { .. } | Self::EtagMissing => {
                ErrorKind::Unavailable
            }
            Self::Denied { permission, .. } => ErrorKind::Denied { permission: permission.clone() },
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Refused { cause, message, member, others, role } => ErrorKind::Refused(Box::new(Refused {
                cause: *cause,
                member: member.clone(),
                others: others.clone(),
                role: role.clone(),
                message: message.clone(),
            })),
            Self::ApiDisabled { .. } | Self::PolicyUnknownVersion { .. } | Self::ConditionsHidden { .. } => {
                ErrorKind::Rejected
            }
        }
    }

    /// The delay that Google asks for before the next call, if any.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
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
