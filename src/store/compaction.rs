//! Compaction of the event log before a position: keeps what is needed to rebuild the directory at that position and at
//! later ones.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::model::{DirectoryChange, GroupId, Seq, UserId};

/// What happens to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays unchanged.
    Retain,
    /// A part of it stays.
    Shorten(DirectoryChange),
    /// It is removed, because later events supersede all of it.
    Remove,
}

/// The directory after a sequence of events, with the event that each part of it comes from. Needs memory for people,
/// groups and memberships, not for events.
#[derive(Default)]
pub(super) struct Compaction {
    users: HashMap<UserId, Seq>,
    groups: HashMap<GroupId, Seq>,
    deleted: HashSet<Uuid>,
    /// Short ids of the entries of `members`, of which there are far more than people and groups.
    places: HashMap<Uuid, u32>,
    members: HashMap<(u32, u32), Seq>,
}

impl Compaction {
    fn place(&mut self, id: Uuid) -> u32 {
        let next = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        *self.places.entry(id).or_insert(next)
    }

    /// Processes the next event.
    pub(super) fn note(&mut self, seq: Seq, change: &DirectoryChange) {
        match change {
            DirectoryChange::User(facts) => drop(self.users.insert(facts.id, seq)),
            DirectoryChange::Group(facts) => drop(self.groups.insert(facts.id, seq)),
            DirectoryChange::UserDeleted { id } => drop(self.deleted.insert(id.0)),
            DirectoryChange::GroupDeleted { id } => drop(self.deleted.insert(id.0)),
            DirectoryChange::Members { group, added, removed } => {
                self.note_members(seq, *group, added.iter().map(|user| user.0), removed.iter().map(|user| user.0));
            }
            DirectoryChange::Nested { group, added, removed } => {
                self.note_members(seq, *group, added.iter().map(|group| group.0), removed.iter().map(|group| group.0));
            }
        }
    }

    fn note_members(
        &mut self,
        seq: Seq,
        group: GroupId,
        added: impl Iterator<Item = Uuid>,
        removed: impl Iterator<Item = Uuid>,
    ) {
        let group = self.place(group.0);
        for member in removed {
            let member = self.place(member);
            self.members.remove(&(group, member));
        }
        for member in added {
            let member = self.place(member);
            self.members.insert((group, member), seq);
        }
    }

    /// True when this event made the user or group a member as of the end.
    fn joins(&self, seq: Seq, group: GroupId, member: Uuid) -> bool {
        let (Some(group), Some(place)) = (self.places.get(&group.0), self.places.get(&member)) else { return false };
        self.members.get(&(*group, *place)) == Some(&seq) && !self.deleted.contains(&member)
    }

    /// Decides about an event that was processed. Applying the remaining events in order leads to the same directory:
    /// each of them changes only what no later event changes.
    pub(super) fn fate(&self, seq: Seq, change: &DirectoryChange) -> Fate {
        let of_entity = |id: Uuid, newest: Option<&Seq>| {
            if newest == Some(&seq) && !self.deleted.contains(&id) { Fate::Retain } else { Fate::Remove }
        };
        match change {
            DirectoryChange::User(facts) => of_entity(facts.id.0, self.users.get(&facts.id)),
            DirectoryChange::Group(facts) => of_entity(facts.id.0, self.groups.get(&facts.id)),
            // A deleted user counts as a leaver, on which frozen claims depend; a group that was never pushed causes a
            // freeze.
            DirectoryChange::UserDeleted { .. } | DirectoryChange::GroupDeleted { .. } => Fate::Retain,
            DirectoryChange::Members { group, .. } | DirectoryChange::Nested { group, .. }
                if self.deleted.contains(&group.0) =>
            {
                Fate::Remove
            }
            DirectoryChange::Members { group, added, removed } => {
                let joined: Vec<UserId> =
                    added.iter().copied().filter(|user| self.joins(seq, *group, user.0)).collect();
                let whole = removed.is_empty() && joined.len() == added.len();
                let count = joined.len();
                let rest = DirectoryChange::Members { group: *group, added: joined, removed: vec![] };
                Self::fate_of_members(count, whole, rest)
            }
            DirectoryChange::Nested { group, added, removed } => {
                let joined: Vec<GroupId> =
                    added.iter().copied().filter(|nested| self.joins(seq, *group, nested.0)).collect();
                let whole = removed.is_empty() && joined.len() == added.len();
                let count = joined.len();
                let rest = DirectoryChange::Nested { group: *group, added: joined, removed: vec![] };
                Self::fate_of_members(count, whole, rest)
            }
        }
    }

