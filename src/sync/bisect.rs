//! Finds the addition that Google refuses when its answer names nobody. Pure, with one write at a time.
//!
//! ```text
//! refused as a whole ─► the policy without the additions ─┬─ refused ──► somebody else's member is the cause
//!                                                          └─ accepted ─► halves, until one grant is left
//! ```
//!
//! An accepted half stays written. When a set was refused and one of its halves is accepted, the other half contains
//! the cause and needs no write to prove that; but nothing is isolated that was not itself refused. Grants that were
//! not tested are tested at the end, in one write. One bad grant among `n` therefore costs about `log2 n` writes, and
//! the other people get their grants on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ConditionHash, GrantKey, MemberKey, Role};
use crate::target::RefusalCause;

type Grants = BTreeSet<GrantKey>;

/// A role under a condition. Either of them may be the cause, for every member.
type Place = (Role, ConditionHash);

/// The next step of the bisection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Write the policy without any of the additions.
    Prove,
    /// Write these additions and no others.
    Test(Grants),
    /// Every addition was accepted or isolated.
    Done,
}

/// An isolated cause.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Isolated {
    /// The member is refused under every role.
    Member(MemberKey),
    /// The role is refused for every member, or its condition is.
    Role(Role, ConditionHash),
    /// Only this combination is refused.
    Grant(GrantKey),
}

/// The possible subject of a refusal, according to its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Anything,
    Members,
    Roles,
}

/// The state of a bisection over the additions of one document.
#[derive(Debug, Clone)]
pub(super) struct Bisection {
    pub(super) cause: RefusalCause,
    about: About,
    /// True when the policy without the additions was accepted.
    proven: bool,
    /// Sets that each contain a cause, and whether they were refused themselves. The last one is processed.
    suspects: Vec<(Grants, bool)>,
    /// Grants that were not tested.
    untested: Grants,
    /// Grants that were untested when the part of a role was refused: tested before the role is split further.
    test_rest: bool,
    /// Members, roles and domains of members that are in the policy, or were accepted in a test.
    members: BTreeSet<MemberKey>,
    roles: BTreeSet<Place>,
    domains: BTreeSet<String>,
    /// Members refused elsewhere for the same reason.
    hints: BTreeSet<MemberKey>,
    /// Members that were refused alone, by role.
    alone: BTreeMap<Place, BTreeSet<MemberKey>>,
    /// The set that is being written, and the rest of the suspect that it was split from.
    testing: Option<(Grants, Option<Grants>)>,
}

/// Splits a group in two by a property of its grants; none when all or none of them have it.
type SplitBy<'a> = dyn Fn(&dyn Fn(&GrantKey) -> bool) -> Option<(Grants, Grants)> + 'a;

impl Bisection {
    /// Starts after `refused` was refused as a whole. `roles` and `members`: the content of the policy.
    pub(super) fn new(
        cause: RefusalCause,
        refused: Grants,
        roles: BTreeSet<Place>,
        members: BTreeSet<MemberKey>,
        hints: BTreeSet<MemberKey>,
    ) -> Self {
        let conditional = || refused.iter().any(|grant| !grant.condition.as_str().is_empty());
        let about = match cause {
            RefusalCause::PrincipalUnknown
            | RefusalCause::PrincipalRefused
            | RefusalCause::PrincipalType
            | RefusalCause::PrincipalMalformed
            | RefusalCause::DomainRestricted => About::Members,
            RefusalCause::RoleNotSupported => About::Roles,
            RefusalCause::Condition if conditional() => About::Roles,
            RefusalCause::OrganizationPolicy
            | RefusalCause::Condition
            | RefusalCause::LimitExceeded
            | RefusalCause::Other => About::Anything,
        };
        let domains = members.iter().map(|member| domain(member).to_owned()).collect();
        Self {
            cause,
            about,
            proven: false,
            suspects: vec![(refused, true)],
            untested: Grants::new(),
            test_rest: false,
            members,
            roles,
            domains,
            hints,
            alone: BTreeMap::new(),
            testing: None,
        }
    }

