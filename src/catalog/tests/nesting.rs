//! Groups that are members of groups.

use proptest::prelude::*;

use super::*;
use crate::catalog::tenant::Tenant;
use crate::model::{Claim, Ground, MemberKey};

fn nests(n: u128, nested: &[u128]) -> DirectoryChange {
    let added = nested.iter().map(|n| group(*n)).collect();
    DirectoryChange::Nested { group: group(n), added, removed: vec![] }
}

fn parts(n: u128, nested: &[u128]) -> DirectoryChange {
    let removed = nested.iter().map(|n| group(*n)).collect();
    DirectoryChange::Nested { group: group(n), added: vec![], removed }
}

/// Group `red` (1, 2) contains `inner` (3), which contains `core` (4). The mapping names `red`.
fn nested() -> Catalog {
    let mut index = index();
    for change in [named(11, "inner"), named(12, "core"), joined(11, &[3]), joined(12, &[4]), nests(11, &[12])] {
        index.change(&change);
    }
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    index.change(&nests(1, &[11]));
    index
}

fn people(ids: &[u128]) -> BTreeSet<u128> {
    ids.iter().copied().collect()
}

fn view(index: &Catalog) -> crate::catalog::SubjectView {
    index.mapping(&key("m")).unwrap().subjects.remove(0)
}

fn small(depth: usize, groups: usize, memberships: usize) -> NestingBounds {
    NestingBounds { depth, groups, memberships, ..NestingBounds::default() }
}

#[test]
fn members_of_nested_groups_have_access_and_the_claim_says_through_which_group() {
    let index = nested();
    assert_eq!(index.people("a"), people(&[1, 2, 3, 4]));
    assert_eq!((view(&index).members, view(&index).nesting), (4, SubjectNesting::Plain));
    let desired = index.desired(&document("a"), &BTreeSet::new());
    let grounds: BTreeMap<_, _> = desired.grants.into_values().flat_map(|grant| grant.grounds).collect();
    for (person, through) in [(1, None), (3, Some(11)), (4, Some(12))] {
        let ground = &grounds[&Claim { mapping: key("m"), subject: Subject::User(user(person)) }];
        assert_eq!(ground.groups, BTreeSet::from([group(1)]));
        assert_eq!(ground.through, through.map(group).into_iter().collect(), "{person}");
    }
}

#[test]
fn access_through_a_nested_group_ends_urgently_however_the_membership_ends() {
    for (what, change, left) in [
        ("a person leaves the innermost group", left(12, &[4]), &[1, 2, 3][..]),
        ("the inner group leaves the middle one", parts(11, &[12]), &[1, 2, 3]),
        ("the middle group leaves the mapped one", parts(1, &[11]), &[1, 2]),
        ("the middle group is deleted", deleted(11), &[1, 2]),
        ("the innermost group is deleted", deleted(12), &[1, 2, 3]),
        ("the person is deactivated", inactive(4), &[1, 2, 3]),
        ("the person is deleted", DirectoryChange::UserDeleted { id: user(4) }, &[1, 2, 3]),
        ("the mapped group is deleted", deleted(1), &[]),
    ] {
        let mut index = nested();
        let effects = index.change(&change);
        assert_eq!(index.people("a"), people(left), "{what}");
        assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Revocation)]), "{what}");
    }
}

#[test]
fn a_change_elsewhere_concerns_no_mapping() {
    let mut index = nested();
    for change in [named(20, "other"), named(21, "another"), nests(20, &[21]), joined(21, &[1]), nests(20, &[11])] {
        let effects = index.change(&change);
        assert!(effects.dirty.is_empty() && effects.mappings.is_empty(), "{change:?}");
    }
    assert_eq!(index.change(&joined(11, &[1])).dirty.len(), 1, "one document of the mapping");
}

