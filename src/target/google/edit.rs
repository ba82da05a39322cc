//! Policies as sets of grants, and edits that preserve everything else as it was read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::policy::{Binding, Policy};
use crate::model::{Capacity, Changes, ConditionHash, GrantKey, Live, MemberKey, Role, Stored, is_group};

/// Google's limit on the appearances of principals in all bindings of one policy.
pub(crate) const MAX_PRINCIPALS: usize = 1500;

/// Google's limit on the appearances of groups and domains. Google documents both that each appearance of a group counts
/// and that each group counts once; the stricter reading is assumed.
pub(crate) const MAX_GROUPS: usize = 250;

/// The etag of a policy that has never been set.
const NEVER_SET: &str = "ACAB";

/// The grants of a policy, as a set.
pub(in crate::target) fn live(policy: &Policy) -> Live {
    let mut grants: BTreeMap<GrantKey, Stored> = BTreeMap::new();
    let mut beyond = BTreeSet::new();
    let mut used = exempted(policy);
    let (mut groups, mut bytes) = (0, 0);
    for binding in &policy.bindings {
        used += binding.members.len();
        groups += binding.members.iter().filter(|member| is_group(member)).count();
        bytes += binding.role.len() + binding.members.iter().map(String::len).sum::<usize>();
        let condition = ConditionHash::of(binding.condition.as_ref());
        let role = Role::new(&binding.role);
        for spelling in &binding.members {
            let member = MemberKey::of(spelling);
            if let Ok(role) = &role {
                let grant = GrantKey { role: role.clone(), condition: condition.clone(), member };
                grants.entry(grant).or_insert_with(|| Stored { member: spelling.clone(), times: 0 }).times += 1;
            } else {
                beyond.insert((binding.role.clone(), condition.clone(), member));
            }
        }
    }
    Live {
        revision: policy.etag.clone(),
        never_set: policy.etag == NEVER_SET,
        grants,
        beyond,
        capacity: Some(Capacity { used, limit: MAX_PRINCIPALS, groups, groups_limit: MAX_GROUPS, bytes }),
    }
}

/// Number of members that audit configurations exempt: they count like members of bindings.
fn exempted(policy: &Policy) -> usize {
    let Some((_, configs)) = policy.rest.iter().find(|(name, _)| name == "auditConfigs") else { return 0 };
    let Ok(configs) = configs.parse::<Vec<AuditConfig>>() else { return 0 };
    let logs = configs.into_iter().flat_map(|config| config.audit_log_configs);
    logs.map(|log| log.exempted_members.len()).sum()
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuditConfig {
    audit_log_configs: Vec<AuditLogConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuditLogConfig {
    exempted_members: Vec<IgnoredAny>,
}

/// A role and a condition: the identity of a binding.
type Place<'a> = (&'a str, &'a ConditionHash);

fn place(grant: &GrantKey) -> Place<'_> {
    (grant.role.as_str(), &grant.condition)
}

/// The policy with these changes, or unchanged when there are none. Bindings keep their order; foreign members,
/// conditions and unknown fields keep their bytes. A binding that a removal empties is dropped; one that was empty
/// before stays. Bindings are not merged. A member is added to a binding with no fields besides role, condition and
/// members, or to a new one.
pub(in crate::target) fn edited(read: &Policy, changes: &Changes) -> Policy {
    let mut policy = Policy { version: 3, ..read.clone() };
    if changes.add.is_empty() && changes.remove.is_empty() {
        return policy;
    }
    let hashes: Vec<ConditionHash> =
        policy.bindings.iter().map(|binding| ConditionHash::of(binding.condition.as_ref())).collect();
    let mut shrunk = take_out(&mut policy, &hashes, &changes.remove);

    // The first binding of each role and condition without unknown fields. A binding without members is foreign and
    // stays as it is.
    let mut takes: BTreeMap<(String, ConditionHash), usize> = BTreeMap::new();
    for (at, binding) in policy.bindings.iter().enumerate().rev() {
        if !binding.has_unknown_fields() && (shrunk[at] || !binding.members.is_empty()) {
            takes.insert((binding.role.clone(), hashes[at].clone()), at);
        }
    }
    for addition in &changes.add {
        let (role, condition) = place(&addition.grant);
        let member = addition.member.clone();
        match takes.entry((role.to_owned(), condition.clone())) {
            Entry::Occupied(at) => policy.bindings[*at.get()].members.push(member),
            Entry::Vacant(vacant) => {
                vacant.insert(policy.bindings.len());
                shrunk.push(false);
                policy.bindings.push(Binding::new(role.to_owned(), vec![member], addition.condition.clone()));
            }
        }
    }

    let mut at = 0;
    policy.bindings.retain(|binding| {
        let emptied = shrunk[at] && binding.members.is_empty();
        at += 1;
        !emptied
    });
    policy
}

/// Removes these members from every binding with their role and condition. Returns which bindings lost a member.
fn take_out(policy: &mut Policy, hashes: &[ConditionHash], gone: &BTreeSet<GrantKey>) -> Vec<bool> {
    let places: BTreeSet<Place> = gone.iter().map(place).collect();
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
    shrunk
}