    /// The grants that are neither accepted nor isolated.
    pub(super) fn open(&self) -> impl Iterator<Item = &GrantKey> {
        self.suspects.iter().flat_map(|(group, _)| group).chain(&self.untested)
    }

    /// Discards the results of tests, because the target may have changed since.
    pub(super) fn start_over(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        self.untested.extend(suspects.into_iter().flat_map(|(group, _)| group));
        (self.proven, self.test_rest, self.testing) = (false, false, None);
        self.alone.clear();
    }

    /// Records that the policy without the additions was accepted.
    pub(super) fn proven(&mut self) {
        self.proven = true;
    }

    /// Adds grants of a refused write that was not a test of this bisection. They stay pending until they are tested.
    pub(super) fn suspect(&mut self, grants: impl Iterator<Item = GrantKey>) {
        let known: Grants = self.open().cloned().collect();
        self.untested.extend(grants.filter(|grant| !known.contains(grant)));
    }

    /// The next write, given the currently wanted additions, and the causes that were isolated on the way.
    pub(super) fn next(&mut self, wanted: &Grants) -> (Next, Vec<Isolated>) {
        let mut isolated = Vec::new();
        self.keep(wanted);
        if self.open().next().is_none() {
            return (Next::Done, isolated);
        }
        if !self.proven {
            return (Next::Prove, isolated);
        }
        loop {
            if self.test_rest && !self.untested.is_empty() {
                return (self.test(self.untested.clone(), None), isolated);
            }
            let Some((group, tested)) = self.suspects.last().cloned() else { break };
            if let Some(found) = self.conclude(&group) {
                if !tested {
                    return (self.test(group, None), isolated);
                }
                self.isolate(&found);
                isolated.push(found);
                continue;
            }
            let (first, rest) = self.split(&group);
            return (self.test(first, Some(rest)), isolated);
        }
        if self.untested.is_empty() {
            return (Next::Done, isolated);
        }
        (self.test(self.untested.clone(), None), isolated)
    }

    fn test(&mut self, grants: Grants, rest: Option<Grants>) -> Next {
        self.testing = Some((grants.clone(), rest));
        Next::Test(grants)
    }

    /// Records that the last test was accepted, or was refused without naming a member.
    pub(super) fn answer(&mut self, accepted: bool) {
        let Some((tested, rest)) = self.testing.take() else { return };
        if rest.is_none() {
            self.test_rest = false;
        }
        match (accepted, rest) {
            (true, None) => {
                self.clear(&tested);
                self.suspects.retain(|(group, _)| *group != tested);
                self.untested.retain(|grant| !tested.contains(grant));
            }
            (true, Some(rest)) => {
                self.clear(&tested);
                self.suspects.pop();
                self.suspects.push((rest, false));
            }
            (false, None) => {
                self.suspects.retain(|(group, _)| *group != tested);
                self.untested.retain(|grant| !tested.contains(grant));
                self.suspects.push((tested, true));
            }
            (false, Some(rest)) => {
                self.suspects.pop();
                // Whether the members are accepted under another role distinguishes a bad role from a bad member.
                self.test_rest = self.about == About::Anything && roles(&tested).is_disjoint(&roles(&rest));
                self.untested.extend(rest);
                self.suspects.push((tested, true));
            }
        }
    }

    fn clear(&mut self, accepted: &Grants) {
        for grant in accepted {
            self.members.insert(grant.member.clone());
            self.roles.insert(place(grant));
            self.domains.insert(domain(&grant.member).to_owned());
        }
    }

    /// Drops grants that are no longer wanted. A suspect that loses a grant may have lost the cause.
    fn keep(&mut self, wanted: &Grants) {
        let known: Grants = self.open().cloned().collect();
        self.untested.retain(|grant| wanted.contains(grant));
        for (mut group, tested) in std::mem::take(&mut self.suspects) {
            let before = group.len();
            group.retain(|grant| wanted.contains(grant));
            if group.len() == before {
                self.suspects.push((group, tested));
            } else {
                self.untested.extend(group);
            }
        }
        self.untested.extend(wanted.iter().filter(|grant| !known.contains(*grant)).cloned());
    }

