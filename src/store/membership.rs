//! The sum of several changes of one group's membership, computed before the writer is called. However many operations
//! a request has, the writer receives one list of ids to add and one to remove.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{MemberChange, MemberChanges};

/// The sum of changes that were applied in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// True when the members are to be exactly `add`. Otherwise members that are not mentioned stay.
    pub(super) exact: bool,
    pub(super) add: BTreeSet<Uuid>,
    /// Ids to remove; empty when `exact`.
    pub(super) remove: BTreeSet<Uuid>,
    /// Ids to remove that may not be members. If such an id is not a member, somebody else may be meant.
    pub(super) unsure: BTreeSet<Uuid>,
    /// Non-empty replacements, each of which must contain a known id.
    pub(super) asserted: Vec<Vec<Uuid>>,
    /// The texts of the ids that are not in the form of this server.
    pub(super) texts: Arc<BTreeMap<Uuid, String>>,
}

impl Plan {
    pub(super) fn new(changes: MemberChanges) -> Self {
        let mut plan = Self { texts: Arc::new(changes.texts), ..Self::default() };
        for change in changes.list {
            match change {
                MemberChange::Add(ids) => {
                    for id in ids {
                        plan.remove.remove(&id);
                        plan.add.insert(id);
                    }
                }
                MemberChange::Remove(ids) => {
                    for id in ids {
                        let was_added = plan.add.remove(&id);
                        if !was_added {
                            plan.unsure.insert(id);
                        }
                        if !plan.exact {
                            plan.remove.insert(id);
                        }
                    }
                }
                MemberChange::Replace(ids) => {
                    plan.exactly(ids.iter().copied().collect());
                    if !ids.is_empty() {
                        plan.asserted.push(ids);
                    }
                }
                MemberChange::Clear => plan.exactly(BTreeSet::new()),
            }
        }
        plan
    }

    fn exactly(&mut self, members: BTreeSet<Uuid>) {
        self.exact = true;
        self.add = members;
        self.remove.clear();
        self.unsure.clear();
    }

    /// True when nothing changes.
    pub(super) fn is_nothing(&self) -> bool {
        !self.exact && self.add.is_empty() && self.remove.is_empty()
    }

    /// Number of ids for the writer.
    pub(super) fn len(&self) -> usize {
        self.add.len() + self.remove.len()
    }

    /// The ids to remove and to add, whatever the current members; only for a plan that is not exact.
    pub(super) fn lists(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        (self.remove.iter().copied().collect(), self.add.iter().copied().collect())
    }

    /// The ids to remove and to add, given the current members.
    pub(super) fn against(&self, current: &BTreeSet<Uuid>) -> (Vec<Uuid>, Vec<Uuid>) {
        let gone = |id: &&Uuid| if self.exact { !self.add.contains(*id) } else { self.remove.contains(*id) };
        let remove = current.iter().filter(gone).copied().collect();
        let add = self.add.iter().filter(|id| !current.contains(*id)).copied().collect();
        (remove, add)
    }
}

/// The changes of a group's membership in one request to the writer.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// True when all members but the added ones are removed.
    pub(super) only: bool,
    pub(super) remove: Vec<Uuid>,
    /// Ids to remove that may mean somebody else if they are not members.
    pub(super) unsure: Vec<Uuid>,
    pub(super) add: Vec<Uuid>,
    /// The texts of the ids that are not in the form of this server.
    pub(super) texts: Arc<BTreeMap<Uuid, String>>,
}

impl Slice {
    /// Number of ids.
    pub(super) fn len(&self) -> usize {
        self.remove.len() + self.unsure.len() + self.add.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changes() -> impl Strategy<Value = Vec<MemberChange>> {
        let ids = prop::collection::vec((0_u128..6).prop_map(Uuid::from_u128), 1..4);
        let change = prop_oneof![
            ids.clone().prop_map(MemberChange::Add),
            ids.clone().prop_map(MemberChange::Remove),
            ids.prop_map(MemberChange::Replace),
            Just(MemberChange::Clear),
        ];
        prop::collection::vec(change, 0..6)
    }

    proptest! {
        #[test]
        fn a_plan_comes_to_what_its_changes_do_in_order(changes in changes(), before in prop::collection::btree_set((0_u128..6).prop_map(Uuid::from_u128), 0..6)) {
            let mut model = before.clone();
            let mut unsure = false;
            for change in changes.clone() {
                match change {
                    MemberChange::Add(ids) => model.extend(ids),
                    MemberChange::Remove(ids) => {
                        for id in ids {
                            unsure |= !model.remove(&id);
                        }
                    }
                    MemberChange::Replace(ids) => {
                        unsure = false;
                        model = ids.into_iter().collect();
                    }
                    MemberChange::Clear => {
                        unsure = false;
                        model.clear();
                    }
                }
            }
            let plan = Plan::new(changes.into());
            let (remove, add) = plan.against(&before);
            let mut after = before.clone();
            after.retain(|id| !remove.contains(id));
            after.extend(add);
            prop_assert_eq!(after, model);
            // An unsure id is never dropped from the question.
            prop_assert!(!unsure || !plan.unsure.is_empty());
        }
    }
}
