//! What changes of users, groups and memberships give and take.

use super::*;

#[test]
fn members_of_the_groups_get_the_roles_on_the_services_that_match() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER, VIEWER]));
    assert_eq!(
        index.wanted(&document("a")),
        [
            "invoker user:p1@corp.example m 1",
            "invoker user:p2@corp.example m 2",
            "viewer user:p1@corp.example m 1",
            "viewer user:p2@corp.example m 2",
        ]
    );
    assert!(index.wanted(&document("b")).is_empty());
    assert_eq!(index.documents(), BTreeSet::from([document("a")]));
    let desired = index.desired(&document("a"), &BTreeSet::new());
    assert_eq!((desired.resource_uid.as_deref(), desired.generations[&key("m")]), (Some("uid-a"), 1));
    assert!(desired.grants.values().flat_map(|grant| grant.claims.values()).all(|terms| terms.write && terms.regrant));
}

#[test]
fn two_mappings_that_want_one_grant_are_two_claims_and_two_groups_of_one_mapping_are_one() {
    let mut index = index();
    index.map("m", spec(&["red", "blue"], &["services/*"], &[INVOKER]));
    index.map("n", spec(&["blue"], &["services/a"], &[INVOKER]));
    let lines = index.wanted(&document("a"));
    assert_eq!(lines.iter().filter(|line| line.contains("p2@")).count(), 2);
    assert_eq!(index.wanted(&document("b")).len(), 3);
}

#[test]
fn each_kind_of_directory_change_marks_documents_dirty_with_its_urgency() {
    use Urgency::{Addition, Revocation};
    let cases: Vec<(&str, DirectoryChange, Option<Urgency>, &[u128])> = vec![
        ("joins", joined(1, &[3]), Some(Addition), &[1, 2, 3]),
        ("joins again", joined(1, &[1]), None, &[1, 2]),
        ("leaves", left(1, &[1]), Some(Revocation), &[2]),
        ("leaves a group they are not in", left(1, &[3]), None, &[1, 2]),
        ("another group", joined(2, &[1]), None, &[1, 2]),
        ("goes inactive", inactive(1), Some(Revocation), &[2]),
        ("somebody else goes inactive", inactive(4), None, &[1, 2]),
        ("is deleted", DirectoryChange::UserDeleted { id: user(1) }, Some(Revocation), &[2]),
        ("is pushed again unchanged", person(1), None, &[1, 2]),
        ("an unknown person joins", joined(1, &[77]), None, &[1, 2]),
        ("the group is deleted", deleted(1), Some(Revocation), &[]),
        ("the group is renamed", named(1, "crimson"), None, &[1, 2]),
    ];
    for (what, change, urgency, people) in cases {
        let mut index = index();
        index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
        let effects = index.change(&change);
        assert_eq!(effects.dirty.get(&document("a")).copied(), urgency, "{what}");
        assert!(effects.dirty.len() <= 1, "{what}");
        assert_eq!(index.people("a"), people.iter().copied().collect(), "{what}");
    }
}

#[test]
fn a_leaver_makes_the_documents_of_frozen_mappings_dirty_and_other_changes_do_not() {
    type Freeze = fn(&mut Catalog);
    let freezes: [(&str, Freeze); 3] = [
        ("missing", |index| drop(index.mark_missing("m"))),
        ("the pinned group lost its name to another", |index| {
            index.change(&named(1, "old"));
            index.change(&named(3, "red"));
        }),
        ("the list failed", |index| drop(index.inventory_failed(&target("t")))),
    ];
    for (what, freeze) in freezes {
        for change in [inactive(1), DirectoryChange::UserDeleted { id: user(1) }] {
            let mut index = index();
            index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
            freeze(&mut index);
            if what != "the list failed" {
                assert!(index.change(&joined(1, &[4])).dirty.is_empty(), "{what}");
                assert!(index.change(&left(1, &[4])).dirty.is_empty(), "{what}");
            }
            let effects = index.change(&change);
            assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Revocation)]), "{what}");
        }
    }
}

#[test]
fn a_change_of_address_is_a_revocation_of_the_old_one() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    let mut moved = facts(1, true);
    moved.user_name = "new@corp.example".into();
    let effects = index.change(&DirectoryChange::User(moved));
    assert_eq!(effects.dirty[&document("a")], Urgency::Revocation);
    assert_eq!(index.wanted(&document("a"))[0], "invoker user:new@corp.example m 1");
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
}

#[test]
fn members_that_come_before_their_user_and_group_count_when_those_come() {
    let mut index = index();
    index.map("m", spec(&["late"], &["services/a"], &[INVOKER]));
    index.change(&joined(9, &[20]));
    index.change(&named(9, "late"));
    assert!(index.people("a").is_empty());
    let effects = index.change(&person(20));
    assert_eq!(effects.dirty[&document("a")], Urgency::Addition);
    assert_eq!(index.people("a"), BTreeSet::from([20]));
}

#[test]
fn the_state_of_a_person_distinguishes_leavers_from_unknown_people() {
    let mut index = index();
    index.change(&inactive(1));
    index.change(&DirectoryChange::UserDeleted { id: user(2) });
    index.change(&joined(1, &[50]));
    let left = [3, 1, 2, 50, 51].map(|n| index.has_left(user(n), None));
    assert_eq!(left, [false, true, true, true, true], "active, inactive, deleted, and two of whom nothing is known");
    index.change(&person(2));
    assert!(index.has_left(user(2), None), "ids are never used again");
}