    /// The cause within a set that contains one, if it can be determined without another write.
    fn conclude(&self, group: &Grants) -> Option<Isolated> {
        let (all_roles, all_members) = (roles(group), members(group));
        let role_is_open = |role: &Place| self.about != About::Members && !self.roles.contains(role);
        let members_are_clear =
            self.about == About::Roles || all_members.iter().all(|member| self.members.contains(*member));
        if let (true, [role]) = (members_are_clear, all_roles.iter().collect::<Vec<_>>().as_slice())
            && role_is_open(role)
        {
            return Some(Isolated::Role(role.0.clone(), role.1.clone()));
        }
        let roles_are_clear = !all_roles.iter().any(&role_is_open);
        if let (true, [member]) = (roles_are_clear, all_members.iter().collect::<Vec<_>>().as_slice())
            && !self.members.contains(**member)
        {
            return Some(Isolated::Member((**member).clone()));
        }
        let only = group.first().filter(|_| group.len() == 1)?;
        if members_are_clear || self.members.contains(&only.member) {
            return Some(Isolated::Grant(only.clone()));
        }
        // A second member is refused alone under a role under which nobody was accepted: the role is the cause.
        let role = place(only);
        let others = self.alone.get(&role).is_some_and(|alone| alone.iter().any(|member| *member != only.member));
        if role_is_open(&role) && others {
            return Some(Isolated::Role(role.0, role.1));
        }
        // Nobody was accepted under the condition, so nothing is said about the member.
        if role_is_open(&role) && !role.1.as_str().is_empty() {
            return Some(Isolated::Grant(only.clone()));
        }
        Some(Isolated::Member(only.member.clone()))
    }

    fn isolate(&mut self, found: &Isolated) {
        let (group, _) = self.suspects.pop().unwrap_or_default();
        for grant in &group {
            self.alone.entry(place(grant)).or_default().insert(grant.member.clone());
        }
        self.untested.extend(group);
        let is_it = |grant: &GrantKey| match found {
            Isolated::Member(member) => grant.member == *member,
            Isolated::Role(role, condition) => grant.role == *role && grant.condition == *condition,
            Isolated::Grant(one) => grant == one,
        };
        self.untested.retain(|grant| !is_it(grant));
        for (mut group, tested) in std::mem::take(&mut self.suspects) {
            if group.iter().any(is_it) {
                group.retain(|grant| !is_it(grant));
                self.untested.extend(group);
            } else {
                self.suspects.push((group, tested));
            }
        }
    }

    /// Splits a set of more than one grant into two non-empty parts. The first one is tested: the larger or the less
    /// suspicious.
    fn split(&self, group: &Grants) -> (Grants, Grants) {
        let by = |first: &dyn Fn(&GrantKey) -> bool| -> Option<(Grants, Grants)> {
            let (one, other): (Grants, Grants) = group.iter().cloned().partition(first);
            (!one.is_empty() && !other.is_empty()).then_some((one, other))
        };
        if let Some(parts) = by(&|grant| !self.hints.contains(&grant.member)) {
            return parts;
        }
        if self.about == About::Members
            && let Some(parts) = self.split_by_domain(group, &by)
        {
            return parts;
        }
        if self.about != About::Members {
            if let Some(parts) = by(&|grant| self.roles.contains(&place(grant))) {
                return parts;
            }
            let first = group.first().map(place);
            if let Some(parts) = by(&|grant| Some(place(grant)) == first) {
                return parts;
            }
        }
        let all: Vec<&MemberKey> = members(group).into_iter().collect();
        // While the role or the domain may be the cause, one member gives more information than half of them.
        let doubtful = match self.about {
            About::Members => {
                self.cause == RefusalCause::DomainRestricted
                    && all.iter().all(|member| !self.domains.contains(domain(member)))
            }
            About::Anything | About::Roles => group.iter().all(|grant| !self.roles.contains(&place(grant))),
        };
        let half = if doubtful && all.len() > 2 { 1 } else { all.len().div_ceil(2) };
        // After one member was refused alone, the next one is taken from far away. Members refused for the same cause
        // are often neighbors, and two of those would make the role look like the cause.
        let again = doubtful && group.iter().any(|grant| self.alone.contains_key(&place(grant)));
        let first: BTreeSet<&MemberKey> =
            if again { all.into_iter().rev().take(half).collect() } else { all.into_iter().take(half).collect() };
        by(&|grant| first.contains(&grant.member)).unwrap_or_else(|| {
            let mut rest = group.clone();
            let one = rest.pop_first().into_iter().collect();
            (one, rest)
        })
    }

