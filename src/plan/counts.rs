//! The outcome of a pass counted for each mapping, which is what its status is folded from.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::{GrantKey, MappingKey, Subject};

use super::{CallOutcome, Cause, Plan};

/// How one grant stands after the pass, apart from the outcome of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountedAs {
    Verified,
    Acknowledged,
    /// About to be granted.
    Pending,
    /// Does not fit into the policy, or is refused by Google.
    Withheld,
    /// To be granted, and not with this call.
    Waiting,
    Unowned,
    /// Taken away by somebody else and not granted again.
    Missing,
    /// Would be granted if it were not for observe mode.
    Observed,
    /// Would be granted if the complete list of resources did not lack the resource, whose policy answers.
    Unlisted,
    /// Not there, and frozen.
    Frozen,
    /// About to be removed.
    Revoking,
    Held,
    /// Held, and who it is for has left.
    HeldLeaver,
}

/// One grant in the report of a pass.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CountedGrant {
    pub(super) grant: GrantKey,
    pub(super) mappings: BTreeSet<MappingKey>,
    /// Somebody it is claimed for.
    pub(super) subject: Option<Subject>,
    pub(super) counted_as: CountedAs,
    pub(super) revoking_since: Option<Timestamp>,
}

/// Grants of one mapping on one document, counted. A grant that two mappings want counts for both.
///
/// `desired = acknowledged + pending + failed + missing + observed + frozen`. The removals, `revoking` and `held`, are
/// not wanted and stand beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimCounts {
    /// Wanted, or kept because its ground cannot be seen.
    pub desired: usize,
    /// In the policy: granted by a call that Google acknowledged, or there before (`unowned`).
    pub acknowledged: usize,
    /// Of these, seen in a later read.
    pub verified: usize,
    /// Wanted and to be written, now or when the resource is listed again.
    pub pending: usize,
    /// Wanted, and refused by Google or over its limit.
    pub failed: usize,
    /// Of the acknowledged, those that are somebody else's.
    pub unowned: usize,
    /// Ours, taken away by somebody else, and not granted again.
    pub missing: usize,
    /// Wanted, and only observed.
    pub observed: usize,
    /// Not there, and not granted because the ground of the claim cannot be seen.
    pub frozen: usize,
    /// To be removed and not gone yet.
    pub revoking: usize,
    /// To be removed and held by the guard.
    pub held: usize,
    /// Of these, for people who have left.
    pub held_leavers: usize,
    /// Since when the oldest of the grants to be removed, held or not, should be gone.
    pub oldest_revoking_since: Option<Timestamp>,
}

impl Plan {
    /// Somebody for whom this grant is claimed, or was until this pass.
    #[must_use]
    pub fn subject_of(&self, grant: &GrantKey) -> Option<Subject> {
        let claimed = self.lines.iter().find(|line| line.grant == *grant).and_then(|line| line.subject);
        claimed.or_else(|| self.remained_for.get(grant).copied())
    }

    /// The counts for each mapping after a call with this outcome, or without a call.
    #[must_use]
    pub fn counts(&self, outcome: Option<&CallOutcome>) -> BTreeMap<MappingKey, ClaimCounts> {
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
                let desired = !matches!(line.counted_as, CountedAs::Revoking | CountedAs::Held | CountedAs::HeldLeaver);
                counts.desired += usize::from(desired);
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
                    CountedAs::Revoking => counts.revoking += 1,
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

    /// Grants of ours that somebody took away and that this call put back, each with the mappings that want it.
    #[must_use]
    pub fn reverted(&self, outcome: Option<&CallOutcome>) -> Vec<(GrantKey, BTreeSet<MappingKey>)> {
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
