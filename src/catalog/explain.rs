//! Which groups explain the grants that stand in policies today: those whose members all have a role there already, so that
//! a mapping of the group adds nobody.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{DocumentKey, GrantKey, GroupId, Live, MemberKey, ProviderName, ResourceKind, Role};

use super::Catalog;
use super::nesting::Meant;
use super::tenant::{Group, GroupState, Selector, Tenant};

/// A resource as patterns of mappings name it: in every region of the target that has it.
pub(crate) type Named = (ResourceKind, String);

/// One policy to explain.
pub(crate) struct Standing<'a> {
    /// The document.
    pub(crate) document: &'a DocumentKey,
    /// Its content.
    pub(crate) live: &'a Live,
    /// The grants in it that rolecall made, which are explained.
    pub(crate) managed: &'a BTreeSet<GrantKey>,
}

/// A group that explains grants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Explained {
    /// The provider of the group.
    pub(crate) provider: ProviderName,
    /// Its displayName.
    pub(crate) display_name: String,
    /// Its externalId, where mappings have to name it by that because others have the same displayName.
    pub(crate) external_id: Option<String>,
    /// Its id.
    pub(crate) group: GroupId,
}

/// The grants of one role on one resource that nothing explains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Unexplained {
    /// Grants to people of the identity providers.
    pub(crate) people: usize,
    /// Grants to accounts that no identity provider pushed as an active user.
    pub(crate) unknown: usize,
    /// Grants to service accounts, groups, domains and the like.
    pub(crate) others: usize,
}

/// The groups that explain grants, and the number of grants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Explanation {
    /// The roles that each group has, and on which resources.
    pub(crate) groups: BTreeMap<Explained, BTreeMap<Role, BTreeSet<Named>>>,
    /// Number of grants, without those that rolecall made.
    pub(crate) grants: usize,
    /// Number of those that the groups explain.
    pub(crate) explained: usize,
    /// The others.
    pub(crate) unexplained: BTreeMap<(Named, Role), Unexplained>,
}

/// The grants of one role on the resources of one name.
#[derive(Default)]
struct Place<'a> {
    /// Members that have the role in all of them.
    everywhere: Option<BTreeSet<&'a MemberKey>>,
    /// Members with a grant that rolecall did not make, and in how many policies.
    open: BTreeMap<&'a MemberKey, usize>,
}

