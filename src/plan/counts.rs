//! The outcome of a reconcile, counted for each mapping. The status of a mapping is folded from these counts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::{GrantKey, MappingKey, Subject};

use super::{CallOutcome, Cause, Plan};

/// State of one grant after the reconcile, apart from the outcome of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountedAs {
    Verified,
    Acknowledged,
    /// About to be granted.
    Pending,
    /// Does not fit into the policy, or was refused by Google.
    Withheld,
    /// Wanted, but not part of this call.
    Waiting,
    Unowned,
    /// Removed by somebody else and not granted again.
    Missing,
    /// Would be granted outside observe mode.
    Observed,
    /// Would be granted, but the complete list of resources does not contain the resource although its policy can be
    /// read.
    Unlisted,
    /// Not in the policy, and frozen.
    Frozen,
    /// About to be removed.
    Revoking,
    /// To be removed, but not by this call.
    Staying,
    Held,
    /// Held, and the subject has left.
    HeldLeaver,
}

/// One grant in the report of a reconcile.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CountedGrant {
    pub(super) grant: GrantKey,
    pub(super) mappings: BTreeSet<MappingKey>,
    /// A subject for whom it is claimed.
    pub(super) subject: Option<Subject>,
    pub(super) counted_as: CountedAs,
    pub(super) revoking_since: Option<Timestamp>,
}

/// Grants of one mapping on one document, counted. A grant that two mappings want counts for both.
///
/// `desired = acknowledged + pending + failed + missing + observed + frozen`. The removals, `revoking` and `held`, are
/// not wanted and are counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClaimCounts {
    /// Wanted, or kept because the ground of its claim is unknown.
    pub(crate) desired: usize,
    /// In the policy: granted by a call that Google acknowledged, or already there before (`unowned`).
    pub(crate) acknowledged: usize,
    /// Of these, observed in a later read.
    pub(crate) verified: usize,
    /// Wanted and to be written, now or as soon as the resource is listed again.
    pub(crate) pending: usize,
    /// Wanted, but refused by Google or beyond its limit.
    pub(crate) failed: usize,
    /// Of the acknowledged, those that rolecall did not grant.
    pub(crate) unowned: usize,
    /// Granted by rolecall, removed by somebody else, and not granted again.
    pub(crate) missing: usize,
    /// Wanted, and only observed.
    pub(crate) observed: usize,
    /// Not in the policy, and not granted because the ground of the claim is unknown.
    pub(crate) frozen: usize,
    /// To be removed but still in the policy.
    pub(crate) revoking: usize,
    /// To be removed and held by the guard.
    pub(crate) held: usize,
    /// Of these, for people who have left.
    pub(crate) held_leavers: usize,
    /// Since when the oldest grant to be removed, held or not, should be gone.
    pub(crate) oldest_revoking_since: Option<Timestamp>,
}

impl CountedGrant {
    /// Counts a removal that is left out of this call.
    pub(super) fn wait(&mut self) {
        if self.counted_as == CountedAs::Revoking {
            self.counted_as = CountedAs::Staying;
        }
    }
}

impl Plan {
    /// A subject for whom this grant is claimed, or was until this reconcile.
    #[must_use]
    pub(crate) fn subject_of(&self, grant: &GrantKey) -> Option<Subject> {
        let claimed = self.lines.iter().find(|line| line.grant == *grant).and_then(|line| line.subject);
        claimed.or_else(|| self.remained_for.get(grant).copied())
    }

    /// Counts the grants of each mapping after a call with this outcome, or without a call.
    #[must_use]
    pub(crate) fn counts(&self, outcome: Option<&CallOutcome>) -> BTreeMap<MappingKey, ClaimCounts> {
        let mut claim_counts: BTreeMap<MappingKey, ClaimCounts> = BTreeMap::new();
        let acknowledged = matches!(outcome, Some(CallOutcome::Acknowledged { .. }));
        let refused = matches!(outcome, Some(CallOutcome::Refused { .. }));
        for line in &self.lines {
            if line.counted_as == CountedAs::Revoking && acknowledged {
                for mapping in &line.mappings {
                    claim_counts.entry(mapping.clone()).or_default();
                }
                continue;
            }
            for mapping in &line.mappings {
                let counts = claim_counts.entry(mapping.clone()).or_default();
                let desired = !matches!(
                    line.counted_as,
                    CountedAs::Revoking | CountedAs::Staying | CountedAs::Held | CountedAs::HeldLeaver
                );
                counts.desired += usize::from(desired);
                let waits = matches!(line.counted_as, CountedAs::Waiting | CountedAs::Withheld)
                    || line.counted_as == CountedAs::Pending && !acknowledged;
                if waits && self.observers.contains(mapping) {
                    // Whoever else wants the grant, this mapping has nothing written.
                    counts.observed += 1;
                    continue;
                }
                match line.counted_as {
                    CountedAs::Verified => {
                        counts.acknowledged += 1;
                        counts.verified += 1;
                    }
                    CountedAs::Acknowledged => counts.acknowledged += 1,
                    CountedAs::Pending if acknowledged => counts.acknowledged += 1,
                    CountedAs::Pending if refused => counts.failed += 1,
                    CountedAs::Pending | CountedAs::Waiting | CountedAs::Unlisted => counts.pending += 1,
                    CountedAs::Withheld => counts.failed += 1,
                    CountedAs::Unowned => {
                        counts.acknowledged += 1;
                        counts.verified += 1;
                        counts.unowned += 1;
                    }
                    CountedAs::Missing => counts.missing += 1,
                    CountedAs::Observed => counts.observed += 1,
                    CountedAs::Frozen => counts.frozen += 1,
                    CountedAs::Revoking | CountedAs::Staying => counts.revoking += 1,
                    CountedAs::Held => counts.held += 1,
                    CountedAs::HeldLeaver => {
                        counts.held += 1;
                        counts.held_leavers += 1;
                    }
                }
                if !desired {
                    counts.oldest_revoking_since =
                        [counts.oldest_revoking_since, line.revoking_since].into_iter().flatten().min();
                }
            }
        }
        claim_counts
    }

    /// Grants of rolecall that somebody else removed and that this call restored, each with the mappings that want it.
    #[must_use]
    pub(crate) fn reverted(&self, outcome: Option<&CallOutcome>) -> Vec<(GrantKey, BTreeSet<MappingKey>)> {
        if !matches!(outcome, Some(CallOutcome::Acknowledged { .. })) {
            return Vec::new();
        }
        let again = self.add.iter().filter(|step| step.cause == Cause::Missing);
        again
            .map(|step| {
                let mappings = step.row.claims.iter().map(|claim| claim.mapping.clone()).collect();
                (step.grant().clone(), mappings)
            })
            .collect()
    }
}
