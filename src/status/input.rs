//! Inputs of status folding: outcomes as the engine has them, without live policies, plans or ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    DriftSample, FindingStatus, MappingMode, PolicyCounts, ProviderState, RefusedPath, ResourceCounts, TargetDrift,
};
use crate::model::{Capacity, DocumentKey, FreezeReason, MappingPhase, MemberKey, Reason};

use super::drift::DriftTally;

/// A failure: a reason word of the common list, a sentence about this case, and its time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Failure {
    /// The stable word; see [`Reason`].
    pub(crate) reason: Reason,
    /// The details: the last answer of Google, or the file with line and field. Without secrets.
    pub(crate) message: String,
    /// Since when the failure lasts.
    pub(crate) since: Timestamp,
}

/// Where the capture of a provider's requests is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CaptureOutcome {
    /// It begins later: its end is too far ahead.
    Waiting {
        /// Its beginning.
        from: Timestamp,
        /// Its end.
        until: Timestamp,
    },
    /// Requests are captured.
    Running {
        /// Its end.
        until: Timestamp,
    },
    /// It has ended.
    Ended {
        /// Its end.
        until: Timestamp,
    },
}

/// Grants of one mapping on one document, counted.
///
/// `desired = acknowledged + pending + failed + missing + observed + frozen`; the removals are counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClaimCounts {
    /// Wanted, or kept because the ground of its claim is unknown.
    pub(crate) desired: u64,
    /// In the policy: granted by a call that Google acknowledged, or already there before (`unowned`).
    pub(crate) acknowledged: u64,
    /// Of these, observed in a later read.
    pub(crate) verified: u64,
    /// Wanted and to be written.
    pub(crate) pending: u64,
    /// Wanted, but refused by Google or beyond its limit.
    pub(crate) failed: u64,
    /// Of the acknowledged, those that rolecall did not grant.
    pub(crate) unowned: u64,
    /// Granted by rolecall, removed by somebody else, and not granted again.
    pub(crate) missing: u64,
    /// Wanted, and only observed.
    pub(crate) observed: u64,
    /// Not in the policy, and not granted because the ground of the claim is unknown.
    pub(crate) frozen: u64,
    /// To be removed but still in the policy.
    pub(crate) revoking: u64,
    /// To be removed and held by the guard.
    pub(crate) held: u64,
    /// Of these, for people who have left.
    pub(crate) held_leavers: u64,
    /// Since when the oldest grant to be removed should be gone.
    pub(crate) oldest_revoking_since: Option<Timestamp>,
}

impl ClaimCounts {
    /// Wanted, but kept from being granted: not granted again, only observed, or frozen.
    #[must_use]
    pub(crate) fn kept_back(&self) -> u64 {
        self.missing.saturating_add(self.observed).saturating_add(self.frozen)
    }

    /// True when a wanted grant is neither in the policy nor left out on purpose.
    #[must_use]
    pub(crate) fn is_partial(&self) -> bool {
        self.pending > 0 || self.failed > 0 || self.frozen > 0
    }
}

/// Duration of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lag {
    /// From the directory event to Google's acknowledgement.
    pub(crate) took: SignedDuration,
    /// Time of the acknowledgement.
    pub(crate) at: Timestamp,
}

/// Grants of a mapping that end at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ends {
    /// Number of grants that would be wanted if they had not ended.
    pub(crate) ended: u64,
    /// The next time at which some end.
    pub(crate) next: Option<Timestamp>,
}

/// Removals that the guard holds on one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldOutcome {
    /// True when everybody concerned has left.
    pub(crate) leavers: bool,
    /// The members that would lose a grant, so that nobody is counted twice over several documents.
    pub(crate) members: BTreeSet<MemberKey>,
    /// The hash that releases the removals.
    pub(crate) plan_hash: String,
    /// Since when they are held.
    pub(crate) since: Timestamp,
}

