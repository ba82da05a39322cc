//! The domain model: types whose values are always valid, without IO and without reading the clock.

#[cfg(test)]
pub(crate) mod cases;
mod clock;
mod desired;
mod directory;
mod document;
mod drift;
mod grant;
mod guard;
#[cfg(test)]
pub(crate) mod guard_book;
mod kind;
mod ledger;
mod live;
#[cfg(test)]
mod manual_clock;
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

pub(crate) use clock::{Clock, SystemClock};
pub(crate) use desired::{
    ClaimTerms, Desired, DesiredGrant, Enforcement, FreezeReason, Keep, Kept, KeptGroups, KeptSubjects,
};
pub(crate) use directory::{
    DirectoryChange, DirectoryEvent, EmailFact, GroupFacts, GroupId, MemberChange, MemberChanges, Seq, UserFacts,
    UserId,
};
pub(crate) use document::{DocumentKey, Region, ResourceKind};
pub(crate) use drift::{Concerns, Difference, Differences, DriftChanges, DriftKey, DriftKind};
pub(crate) use grant::{Condition, ConditionHash, GrantKey, MAX_OPERATORS};
pub(crate) use guard::{
    DEFAULT_LEAVERS_PER_HOUR, DEFAULT_REMOVALS_PER_HOUR, GUARD_WINDOW, GuardDecision, Removal, RemovalLimit,
    RemovalLimits, RemovalScope, ScopeCounts,
};
pub(crate) use kind::Kind;
pub(crate) use ledger::{
    AcknowledgedWrite, AuditClaim, AuditEntry, AuditOutcome, Claim, GrantState, Ground, Intent, IntentAction,
    LedgerChange, LedgerRow, Pin, Revision, Subject,
};
pub(crate) use live::{Addition, Capacity, Changes, Live, Stored, is_group};
#[cfg(test)]
pub(crate) use manual_clock::ManualClock;
pub(crate) use name::{MappingKey, NameError, ProviderName, TargetName};
pub(crate) use phase::{ClaimDisposal, MappingPhase, PhaseEffect, PhaseEvent, Transition};
pub(crate) use principal::{MemberKey, Principal};
pub(crate) use pseudonym::{KEY_BYTES, Pseudonyms};
pub(crate) use random::Randomness;
pub(crate) use raw::RawJson;
pub(crate) use reason::Reason;
pub(crate) use refusal::{Reach, Refusal, RefusalKey, WriteBudget};
pub(crate) use role::Role;
