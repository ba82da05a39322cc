//! What an answer of a target means, and what to do about it.

use std::time::Duration;

/// What follows from an error. The only thing that decides whether an intent is cleared and when the document is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Surely not committed; the same call may succeed later. Back off.
    Retry,
    /// Surely not committed; the same call will be refused again until somebody mends something.
    Definitive,
    /// Surely not committed; read again, plan again, write again.
    Conflict,
    /// Surely not committed; the quota is spent. Wait as long as the target says, or back off.
    Throttle,
    /// A write whose outcome is not known. Keep the intent and read.
    Unknown,
}

/// Why a target did not do, or did not answer, what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TargetError {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// The one stable word for conditions, events, metrics and the audit row.
    pub reason: &'static str,
    /// What people read: in the target's own words, without control characters and of bounded length. It may name a person, so
    /// that it belongs into status, not into logs at level info or below.
    pub message: String,
}

/// The kinds of errors that are treated differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The document changed since it was read.
    Conflict,
    /// The caller may not do that.
    Denied {
        /// The permission that is missing, when the answer names it.
        permission: Option<String>,
    },
    /// There is no such resource.
    NotFound,
    /// The content of the write is refused.
    Refused(Refused),
    /// Refused until somebody mends something else.
    Rejected,
    /// The quota is spent.
    Throttled {
        /// How long the target asks to wait, if it does.
        retry_after: Option<Duration>,
    },
    /// It cannot be reached, or cannot answer now. Nothing was committed.
    Unavailable,
    /// A write that may have been committed.
    Unknown,
}

/// What a target refuses of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which refusal.
    pub cause: RefusalCause,
    /// The member of the write that the target complains about, when it tells.
    pub member: Option<String>,
    /// The role that it complains about, when it tells.
    pub role: Option<String>,
    /// Its own words; see [`TargetError::message`].
    pub message: String,
}

/// Why the content of a write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCause {
    /// A member names nobody that the target knows.
    PrincipalUnknown,
    /// A member that this role or resource does not take (`allUsers`).
    PrincipalRefused,
    /// A member without a type, or otherwise not of the grammar.
    PrincipalMalformed,
    /// Domain-restricted sharing: a member is outside the permitted organisations.
    DomainRestricted,
    /// Another policy of the organisation forbids what the document would say.
    OrganizationPolicy,
    /// The role does not fit this kind of resource, or does not exist.
    RoleNotSupported,
    /// More members than a document may have, or a document too large.
    LimitExceeded,
    /// Anything else.
    Other,
}

impl RefusalCause {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::PrincipalUnknown,
        Self::PrincipalRefused,
        Self::PrincipalMalformed,
        Self::DomainRestricted,
        Self::OrganizationPolicy,
        Self::RoleNotSupported,
        Self::LimitExceeded,
        Self::Other,
    ];

    /// The stable word for this refusal. What is mended in the same way has the same word.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::PrincipalUnknown | Self::PrincipalRefused | Self::PrincipalMalformed => "MemberRefused",
            Self::DomainRestricted => "DomainRestricted",
            Self::RoleNotSupported => "RoleNotSupported",
            Self::LimitExceeded => "PolicyFull",
            Self::OrganizationPolicy | Self::Other => "PolicyRefused",
        }
    }

    /// The word of a refusal, given a word that was stored.
    #[must_use]
    pub fn known_reason(word: &str) -> Option<&'static str> {
        Self::ALL.into_iter().map(Self::reason).find(|known| *known == word)
    }
}

impl TargetError {
    /// The document changed since it was read.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }

    /// There is no such resource.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// What follows from it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.kind.class()
    }
}

impl ErrorKind {
    /// What follows from an error of this kind.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict => ErrorClass::Conflict,
            Self::Throttled { .. } => ErrorClass::Throttle,
            Self::Unknown => ErrorClass::Unknown,
            Self::Unavailable => ErrorClass::Retry,
            Self::Denied { .. } | Self::NotFound | Self::Refused(_) | Self::Rejected => ErrorClass::Definitive,
        }
    }
}