/// The outcome of one mapping on one document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DocumentOutcome {
    /// The document.
    pub(crate) document: DocumentKey,
    /// The counts of the last reconcile; none before the first one.
    pub(crate) claims: Option<ClaimCounts>,
    /// Since when a change of this document is pending, or something wanted is missing there; none when neither is so.
    pub(crate) pending_since: Option<Timestamp>,
    /// True when a complete list lacks the resource although its policy can be read.
    pub(crate) unlisted: bool,
    /// Failures: the error of the last reconcile, members that Google refused, a limit.
    pub(crate) failures: Vec<Failure>,
    /// Removals that the guard holds, separately for leavers and others.
    pub(crate) held: Vec<HeldOutcome>,
    /// The differences that concern the mapping.
    pub(crate) drift: DriftTally,
    /// Samples of them.
    pub(crate) samples: Vec<DriftSample>,
    /// Lag of the last change.
    pub(crate) lag: Option<Lag>,
    /// The size of the policy, once it was read.
    pub(crate) space: Option<Capacity>,
    /// True when anybody may invoke the service without `roles/run.invoker`.
    pub(crate) invoker_iam_disabled: bool,
}

impl DocumentOutcome {
    /// A document that has not been read yet.
    #[must_use]
    pub(crate) fn unread(document: DocumentKey) -> Self {
        Self {
            document,
            claims: None,
            pending_since: None,
            unlisted: false,
            failures: Vec::new(),
            held: Vec::new(),
            drift: DriftTally::default(),
            samples: Vec::new(),
            lag: None,
            space: None,
            invoker_iam_disabled: false,
        }
    }
}

/// How one group of a mapping was resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct SubjectOutcome {
    /// The tenant.
    pub(crate) identity_provider: String,
    /// The current `displayName` of the group, or else the one in the mapping.
    pub(crate) display_name: Option<String>,
    /// The group's `externalId`.
    pub(crate) external_id: Option<String>,
    /// The id to which the name is pinned.
    pub(crate) id: Option<String>,
    /// Users among its members, including those of nested groups.
    pub(crate) members: u64,
    /// The reason for which the group gives nothing: `GroupNotFound` and the like.
    pub(crate) problem: Option<Reason>,
    /// What there is to say about groups nested in it, with the details.
    pub(crate) nesting: Option<(Reason, String)>,
    /// Members who get nothing: reason word → number of people.
    pub(crate) left_out: BTreeMap<Reason, u64>,
}

/// The input for folding the status of a mapping. The order of the lists does not matter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MappingInput<'a> {
    /// The generation that is in force.
    pub(crate) generation: i64,
    /// `spec.mode`.
    pub(crate) mode: MappingMode,
    /// True when `--mode observe` applies to the whole process.
    pub(crate) ceiling_observes: bool,
    /// The phase of the mapping.
    pub(crate) phase: MappingPhase,
    /// The manifest cannot be read, or the object is defined twice: the former version stays in force.
    pub(crate) problem: Option<&'a Failure>,
    /// The reason for which all or a part of the mapping is frozen, without freezes of single subjects.
    pub(crate) frozen: Option<FreezeReason>,
    /// A target whose resources have not been listed since the start.
    pub(crate) loading: Option<&'a str>,
    /// The object that caused the freeze, in words; empty when the reason is sufficient.
    pub(crate) frozen_detail: &'a str,
    /// Number of resolved (resource, role) pairs that the targets delegate.
    pub(crate) admitted: u64,
    /// The pairs that they do not delegate.
    pub(crate) refused: &'a [RefusedPath],
    /// The grants that end at a time.
    pub(crate) ends: Ends,
    /// Patterns that match no resource; a pattern without `*` is a name.
    pub(crate) unmatched: &'a [String],
    /// The groups.
    pub(crate) subjects: &'a [SubjectOutcome],
    /// The documents that the mapping reaches or still has claims on.
    pub(crate) documents: &'a [DocumentOutcome],
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub(crate) last_handled_reconcile_at: Option<&'a str>,
}

/// The outcome of the last list of a target's resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListingOutcome {
    /// The resources, as last listed.
    pub(crate) resources: ResourceCounts,
    /// Regions, and kinds in regions, that could not be listed.
    pub(crate) unreachable: Vec<String>,
    /// Those of them that matter: where nothing was listed, or something is mapped.
    pub(crate) lacking: Vec<String>,
    /// Why one of those that matter failed.
    pub(crate) failure: Option<Failure>,
    /// Resources that the list lacks although their policies can be read.
    pub(crate) unlisted: Vec<String>,
    /// Time of the last complete list.
    pub(crate) complete_at: Option<Timestamp>,
}

