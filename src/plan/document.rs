//! The policy as a set of grants, and edits that leave everything else as it was read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Binding, ConditionHash, GrantKey, MAX_PRINCIPALS, MemberKey, Policy, Role};

use super::{LimitExceeded, Step};

/// What stands in a policy, as a set.
pub(super) struct Live {
    /// Each grant, with its member as Google spells it.
    grants: BTreeMap<GrantKey, String>,
    /// Members under roles that rolecall never grants, such as basic roles.
    beyond: usize,
    /// All appearances of principals, as Google counts them.
    appearances: usize,
}

impl Live {
    pub(super) fn of(policy: &Policy) -> Self {
        let mut grants = BTreeMap::new();
        let mut beyond = BTreeSet::new();
        for binding in &policy.bindings {
            let condition = ConditionHash::of(binding.condition.as_ref());
            let role = Role::new(&binding.role);
            for spelling in &binding.members {
                let member = MemberKey::of(spelling);
                if let Ok(role) = &role {
                    let grant = GrantKey { role: role.clone(), condition: condition.clone(), member };
                    grants.entry(grant).or_insert_with(|| spelling.clone());
                } else {
                    beyond.insert((binding.role.as_str(), condition.clone(), member));
                }
            }
        }
        Self { grants, beyond: beyond.len(), appearances: appearances(policy) }
    }

    pub(super) fn has(&self, grant: &GrantKey) -> bool {
        self.grants.contains_key(grant)
    }

    /// All grants, each with its member as Google spells it.
    pub(super) fn grants(&self) -> impl Iterator<Item = (&GrantKey, &str)> {
        self.grants.iter().map(|(grant, spelling)| (grant, spelling.as_str()))
    }

    /// The grants of the same role and condition, in order.
    pub(super) fn beside<'a>(&'a self, grant: &'a GrantKey) -> impl Iterator<Item = (&'a GrantKey, &'a str)> {
        self.grants().filter(|(other, _)| other.role == grant.role && other.condition == grant.condition)
    }

    /// How many members there are that are none of these.
    pub(super) fn foreign(&self, ours: &BTreeSet<GrantKey>) -> usize {
        self.beyond + self.grants.keys().filter(|grant| !ours.contains(grant)).count()
    }

    /// Takes from the additions, last first, what would take the policy over the limit.
    pub(super) fn fit(
        &self,
        policy: &Policy,
        add: &mut Vec<Step>,
        remove: &[Step],
        sweep: &BTreeSet<GrantKey>,
    ) -> Option<LimitExceeded> {
        let kept = match edited(policy, &[], remove, sweep) {
            Some(policy) => appearances(&policy),
            None => self.appearances,
        };
        let room = MAX_PRINCIPALS.saturating_sub(kept);
        if add.len() <= room {
            return None;
        }
        let appearances = kept + add.len();
        let withheld = add.split_off(room).into_iter().map(|step| step.row.grant).collect();
        Some(LimitExceeded { appearances, limit: MAX_PRINCIPALS, withheld })
    }
}

fn appearances(policy: &Policy) -> usize {
    policy.bindings.iter().map(|binding| binding.members.len()).sum()
}

/// A role under a condition: what bindings are told apart by.
type Place<'a> = (&'a str, &'a ConditionHash);

fn place(grant: &GrantKey) -> Place<'_> {
    (grant.role.as_str(), &grant.condition)
}

/// What to write: the policy with these steps done. With none of them, the policy as it is where it has to be a fence: a
/// write moves the etag, and an earlier call that carries the old one is refused from then on.
pub(super) fn written(
    live: &Policy,
    add: &[Step],
    remove: &[Step],
    sweep: &BTreeSet<GrantKey>,
    fence: bool,
) -> Option<Policy> {
    edited(live, add, remove, sweep).or_else(|| fence.then(|| Policy { version: 3, ..live.clone() }))
}

/// The policy with these steps done and these members swept out; none when there are none. Bindings keep their order,
/// foreign members, conditions and unknown fields their bytes. A binding that a removal empties is dropped, one that was
/// empty before stays. Bindings are not merged; a member is added to one that says nothing else than its role and
/// condition, or to a new one.
pub(super) fn edited(live: &Policy, add: &[Step], remove: &[Step], sweep: &BTreeSet<GrantKey>) -> Option<Policy> {
    if add.is_empty() && remove.is_empty() && sweep.is_empty() {
        return None;
    }
    let mut policy = Policy { version: 3, ..live.clone() };
    let hashes: Vec<ConditionHash> =
        policy.bindings.iter().map(|binding| ConditionHash::of(binding.condition.as_ref())).collect();

    let gone: BTreeSet<&GrantKey> = remove.iter().flat_map(|step| &step.out).chain(sweep).collect();
    let places: BTreeSet<Place> = gone.iter().map(|grant| place(grant)).collect();
    let mut shrunk = vec![false; policy.bindings.len()];
    for (at, binding) in policy.bindings.iter_mut().enumerate() {
        if !places.contains(&(binding.role.as_str(), &hashes[at])) {
            continue;
        }
        let Ok(role) = Role::new(&binding.role) else { continue };
        let before = binding.members.len();
        binding.members.retain(|member| {
            let grant = GrantKey { role: role.clone(), condition: hashes[at].clone(), member: MemberKey::of(member) };
            !gone.contains(&grant)
        });
        shrunk[at] = binding.members.len() < before;
    }

    // The first binding of each place that says nothing but what rolecall knows. One without members is somebody's own
    // and stays as it is.
    let mut takes: BTreeMap<(String, ConditionHash), usize> = BTreeMap::new();
    for (at, binding) in policy.bindings.iter().enumerate().rev() {
        if !binding.has_unknown_fields() && (shrunk[at] || !binding.members.is_empty()) {
            takes.insert((binding.role.clone(), hashes[at].clone()), at);
        }
    }
    for step in add {
        let (role, condition) = place(step.grant());
        let member = step.row.member.clone();
        match takes.entry((role.to_owned(), condition.clone())) {
            Entry::Occupied(at) => policy.bindings[*at.get()].members.push(member),
            Entry::Vacant(vacant) => {
                vacant.insert(policy.bindings.len());
                shrunk.push(false);
                policy.bindings.push(Binding::new(role.to_owned(), vec![member], step.row.condition.clone()));
            }
        }
    }

    let mut at = 0;
    policy.bindings.retain(|binding| {
        let emptied = shrunk[at] && binding.members.is_empty();
        at += 1;
        !emptied
    });
    Some(policy)
}
