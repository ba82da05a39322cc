//! Plans of which only a part is written now: removals alone, while additions are refused or have to wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{ConditionHash, GrantKey, GrantState, Live, MemberKey, Role};

use super::{Cause, Plan, Step, changes, counts, plan_hash, settle};

impl Plan {
    /// The same plan with only those of its additions that are in `now`. Of the others, those in `refused` count as
    /// failed and the rest as pending. Without anything to write, there are no changes. Records that the first
    /// [`Plan::intend`] made besides the intents are not repeated.
    #[must_use]
    pub(crate) fn restricted(&self, now: &BTreeSet<GrantKey>, refused: &BTreeSet<GrantKey>) -> Self {
        let (add, left_out): (Vec<Step>, Vec<Step>) =
            self.add.iter().cloned().partition(|step| now.contains(step.grant()));
        let (waiting, remove): (Vec<Step>, Vec<Step>) =
            self.remove.iter().cloned().partition(|step| step.waits_for_others(now));
        let mut unsettled = self.unsettled.clone();
        unsettled.extend(left_out.iter().chain(&waiting).filter_map(|step| settle::Unsettled::of(&step.row, false)));
        let fence = self.fence || unsettled.len() > self.unsettled.len() || self.concluded.need_proof();
        let changes = changes(&add, &remove, &self.sweep, fence);
        let hash = plan_hash(&self.context.document, &add, &remove, &self.held);
        let mut lines = self.lines.clone();
        for line in lines.iter_mut().filter(|line| line.counted_as == counts::CountedAs::Pending) {
            if refused.contains(&line.grant) {
                line.counted_as = counts::CountedAs::Withheld;
            } else if !now.contains(&line.grant) {
                line.counted_as = counts::CountedAs::Waiting;
            }
        }
        let mut staying = self.staying.clone();
        for step in &waiting {
            staying.push(Arc::new(step.row.clone()));
            lines.iter_mut().filter(|line| line.grant == *step.grant()).for_each(counts::CountedGrant::wait);
        }
        let (ledger, audit) = (vec![], vec![]);
        Self { hash, add, remove, ledger, audit, changes, staying, unsettled, fence, lines, ..self.clone() }
    }

    /// The same plan with only those of its removals that are in `now`; the others stay pending. Members that were to be
    /// written again with a removal that is left out are still there.
    #[must_use]
    pub(crate) fn removing(&self, now: &BTreeSet<GrantKey>) -> Self {
        let (remove, left_out): (Vec<Step>, Vec<Step>) =
            self.remove.iter().cloned().partition(|step| now.contains(step.grant()));
        let mut add = self.add.clone();
        add.retain(|step| step.cause != Cause::Respelled);
        let mut unsettled = self.unsettled.clone();
        unsettled.extend(left_out.iter().filter_map(|step| settle::Unsettled::of(&step.row, false)));
        let fence = self.fence || unsettled.len() > self.unsettled.len();
        let changes = changes(&add, &remove, &self.sweep, fence);
        let hash = plan_hash(&self.context.document, &add, &remove, &self.held);
        let mut staying = self.staying.clone();
        let owned = left_out.into_iter().filter(|step| step.row.state == GrantState::Owned);
        staying.extend(owned.map(|step| Arc::new(step.row)));
        let mut lines = self.lines.clone();
        for line in lines.iter_mut().filter(|line| line.counted_as == counts::CountedAs::Revoking) {
            if !now.contains(&line.grant) {
                line.counted_as = counts::CountedAs::Staying;
            }
        }
        Self { hash, add, remove, changes, staying, unsettled, fence, lines, ..self.clone() }
    }

    /// The same plan without any step of its own. It writes the policy as it was read, to find out whether Google
    /// accepts its foreign members. There must be nothing to remove.
    #[must_use]
    pub(crate) fn unchanged(&self, refused: &BTreeSet<GrantKey>) -> Self {
        let restricted = self.restricted(&BTreeSet::new(), refused);
        let changes = changes(&[], &restricted.remove, &self.sweep, true);
        Self { changes, fence: true, ..restricted }
    }

