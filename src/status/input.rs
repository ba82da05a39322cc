//! Inputs of status folding: outcomes as the engine has them, without live policies, plans or ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    DriftSample, FindingStatus, MappingMode, PolicyCounts, ProviderState, RefusedPath, ResourceCounts, TargetDrift,
};
use crate::model::{DocumentKey, FreezeReason, MappingPhase, MemberKey, Reason};

/// A failure: a reason word of the common list, a sentence about this case, and its time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The stable word; see [`Reason`].
    pub reason: Reason,
    /// The details: the last answer of Google, or the file with line and field. Without secrets.
    pub message: String,
    /// Since when the failure lasts.
    pub since: Timestamp,
}

/// Grants of one mapping on one document, counted.
///
/// `desired = acknowledged + pending + failed + missing + observed + frozen`; the removals are counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimCounts {
    /// Wanted, or kept because the ground of its claim is unknown.
    pub desired: u64,
    /// In the policy: granted by a call that Google acknowledged, or already there before (`unowned`).
    pub acknowledged: u64,
    /// Of these, observed in a later read.
    pub verified: u64,
    /// Wanted and to be written.
    pub pending: u64,
    /// Wanted, but refused by Google or beyond its limit.
    pub failed: u64,
    /// Of the acknowledged, those that rolecall did not grant.
    pub unowned: u64,
    /// Granted by rolecall, removed by somebody else, and not granted again.
    pub missing: u64,
    /// Wanted, and only observed.
    pub observed: u64,
    /// Not in the policy, and not granted because the ground of the claim is unknown.
    pub frozen: u64,
    /// To be removed but still in the policy.
    pub revoking: u64,
    /// To be removed and held by the guard.
    pub held: u64,
    /// Of these, for people who have left.
    pub held_leavers: u64,
    /// Since when the oldest grant to be removed should be gone.
    pub oldest_revoking_since: Option<Timestamp>,
}

impl ClaimCounts {
    /// Wanted, but kept from being granted: not granted again, only observed, or frozen.
    #[must_use]
    pub fn kept_back(&self) -> u64 {
        self.missing.saturating_add(self.observed).saturating_add(self.frozen)
    }

    /// True when a wanted grant is neither in the policy nor left out on purpose.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.pending > 0 || self.failed > 0 || self.frozen > 0
    }
}

/// Duration of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// From the directory event to Google's acknowledgement.
    pub took: SignedDuration,
    /// Time of the acknowledgement.
    pub at: Timestamp,
}

/// Removals that the guard holds on one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOutcome {
    /// True when everybody concerned has left.
    pub leavers: bool,
    /// The members that would lose a grant, so that nobody is counted twice over several documents.
    pub members: BTreeSet<MemberKey>,
    /// The hash that releases the removals.
    pub plan_hash: String,
    /// Since when they are held.
    pub since: Timestamp,
}

/// The outcome of one mapping on one document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOutcome {
    /// The document.
    pub document: DocumentKey,
    /// The counts of the last reconcile; none before the first one.
    pub claims: Option<ClaimCounts>,
    /// Since when a change of this document is pending, or something wanted is missing there; none when neither is so.
    pub pending_since: Option<Timestamp>,
    /// True when a complete list lacks the resource although its policy can be read.
    pub unlisted: bool,
    /// Failures: the error of the last reconcile, members that Google refused, a limit.
    pub failures: Vec<Failure>,
    /// Removals that the guard holds, separately for leavers and others.
    pub held: Vec<HeldOutcome>,
    /// Number of grants that somebody else removed and that were granted again, since the start.
    pub reverted: u64,
    /// Time of the last of them.
    pub reverted_at: Option<Timestamp>,
    /// Grants whose last claim ended although rolecall had not made them.
    pub remaining: u64,
    /// Members that rolecall neither granted nor wants.
    pub foreign: u64,
    /// Samples of foreign changes.
    pub samples: Vec<DriftSample>,
    /// Lag of the last change.
    pub lag: Option<Lag>,
    /// True when anybody may invoke the service without `roles/run.invoker`.
    pub invoker_iam_disabled: bool,
}

impl DocumentOutcome {
    /// A document that has not been read yet.
    #[must_use]
    pub fn unread(document: DocumentKey) -> Self {
        Self {
            document,
            claims: None,
            pending_since: None,
            unlisted: false,
            failures: Vec::new(),
            held: Vec::new(),
            reverted: 0,
            reverted_at: None,
            remaining: 0,
            foreign: 0,
            samples: Vec::new(),
            lag: None,
            invoker_iam_disabled: false,
        }
    }
}

/// How one group of a mapping was resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SubjectOutcome {
    /// The tenant.
    pub identity_provider: String,
    /// The current `displayName` of the group, or else the one in the mapping.
    pub display_name: Option<String>,
    /// The group's `externalId`.
    pub external_id: Option<String>,
    /// The id to which the name is pinned.
    pub id: Option<String>,
    /// Active users among its members.
    pub members: u64,
    /// The reason for which the group gives nothing: `GroupNotFound` and the like.
    pub problem: Option<Reason>,
    /// Members who get nothing: reason word → number of people.
    pub left_out: BTreeMap<Reason, u64>,
}