#[test]
fn a_renamed_nested_group_gives_what_it_gave_and_a_re_created_one_gives_nothing() {
    let mut index = nested();
    assert!(index.change(&named(11, "renamed")).dirty.is_empty());
    assert_eq!(index.people("a"), people(&[1, 2, 3, 4]));
    index.change(&deleted(11));
    for change in [named(13, "inner"), joined(13, &[3, 4]), nests(13, &[12])] {
        index.change(&change);
    }
    assert_eq!(index.people("a"), people(&[1, 2]), "nobody made the new group a member");
    index.change(&nests(1, &[13]));
    assert_eq!(index.people("a"), people(&[1, 2, 3, 4]));
    // The mapped group itself is pinned: another one of its name is held, with all that is nested in it.
    for change in [deleted(1), named(14, "red"), nests(14, &[12])] {
        index.change(&change);
    }
    assert_eq!(index.people("a"), people(&[]));
    // A deleted group is never a member again.
    index.change(&nests(13, &[11]));
    assert_eq!(index.nesting(&okta()).unwrap().nestings, 2);
}

#[test]
fn groups_in_a_circle_count_once_and_the_circle_is_reported_until_it_is_broken() {
    let mut index = nested();
    index.change(&nests(12, &[11]));
    assert_eq!(index.people("a"), people(&[1, 2, 3, 4]));
    assert_eq!(view(&index).nesting, SubjectNesting::Cycle("inner".to_owned()));
    let effects = index.change(&parts(11, &[12]));
    assert_eq!(index.people("a"), people(&[1, 2, 3]));
    assert!(effects.mappings.contains(&key("m")));
    assert_eq!(view(&index).nesting, SubjectNesting::Plain);
    // The mapped group in itself, and in a group nested in it.
    for (change, end) in [(nests(1, &[1]), parts(1, &[1])), (nests(11, &[1]), parts(11, &[1]))] {
        index.change(&change);
        assert_eq!(index.people("a"), people(&[1, 2, 3]));
        assert!(matches!(view(&index).nesting, SubjectNesting::Cycle(_)), "{change:?}");
        index.change(&end);
        assert_eq!(view(&index).nesting, SubjectNesting::Plain);
    }
    index.change(&nests(1, &[1]));
    assert_eq!(index.nesting(&okta()).unwrap().nestings, 3);
    index.change(&deleted(1));
    assert_eq!(index.nesting(&okta()).unwrap().nestings, 1, "the innermost group still contains the middle one");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scene after the other")]
fn beyond_a_bound_nobody_is_added_through_nesting_and_nobody_is_removed_but_those_who_left() {
    for bounds in [small(1, 100, 100), small(10, 1, 100), small(10, 100, 1)] {
        let mut index = Catalog::new(Ceiling::Enforce);
        index.set_bounds(bounds);
        index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
        index.apply_target(target("t"), target_spec(&["l"], &allow_all()), Timestamp::UNIX_EPOCH);
        index.apply_inventory(&target("t"), inventory(&["a", "b"]));
        index.put_freeze(None);
        for n in 1..=5 {
            index.change(&person(n));
        }
        for change in [named(1, "red"), joined(1, &[1]), named(11, "inner"), joined(11, &[3]), nests(1, &[11])] {
            index.change(&change);
        }
        index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
        assert_eq!(index.people("a"), people(&[1, 3]), "within {bounds:?}");

        index.change(&named(12, "core"));
        index.change(&joined(12, &[4]));
        let effects = index.change(&nests(11, &[12]));
        assert!(effects.dirty.contains_key(&document("a")));
        assert_eq!(index.people("a"), people(&[1]), "beyond {bounds:?}");
        let view = view(&index);
        assert_eq!((view.nesting, view.members), (SubjectNesting::Exceeds, 1));
        let reason = FreezeReason::NestingLimitExceeded;
        assert_eq!(index.enforcement_of("m", &document("a")), groups(reason, &[1], &[1]));
        // A direct member is certain.
        index.change(&joined(1, &[2]));
        assert_eq!(index.people("a"), people(&[1, 2]));

        let ground = |through: &[u128]| Ground {
            provider: okta(),
            groups: BTreeSet::from([group(1)]),
            through: through.iter().map(|n| group(*n)).collect(),
            mapping_uid: None,
            generation: None,
            not_after: None,
        };
        let claim = |n: u128| Claim { mapping: key("m"), subject: Subject::User(user(n)) };
        let lapsed = |index: &Catalog, n: u128, through: &[u128]| {
            let (member, claim, ground) =
                (MemberKey::of(&format!("user:p{n}@corp.example")), claim(n), ground(through));
            index.lapsed(std::iter::once((&member, &claim, &ground))).contains(&(member.clone(), claim.clone()))
        };
        assert!(!lapsed(&index, 3, &[11]) && !lapsed(&index, 4, &[12]));
        assert!(lapsed(&index, 5, &[12]) && lapsed(&index, 5, &[]));
        let truncated = bounds.memberships > 1;
        let dirty = BTreeMap::from([(document("a"), Urgency::Revocation)]);
        for (change, people) in [(left(12, &[4]), &[4][..]), (deleted(12), &[])] {
            let mut index = nested_copy(&index, bounds);
            let effects = index.change(&change);
            assert!(lapsed(&index, 4, &[12]));
            if truncated && !people.is_empty() {
                assert_eq!(effects.dirty, BTreeMap::new(), "only their claims concern the mapping");
                assert_eq!(effects.people, people.iter().map(|n| user(*n)).collect());
            } else {
                assert_eq!(effects.dirty, dirty, "{bounds:?} {change:?}");
            }
        }
        // A group that was taken out: as long as not all groups are found, it may be in another one.
        let mut apart = nested_copy(&index, bounds);
        assert_eq!(apart.change(&parts(11, &[12])).dirty, dirty, "{bounds:?}");
        let still_exceeds = self::view(&apart).nesting == SubjectNesting::Exceeds;
        assert_eq!(still_exceeds && lapsed(&apart, 4, &[12]), !truncated, "{bounds:?}");

        // Another address ends the claim for the former one, and for no other.
        let mut moved = nested_copy(&index, bounds);
        let at = |n: u128, address: &str| {
            let mut facts = facts(n, true);
            address.clone_into(&mut facts.user_name);
            DirectoryChange::User(facts)
        };
        for (n, through, address, ends) in [
            (4, &[12][..], "new4@corp.example", true),
            (4, &[12], "p4@corp.example", false),
            (4, &[12], "p4@elsewhere.example", true),
            (4, &[12], "p3@corp.example", true),
            (2, &[], "new2@corp.example", true),
        ] {
            let effects = moved.change(&at(n, address));
            let asked = effects.dirty == dirty || effects.people == BTreeSet::from([user(n)]);
            assert!(asked || !ends, "{bounds:?} {n} {address}");
            assert_eq!(lapsed(&moved, n, through), ends, "{bounds:?} {n} {address}");
        }
        // Within the bounds again, all is as it should be.
        index.change(&parts(11, &[12]));
        assert_eq!(index.people("a"), people(&[1, 2, 3]));
        assert!(!lapsed(&index, 5, &[12]), "the plan decides");
    }
}

/// The same directory and mapping once more, with another group beside the innermost one.
fn nested_copy(index: &Catalog, bounds: NestingBounds) -> Catalog {
    let mut copy = Catalog::new(Ceiling::Enforce);
    copy.set_bounds(bounds);
    copy.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
    copy.apply_target(target("t"), target_spec(&["l"], &allow_all()), Timestamp::UNIX_EPOCH);
    copy.apply_inventory(&target("t"), inventory(&["a", "b"]));
    copy.put_freeze(None);
    for change in [person(1), person(2), person(3), person(4), person(5)] {
        copy.change(&change);
    }
    for change in [named(1, "red"), named(11, "inner"), named(12, "core"), joined(1, &[1, 2]), joined(11, &[3])] {
        copy.change(&change);
    }
    copy.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    for change in [named(13, "more"), joined(13, &[5]), joined(12, &[4]), nests(1, &[11]), nests(11, &[12, 13])] {
        copy.change(&change);
    }
    assert_eq!(copy.people("a"), index.people("a"));
    copy
}

fn provider_that_says(mode: Option<&str>) -> IdentityProviderSpec {
    let mut value = serde_json::to_value(provider_spec("userName", &["corp.example"])).unwrap();
    if let Some(mode) = mode {
        value["nestedGroups"] = mode.into();
    }
    serde_json::from_value(value).unwrap()
}

#[test]
fn an_older_directory_gives_nobody_access_through_nesting_until_its_provider_says_so() {
    let mut index = nested();
    let effects = index.set_before_nesting(&okta());
    assert_eq!(effects.dirty.get(&document("a")), Some(&Urgency::Revocation));
    assert_eq!(index.people("a"), people(&[1, 2]));
    assert_eq!((view(&index).nesting, view(&index).members), (SubjectNesting::Ignored(1), 2));
    let state = index.nesting(&okta()).unwrap();
    assert_eq!((state.nestings, state.by_age), (2, true));
    for (mode, expected, nesting) in [
        (Some("Resolve"), &[1, 2, 3, 4][..], SubjectNesting::Plain),
        (Some("Ignore"), &[1, 2], SubjectNesting::Plain),
        (None, &[1, 2], SubjectNesting::Ignored(1)),
        (Some("Resolve"), &[1, 2, 3, 4], SubjectNesting::Plain),
    ] {
        let effects = index.apply_provider(okta(), provider_that_says(mode));
        assert_eq!(index.people("a"), people(expected), "{mode:?}");
        assert_eq!(view(&index).nesting, nesting);
        assert_eq!(index.nesting(&okta()).unwrap().by_age, mode.is_none());
        assert!(effects.mappings.contains(&key("m")), "{mode:?}");
    }
}

#[test]
fn a_leaver_of_a_nested_group_concerns_a_mapping_that_is_suspended() {
    let mut index = nested();
    let suspended = with(&spec(&["red"], &["services/a"], &[INVOKER]), [("mode", "Suspend".into())]);
    index.map("m", suspended);
    assert_eq!(index.change(&inactive(4)).dirty, BTreeMap::from([(document("a"), Urgency::Revocation)]));
}

#[test]
fn two_people_with_one_address_in_different_nested_groups_keep_what_they_had() {
    let mut index = nested();
    let mut twin = facts(4, true);
    twin.user_name = "p3@corp.example".to_owned();
    index.change(&DirectoryChange::User(twin));
    assert_eq!(index.people("a"), people(&[1, 2]));
    assert_eq!(view(&index).collisions, 2);
    let Enforcement::Live { keep: Keep::Subjects(kept) } = index.enforcement_of("m", &document("a")) else { panic!() };
    let member = MemberKey::of("user:p3@corp.example");
    let expected = [3, 4].map(|n| (Subject::User(user(n)), Some(member.clone())));
    assert_eq!(kept, BTreeMap::from(expected));
}

#[test]
fn nested_groups_are_searched_for_once_for_all_mappings_and_their_people_counted_once() {
    let mut index = Catalog::new(Ceiling::Enforce);
    index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
    index.apply_target(target("t"), target_spec(&["l"], &allow_all()), Timestamp::UNIX_EPOCH);
    index.apply_inventory(&target("t"), inventory(&["a"]));
    let mappings: Vec<String> = (0..1_000).map(|n| format!("m{n}")).collect();
    for name in &mappings {
        index.map(name, spec(&["red"], &["services/a"], &[INVOKER]));
    }
    // 200 groups in the mapped one, each with one in it, and all of them in the first.
    let (middle, inner): (Vec<u128>, Vec<u128>) = ((1_000..1_200).collect(), (2_000..2_200).collect());
    let mut changes = vec![person(1), person(2), named(1, "red"), nests(1, &middle), joined(2_000, &[1])];
    for (outer, inner) in middle.iter().zip(&inner) {
        changes.extend([named(*outer, "x"), named(*inner, "y"), nests(*outer, &[*inner]), nests(1_000, &[*inner])]);
    }
    for change in &changes {
        index.change(change);
    }
    assert_eq!(index.nestings.looked_at, 0, "nothing is searched before all is loaded");
    index.put_freeze(None);
    let edges = 200 + 200 + 199;
    assert_eq!(index.nestings.looked_at, edges);

    index.nestings.looked_at = 0;
    assert_eq!(index.change(&nests(1_100, &[2_000])).mappings.len(), 1_000);
    assert_eq!(index.nestings.looked_at, edges + 1);

    let counted = |index: &Catalog| {
        let counts: BTreeSet<usize> =
            mappings.iter().map(|name| index.mapping(&key(name)).unwrap().subjects[0].members).collect();
        assert_eq!(counts.len(), 1);
        counts.into_iter().next().unwrap()
    };
    assert_eq!(counted(&index), 1);
    index.change(&joined(2_001, &[1, 2]));
    assert_eq!(counted(&index), 2);
    index.change(&DirectoryChange::UserDeleted { id: user(2) });
    assert_eq!(counted(&index), 1);
    index.change(&joined(1, &[1, 3]));
    assert_eq!(counted(&index), 2);
    assert_eq!(index.nestings.looked_at, edges + 1, "people are no reason to search");
    index.change(&deleted(1_000));
    index.change(&left(2_001, &[1]));
    assert_eq!(counted(&index), 2);
}

#[test]
fn what_is_nested_is_unknown_while_there_is_no_provider_whatever_there_was_before() {
    for mode in [None, Some("Resolve"), Some("Ignore")] {
        for old in [false, true] {
            let mut live = nested();
            live.apply_provider(okta(), provider_that_says(mode));
            if old {
                live.set_before_nesting(&okta());
            }
            live.remove_provider(&okta());
            let mut loaded = Catalog::new(Ceiling::Enforce);
            loaded.apply_target(target("t"), target_spec(&["l"], &allow_all()), Timestamp::UNIX_EPOCH);
            loaded.apply_inventory(&target("t"), inventory(&["a", "b"]));
            live.pins.iter().for_each(|((mapping, provider, selector), group)| {
                let (mapping, provider, selector) = (mapping.clone(), provider.clone(), selector.clone());
                loaded.apply_pin(Pin { mapping, provider, selector, group: *group });
            });
            let mapped = live.mappings[&key("m")].spec.clone().unwrap();
            loaded.map("m", mapped);
            if old {
                loaded.set_before_nesting(&okta());
            }
            let changes = [named(1, "red"), named(2, "blue"), named(11, "inner"), named(12, "core")];
            let members = [joined(1, &[1, 2]), joined(2, &[2, 3]), joined(11, &[3]), joined(12, &[4])];
            let nested = [nests(1, &[11]), nests(11, &[12])];
            for change in (1..=4).map(person).chain(changes).chain(members).chain(nested) {
                loaded.change(&change);
            }
            loaded.put_freeze(None);
            // Addresses are kept as derived by the last spec; everything else is as after a start.
            let known = |index: &Catalog| {
                let mut lines = Vec::new();
                index.lines(&mut |line| lines.push(line.to_owned()));
                lines.retain(|line| !line.starts_with("user ") && !line.starts_with("mapping "));
                (lines, view(index).nesting, view(index).members)
            };
            assert_eq!(known(&loaded), known(&live), "{mode:?} {old}");
            for index in [&mut live, &mut loaded] {
                index.apply_provider(okta(), provider_that_says(Some("Resolve")));
                assert_eq!(index.people("a"), people(&[1, 2, 3, 4]));
            }
        }
    }
}

#[test]
fn membership_counts_groups_behind_groups_unless_they_are_ignored() {
    let mut index = nested();
    let of = |index: &Catalog, groups: &[u128], n: u128| {
        let groups: Vec<_> = groups.iter().map(|n| group(*n)).collect();
        index.membership(&okta(), &groups)(user(n))
    };
    for (groups, n, is) in
        [(&[11][..], 3, true), (&[11], 4, true), (&[12], 3, false), (&[12, 1], 3, true), (&[11], 1, false)]
    {
        assert_eq!(of(&index, groups, n), is, "{groups:?} {n}");
    }
    index.apply_provider(okta(), provider_that_says(Some("Ignore")));
    assert!(!of(&index, &[11], 4));
}

/// Groups reachable from one, with their distance, and whether any of them reaches itself.
fn naive(edges: &BTreeSet<(u128, u128)>, root: u128) -> (BTreeMap<u128, usize>, bool) {
    let reach = |from: u128| {
        let mut found = BTreeMap::new();
        let mut level = BTreeSet::from([from]);
        for depth in 1.. {
            let next: BTreeSet<u128> =
                edges.iter().filter(|(a, b)| level.contains(a) && !found.contains_key(b)).map(|(_, b)| *b).collect();
            if next.is_empty() {
                break;
            }
            found.extend(next.iter().map(|n| (*n, depth)));
            level = next;
        }
        found
    };
    let mut found = reach(root);
    let circular = found.keys().chain([&root]).any(|n| reach(*n).contains_key(n));
    found.remove(&root);
    (found, circular)
}

proptest! {
    #[test]
    fn nested_groups_are_those_of_the_naive_closure(
        changes in prop::collection::vec((1_u128..9, 1_u128..9, prop::bool::weighted(0.75)), 0..40),
        gone in prop::collection::btree_set(2_u128..9, 0..2),
        depth in 0_usize..6,
        count in 0_usize..9,
    ) {
        let mut tenant = Tenant::default();
        tenant.apply_spec(provider_spec("userName", &["corp.example"]));
        let mut edges = BTreeSet::new();
        for (outer, inner, add) in changes {
            if add { edges.insert((outer, inner)) } else { edges.remove(&(outer, inner)) };
            drop(tenant.apply(&if add { nests(outer, &[inner]) } else { parts(outer, &[inner]) }));
        }
        for n in gone {
            edges.retain(|(a, b)| *a != n && *b != n);
            drop(tenant.apply(&deleted(n)));
        }
        prop_assert_eq!(tenant.nestings(), edges.len());
        if tenant.group(group(1)).is_none() {
            drop(tenant.apply(&named(1, "red")));
        }
        let (all, circular) = naive(&edges, 1);
        let (whole, looked_at) = tenant.nesting(group(1), &NestingBounds::default());
        let from = |n: u128| n == 1 || all.contains_key(&n);
        prop_assert_eq!(looked_at, edges.iter().filter(|(outer, _)| from(*outer)).count());
        prop_assert_eq!(whole.groups.keys().copied().collect::<Vec<_>>(), all.keys().map(|n| group(*n)).collect::<Vec<_>>());
        prop_assert!(!whole.truncated);
        prop_assert_eq!(whole.cycle.is_some(), circular);
        if let Some(on) = whole.cycle {
            let n = on.0.as_u128() - group(0).0.as_u128();
            prop_assert!(naive(&edges, n).1 && naive_reaches_itself(&edges, n), "{n} is on no circle");
        }
        let (bounded, _) = tenant.nesting(group(1), &small(depth, count, 100));
        let exceeds = all.len() > count || all.values().any(|distance| *distance > depth);
        prop_assert_eq!(bounded.truncated, exceeds);
        prop_assert!(bounded.groups.keys().all(|id| whole.groups.contains_key(id)));
        if !exceeds {
            prop_assert_eq!(&bounded, &whole);
        }
        let few = NestingBounds { nestings: count, ..NestingBounds::default() };
        let (bounded, few_looked_at) = tenant.nesting(group(1), &few);
        prop_assert_eq!(bounded.truncated, looked_at > count);
        prop_assert!(few_looked_at <= count);
    }
}

fn naive_reaches_itself(edges: &BTreeSet<(u128, u128)>, n: u128) -> bool {
    let successors = edges.iter().filter(|(a, _)| *a == n).map(|(_, b)| *b);
    successors.into_iter().any(|next| next == n || naive(edges, next).0.contains_key(&n))
}
