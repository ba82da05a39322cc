//! What a status is folded from: outcomes as the engine has them, without live policies, plans or ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    DriftSample, FindingStatus, MappingMode, PolicyCounts, ProviderState, RefusedPath, ResourceCounts, TargetDrift,
};
use crate::model::{DocumentKey, FreezeReason, MappingPhase, MemberKey};

/// Something that went wrong: a reason word of the one list, a sentence about this case, and since when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The stable word; see [`crate::api::condition::REASONS`].
    pub reason: &'static str,
    /// What exactly: the last answer of Google, the file with line and field. Without secrets.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// Grants of one mapping on one document, counted.
///
/// `desired = acknowledged + pending + failed + missing + observed + frozen`; the removals stand beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimCounts {
    /// Wanted, or kept because its ground cannot be seen.
    pub desired: u64,
    /// In the policy: granted by a call that Google acknowledged, or there before (`unowned`).
    pub acknowledged: u64,
    /// Of these, seen in a later read.
    pub verified: u64,
    /// Wanted and to be written.
    pub pending: u64,
    /// Wanted, and refused by Google or over its limit.
    pub failed: u64,
    /// Of the acknowledged, those that are somebody else's.
    pub unowned: u64,
    /// Ours, taken away by somebody else, and not granted again.
    pub missing: u64,
    /// Wanted, and only observed.
    pub observed: u64,
    /// Not there, and not granted because the ground of the claim cannot be seen.
    pub frozen: u64,
    /// To be removed and not gone yet.
    pub revoking: u64,
    /// To be removed and held by the guard.
    pub held: u64,
    /// Of these, for people who have left.
    pub held_leavers: u64,
    /// Since when the oldest of the grants to be removed should be gone.
    pub oldest_revoking_since: Option<Timestamp>,
}

impl ClaimCounts {
    /// Wanted and kept from being granted: not granted again, only observed, or frozen.
    #[must_use]
    pub fn kept_back(&self) -> u64 {
        self.missing.saturating_add(self.observed).saturating_add(self.frozen)
    }

    /// True when something is wanted that is neither there nor meant to be left out.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.pending > 0 || self.failed > 0 || self.frozen > 0
    }
}

/// How long a change took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Directory event → acknowledged by Google.
    pub took: SignedDuration,
    /// When it was acknowledged.
    pub at: Timestamp,
}

/// What a guard holds on one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOutcome {
    /// Everybody concerned has left.
    pub leavers: bool,
    /// Who would lose something. Counted over documents without counting anybody twice.
    pub members: BTreeSet<MemberKey>,
    /// What releases it.
    pub plan_hash: String,
    /// Since when.
    pub since: Timestamp,
}

/// The part of one mapping on one document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOutcome {
    /// Which document.
    pub document: DocumentKey,
    /// The counts of the last pass; none before the first one.
    pub claims: Option<ClaimCounts>,
    /// Since when a change waits for this document, or something that is wanted there is lacking; none when nothing is.
    pub pending_since: Option<Timestamp>,
    /// A complete list lacks the resource although its policy answers.
    pub unlisted: bool,
    /// What is wrong: the error of the last pass, members that Google refused, a limit.
    pub troubles: Vec<Failure>,
    /// What the guard holds: of people who have left, and of others.
    pub held: Vec<HeldOutcome>,
    /// Grants that were taken away and granted again, since the start.
    pub reverted: u64,
    /// When the last of them was.
    pub reverted_at: Option<Timestamp>,
    /// Grants whose last claim ended although they were not ours.
    pub remaining: u64,
    /// Members that are neither ours nor wanted.
    pub foreign: u64,
    /// Some of what somebody else changed.
    pub samples: Vec<DriftSample>,
    /// Of the last change.
    pub lag: Option<Lag>,
    /// Does the service let everybody in without asking for `roles/run.invoker`?
    pub invoker_iam_disabled: bool,
}

