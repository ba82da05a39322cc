//! A document as a set of grants, and a change of such a document. Shared by the planner and the targets.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Condition, ConditionHash, GrantKey, MemberKey, Role, pairs};

/// The content of a document as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Live {
    /// The target's name for this version of the document; only equality is meaningful. Empty: the target answered that
    /// there is no such document.
    pub(crate) revision: String,
    /// True when the document has never been written since its resource was created. Unlike all others, this revision
    /// can occur again, when the resource is re-created.
    pub(crate) never_set: bool,
    /// Grants under roles that rolecall may grant.
    #[serde(with = "pairs")]
    pub(crate) grants: BTreeMap<GrantKey, Stored>,
    /// Members under roles that rolecall never grants, such as basic roles.
    pub(crate) beyond: BTreeSet<(String, ConditionHash, MemberKey)>,
    /// How much the document can hold; none: no limit is known.
    pub(crate) capacity: Option<Capacity>,
}

/// A grant as it is stored in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    /// The member as the target spells it.
    pub(crate) member: String,
    /// How many times it counts towards the capacity.
    pub(crate) times: usize,
}

/// The size of a document and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Capacity {
    /// Number of appearances of principals in the document.
    pub(crate) used: usize,
    /// Largest permitted number of appearances of principals.
    pub(crate) limit: usize,
    /// Number of appearances of groups and domains.
    pub(crate) groups: usize,
    /// Largest permitted number of appearances of groups and domains.
    pub(crate) groups_limit: usize,
    /// Number of bytes of its roles and members. The limit is not known.
    pub(crate) bytes: usize,
}

/// Share of a limit, in percent, from which on a document is nearly full.
const NEARLY_FULL: usize = 80;

/// Number of bytes from which on a document is nearly full. Google says of the size of a policy only that it is some tens
/// of kilobytes.
const MANY_BYTES: usize = 48 << 10;

impl Capacity {
    /// True when little room is left.
    #[must_use]
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.percent() >= NEARLY_FULL || self.bytes >= MANY_BYTES
    }

    /// The larger of the used shares of both limits.
    #[must_use]
    pub(crate) fn percent(&self) -> usize {
        let share = |used: usize, limit: usize| used.saturating_mul(100).checked_div(limit).unwrap_or_default();
        share(self.used, self.limit).max(share(self.groups, self.groups_limit))
    }
}

/// True for a member that counts towards the limit on groups and domains.
#[must_use]
pub(crate) fn is_group(member: &str) -> bool {
    let member = member.strip_prefix("deleted:").unwrap_or(member);
    member.starts_with("group:") || member.starts_with("domain:")
}

/// The changes to make to a document. Without any change, the document is written back as it is, which moves its
/// revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    /// Members to add, sorted by grant.
    pub(crate) add: Vec<Addition>,
    /// Members to remove.
    pub(crate) remove: BTreeSet<GrantKey>,
}

/// One member to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addition {
    /// The grant.
    pub(crate) grant: GrantKey,
    /// The member to write.
    pub(crate) member: String,
    /// The condition to write; its hash is part of the key.
    pub(crate) condition: Option<Condition>,
}

impl Live {
    /// True when the target answered that there is no such document.
    #[must_use]
    pub(crate) fn is_absent(&self) -> bool {
        self.revision.is_empty()
    }

    /// True when the document has the grant.
    #[must_use]
    pub(crate) fn has(&self, grant: &GrantKey) -> bool {
        self.grants.contains_key(grant)
    }

    /// All grants, each with its member as the target spells it.
    pub(crate) fn grants(&self) -> impl Iterator<Item = (&GrantKey, &str)> {
        self.grants.iter().map(|(grant, stored)| (grant, stored.member.as_str()))
    }

    /// The grants of the same role and condition, in order.
    pub(crate) fn beside<'a>(&'a self, grant: &'a GrantKey) -> impl Iterator<Item = (&'a GrantKey, &'a str)> {
        self.grants().filter(|(other, _)| other.role == grant.role && other.condition == grant.condition)
    }

    /// The number of members that are none of these.
    #[must_use]
    pub(crate) fn foreign(&self, ours: &BTreeSet<GrantKey>) -> usize {
        self.beyond.len() + self.grants.keys().filter(|grant| !ours.contains(grant)).count()
    }

    /// The roles of a member, as the document spells them.
    #[must_use]
    pub(crate) fn roles_of(&self, member: &MemberKey) -> BTreeSet<String> {
        let grants = self.grants.keys().filter(|grant| grant.member == *member).map(|grant| grant.role.to_string());
        let beyond = self.beyond.iter().filter(|(_, _, other)| other == member).map(|(role, _, _)| role.clone());
        grants.chain(beyond).collect()
    }

    /// How many more members fit once these are removed; none: no limit is known.
    #[must_use]
    pub(crate) fn room_without<'a>(&self, gone: impl Iterator<Item = &'a GrantKey>) -> Option<Room> {
        let capacity = self.capacity?;
        let (mut freed, mut freed_groups) = (0, 0);
        for stored in gone.filter_map(|grant| self.grants.get(grant)) {
            freed += stored.times;
            freed_groups += if is_group(&stored.member) { stored.times } else { 0 };
        }
        let kept = capacity.used.saturating_sub(freed);
        let kept_groups = capacity.groups.saturating_sub(freed_groups);
        Some(Room {
            kept,
            left: capacity.limit.saturating_sub(kept),
            limit: capacity.limit,
            kept_groups,
            groups_left: capacity.groups_limit.saturating_sub(kept_groups),
            groups_limit: capacity.groups_limit,
        })
    }

    /// The roles of the document, with their conditions, and its members, once these are removed.
    #[must_use]
    pub(crate) fn present_without(
        &self,
        gone: &BTreeSet<&GrantKey>,
    ) -> (BTreeSet<(Role, ConditionHash)>, BTreeSet<MemberKey>) {
        let kept = || self.grants.keys().filter(|grant| !gone.contains(grant));
        let members = kept().map(|grant| &grant.member);
        (
            kept().map(|grant| (grant.role.clone(), grant.condition.clone())).collect(),
            members.chain(self.beyond.iter().map(|(_, _, member)| member)).cloned().collect(),
        )
    }

    /// The document that is sent: this revision with the changes applied.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn after(&self, changes: &Changes) -> Self {
        let mut grants = self.grants.clone();
        grants.retain(|grant, _| !changes.remove.contains(grant));
        for addition in &changes.add {
            let stored = || Stored { member: addition.member.clone(), times: 0 };
            grants.entry(addition.grant.clone()).or_insert_with(stored).times += 1;
        }
        Self { grants, ..self.clone() }
    }
}

/// How many more members fit into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Appearances of principals that stay.
    pub(crate) kept: usize,
    /// Number of further appearances that fit.
    pub(crate) left: usize,
    /// Largest permitted number of appearances.
    pub(crate) limit: usize,
    /// Appearances of groups and domains that stay.
    pub(crate) kept_groups: usize,
    /// Number of further appearances of groups and domains that fit.
    pub(crate) groups_left: usize,
    /// Largest permitted number of them.
    pub(crate) groups_limit: usize,
}