/// The input for folding the status of a mapping. The order of the lists does not matter.
#[derive(Debug, Clone, Copy)]
pub struct MappingInput<'a> {
    /// The generation that is in force.
    pub generation: i64,
    /// `spec.mode`.
    pub mode: MappingMode,
    /// True when `--mode observe` applies to the whole process.
    pub ceiling_observes: bool,
    /// The phase of the mapping.
    pub phase: MappingPhase,
    /// The manifest cannot be read, or the object is defined twice: the former version stays in force.
    pub problem: Option<&'a Failure>,
    /// The reason for which all or a part of the mapping is frozen, without freezes of single subjects.
    pub frozen: Option<FreezeReason>,
    /// A target whose resources have not been listed since the start.
    pub loading: Option<&'a str>,
    /// The object that caused the freeze, in words; empty when the reason is sufficient.
    pub frozen_detail: &'a str,
    /// Number of resolved (resource, role) pairs that the targets delegate.
    pub admitted: u64,
    /// The pairs that they do not delegate.
    pub refused: &'a [RefusedPath],
    /// Patterns that match no resource; a pattern without `*` is a name.
    pub unmatched: &'a [String],
    /// The groups.
    pub subjects: &'a [SubjectOutcome],
    /// The documents that the mapping reaches or still has claims on.
    pub documents: &'a [DocumentOutcome],
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub last_handled_reconcile_at: Option<&'a str>,
}

/// The outcome of the last list of a target's resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingOutcome {
    /// The resources, as last listed.
    pub resources: ResourceCounts,
    /// Regions that could not be listed.
    pub unreachable: Vec<String>,
    /// Why the list failed, if it did.
    pub failure: Option<Failure>,
    /// Time of the last complete list.
    pub complete_at: Option<Timestamp>,
}

/// The input for folding the status of a target.
#[derive(Debug, Clone, Copy)]
pub struct TargetInput<'a> {
    /// The generation that is in force.
    pub generation: i64,
    /// The manifest cannot be read, or the object is defined twice.
    pub problem: Option<&'a Failure>,
    /// The older target that covers the same documents.
    pub overlapped_by: Option<&'a str>,
    /// The reason for which everything is frozen.
    pub frozen: Option<FreezeReason>,
    /// The project number, if it is known.
    pub project_number: Option<&'a str>,
    /// The last list; none before the first one.
    pub listing: Option<&'a ListingOutcome>,
    /// Permissions that are missing according to Google.
    pub missing_permissions: &'a [String],
    /// Grants of deleted mappings whose finalizer was removed before the revocation.
    pub orphaned: u64,
    /// Number of policies in each state.
    pub policies: PolicyCounts,
    /// Differences between policies and what is wanted.
    pub drift: &'a [TargetDrift],
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub last_handled_reconcile_at: Option<&'a str>,
}

/// One bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOutcome {
    /// Its name.
    pub name: String,
    /// Time from which on the token is refused.
    pub not_after: Option<Timestamp>,
    /// Time of its last use.
    pub last_used: Option<Timestamp>,
    /// Why the token cannot be used: `TokenSecretNotFound` and the like. Folding adds its expiry.
    pub problem: Option<Reason>,
}

/// Usage and limits of a provider's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaOutcome {
    /// Users, groups and memberships.
    pub rows: u64,
    /// Largest permitted number of them.
    pub max_rows: u64,
    /// Bytes of resources.
    pub bytes: u64,
    /// Largest permitted number of them.
    pub max_bytes: u64,
    /// Time of the last refusal because of the quota, unless something was created since.
    pub refused_at: Option<Timestamp>,
}

/// The input for folding the status of a provider.
#[derive(Debug, Clone, Copy)]
pub struct ProviderInput<'a> {
    /// The generation that is in force.
    pub generation: i64,
    /// The manifest cannot be read, or the object is defined twice.
    pub problem: Option<&'a Failure>,
    /// The reason for which everything is frozen.
    pub frozen: Option<FreezeReason>,
    /// `spec.state`.
    pub state: ProviderState,
    /// The SCIM base URL.
    pub endpoint: &'a str,
    /// The IdP that the requests look like, once there was one.
    pub dialect: Option<&'a str>,
    /// Users that were pushed and not deleted.
    pub users: u64,
    /// Groups that were pushed and not deleted.
    pub groups: u64,
    /// Time of the last authenticated request.
    pub last_request: Option<Timestamp>,
    /// `spec.staleAfter`.
    pub stale_after: Option<Duration>,
    /// The tokens.
    pub tokens: &'a [TokenOutcome],
    /// Deviations of the IdP from the RFCs.
    pub findings: &'a [FindingStatus],
    /// Usage and limits of the storage.
    pub quota: QuotaOutcome,
    /// The id of the store.
    pub store_id: &'a str,
    /// The namespace that rolecall runs in; none without a cluster.
    pub operator_namespace: Option<&'a str>,
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub last_handled_reconcile_at: Option<&'a str>,
}