impl DocumentOutcome {
    /// A document that was not read yet.
    #[must_use]
    pub fn unread(document: DocumentKey) -> Self {
        Self {
            document,
            claims: None,
            pending_since: None,
            unlisted: false,
            troubles: Vec::new(),
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
    /// The group's `displayName`: as it is, or as the mapping names it.
    pub display_name: Option<String>,
    /// The group's `externalId`.
    pub external_id: Option<String>,
    /// The id the name is pinned to.
    pub id: Option<String>,
    /// Active users among its members.
    pub members: u64,
    /// Why the group gives nothing: `GroupNotFound` and the like.
    pub problem: Option<&'static str>,
    /// People who get nothing although they are members: reason word → how many.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// What the status of a mapping is folded from. The order of the lists does not matter.
#[derive(Debug, Clone, Copy)]
pub struct MappingInput<'a> {
    /// The generation that is in force.
    pub generation: i64,
    /// `spec.mode`.
    pub mode: MappingMode,
    /// Is `--mode observe` the ceiling?
    pub ceiling_observes: bool,
    /// Its phase.
    pub phase: MappingPhase,
    /// The manifest cannot be read, or stands twice: what it last said is in force.
    pub problem: Option<&'a Failure>,
    /// Why all of it, or a part, is frozen; subjects aside.
    pub frozen: Option<FreezeReason>,
    /// A target whose resources were never listed since the start.
    pub loading: Option<&'a str>,
    /// Which object the freeze is about, in words; empty when the reason says it all.
    pub frozen_detail: &'a str,
    /// How many resolved (resource, role) pairs the targets delegate.
    pub admitted: u64,
    /// What they do not delegate.
    pub refused: &'a [RefusedPath],
    /// Patterns that match no resource; one without `*` is a name.
    pub unmatched: &'a [String],
    /// The groups.
    pub subjects: &'a [SubjectOutcome],
    /// Everything the mapping touches or still has claims on.
    pub documents: &'a [DocumentOutcome],
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub last_handled_reconcile_at: Option<&'a str>,
}

/// What the last list of a target's resources said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingOutcome {
    /// What there is, as last seen.
    pub resources: ResourceCounts,
    /// Regions that could not be listed.
    pub unreachable: Vec<String>,
    /// Why it failed, when it did.
    pub trouble: Option<Failure>,
    /// When it was last complete.
    pub complete_at: Option<Timestamp>,
}

/// What the status of a target is folded from.
#[derive(Debug, Clone, Copy)]
pub struct TargetInput<'a> {
    /// The generation that is in force.
    pub generation: i64,
    /// The manifest cannot be read, or stands twice.
    pub problem: Option<&'a Failure>,
    /// The older target that covers the same documents.
    pub overlapped_by: Option<&'a str>,
    /// Why everything is frozen.
    pub frozen: Option<FreezeReason>,
    /// The project number, when it is known.
    pub project_number: Option<&'a str>,
    /// The last list; none before the first one.
    pub listing: Option<&'a ListingOutcome>,
    /// Permissions that Google said are missing.
    pub missing_permissions: &'a [String],
    /// Grants of deleted mappings that were let go before they could be revoked.
    pub abandoned: u64,
    /// How many policies are in which state.
    pub policies: PolicyCounts,
    /// Where they differ.
    pub drift: &'a [TargetDrift],
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub last_handled_reconcile_at: Option<&'a str>,
}

/// One bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOutcome {
    /// Its name.
    pub name: String,
    /// From then on it is refused.
    pub not_after: Option<Timestamp>,
    /// When it was last used.
    pub last_used: Option<Timestamp>,
    /// Why it cannot be used: `TokenSecretNotFound` and the like. Its expiry is found out by folding.
    pub problem: Option<&'static str>,
}

/// How much a provider has stored, and how much it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaOutcome {
    /// Users, groups and memberships.
    pub rows: u64,
    /// How many there may be.
    pub max_rows: u64,
    /// Bytes of resources.
    pub bytes: u64,
    /// How many there may be.
    pub max_bytes: u64,
    /// When something was last refused because of it, unless something was created since.
    pub refused_at: Option<Timestamp>,
}

/// What the status of a provider is folded from.
#[derive(Debug, Clone, Copy)]
pub struct ProviderInput<'a> {
    /// The generation that is in force.
    pub generation: i64,
    /// The manifest cannot be read, or stands twice.
    pub problem: Option<&'a Failure>,
    /// Why everything is frozen.
    pub frozen: Option<FreezeReason>,
    /// `spec.state`.
    pub state: ProviderState,
    /// The SCIM base URL.
    pub endpoint: &'a str,
    /// Which IdP the requests look like, once there was one.
    pub dialect: Option<&'a str>,
    /// Users that were pushed and not deleted.
    pub users: u64,
    /// Groups that were pushed and not deleted.
    pub groups: u64,
    /// The last authenticated request.
    pub last_request: Option<Timestamp>,
    /// `spec.staleAfter`.
    pub stale_after: Option<Duration>,
    /// The tokens.
    pub tokens: &'a [TokenOutcome],
    /// What the IdP does that the RFCs do not allow.
    pub findings: &'a [FindingStatus],
    /// What is stored, and what may be.
    pub quota: QuotaOutcome,
    /// The id of the store.
    pub store_id: &'a str,
    /// The namespace rolecall runs in; none without a cluster.
    pub operator_namespace: Option<&'a str>,
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub last_handled_reconcile_at: Option<&'a str>,
}