    /// Domains that were accepted come before others, otherwise the most frequent one comes first.
    fn split_by_domain(&self, group: &Grants, by: &SplitBy<'_>) -> Option<(Grants, Grants)> {
        if let Some(parts) = by(&|grant| self.domains.contains(domain(&grant.member))) {
            return Some(parts);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for grant in group {
            *counts.entry(domain(&grant.member)).or_default() += 1;
        }
        let most = counts.iter().max_by_key(|(_, count)| **count).map(|(name, _)| (*name).to_owned())?;
        by(&|grant| domain(&grant.member) == most)
    }
}

fn place(grant: &GrantKey) -> Place {
    (grant.role.clone(), grant.condition.clone())
}

fn roles(grants: &Grants) -> BTreeSet<Place> {
    grants.iter().map(place).collect()
}

fn members(grants: &Grants) -> BTreeSet<&MemberKey> {
    grants.iter().map(|grant| &grant.member).collect()
}

/// The text after the last `@`; the whole member where there is none.
fn domain(member: &MemberKey) -> &str {
    member.as_str().rsplit_once('@').map_or(member.as_str(), |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(role: &str, member: &str) -> GrantKey {
        GrantKey {
            role: Role::new(role).unwrap(),
            condition: ConditionHash::default(),
            member: MemberKey::of(&format!("user:{member}")),
        }
    }

    fn people(role: &str, count: usize, domain: &str) -> Grants {
        (0..count).map(|n| grant(role, &format!("p{n:03}@{domain}"))).collect()
    }

    struct Outcome {
        /// Number of writes after the one that was refused as a whole.
        writes: usize,
        accepted: Grants,
        isolated: BTreeSet<Isolated>,
    }

    fn covered(found: &BTreeSet<Isolated>, grant: &GrantKey) -> bool {
        found.iter().any(|found| match found {
            Isolated::Member(member) => grant.member == *member,
            Isolated::Role(role, condition) => grant.role == *role && grant.condition == *condition,
            Isolated::Grant(one) => grant == one,
        })
    }

    /// Simulates a Google that refuses every policy with a grant that `is_bad`. Ends after `budget` writes.
    fn run(mut bisection: Bisection, all: &Grants, budget: usize, is_bad: impl Fn(&GrantKey) -> bool) -> Outcome {
        let mut outcome = Outcome { writes: 0, accepted: Grants::new(), isolated: BTreeSet::new() };
        loop {
            let wanted: Grants = all
                .iter()
                .filter(|grant| !outcome.accepted.contains(*grant) && !covered(&outcome.isolated, grant))
                .cloned()
                .collect();
            let (next, isolated) = bisection.next(&wanted);
            outcome.isolated.extend(isolated);
            match next {
                Next::Done => return outcome,
                _ if outcome.writes == budget => return outcome,
                Next::Prove => bisection.proven(),
                Next::Test(grants) => {
                    assert!(!grants.is_empty());
                    let accepted = !grants.iter().any(&is_bad);
                    bisection.answer(accepted);
                    if accepted {
                        outcome.accepted.extend(grants);
                    }
                }
            }
            outcome.writes += 1;
        }
    }

    fn fresh(cause: RefusalCause, all: &Grants) -> Bisection {
        Bisection::new(cause, all.clone(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new())
    }

    const INVOKER: &str = "roles/run.invoker";
    const VIEWER: &str = "roles/run.viewer";

    #[test]
    fn one_bad_member_of_sixty_is_found_within_twelve_writes_wherever_it_is() {
        let all = people(INVOKER, 60, "example.com");
        for bad in &all {
            for cause in [RefusalCause::Other, RefusalCause::DomainRestricted] {
                let outcome = run(fresh(cause, &all), &all, 11, |grant| grant == bad);
                assert_eq!(outcome.isolated, BTreeSet::from([Isolated::Member(bad.member.clone())]), "{cause:?}");
                assert_eq!(outcome.accepted.len(), 59, "{cause:?} {bad:?} after {} writes", outcome.writes);
            }
        }
    }

    #[test]
    fn a_role_that_is_refused_for_everybody_is_found_by_few_writes() {
        let mut all = people(INVOKER, 60, "example.com");
        all.extend(people(VIEWER, 60, "example.com"));
        for role in [INVOKER, VIEWER] {
            let role = Role::new(role).unwrap();
            let outcome = run(fresh(RefusalCause::Other, &all), &all, 11, |grant| grant.role == role);
            assert_eq!(outcome.isolated, BTreeSet::from([Isolated::Role(role, ConditionHash::default())]));
            assert_eq!(outcome.accepted.len(), 60);
            assert!(outcome.writes <= 4, "{}", outcome.writes);
        }
        let alone = people(INVOKER, 60, "example.com");
        let outcome = run(fresh(RefusalCause::Other, &alone), &alone, 11, |_| true);
        assert!(
            outcome.isolated.contains(&Isolated::Role(Role::new(INVOKER).unwrap(), ConditionHash::default())),
            "{:?}",
            outcome.isolated
        );
        assert!(outcome.writes <= 6, "{}", outcome.writes);
        let outcome = run(fresh(RefusalCause::RoleNotSupported, &alone), &alone, 11, |_| true);
        assert_eq!(
            outcome.isolated,
            BTreeSet::from([Isolated::Role(Role::new(INVOKER).unwrap(), ConditionHash::default())])
        );
        assert_eq!(outcome.writes, 1, "the text says that it is the role, and there is one");
    }

    #[test]
    fn two_refused_members_side_by_side_do_not_convict_the_role_for_everybody() {
        let all = people(INVOKER, 40, "example.com");
        let bad: BTreeSet<Isolated> = all.iter().take(2).map(|grant| Isolated::Member(grant.member.clone())).collect();
        let outcome = run(fresh(RefusalCause::Other, &all), &all, 11, |grant| covered(&bad, grant));
        assert_eq!(outcome.isolated, bad);
        assert_eq!(outcome.accepted.len(), 38);
    }

    #[test]
    fn a_member_with_two_roles_is_found_as_a_member() {
        let mut all = people(INVOKER, 30, "example.com");
        all.extend(people(VIEWER, 30, "example.com"));
        let bad = MemberKey::of("user:p017@example.com");
        let outcome = run(fresh(RefusalCause::Other, &all), &all, 11, |grant| grant.member == bad);
        assert!(outcome.isolated.contains(&Isolated::Member(bad)), "{:?}", outcome.isolated);
        assert_eq!(outcome.isolated.len(), 1);
    }

    #[test]
    fn people_of_a_domain_that_is_not_permitted_are_isolated_at_once() {
        let mut all = people(INVOKER, 40, "example.com");
        all.extend(people(INVOKER, 2, "partner.example"));
        let outcome =
            run(fresh(RefusalCause::DomainRestricted, &all), &all, 11, |grant| domain(&grant.member) != "example.com");
        assert_eq!(outcome.isolated.len(), 2, "{:?}", outcome.isolated);
        assert_eq!(outcome.accepted.len(), 40);
        assert!(outcome.writes <= 5, "{}", outcome.writes);
    }

    #[test]
    fn nobody_is_isolated_when_the_cause_is_gone() {
        let all = people(INVOKER, 60, "example.com");
        for cause in [RefusalCause::Other, RefusalCause::DomainRestricted] {
            let outcome = run(fresh(cause, &all), &all, 11, |_| false);
            assert_eq!((outcome.accepted.len(), outcome.isolated.len()), (60, 0), "{cause:?}");
        }
        let alone = people(INVOKER, 1, "example.com");
        let mut bisection = fresh(RefusalCause::Other, &alone);
        bisection.start_over();
        assert_eq!(run(bisection, &alone, 11, |_| false).accepted.len(), 1);
    }

    #[test]
    fn what_was_refused_elsewhere_is_suspected_first() {
        let all = people(INVOKER, 60, "example.com");
        let bad = MemberKey::of("user:p041@example.com");
        let hints = BTreeSet::from([bad.clone()]);
        let roles = BTreeSet::from([(Role::new(INVOKER).unwrap(), ConditionHash::default())]);
        let bisection = Bisection::new(RefusalCause::Other, all.clone(), roles, BTreeSet::new(), hints);
        let outcome = run(bisection, &all, 11, |grant| grant.member == bad);
        assert_eq!((outcome.accepted.len(), outcome.writes), (59, 3), "the proof, all the others, and the one");
    }

    #[test]
    fn a_condition_that_is_refused_is_isolated_with_its_role_and_nobody_else_is_blamed() {
        let condition = ConditionHash::from_text("0123456789abcdef");
        for cause in [RefusalCause::Other, RefusalCause::Condition] {
            let mut all = people(INVOKER, 20, "example.com");
            let conditional: Grants =
                all.iter().map(|grant| GrantKey { condition: condition.clone(), ..grant.clone() }).collect();
            all.extend(conditional.clone());
            let outcome = run(fresh(cause, &all), &all, 11, |grant| grant.condition == condition);
            let role = Isolated::Role(Role::new(INVOKER).unwrap(), condition.clone());
            assert_eq!((outcome.isolated, outcome.accepted.len()), (BTreeSet::from([role]), 20), "{cause:?}");
            let alone = conditional.first().cloned().into_iter().collect();
            let outcome = run(fresh(cause, &alone), &alone, 11, |grant| grant.condition == condition);
            let blamed = |found: &Isolated| matches!(found, Isolated::Member(_));
            assert!(outcome.isolated.len() == 1 && !outcome.isolated.iter().any(blamed), "{:?}", outcome.isolated);
        }
    }

    proptest! {
        #[test]
        fn without_a_bound_everything_good_is_accepted_and_only_what_is_bad_is_isolated(
            bad in proptest::collection::btree_set((0_usize..2, 0_usize..24), 0..6),
            bad_members in proptest::collection::btree_set(0_usize..24, 0..4),
            about_members: bool,
        ) {
            let mut all = people(INVOKER, 24, "example.com");
            all.extend(people(VIEWER, 24, "example.com"));
            let names = |at: &usize| MemberKey::of(&format!("user:p{at:03}@example.com"));
            let members: BTreeSet<MemberKey> = bad_members.iter().map(names).collect();
            let role = |at: usize| Role::new([INVOKER, VIEWER][at]).unwrap();
            let is_bad = |grant: &GrantKey| {
                members.contains(&grant.member)
                    || (!about_members && bad.iter().any(|(at, n)| grant.role == role(*at) && grant.member == names(n)))
            };
            let cause = if about_members { RefusalCause::DomainRestricted } else { RefusalCause::Other };
            // Both roles are known to be accepted here, so no role is in doubt.
            let roles = [role(0), role(1)].map(|role| (role, ConditionHash::default())).into();
            let bisection = Bisection::new(cause, all.clone(), roles, BTreeSet::new(), BTreeSet::new());
            let outcome = run(bisection, &all, 1000, is_bad);
            for grant in &all {
                prop_assert_eq!(outcome.accepted.contains(grant), !covered(&outcome.isolated, grant), "{:?}", grant);
                if is_bad(grant) {
                    prop_assert!(covered(&outcome.isolated, grant), "{:?}", grant);
                } else if about_members {
                    prop_assert!(!covered(&outcome.isolated, grant), "{:?}", grant);
                }
            }
            for found in &outcome.isolated {
                if let Isolated::Member(member) = found {
                    let guilty = all.iter().any(|grant| grant.member == *member && is_bad(grant));
                    prop_assert!(guilty, "{:?}", member);
                }
            }
        }
    }
}
