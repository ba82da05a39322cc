//! The claims of one grant: which of them hold, and which have ended.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::model::{
    Claim, DesiredGrant, Enforcement, FreezeReason, GrantKey, GrantState, Keep, Kept, LedgerRow, Subject,
};

use super::Planner;

/// The claims of a row, sorted by what the mappings want now.
#[expect(clippy::struct_excessive_bools, reason = "five independent facts, each read once by its name")]
pub(super) struct Claims {
    /// Claims that are still wanted, or frozen.
    pub(super) kept: BTreeSet<Claim>,
    /// Claims that are no longer wanted.
    pub(super) ended: BTreeSet<Claim>,
    /// True when some of them are wanted now, not merely frozen.
    pub(super) wanted: bool,
    /// True when one of the claims justifies a write.
    pub(super) write: bool,
    /// True when a missing grant of rolecall is granted again.
    pub(super) regrant: bool,
    /// True when a terminated mapping lets its grants stay.
    pub(super) orphan: bool,
    /// True when only observe mode keeps these claims from ending.
    pub(super) observed: bool,
    /// True when a grant that somebody else made is taken over.
    pub(super) adopt: bool,
    /// The next time at which a claim ends that is kept although it is not wanted.
    pub(super) next_end: Option<Timestamp>,
}

impl Planner<'_> {
    /// Sorts the claims of a row into those that hold and those that have ended.
    pub(super) fn claims(
        &self,
        key: &GrantKey,
        row: Option<&LedgerRow>,
        want: Option<&DesiredGrant>,
        present: bool,
    ) -> Claims {
        let mut claims = Claims {
            kept: BTreeSet::new(),
            ended: BTreeSet::new(),
            wanted: false,
            write: false,
            regrant: false,
            orphan: false,
            observed: true,
            adopt: false,
            next_end: None,
        };
        let has_left = |subject: &Subject| self.inputs.leavers.contains(subject);
        let has_lapsed = |claim: &Claim| self.inputs.lapsed.contains(&(key.member.clone(), claim.clone()));
        let desired = &self.inputs.desired;
        let ground = |claim: &Claim| row.and_then(|row| row.grounds.get(claim));
        let is_over = |claim: &Claim| desired.is_over(claim, &key.role, ground(claim));
        // A grant that has ended is treated as one of a person who has left.
        let unless_left = |claim: &Claim, reason: FreezeReason| {
            !has_left(&claim.subject) && !is_over(claim) || desired.keeps_leavers(&claim.mapping, &key.role, reason)
        };
        // A removal that was in progress when the mapping was deleted continues.
        let under_way = row.is_some_and(|row| row.revoking_since.is_some());
        // Made by rolecall, or found to be so by this reconcile.
        let ours = present && row.is_some_and(|row| row.state == GrantState::Owned || row.intent.is_some());
        for claim in row.iter().flat_map(|row| &row.claims) {
            let wanted = want.is_some_and(|want| want.claims.contains_key(claim));
            let enforcement = desired.enforcements.get(&claim.mapping);
            let may_orphan = || desired.may_orphan(&claim.mapping, &key.role);
            let kept = wanted
                || match enforcement {
                    // Whichever ground is missing, a person who has left is not entitled through any.
                    Some(Enforcement::Frozen(reason)) => unless_left(claim, *reason),
                    Some(Enforcement::Live { keep }) => {
                        match keep.keeps(&claim.subject, &key.member, ground(claim)) {
                            Kept::No => false,
                            Kept::Yes => !is_over(claim),
                            // Incomplete groups keep a claim only as long as they may give it.
                            Kept::Frozen(_) if matches!(keep, Keep::Groups(_)) && has_lapsed(claim) => false,
                            Kept::Frozen(reason) => unless_left(claim, reason),
                        }
                    }
                    Some(Enforcement::Ended { orphan: true }) if ours && !under_way => {
                        !has_left(&claim.subject) && !is_over(claim) && !may_orphan()
                    }
                    None => true,
                    Some(Enforcement::Ended { .. }) => false,
                };
            claims.wanted |= wanted;
            claims.observed &= !wanted && enforcement == Some(&Enforcement::Frozen(FreezeReason::Observed));
            if kept {
                let end =
                    ground(claim).and_then(|ground| ground.not_after).filter(|end| !wanted && *end > desired.as_of);
                claims.next_end = [claims.next_end, end].into_iter().flatten().min();
                claims.kept.insert(claim.clone());
            } else {
                claims.orphan |= enforcement == Some(&Enforcement::Ended { orphan: true })
                    && !has_left(&claim.subject)
                    && !is_over(claim)
                    && !under_way
                    && may_orphan();
                claims.ended.insert(claim.clone());
            }
        }
        for (claim, terms) in want.iter().flat_map(|want| &want.claims) {
            if terms.write {
                claims.kept.insert(claim.clone());
                claims.wanted = true;
                claims.write = true;
                claims.regrant |= terms.regrant;
                claims.adopt |= desired.may_adopt(&claim.mapping, &key.role);
                claims.observed = false;
            }
        }
        claims
    }
}