#[test]
fn the_configured_attribute_gives_the_address() {
    for (attribute, address) in [
        ("userName", Some("p1@corp.example")),
        ("externalId", None),
        ("emails[primary eq true].value", Some("Work1@corp.example")),
        ("emails[type eq \"work\"].value", Some("Work1@corp.example")),
    ] {
        let mut index = index();
        index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
        index.change(&left(1, &[2]));
        let effects = index.apply_provider(okta(), provider_spec(attribute, &["corp.example"]));
        assert_eq!(effects.dirty.contains_key(&document("a")), attribute != "userName");
        let expected: Vec<String> = address.iter().map(|address| format!("invoker user:{address} m 1")).collect();
        assert_eq!(index.wanted(&document("a")), expected);
        let enforcement = index.enforcement_of("m", &document("a"));
        assert_eq!(enforcement, NOTHING, "an address that is not admitted keeps nothing");
    }
}

#[test]
fn an_address_that_is_not_admitted_ends_the_former_claim_and_one_that_is_missing_keeps_it() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    let mut foreign = facts(1, true);
    foreign.user_name = "p1@elsewhere.example".into();
    index.change(&DirectoryChange::User(foreign.clone()));
    assert_eq!(index.people("a"), BTreeSet::from([2]));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
    assert_eq!(index.mapping(&key("m")).unwrap().invalid_principals, 1);
    let counts = |index: &Catalog| {
        let subject = index.mapping(&key("m")).unwrap().subjects[0].clone();
        (subject.invalid_principals, subject.missing_principals)
    };
    assert_eq!(counts(&index), (1, 0));
    foreign.user_name = " ".into();
    index.change(&DirectoryChange::User(foreign.clone()));
    assert_eq!(index.enforcement_of("m", &document("a")), kept(&[1]));
    assert_eq!(counts(&index), (0, 1));
    foreign.user_name = "nobody".into();
    let effects = index.change(&DirectoryChange::User(foreign.clone()));
    assert_eq!(effects.dirty[&document("a")], Urgency::Revocation, "it was missing, and is another now");
    foreign.active = false;
    foreign.user_name = String::new();
    index.change(&DirectoryChange::User(foreign));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);

    let effects = index.apply_provider(okta(), provider_spec("userName", &["other.example"]));
    assert_eq!(effects.dirty[&document("a")], Urgency::Revocation);
    assert_eq!(
        (index.enforcement_of("m", &document("a")), index.people("a").len()),
        (NOTHING, 0),
        "a domain is withdrawn"
    );
}

#[test]
fn two_active_users_with_one_principal_get_nothing_new_and_lose_nothing_until_one_leaves() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    let mut twin = facts(9, true);
    twin.user_name = "P1@Corp.example".into();
    let effects = index.change(&DirectoryChange::User(twin.clone()));
    assert_eq!(effects.dirty[&document("a")], Urgency::Addition, "the twin is in no group, and still in the way");
    assert_eq!(index.people("a"), BTreeSet::from([2]));
    let only = |n: u128, member: &str| {
        let kept = BTreeMap::from([(Subject::User(user(n)), Some(MemberKey::of(member)))]);
        Enforcement::Live { keep: Keep::Subjects(kept) }
    };
    assert_eq!(
        index.enforcement_of("m", &document("a")),
        only(1, "user:p1@corp.example"),
        "of that address, and no former one"
    );
    assert_eq!(index.mapping(&key("m")).unwrap().collisions, 1);
    twin.active = false;
    assert_eq!(index.change(&DirectoryChange::User(twin)).dirty.len(), 1);
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
}

#[test]
fn tenants_with_the_same_names_and_addresses_never_mix() {
    let mut index = index();
    let entra = provider("entra");
    index.apply_provider(entra.clone(), provider_spec("userName", &["corp.example"]));
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    let mut twin = facts(31, true);
    twin.user_name = "p1@corp.example".into();
    for change in [DirectoryChange::User(twin), named(31, "red"), joined(31, &[31, 3])] {
        assert!(index.put_directory(&entra, &change).dirty.is_empty());
    }
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
    let of_entra = json!([{"identityProvider": "entra", "groups": [{"displayName": "red"}]}]);
    index.map("n", with(&spec(&["red"], &["services/b"], &[INVOKER]), [("subjects", of_entra)]));
    assert_eq!(index.people("b"), BTreeSet::from([31]), "user 3 of okta is nobody in entra");
}

#[test]
fn only_a_provider_in_force_decides_who_has_left() {
    let mut index = index();
    index.change(&inactive(1));
    assert!(index.has_left(user(1), None) && !index.has_left(user(2), None) && index.has_left(user(99), None));
    index.remove_provider(&okta());
    index.apply_provider(provider("entra"), provider_spec("userName", &["corp.example"]));
    assert!(!index.has_left(user(1), Some(&okta())) && !index.has_left(user(99), None));
    assert!(!index.has_left(user(99), Some(&okta())) && index.has_left(user(99), Some(&provider("entra"))));
}
