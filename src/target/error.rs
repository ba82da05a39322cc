//! The meaning of a target's errors, and the reaction to them.

use crate::model::{Reason, ResourceKind};
use std::time::Duration;

/// The reaction to an error. It alone decides whether an intent is cleared and when the document is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ErrorClass {
    /// Certainly not committed; the same call may succeed later. Back off.
    Retry,
    /// Certainly not committed; the same call will be refused until somebody fixes something.
    Definitive,
    /// Certainly not committed; read again, plan again, write again.
    Conflict,
    /// Certainly not committed; the quota is exceeded. Wait as long as the target asks, or back off.
    Throttle,
    /// A write whose outcome is not known. Keep the intent and read.
    Unknown,
}

/// An error of a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct TargetError {
    /// The kind of the error.
    pub(crate) kind: ErrorKind,
    /// The one stable word for conditions, events, metrics and the audit row.
    pub(crate) reason: Reason,
    /// Message for people, in the target's own words, without control characters and of bounded length. It may name a
    /// person, so it belongs into status, not into logs at level info or below.
    pub(crate) message: String,
}

/// The kinds of errors that are handled differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The document changed since it was read.
    Conflict,
    /// The caller lacks a permission.
    Denied {
        /// The missing permission, if the answer names it.
        permission: Option<String>,
    },
    /// There is no such resource.
    NotFound,
    /// The content of the write was refused.
    Refused(Box<Refused>),
    /// Refused until somebody fixes something other than the content.
    Rejected,
    /// The quota is exceeded.
    Throttled {
        /// The delay that the target asks for, if any.
        retry_after: Option<Duration>,
        /// The calls per minute that the quota permits to all clients together, if the answer says so.
        per_minute: Option<u32>,
    },
    /// The target cannot be reached, or cannot answer now. Nothing was committed.
    Unavailable,
    /// A write that may have been committed.
    Unknown,
}

/// The part of a write that a target refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The cause.
    pub(crate) cause: RefusalCause,
    /// The refused member, if the target names it.
    pub(crate) member: Option<String>,
    /// Further members that the target names.
    pub(crate) others: Vec<String>,
    /// The refused role, if the target names it.
    pub(crate) role: Option<String>,
    /// The target's own words; see [`TargetError::message`].
    pub(crate) message: String,
}

impl Refused {
    /// All members that the target names.
    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        self.member.iter().chain(&self.others).map(String::as_str)
    }
}

/// Why the content of a write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RefusalCause {
    /// A member refers to an account that the target does not know.
    PrincipalUnknown,
    /// A member that this role or resource does not accept (`allUsers`).
    PrincipalRefused,
    /// A member whose account is of another type, such as a group named as a user.
    PrincipalType,
    /// A member without a type, or otherwise malformed.
    PrincipalMalformed,
    /// Domain-restricted sharing: a member is outside the permitted organizations.
    DomainRestricted,
    /// Another policy of the organization forbids the content of the document.
    OrganizationPolicy,
    /// The role does not apply to this kind of resource, or does not exist.
    RoleNotSupported,
    /// A condition that the target does not understand, or does not take here.
    Condition,
    /// More members than a document may have, or a document that is too large.
    LimitExceeded,
    /// Anything else.
    Other,
}

impl RefusalCause {
    /// All causes.
    pub(crate) const ALL: [Self; 10] = [
        Self::PrincipalUnknown,
        Self::PrincipalRefused,
        Self::PrincipalType,
        Self::PrincipalMalformed,
        Self::DomainRestricted,
        Self::OrganizationPolicy,
        Self::RoleNotSupported,
        Self::Condition,
        Self::LimitExceeded,
        Self::Other,
    ];

    /// The stable word for this refusal. Causes with the same remedy have the same word.
    #[must_use]
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::PrincipalUnknown | Self::PrincipalRefused | Self::PrincipalMalformed => Reason::MemberRefused,
            Self::PrincipalType => Reason::PrincipalTypeMismatch,
            Self::DomainRestricted => Reason::DomainRestricted,
            Self::OrganizationPolicy => Reason::DeniedByOrgPolicy,
            Self::RoleNotSupported => Reason::RoleNotSupported,
            Self::Condition => Reason::ConditionRefused,
            Self::LimitExceeded => Reason::PolicyFull,
            Self::Other => Reason::PolicyRefused,
        }
    }

    /// The static word equal to a stored one.
    #[must_use]
    pub(crate) fn known_reason(word: &str) -> Option<Reason> {
        Self::ALL.into_iter().map(Self::reason).find(|known| known.word() == word)
    }
}

impl TargetError {
    /// True when the document changed since it was read.
    #[must_use]
    pub(crate) fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }

    /// True when there is no such resource.
    #[must_use]
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// The reaction to this error.
    #[must_use]
    pub(crate) fn class(&self) -> ErrorClass {
        self.kind.class()
    }

    /// The permission that is missing, if the call was denied.
    #[must_use]
    pub(crate) fn missing_permission(&self) -> Option<&str> {
        match &self.kind {
            ErrorKind::Denied { permission } => permission.as_deref(),
            _ => None,
        }
    }

    /// Names the permission that a denied call needs, unless the answer names it.
    pub(super) fn lacks(&mut self, kind: ResourceKind, verb: &str) {
        if let ErrorKind::Denied { permission } = &mut self.kind {
            permission.get_or_insert_with(|| format!("run.{}.{verb}", kind.collection().to_ascii_lowercase()));
        }
    }
}

impl ErrorKind {
    /// The reaction to an error of this kind.
    #[must_use]
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict => ErrorClass::Conflict,
            Self::Throttled { .. } => ErrorClass::Throttle,
            Self::Unknown => ErrorClass::Unknown,
            Self::Unavailable => ErrorClass::Retry,
            Self::Denied { .. } | Self::NotFound | Self::Refused(_) | Self::Rejected => ErrorClass::Definitive,
        }
    }
}
