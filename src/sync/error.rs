//! Errors that end a reconcile.

use crate::model::Reason;
use crate::store::StoreError;
use crate::target::TargetError;

/// Why the reconcile of a document did not finish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// An error of the target.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// Google refuses the policy even without the additions of rolecall.
    #[error(
        "google refuses the policy even without the additions of rolecall, so a member that others put into it is the cause"
    )]
    ForeignMember {
        /// The reason word of Google's refusal.
        reason: Reason,
    },
    /// A defect of this program.
    #[error("the reconcile failed because of a defect of this program: {0}")]
    Internal(String),
    /// Google returns a version of the policy that a write of ours replaced. Nothing is concluded from it.
    #[error("google still returns an older version of the policy; reading it again")]
    StaleRead,
    /// The store cannot read or write. Nothing is sent to Google that was not recorded first.
    #[error("the store cannot record the step, so it is not taken: {0}")]
    Store(#[from] StoreError),
}

impl EngineError {
    /// The stable reason.
    #[must_use]
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Target(error) => error.reason,
            Self::Store(StoreError::Unavailable { .. }) => Reason::StoreUnavailable,
            Self::Store(StoreError::StaleEpoch { .. }) => Reason::LeadershipLost,
            Self::Store(
                StoreError::Damaged { .. } | StoreError::AuditBroken { .. } | StoreError::NotADatabase { .. },
            ) => Reason::StoreDamaged,
            Self::Store(_) => Reason::StoreFault,
            Self::ForeignMember { .. } => Reason::ForeignMemberRejected,
            Self::Internal(_) => Reason::EngineFault,
            Self::StaleRead => Reason::StaleRead,
        }
    }
}
