//! A document as a set of grants, and a change of it: what planning and the targets have in common.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Condition, ConditionHash, GrantKey, MemberKey, Role, pairs};

/// What stands in a document, as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Names this version of the document, as the target does; only equality means something. Empty: the target says that
    /// there is no such document.
    pub revision: String,
    /// The document was never written since it was made. Unlike all others, this version comes back: with a resource that is
    /// made again.
    pub never_set: bool,
    /// What could be ours.
    #[serde(with = "pairs")]
    pub grants: BTreeMap<GrantKey, Stored>,
    /// Members under roles that rolecall never grants, such as basic roles.
    pub beyond: BTreeSet<(String, ConditionHash, MemberKey)>,
    /// How much the document can hold; none: no bound is known.
    pub capacity: Option<Capacity>,
}

/// How a grant stands in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The member as the target spells it.
    pub member: String,
    /// How many times it takes up capacity.
    pub times: usize,
}

/// How much a document holds, and how much it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Appearances of principals there are.
    pub used: usize,
    /// Appearances of principals there may be.
    pub limit: usize,
}

/// What is to change in a document. Nothing of it: the document is written as it is, which moves its revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// What to put in, sorted by grant.
    pub add: Vec<Addition>,
    /// What to take out.
    pub remove: BTreeSet<GrantKey>,
}

/// One member to put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Which grant.
    pub grant: GrantKey,
    /// The member to write.
    pub member: String,
    /// The condition to write, whose hash is in the key.
    pub condition: Option<Condition>,
}

impl Live {
    /// The target says that there is no such document.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.revision.is_empty()
    }

    /// True when the grant stands there.
    #[must_use]
    pub fn has(&self, grant: &GrantKey) -> bool {
        self.grants.contains_key(grant)
    }

    /// All grants, each with its member as the target spells it.
    pub fn grants(&self) -> impl Iterator<Item = (&GrantKey, &str)> {
        self.grants.iter().map(|(grant, stored)| (grant, stored.member.as_str()))
    }

    /// The grants of the same role and condition, in order.
    pub fn beside<'a>(&'a self, grant: &'a GrantKey) -> impl Iterator<Item = (&'a GrantKey, &'a str)> {
        self.grants().filter(|(other, _)| other.role == grant.role && other.condition == grant.condition)
    }

    /// How many members there are that are none of these.
    #[must_use]
    pub fn foreign(&self, ours: &BTreeSet<GrantKey>) -> usize {
        self.beyond.len() + self.grants.keys().filter(|grant| !ours.contains(grant)).count()
    }

    /// How many more members fit when these are taken out; none: no bound is known.
    #[must_use]
    pub fn room_without<'a>(&self, gone: impl Iterator<Item = &'a GrantKey>) -> Option<Room> {
        let capacity = self.capacity?;
        let freed: usize = gone.filter_map(|grant| self.grants.get(grant)).map(|stored| stored.times).sum();
        let kept = capacity.used.saturating_sub(freed);
        Some(Room { kept, left: capacity.limit.saturating_sub(kept), limit: capacity.limit })
    }

    /// The roles and members that stand there.
    #[must_use]
    pub fn present(&self) -> (BTreeSet<Role>, BTreeSet<MemberKey>) {
        let members = self.grants.keys().map(|grant| &grant.member);
        (
            self.grants.keys().map(|grant| grant.role.clone()).collect(),
            members.chain(self.beyond.iter().map(|(_, _, member)| member)).cloned().collect(),
        )
    }

    /// The document as it is sent: with these changes, upon this revision.
    #[must_use]
    pub fn after(&self, changes: &Changes) -> Self {
        let mut grants = self.grants.clone();
        grants.retain(|grant, _| !changes.remove.contains(grant));
        for addition in &changes.add {
            let stored = || Stored { member: addition.member.clone(), times: 0 };
            grants.entry(addition.grant.clone()).or_insert_with(stored).times += 1;
        }
        Self { grants, ..self.clone() }
    }
}

/// How many members fit into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Appearances of principals that stay.
    pub kept: usize,
    /// How many more there may be.
    pub left: usize,
    /// How many there may be in all.
    pub limit: usize,
}