/// The input for folding the status of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TargetInput<'a> {
    /// The generation that is in force.
    pub(crate) generation: i64,
    /// The manifest cannot be read, or the object is defined twice.
    pub(crate) problem: Option<&'a Failure>,
    /// The older target that covers the same documents.
    pub(crate) overlapped_by: Option<&'a str>,
    /// The reason for which everything is frozen.
    pub(crate) frozen: Option<FreezeReason>,
    /// The project number, if it is known.
    pub(crate) project_number: Option<&'a str>,
    /// The last list; none before the first one.
    pub(crate) listing: Option<&'a ListingOutcome>,
    /// Permissions that are missing according to Google.
    pub(crate) missing_permissions: &'a [String],
    /// Permissions that could not be tested; none before the first test.
    pub(crate) untested_permissions: Option<&'a [String]>,
    /// True when what they are missing for matters.
    pub(crate) permissions_matter: bool,
    /// Grants of deleted mappings whose finalizer was removed before the revocation.
    pub(crate) orphaned: u64,
    /// Number of policies in each state.
    pub(crate) policies: PolicyCounts,
    /// The first differences between policies and what is wanted, by kind.
    pub(crate) drift: &'a [TargetDrift],
    /// All of them, counted.
    pub(crate) drift_tally: &'a DriftTally,
    /// The policies that are nearly full.
    pub(crate) nearly_full: &'a [(String, Capacity)],
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub(crate) last_handled_reconcile_at: Option<&'a str>,
}

/// One bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenOutcome {
    /// Its name.
    pub(crate) name: String,
    /// Time from which on the token is refused.
    pub(crate) not_after: Option<Timestamp>,
    /// Time of its last use.
    pub(crate) last_used: Option<Timestamp>,
    /// Why the token cannot be used: `TokenSecretNotFound` and the like. Folding adds its expiry.
    pub(crate) problem: Option<Reason>,
}

/// Usage and limits of a provider's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QuotaOutcome {
    /// Users, groups and memberships.
    pub(crate) rows: u64,
    /// Largest permitted number of them.
    pub(crate) max_rows: u64,
    /// Bytes of resources.
    pub(crate) bytes: u64,
    /// Largest permitted number of them.
    pub(crate) max_bytes: u64,
    /// Time of the last refusal because of the quota, unless something was created since.
    pub(crate) refused_at: Option<Timestamp>,
}

/// The input for folding the status of a provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProviderInput<'a> {
    /// The generation that is in force.
    pub(crate) generation: i64,
    /// The manifest cannot be read, or the object is defined twice.
    pub(crate) problem: Option<&'a Failure>,
    /// The reason for which everything is frozen.
    pub(crate) frozen: Option<FreezeReason>,
    /// `spec.state`.
    pub(crate) state: ProviderState,
    /// The SCIM base URL.
    pub(crate) endpoint: &'a str,
    /// The URL of the token endpoint, when there are OAuth 2.0 clients.
    pub(crate) token_endpoint: Option<&'a str>,
    /// The IdP that the requests look like, once there was one.
    pub(crate) dialect: Option<&'a str>,
    /// Users that were pushed and not deleted.
    pub(crate) users: u64,
    /// Groups that were pushed and not deleted.
    pub(crate) groups: u64,
    /// Number of memberships of groups in groups that are ignored although the spec does not say so.
    pub(crate) ignored_nestings: u64,
    /// Time of the last authenticated request.
    pub(crate) last_request: Option<Timestamp>,
    /// `spec.staleAfter`.
    pub(crate) stale_after: Option<Duration>,
    /// The tokens.
    pub(crate) tokens: &'a [TokenOutcome],
    /// Where the capture of its requests is; none: none is asked for.
    pub(crate) capture: Option<CaptureOutcome>,
    /// Deviations of the IdP from the RFCs.
    pub(crate) findings: &'a [FindingStatus],
    /// Usage and limits of the storage.
    pub(crate) quota: QuotaOutcome,
    /// The id of the store.
    pub(crate) store_id: &'a str,
    /// The namespace that rolecall runs in; none without a cluster.
    pub(crate) operator_namespace: Option<&'a str>,
    /// The annotation `rolecall.dev/reconcile-requested-at` that was last acted upon.
    pub(crate) last_handled_reconcile_at: Option<&'a str>,
}
