//! The domain model: types whose values are always valid, without IO and without reading the clock.

#[cfg(test)]
pub(crate) mod cases;
mod clock;
mod desired;
mod directory;
mod document;
mod grant;
mod guard;
#[cfg(test)]
pub(crate) mod guard_book;
mod kind;
mod ledger;
mod live;
mod name;
mod pairs;
mod phase;
mod principal;
mod pseudonym;
mod random;
mod raw;
mod reason;
mod refusal;
mod role;

pub use clock::{Clock, ManualClock, SystemClock};
pub use desired::{ClaimTerms, Desired, DesiredGrant, Enforcement, FreezeReason, Keep, Kept, KeptGroups, KeptSubjects};
pub use directory::{
    DirectoryChange, DirectoryEvent, EmailFact, GroupFacts, GroupId, MemberChange, Seq, UserFacts, UserId,
};
pub use document::{DocumentKey, DocumentKeyError, Region, ResourceKind};
pub use grant::{Condition, ConditionHash, GrantKey};
pub use guard::{
    DEFAULT_LEAVERS_PER_HOUR, DEFAULT_REMOVALS_PER_HOUR, GUARD_WINDOW, GuardDecision, Removal, RemovalLimit,
    RemovalLimits, RemovalScope, ScopeCounts,
};
pub use kind::Kind;
pub use ledger::{
    AcknowledgedWrite, AuditClaim, AuditEntry, AuditOutcome, Claim, GrantState, Ground, Intent, IntentAction,
    LedgerChange, LedgerRow, Pin, Revision, Subject,
};
pub use live::{Addition, Capacity, Changes, Live, Room, Stored};
pub use name::{MappingKey, NameError, ProviderName, TargetName};
pub use phase::{ClaimDisposal, MappingPhase, PhaseEffect, PhaseEvent, Transition};
pub use principal::{MemberKey, Principal, PrincipalError};
pub use pseudonym::{KEY_BYTES, Pseudonyms};
pub use random::Randomness;
pub(crate) use raw::RawJson;
pub use reason::Reason;
pub use refusal::{Reach, ReachError, Refusal, RefusalKey, WriteBudget};
pub use role::{Role, RoleError};