    /// The roles in the policy as it was read, with their conditions, and its members, without what this plan removes: that
    /// something stood there does not show that it would be accepted now.
    #[must_use]
    pub(crate) fn present(&self) -> (BTreeSet<(Role, ConditionHash)>, BTreeSet<MemberKey>) {
        self.live.present_without(&self.remove.iter().flat_map(|step| &step.out).collect())
    }

    /// The document as it was read.
    #[must_use]
    pub(crate) fn read(&self) -> &Live {
        &self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Changes, IntentAction, LedgerChange};
    use crate::plan::CallOutcome;
    use crate::plan::fixtures::*;

    #[test]
    fn removals_go_alone_and_what_is_left_out_is_failed_or_pending() {
        let mut fixture = granted(3);
        fixture.unwant_person(1);
        for person in [4, 5] {
            fixture.want("m", INVOKER, person, WRITE);
        }
        let plan = fixture.plan();
        let alone = plan.restricted(&BTreeSet::new(), &BTreeSet::from([invoker(4)]));
        assert_eq!((alone.add.len(), alone.remove.len()), (0, 1));
        let (changes, _) = alone.intend(fixture.now);
        assert!(changes.iter().all(|change| !matches!(change, LedgerChange::Put(row)
            if row.intent.as_ref().is_some_and(|intent| intent.action == IntentAction::Grant))));
        let outcome = CallOutcome::Acknowledged { revision: "after".into() };
        let counts = alone.counts(Some(&outcome))[&mapping("m")];
        assert_eq!(
            (counts.desired, counts.acknowledged, counts.failed, counts.pending, counts.revoking),
            (4, 2, 1, 1, 0)
        );
        fixture.record(alone.intend(fixture.now));
        fixture.commit(&alone);
        fixture.record(alone.settle(&outcome, fixture.now));
        assert!(!fixture.ledger.contains_key(&invoker(1)));
        assert_eq!(
            fixture.ledger.get(&invoker(5)).map(|row| row.state),
            None,
            "what was not written is not remembered"
        );
        assert_eq!(fixture.pass().add.len(), 2, "it is planned again");
    }

    #[test]
    fn removals_that_are_left_out_stay_pending_and_owned() {
        let mut fixture = granted(3);
        fixture.unwant_person(1);
        fixture.unwant_person(2);
        fixture.want("m", INVOKER, 4, WRITE);
        let plan = fixture.plan();
        let part =
            plan.restricted(&BTreeSet::from([invoker(4)]), &BTreeSet::new()).removing(&BTreeSet::from([invoker(2)]));
        assert_eq!((part.add.len(), part.remove.len()), (1, 1));
        let outcome = CallOutcome::Acknowledged { revision: "after".into() };
        let counts = part.counts(Some(&outcome))[&mapping("m")];
        assert_eq!((counts.desired, counts.acknowledged, counts.revoking), (2, 2, 1));
        fixture.record((plan.ledger.clone(), plan.audit.clone()));
        fixture.record(part.intend(fixture.now));
        fixture.commit(&part);
        fixture.record(part.settle(&outcome, fixture.now));
        assert!(!fixture.ledger.contains_key(&invoker(2)));
        assert_eq!(fixture.row(&invoker(1)).state, GrantState::Owned);
        let again = fixture.pass();
        assert_eq!((again.add.len(), again.remove.len()), (0, 1), "it is planned again");
    }

    #[test]
    fn unchanged_document_is_written_as_it_was_read() {
        let mut fixture = granted(2);
        fixture.want("m", INVOKER, 3, WRITE);
        let plan = fixture.plan();
        let unchanged = plan.unchanged(&BTreeSet::new());
        assert_eq!(unchanged.changes, Some(Changes::default()));
        assert_eq!(unchanged.intend(fixture.now), (vec![], vec![]));
        let counts = unchanged.counts(Some(&CallOutcome::Acknowledged { revision: "after".into() }))[&mapping("m")];
        assert_eq!((counts.desired, counts.acknowledged, counts.pending), (3, 2, 1));
        assert!(plan.restricted(&BTreeSet::new(), &BTreeSet::new()).changes.is_none());
        assert_eq!(fixture.row(&invoker(1)).state, GrantState::Owned);
        let (roles, members) = plan.present();
        let invoker = (Role::new(INVOKER).unwrap(), ConditionHash::default());
        assert!(roles.contains(&invoker) && members.contains(&MemberKey::of(&email(1))));
    }
}