impl Catalog {
    /// Explains the grants without condition in these policies by groups of the providers. The fewest groups are sought
    /// greedily: first the one that explains most.
    #[must_use]
    pub(crate) fn explain(&self, policies: &[Standing<'_>]) -> Explanation {
        let mut places: BTreeMap<(Named, Role), Place<'_>> = BTreeMap::new();
        for Standing { document, live, managed } in policies {
            let named = (document.kind(), document.name().to_owned());
            let mut here: BTreeMap<&Role, BTreeSet<&MemberKey>> = BTreeMap::new();
            for (grant, _) in live.grants().filter(|(grant, _)| grant.condition.as_str().is_empty()) {
                here.entry(&grant.role).or_default().insert(&grant.member);
                if !managed.contains(grant) {
                    let place = places.entry((named.clone(), grant.role.clone())).or_default();
                    *place.open.entry(&grant.member).or_default() += 1;
                }
            }
            for (role, members) in here {
                let place = places.entry((named.clone(), role.clone())).or_default();
                place.everywhere = Some(match place.everywhere.take() {
                    Some(before) => before.intersection(&members).copied().collect(),
                    None => members,
                });
            }
        }
        let mut explanation = Explanation::default();
        for ((named, role), place) in places {
            // A resource of that name in another region without the role: a mapping would add everybody there.
            let regions =
                policies.iter().filter(|one| (one.document.kind(), one.document.name()) == (named.0, &named.1));
            let plain = |grant: &GrantKey| grant.role == role && grant.condition.as_str().is_empty();
            let everywhere = regions.clone().all(|one| one.live.grants().any(|(grant, _)| plain(grant)));
            let standing = place.everywhere.filter(|_| everywhere).unwrap_or_default();
            self.explain_place((named, role), &standing, place.open, &mut explanation);
        }
        explanation
    }

    fn explain_place(
        &self,
        place: (Named, Role),
        standing: &BTreeSet<&MemberKey>,
        mut open: BTreeMap<&MemberKey, usize>,
        explanation: &mut Explanation,
    ) {
        explanation.grants += open.values().sum::<usize>();
        let mut candidates = self.candidates(standing, &open);
        loop {
            let worth = |members: &BTreeSet<MemberKey>| members.iter().filter_map(|one| open.get(one)).sum::<usize>();
            let best =
                candidates.iter().map(|(group, members)| (worth(members), members.len(), group)).max_by(|a, b| {
                    // The larger of two equal gains, then the smaller group, then the first by name.
                    a.0.cmp(&b.0).then(b.1.cmp(&a.1)).then(b.2.cmp(a.2))
                });
            let Some((gain @ 1.., _, group)) = best else { break };
            let group = group.clone();
            for member in candidates.remove(&group).iter().flatten() {
                open.remove(member);
            }
            explanation.explained += gain;
            explanation.groups.entry(group).or_default().entry(place.1.clone()).or_default().insert(place.0.clone());
        }
        if open.is_empty() {
            return;
        }
        let left = explanation.unexplained.entry(place).or_default();
        for (member, times) in open {
            let owned = self.tenants.values().any(|tenant| tenant.is_in_force() && tenant.owner(member).is_some());
            match member.as_str().split_once(':') {
                _ if owned => left.people += times,
                Some(("user" | "principal", _)) => left.unknown += times,
                _ => left.others += times,
            }
        }
    }

    /// The groups of the members that are not explained yet of which all members have the role.
    fn candidates(
        &self,
        standing: &BTreeSet<&MemberKey>,
        open: &BTreeMap<&MemberKey, usize>,
    ) -> BTreeMap<Explained, BTreeSet<MemberKey>> {
        let mut candidates = BTreeMap::new();
        for (provider, tenant) in self.tenants.iter().filter(|(_, tenant)| tenant.is_in_force()) {
            let mut seen: BTreeSet<GroupId> = BTreeSet::new();
            let users = open.keys().filter_map(|member| tenant.owner(member));
            let mut next: Vec<GroupId> = users.flat_map(|user| tenant.groups_of(user)).collect();
            while let Some(id) = next.pop() {
                let Some(group) = tenant.group(id).filter(|_| seen.insert(id)) else { continue };
                if tenant.resolves_nesting() {
                    next.extend(tenant.parents(group));
                }
                if let (Some(named), Some(members)) =
                    (explained(provider, tenant, group), self.members_within(tenant, group, standing))
                {
                    candidates.insert(named, members);
                }
            }
        }
        candidates
    }

    /// The principals of everybody in the group; none when somebody there does not have the role, or nobody has a
    /// principal.
    fn members_within(
        &self,
        tenant: &Tenant,
        group: &Group,
        standing: &BTreeSet<&MemberKey>,
    ) -> Option<BTreeSet<MemberKey>> {
        let (nesting, _) = tenant.nesting(group.id, &self.bounds);
        let meant: Meant<'_> = self.meant(tenant, group, &nesting);
        if meant.exceeds {
            return None;
        }
        let mut members = BTreeSet::new();
        for (_, user) in meant.members().filter(|(_, user)| !tenant.collides(user)) {
            if let Some(key) = &user.key {
                if !standing.contains(key) {
                    return None;
                }
                members.insert(key.clone());
            }
        }
        if members.is_empty() { None } else { Some(members) }
    }
}

/// The group as a mapping can name it; none when no name means it alone.
fn explained(provider: &ProviderName, tenant: &Tenant, group: &Group) -> Option<Explained> {
    if group.state != GroupState::Present {
        return None;
    }
    let alone = |selector: Selector| tenant.named(&selector).eq([group.id]);
    let by_name = alone(Selector::DisplayName(group.display_name.clone()));
    let external_id = group.external_id.clone().filter(|id| alone(Selector::ExternalId(id.clone())));
    let external_id = if by_name { None } else { Some(external_id?.to_string()) };
    Some(Explained {
        provider: provider.clone(),
        group: group.id,
        display_name: group.display_name.to_string(),
        external_id,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::model::{ConditionHash, Stored};

    /// A policy in which these people (by number) and others have the invoker role.
    fn policy(people: &[u128], others: &[&str]) -> Live {
        let members = people.iter().map(|n| format!("user:P{n}@corp.example"));
        let members = members.chain(others.iter().map(|one| (*one).to_owned()));
        let grant = |member: String| {
            let role = Role::new(INVOKER).unwrap();
            let key = GrantKey { role, condition: ConditionHash::default(), member: MemberKey::of(&member) };
            (key, Stored { member, times: 1 })
        };
        Live { revision: "e".to_owned(), grants: members.map(grant).collect(), ..Live::default() }
    }

    fn explain(catalog: &Catalog, policies: &[(DocumentKey, Live)]) -> Explanation {
        let managed = BTreeSet::new();
        let standing = |(document, live)| Standing { document, live, managed: &managed };
        catalog.explain(&policies.iter().map(|(document, live)| standing((document, live))).collect::<Vec<_>>())
    }

    fn shown(explanation: &Explanation) -> Vec<String> {
        let mut lines = Vec::new();
        for (group, roles) in &explanation.groups {
            for named in roles.values().flatten() {
                lines.push(format!("{} {}", group.display_name, named.1));
            }
        }
        lines
    }

    #[test]
    fn groups_whose_members_all_have_the_role_explain_it_and_nobody_would_be_added() {
        let catalog = index();
        let found = explain(
            &catalog,
            &[(document("a"), policy(&[1, 2, 3, 4], &["serviceAccount:x@p.iam", "user:gone@corp.example"]))],
        );
        assert_eq!(shown(&found), ["blue a", "red a"]);
        assert_eq!((found.grants, found.explained), (6, 3));
        let left: Vec<_> = found.unexplained.values().collect();
        assert_eq!(left, [&Unexplained { people: 1, unknown: 1, others: 1 }]);
        // One of the group is missing: a mapping would give access.
        assert_eq!(shown(&explain(&catalog, &[(document("a"), policy(&[2, 3], &[]))])), ["blue a"]);
        assert!(shown(&explain(&catalog, &[(document("a"), policy(&[2, 4], &[]))])).is_empty());
    }

    #[test]
    fn the_fewest_groups_are_proposed_and_a_group_without_members_explains_nothing() {
        let mut catalog = index();
        catalog.change(&named(3, "all"));
        catalog.change(&joined(3, &[1, 2, 3]));
        catalog.change(&named(4, "empty"));
        let found =
            explain(&catalog, &[(document("a"), policy(&[1, 2, 3], &[])), (document("b"), policy(&[1, 2], &[]))]);
        assert_eq!(shown(&found), ["all a", "red b"]);
        assert_eq!((found.grants, found.explained), (5, 5));
        assert!(found.unexplained.is_empty());
    }

    #[test]
    fn a_resource_of_the_same_name_elsewhere_counts_since_a_mapping_names_both() {
        let catalog = index();
        let (here, there) = (document("a"), document_in("elsewhere", "a"));
        let same = [(here.clone(), policy(&[1, 2], &[])), (there.clone(), policy(&[1, 2], &[]))];
        let found = explain(&catalog, &same);
        assert_eq!((shown(&found), found.grants, found.explained), (vec!["red a".to_owned()], 4, 4));
        let mut conditioned = policy(&[], &[]);
        let condition = ConditionHash::from_text("0123456789abcdef");
        for (grant, stored) in policy(&[1, 2], &[]).grants {
            conditioned.grants.insert(GrantKey { condition: condition.clone(), ..grant }, stored);
        }
        for other in [policy(&[1], &[]), policy(&[], &[]), conditioned] {
            let found = explain(&catalog, &[(here.clone(), policy(&[1, 2], &[])), (there.clone(), other)]);
            assert!(shown(&found).is_empty(), "somebody would get access there");
        }
    }

    #[test]
    fn what_rolecall_made_needs_no_explanation_and_a_shared_name_is_replaced_by_the_external_id() {
        let mut catalog = index();
        let live = policy(&[1, 2], &[]);
        let managed: BTreeSet<GrantKey> = live.grants.keys().cloned().collect();
        let document = document("a");
        let found = catalog.explain(&[Standing { document: &document, live: &live, managed: &managed }]);
        assert_eq!(found, Explanation::default());
        catalog.change(&named(5, "red"));
        let found = explain(&catalog, &[(document, live)]);
        let ids: Vec<_> = found.groups.keys().map(|group| group.external_id.as_deref()).collect();
        assert_eq!(ids, [Some("x1")]);
    }
}