    /// The fate of an event of which this many additions still hold; `whole`: that is all of it.
    fn fate_of_members(joined: usize, whole: bool, rest: DirectoryChange) -> Fate {
        match (joined, whole) {
            (0, _) => Fate::Remove,
            (_, true) => Fate::Retain,
            (_, false) => Fate::Shorten(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::model::{GroupFacts, UserFacts};

    fn user(n: u8) -> UserId {
        UserId(Uuid::from_u128(1 + u128::from(n)))
    }

    fn group(n: u8) -> GroupId {
        GroupId(Uuid::from_u128(100 + u128::from(n)))
    }

    /// The directory as the catalog builds it: deleted ids stay deleted.
    #[derive(Debug, Default, PartialEq)]
    struct Directory {
        users: BTreeMap<UserId, Option<UserFacts>>,
        groups: BTreeMap<GroupId, Option<GroupFacts>>,
        members: BTreeSet<(GroupId, UserId)>,
        nested: BTreeSet<(GroupId, GroupId)>,
    }

    impl Directory {
        fn apply(&mut self, change: &DirectoryChange) {
            match change {
                DirectoryChange::User(facts) => {
                    if self.users.get(&facts.id) != Some(&None) {
                        self.users.insert(facts.id, Some(facts.clone()));
                    }
                }
                DirectoryChange::Group(facts) => {
                    if self.groups.get(&facts.id) != Some(&None) {
                        self.groups.insert(facts.id, Some(facts.clone()));
                    }
                }
                DirectoryChange::UserDeleted { id } => {
                    self.users.insert(*id, None);
                    self.members.retain(|(_, user)| user != id);
                }
                DirectoryChange::GroupDeleted { id } => {
                    self.groups.insert(*id, None);
                    self.members.retain(|(group, _)| group != id);
                    self.nested.retain(|(group, nested)| group != id && nested != id);
                }
                DirectoryChange::Nested { group, added, removed } => {
                    if self.groups.get(group) == Some(&None) {
                        return;
                    }
                    self.nested.retain(|(of, nested)| of != group || !removed.contains(nested));
                    let alive = added.iter().filter(|nested| self.groups.get(nested) != Some(&None));
                    let alive: Vec<_> = alive.map(|nested| (*group, *nested)).collect();
                    self.nested.extend(alive);
                }
                DirectoryChange::Members { group, added, removed } => {
                    if self.groups.get(group) == Some(&None) {
                        return;
                    }
                    self.members.retain(|(of, user)| of != group || !removed.contains(user));
                    let alive = added.iter().filter(|user| self.users.get(user) != Some(&None));
                    let alive: Vec<_> = alive.map(|user| (*group, *user)).collect();
                    self.members.extend(alive);
                }
            }
        }

        fn of<'c>(changes: impl Iterator<Item = &'c DirectoryChange>) -> Self {
            let mut directory = Self::default();
            changes.for_each(|change| directory.apply(change));
            directory
        }
    }

    fn changes() -> impl Strategy<Value = Vec<DirectoryChange>> {
        let users = || prop::collection::vec((0_u8..4).prop_map(user), 0..4);
        let groups = || prop::collection::vec((0_u8..3).prop_map(group), 0..3);
        let change = prop_oneof![
            3 => (0_u8..4, any::<bool>(), 0_u8..3).prop_map(|(n, active, name)| {
                let (id, user_name) = (user(n), format!("u{name}"));
                DirectoryChange::User(UserFacts { id, active, user_name, external_id: None, emails: vec![] })
            }),
            2 => (0_u8..3, 0_u8..3).prop_map(|(n, name)| {
                let (id, display_name) = (group(n), format!("g{name}"));
                DirectoryChange::Group(GroupFacts { id, display_name, external_id: None })
            }),
            1 => (0_u8..4).prop_map(|n| DirectoryChange::UserDeleted { id: user(n) }),
            1 => (0_u8..3).prop_map(|n| DirectoryChange::GroupDeleted { id: group(n) }),
            8 => (0_u8..3, users(), users())
                .prop_map(|(n, added, removed)| DirectoryChange::Members { group: group(n), added, removed }),
            4 => (0_u8..3, groups(), groups())
                .prop_map(|(n, added, removed)| DirectoryChange::Nested { group: group(n), added, removed }),
        ];
        prop::collection::vec(change, 0..40)
    }

    proptest! {
        #[test]
        fn directory_is_the_same_at_the_cut_and_at_every_later_position_however_far_the_compaction_came(
            changes in changes(),
            cut in 0_usize..40,
            done in 0_i64..40,
        ) {
            let cut = cut.min(changes.len());
            let mut compaction = Compaction::default();
            for (seq, change) in (1..).zip(&changes[..cut]) {
                compaction.note(seq, change);
            }
            let mut kept = Vec::new();
            for (seq, change) in (1..).zip(&changes[..cut]) {
                let fate = if seq <= done { compaction.fate(seq, change) } else { Fate::Retain };
                match fate {
                    Fate::Retain => kept.push(change.clone()),
                    Fate::Shorten(change) => kept.push(change),
                    Fate::Remove => {}
                }
            }
            for later in cut..=changes.len() {
                let whole = Directory::of(changes[..later].iter());
                let compacted = Directory::of(kept.iter().chain(&changes[cut..later]));
                prop_assert_eq!(&whole, &compacted, "at {}", later);
            }
            // Applied again, it has nothing left to do.
            if usize::try_from(done).unwrap() >= cut {
                let mut again = Compaction::default();
                for (seq, change) in (1..).zip(&kept) {
                    again.note(seq, change);
                }
                for (seq, change) in (1..).zip(&kept) {
                    prop_assert_eq!(again.fate(seq, change), Fate::Retain);
                }
            }
        }
    }
}
