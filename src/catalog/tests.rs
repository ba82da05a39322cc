use std::collections::BTreeSet;

use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::model::{Enforcement, Keep, KeptGroups, MemberKey, Reason, Subject, UserId};

const NOTHING: Enforcement = Enforcement::Live { keep: Keep::Nothing };

fn everything(reason: FreezeReason) -> Enforcement {
    Enforcement::Live { keep: Keep::Everything(reason) }
}

fn kept(people: &[u128]) -> Enforcement {
    Enforcement::Live { keep: Keep::Subjects(people.iter().map(|n| (Subject::User(user(*n)), None)).collect()) }
}

/// The enforcement when some groups of the mapping cannot be resolved.
fn groups(reason: FreezeReason, unresolved: &[u128], known: &[u128]) -> Enforcement {
    let ids = |groups: &[u128]| groups.iter().map(|n| group(*n)).collect();
    let kept = KeptGroups { reason, unresolved: ids(unresolved), known: ids(known), subjects: BTreeMap::new() };
    Enforcement::Live { keep: Keep::Groups(kept) }
}

fn with<const N: usize>(spec: &RoleMappingSpec, fields: [(&str, serde_json::Value); N]) -> RoleMappingSpec {
    let mut value = serde_json::to_value(spec).unwrap();
    for (name, field) in fields {
        value[name] = field;
    }
    serde_json::from_value(value).unwrap()
}

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
fn a_group_as_member_of_a_group_is_not_expanded() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    let nested = DirectoryChange::Members { group: group(1), added: vec![UserId(group(2).0)], removed: vec![] };
    assert!(index.change(&nested).dirty.is_empty());
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
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
    assert_eq!(index.provider(&okta()).unwrap().collisions, 2);
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
fn an_empty_selector_selects_nothing() {
    let mut index = index();
    index.change(&named(5, ""));
    index.change(&joined(5, &[1]));
    let mut empty = spec(&["red"], &["services/a"], &[INVOKER]);
    empty.subjects[0].groups[0].display_name = Some(String::new());
    index.map("m", empty.clone());
    assert!(index.people("a").is_empty());
    empty.subjects[0].groups[0].display_name = None;
    index.map("m", empty);
    assert!(index.people("a").is_empty());
    assert_eq!(index.mapping(&key("m")).unwrap().invalid, ["spec.subjects[0].groups[0]"]);
}

#[test]
fn group_names_match_exactly() {
    let mut index = index();
    for name in ["Red", "red ", "re"] {
        index.map("m", spec(&[name], &["services/a"], &[INVOKER]));
        assert_eq!(index.mapping(&key("m")).unwrap().subjects[0].resolution, Resolution::NotFound);
        assert_eq!(index.enforcement_of("m", &document("a")), groups(FreezeReason::GroupNotFound, &[], &[]));
    }
}

#[test]
fn a_group_never_seen_freezes_what_it_could_have_given_and_resolves_when_it_is_pushed() {
    let mut index = index();
    index.map("m", spec(&["red", "green"], &["services/a"], &[INVOKER]));
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]), "the rest goes on");
    assert_eq!(index.enforcement_of("m", &document("a")), groups(FreezeReason::GroupNotFound, &[], &[1]));
    let desired = index.desired(&document("a"), &BTreeSet::new());
    for wanted in desired.grants.values() {
        let grounds: Vec<_> =
            wanted.grounds.values().map(|ground| (ground.provider.clone(), ground.groups.clone())).collect();
        assert_eq!(grounds, [(okta(), BTreeSet::from([group(1)]))]);
    }
    let effects = index.change(&named(3, "green"));
    assert_eq!(effects.dirty[&document("a")], Urgency::Addition);
    assert_eq!(effects.pins.len(), 1);
    assert_eq!((effects.pins[0].selector.as_str(), effects.pins[0].group), ("displayName:green", group(3)));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
}

#[test]
fn a_rename_keeps_the_pin() {
    let mut index = index();
    let pins = index.map("m", spec(&["red"], &["services/a"], &[INVOKER])).pins;
    assert_eq!(pins.len(), 1);
    index.change(&named(1, "crimson"));
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
    index.change(&joined(1, &[3]));
    assert_eq!(index.people("a"), BTreeSet::from([1, 2, 3]));
    let subject = &index.mapping(&key("m")).unwrap().subjects[0];
    assert_eq!((subject.current_name.as_deref(), subject.members), (Some("crimson"), 3));
    assert_eq!(subject.resolution.reason(), None);
}

#[test]
fn a_name_that_comes_to_mean_another_group_is_held_until_the_new_id_is_accepted() {
    let mut index = index();
    let red = spec(&["red"], &["services/a"], &[INVOKER]);
    index.map("m", red.clone());
    index.change(&named(1, "old-red"));
    index.change(&joined(3, &[4]));
    let effects = index.change(&named(3, "red"));
    assert_eq!(effects.dirty[&document("a")], Urgency::Revocation);
    assert!(index.people("a").is_empty(), "neither group gets anything new");
    assert_eq!(index.enforcement_of("m", &document("a")), groups(FreezeReason::GroupIdentityChanged, &[1], &[]));
    let resolution = index.mapping(&key("m")).unwrap().subjects[0].resolution.clone();
    assert_eq!(resolution, Resolution::IdentityChanged { pinned: group(1), now: group(3) });

    index.put_mapping(key("m"), 1, red.clone(), BTreeSet::from([group(2)]));
    assert!(index.people("a").is_empty(), "another group's id accepts nothing");
    let effects = index.put_mapping(key("m"), 1, red, BTreeSet::from([group(3)]));
    assert_eq!(effects.pins[0].group, group(3));
    assert_eq!(index.people("a"), BTreeSet::from([4]));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
}

#[test]
fn a_deleted_group_revokes_and_a_later_namesake_is_held_until_accepted() {
    let mut index = index();
    let red = spec(&["red"], &["services/a"], &[INVOKER]);
    index.map("m", red.clone());
    assert_eq!(index.change(&deleted(1)).dirty[&document("a")], Urgency::Revocation);
    assert!(index.people("a").is_empty());
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING, "deletion is said, so it revokes");
    assert_eq!(index.mapping(&key("m")).unwrap().subjects[0].resolution.reason(), Some(Reason::GroupDeleted));
    index.change(&named(3, "red"));
    index.change(&joined(3, &[4]));
    assert!(index.people("a").is_empty());
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING, "what the deleted group gave still goes");
    assert_eq!(index.mapping(&key("m")).unwrap().subjects[0].resolution.reason(), Some(Reason::GroupIdentityChanged));
    index.put_mapping(key("m"), 2, red, BTreeSet::from([group(3)]));
    assert_eq!(index.people("a"), BTreeSet::from([4]));
}

#[test]
fn several_groups_of_one_name_are_ambiguous_unless_one_of_them_is_pinned() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    index.change(&named(3, "red"));
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
    index.map("n", spec(&["red"], &["services/b"], &[INVOKER]));
    assert!(index.people("b").is_empty());
    assert_eq!(index.enforcement_of("n", &document("b")), groups(FreezeReason::GroupAmbiguous, &[], &[]));
}

#[test]
fn a_group_may_be_named_by_its_external_id() {
    let mut index = index();
    let by_id = json!([{"identityProvider": "okta", "groups": [{"externalId": "x2"}]}]);
    let effects = index.map("m", with(&spec(&["red"], &["services/a"], &[INVOKER]), [("subjects", by_id)]));
    assert_eq!(effects.pins[0].selector, "externalId:x2");
    assert_eq!(index.people("a"), BTreeSet::from([2, 3]));
}

#[test]
fn a_pin_from_the_store_holds_over_a_restart_even_when_the_group_was_renamed_or_never_comes() {
    let start = |changes: &[DirectoryChange]| {
        let mut index = Catalog::new(Ceiling::Enforce);
        index.apply_pin(Pin {
            mapping: key("m"),
            provider: okta(),
            selector: "displayName:red".into(),
            group: group(1),
        });
        index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
        index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
        for change in changes {
            drop(index.change(change));
        }
        let while_loading = index.mapping(&key("m")).unwrap().subjects[0].resolution.clone();
        let effects = index.put_freeze(None);
        assert!(effects.pins.is_empty());
        assert_eq!(index.mapping(&key("m")).unwrap().subjects[0].resolution, while_loading);
        while_loading
    };
    assert_eq!(start(&[named(1, "crimson")]), Resolution::Resolved(group(1)));
    assert_eq!(start(&[named(3, "red")]), Resolution::IdentityChanged { pinned: group(1), now: group(3) });
    assert_eq!(start(&[deleted(1), named(3, "red")]), Resolution::Deleted { pinned: group(1), now: Some(group(3)) });
    assert_eq!(start(&[]), Resolution::NotFound);
}

#[test]
fn nothing_is_pinned_while_all_is_frozen() {
    let mut index = index();
    index.put_freeze(Some(FreezeReason::StoreRewound));
    assert!(index.map("m", spec(&["red"], &["services/a"], &[INVOKER])).pins.is_empty());
    let effects = index.put_freeze(None);
    assert_eq!((effects.pins.len(), effects.dirty[&document("a")]), (1, Urgency::Revocation));
}

#[test]
fn what_is_not_delegated_is_refused_with_its_path_and_the_rest_is_granted() {
    let mut index = index();
    let only_a = json!([allow(&["okta"], &["services/a"], &[INVOKER])]);
    index.apply_target(target("t"), target_spec(&["l"], &only_a), Timestamp::UNIX_EPOCH);
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER, VIEWER]));
    let view = index.mapping(&key("m")).unwrap();
    let refused: Vec<_> =
        view.refused.iter().map(|r| (r.path.as_str(), r.resource.as_str(), r.role.as_str())).collect();
    assert_eq!(
        refused,
        [
            ("spec.grants[0].roles[0]", "projects/p/locations/l/services/b", INVOKER),
            ("spec.grants[0].roles[1]", "services/*", VIEWER)
        ]
    );
    assert_eq!((view.acceptance, view.refused_count), (Acceptance::PartlyDelegated, 2));
    assert_eq!(index.wanted(&document("a")).len(), 2);
    assert!(index.wanted(&document("b")).is_empty());

    index.map("m", spec(&["red"], &["services/b"], &[INVOKER]));
    assert_eq!(index.mapping(&key("m")).unwrap().acceptance, Acceptance::NotDelegated);
    index.map("m", spec(&["red"], &["services/not-yet"], &[INVOKER]));
    let view = index.mapping(&key("m")).unwrap();
    assert_eq!((view.acceptance, view.unmatched.len()), (Acceptance::NotDelegated, 1));
}

#[test]
fn delegation_needs_namespace_provider_resource_and_role_in_one_entry() {
    let entry = allow(&["okta"], &["services/a"], &[INVOKER]);
    let changed = |field: &str, value: serde_json::Value| {
        let mut entry = entry.clone();
        entry[field] = value;
        entry
    };
    let cases = [
        (json!([entry]), true),
        (json!([]), false),
        (json!([changed("namespaces", json!({"names": ["other"]}))]), false),
        (json!([changed("identityProviders", json!(["entra"]))]), false),
        (json!([changed("resources", json!(["jobs/a"]))]), false),
        (json!([changed("roles", json!([VIEWER]))]), false),
        (json!([changed("roles", json!([VIEWER])), changed("resources", json!(["services/b"]))]), false),
        (json!([changed("roles", json!([VIEWER])), entry]), true),
    ];
    for (entries, admitted) in cases {
        let mut index = index();
        index.apply_target(target("t"), target_spec(&["l"], &entries), Timestamp::UNIX_EPOCH);
        index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
        assert_eq!(!index.people("a").is_empty(), admitted, "{entries}");
    }
}

#[test]
fn a_withdrawn_delegation_revokes() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER]));
    let only_a = json!([allow(&["okta"], &["services/a"], &[INVOKER])]);
    let effects = index.apply_target(target("t"), target_spec(&["l"], &only_a), Timestamp::UNIX_EPOCH);
    assert_eq!(effects.dirty, BTreeMap::from([(document("b"), Urgency::Revocation)]), "and only there");
    assert_eq!(index.enforcement_of("m", &document("b")), NOTHING);
    assert!(index.people("b").is_empty());
}

#[test]
fn each_absence_freezes_with_its_reason_and_wants_nothing_new() {
    type Change = fn(&mut Catalog);
    let mapped = || spec(&["red"], &["services/a"], &[INVOKER]);
    let cases: Vec<(Change, Enforcement)> = vec![
        (|i| drop(i.put_freeze(Some(FreezeReason::NotLoaded))), Enforcement::Frozen(FreezeReason::NotLoaded)),
        (|i| drop(i.put_freeze(Some(FreezeReason::StoreMismatch))), Enforcement::Frozen(FreezeReason::StoreMismatch)),
        (|i| drop(i.mark_missing("m")), Enforcement::Frozen(FreezeReason::MappingMissing)),
        (|i| drop(i.remove_provider(&okta())), Enforcement::Frozen(FreezeReason::IdentityProviderNotFound)),
        (|i| drop(i.remove_target(&target("t"))), Enforcement::Frozen(FreezeReason::TargetNotFound)),
        (
            |i| {
                let mut suspended = provider_spec("userName", &["corp.example"]);
                suspended.state = crate::api::ProviderState::Suspended;
                i.apply_provider(okta(), suspended);
            },
            Enforcement::Frozen(FreezeReason::Suspended),
        ),
        (
            |i| {
                let red = spec(&["red"], &["services/a"], &[INVOKER]);
                i.map("m", with(&red, [("mode", json!("Suspend"))]));
            },
            Enforcement::Frozen(FreezeReason::Suspended),
        ),
        (
            |i| {
                // The regions change, so the former list says nothing about the new ones.
                i.apply_target(target("t"), target_spec(&["l", "k"], &allow_all()), Timestamp::UNIX_EPOCH);
            },
            Enforcement::Frozen(FreezeReason::InventoryIncomplete),
        ),
    ];
    for (change, enforcement) in cases {
        let mut index = index();
        index.map("m", mapped());
        change(&mut index);
        assert_eq!(index.enforcement_of("m", &document("a")), enforcement);
        assert!(index.people("a").is_empty(), "{enforcement:?}");
    }
    assert_eq!(
        index().enforcement_of("never-heard-of", &document("a")),
        Enforcement::Frozen(FreezeReason::MappingMissing)
    );
}

#[test]
fn what_was_missing_returns_unchanged() {
    let mut index = index();
    let red = spec(&["red"], &["services/a"], &[INVOKER]);
    index.map("m", red.clone());
    let before = index.digest();
    index.mark_missing("m");
    assert_ne!(index.digest(), before);
    index.map("m", red);
    assert_eq!(index.digest(), before);
    index.remove_provider(&okta());
    let effects = index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
    assert_eq!(effects.dirty.len(), 1);
    assert_eq!(index.digest(), before);
    index.remove_target(&target("t"));
    index.apply_target(target("t"), target_spec(&["l"], &allow_all()), Timestamp::UNIX_EPOCH);
    index.apply_inventory(&target("t"), inventory(&["a", "b"]));
    assert_eq!(index.digest(), before);
}

#[test]
fn one_missing_provider_of_several_keeps_everything_and_the_other_stays_in_force() {
    let mut index = index();
    let both = json!([
        {"identityProvider": "okta", "groups": [{"displayName": "red"}]},
        {"identityProvider": "entra", "groups": [{"displayName": "red"}]},
    ]);
    index.map("m", with(&spec(&["red"], &["services/a"], &[INVOKER]), [("subjects", both)]));
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
    assert_eq!(index.enforcement_of("m", &document("a")), everything(FreezeReason::IdentityProviderNotFound));
}

#[test]
fn one_missing_target_of_several_freezes_only_what_is_not_in_a_target_that_is_there() {
    let mut index = index();
    let grants = json!([
        {"target": {"name": "t"}, "resources": ["services/a"], "roles": [INVOKER]},
        {"target": {"name": "gone"}, "resources": ["services/a"], "roles": [INVOKER]},
    ]);
    index.map("m", with(&spec(&["red"], &["services/a"], &[INVOKER]), [("grants", grants)]));
    assert_eq!(index.enforcement_of("m", &document("b")), NOTHING);
    let elsewhere = document_in("elsewhere", "a");
    assert_eq!(index.enforcement_of("m", &elsewhere), Enforcement::Frozen(FreezeReason::TargetNotFound));
    assert_eq!(index.mapping(&key("m")).unwrap().missing_targets, BTreeSet::from([target("gone")]));
}

#[test]
fn observe_wants_without_writing_and_freezes_what_there_is() {
    let red = spec(&["red"], &["services/a"], &[INVOKER]);
    let mut index = index();
    index.map("m", with(&red, [("mode", json!("Observe"))]));
    assert_eq!(index.wanted(&document("a"))[0], "invoker user:p1@corp.example m 1 observed");
    assert_eq!(index.enforcement_of("m", &document("a")), Enforcement::Frozen(FreezeReason::Observed));
    index.delete("m");
    assert_eq!(index.enforcement_of("m", &document("a")), Enforcement::Ended { orphan: false });

    index.ceiling = Ceiling::Observe;
    index.map("m", red);
    assert_eq!(index.wanted(&document("a"))[0], "invoker user:p1@corp.example m 1 observed");
    index.delete("m");
    assert_eq!(
        index.enforcement_of("m", &document("a")),
        Enforcement::Frozen(FreezeReason::Observed),
        "the ceiling holds all"
    );
}

#[test]
fn on_missing_report_does_not_regrant() {
    let mut index = index();
    let red = spec(&["red"], &["services/a"], &[INVOKER]);
    index.map("m", with(&red, [("onMissing", json!("Report"))]));
    let desired = index.desired(&document("a"), &BTreeSet::new());
    assert!(desired.grants.values().flat_map(|grant| grant.claims.values()).all(|terms| terms.write && !terms.regrant));
}

#[test]
fn a_deleted_mapping_ends_as_its_last_deletion_policy_says_until_it_is_forgotten_or_comes_back() {
    for (policy, orphan) in [("Revoke", false), ("Orphan", true)] {
        let mut index = index();
        let red = with(&spec(&["red"], &["services/a"], &[INVOKER]), [("deletionPolicy", json!(policy))]);
        index.map("m", red.clone());
        let effects = index.delete("m");
        assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Revocation)]));
        assert_eq!(index.enforcement_of("m", &document("a")), Enforcement::Ended { orphan });
        assert!(index.people("a").is_empty());
        index.mark_missing("m");
        assert_eq!(
            index.enforcement_of("m", &document("a")),
            Enforcement::Ended { orphan },
            "an end is not undone by absence"
        );
        index.map("m", red);
        assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
        index.delete("m");
        index.advance(&key("m"), PhaseEvent::ClaimsEnded);
        assert!(index.mapping(&key("m")).is_none() && index.documents().is_empty() && index.pins.is_empty());
        assert!(index.by_group.is_empty() && index.by_name.is_empty());
    }
}

#[test]
fn a_missing_mapping_that_is_released_ends_even_if_only_the_ledger_knew_it() {
    let mut index = index();
    index.delete("m");
    assert_eq!(index.enforcement_of("m", &document("a")), Enforcement::Ended { orphan: false });
}

#[test]
fn a_changed_spec_makes_exactly_the_old_and_the_new_documents_dirty() {
    let mut index = index();
    let effects = index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Addition)]));
    let effects = index.put_mapping(key("m"), 2, spec(&["red"], &["services/b"], &[INVOKER]), BTreeSet::new());
    assert_eq!(effects.dirty.keys().collect::<Vec<_>>(), [&document("a"), &document("b")]);
    assert!(effects.dirty.values().all(|urgency| *urgency == Urgency::Revocation));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
    let effects = index.put_mapping(key("m"), 3, spec(&["red"], &["services/b"], &[INVOKER]), BTreeSet::new());
    assert!(effects.dirty.is_empty() && effects.mappings.len() == 1, "only the generation moved");
}

#[test]
fn a_failed_or_partial_list_concludes_nothing_and_a_new_service_is_found() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER]));
    let effects = index.apply_inventory(&target("t"), inventory(&["a", "b", "c"]));
    assert_eq!(effects.dirty, BTreeMap::from([(document("c"), Urgency::Addition)]));
    assert!(index.apply_inventory(&target("t"), inventory(&["a", "b", "c"])).dirty.is_empty());

    index.inventory_failed(&target("t"));
    assert_eq!(index.people("c"), BTreeSet::from([1, 2]), "the last list stays");
    assert_eq!(index.enforcement_of("m", &document("x")), Enforcement::Frozen(FreezeReason::InventoryIncomplete));
    assert!(!index.target(&target("t")).unwrap().complete);

    let part = Inventory { unlisted: BTreeSet::from([("l".to_owned(), ResourceKind::Service)]), ..inventory(&["a"]) };
    index.apply_inventory(&target("t"), part);
    assert_eq!(index.people("b"), BTreeSet::from([1, 2]), "what could not be listed stays as it was");
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
    assert_eq!(index.enforcement_of("m", &document("x")), Enforcement::Frozen(FreezeReason::InventoryIncomplete));
    assert_eq!(index.mapping(&key("m")).unwrap().unlisted_targets, BTreeSet::from([target("t")]));
}

#[test]
fn on_a_service_that_a_complete_list_lacks_grants_stay_wanted_and_nothing_new_is_granted() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER]));
    let effects = index.apply_inventory(&target("t"), inventory(&["a"]));
    assert_eq!(effects.dirty, BTreeMap::from([(document("b"), Urgency::Revocation)]));
    let claimants = BTreeSet::from([key("m")]);
    let desired = index.desired(&document("b"), &claimants);
    assert_eq!((desired.grants.len(), desired.enforcements[&key("m")].clone()), (2, NOTHING));
    assert!(desired.absent && !index.desired(&document("a"), &claimants).absent);
    assert!(desired.grants.values().flat_map(|grant| grant.claims.values()).all(|terms| !terms.write));
    index.change(&left(1, &[1]));
    assert_eq!(index.desired(&document("b"), &claimants).grants.len(), 1, "a leaver still goes");
    index.inventory_failed(&target("t"));
    assert!(!index.desired(&document("b"), &claimants).absent, "a list that failed says nothing");
    assert!(!index.desired(&document_in("elsewhere", "b"), &claimants).absent, "nobody lists that region");
    index.apply_inventory(&target("t"), inventory(&["a", "b"]));
    let desired = index.desired(&document("b"), &claimants);
    assert!(
        !desired.absent && desired.grants.values().flat_map(|grant| grant.claims.values()).all(|terms| terms.write)
    );
}

#[test]
fn a_list_that_lacks_one_kind_in_one_region_concerns_nothing_else() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER]));
    index.map("pools", spec(&["red"], &["workerPools/*"], &[INVOKER]));
    let unlisted = BTreeSet::from([("l".to_owned(), ResourceKind::WorkerPool)]);
    let effects = index.apply_inventory(&target("t"), Inventory { unlisted, ..inventory(&["a"]) });
    assert_eq!(effects.dirty, BTreeMap::from([(document("b"), Urgency::Revocation)]));
    assert!(!index.target(&target("t")).unwrap().complete);
    let view = index.mapping(&key("m")).unwrap();
    assert!(view.unlisted_targets.is_empty());
    assert!(index.desired(&document("b"), &BTreeSet::from([key("m")])).absent);
    let view = index.mapping(&key("pools")).unwrap();
    assert_eq!(view.unlisted_targets, BTreeSet::from([target("t")]));
    assert!(view.unmatched.is_empty(), "nothing is said about what was not listed");
    let pool: DocumentKey = "run:projects/p/locations/l/workerPools/w".parse().unwrap();
    assert!(!index.desired(&pool, &BTreeSet::new()).absent);
    assert_eq!(index.enforcement_of("pools", &pool), Enforcement::Frozen(FreezeReason::InventoryIncomplete));
}

#[test]
fn nothing_is_wanted_through_a_pin_that_is_not_stored_yet_and_nothing_goes() {
    let mut index = index();
    let red = spec(&["red"], &["services/a"], &[INVOKER]);
    let effects = index.apply_mapping(key("m"), 1, red.clone(), BTreeSet::new());
    assert!(index.people("a").is_empty());
    assert_eq!(index.enforcement_of("m", &document("a")), everything(FreezeReason::NotLoaded));
    let other = Pin { group: group(2), ..effects.pins[0].clone() };
    assert_eq!(index.pins_stored(&[other]), Effects::default(), "another pin is not this one");
    index.apply_directory(&okta(), &joined(1, &[3]));
    index.apply_mapping(key("m"), 2, spec(&["red"], &["services/*"], &[INVOKER]), BTreeSet::new());
    assert!(index.people("a").is_empty(), "neither a change of the group nor of the spec makes it durable");
    index.apply_mapping(key("m"), 3, red.clone(), BTreeSet::new());

    let stored = index.pins_stored(&effects.pins);
    assert_eq!(stored.dirty, BTreeMap::from([(document("a"), Urgency::Addition)]));
    assert_eq!(index.people("a"), BTreeSet::from([1, 2, 3]));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
    assert_eq!(index.pins_stored(&effects.pins), Effects::default(), "once");

    index.change(&named(1, "old-red"));
    index.change(&named(3, "red"));
    let effects = index.apply_mapping(key("m"), 3, red, BTreeSet::from([group(3)]));
    assert_eq!(index.enforcement_of("m", &document("a")), everything(FreezeReason::NotLoaded));
    let stored = index.pins_stored(&effects.pins);
    assert_eq!(stored.dirty, BTreeMap::from([(document("a"), Urgency::Revocation)]));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
}

#[test]
fn a_service_of_a_new_uid_is_planned_again() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    let mut recreated = inventory(&["a", "b"]);
    for item in &mut recreated.resources {
        item.uid.push_str("-2");
    }
    let effects = index.apply_inventory(&target("t"), recreated);
    assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Addition)]));
}

#[test]
fn of_two_targets_that_cover_one_region_the_older_wins_whichever_came_first() {
    for reversed in [false, true] {
        let mut index = index();
        let young = json!([
            {"target": {"name": "young"}, "resources": ["services/a"], "roles": [VIEWER]},
        ]);
        index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
        index.map("y", with(&spec(&["red"], &["services/a"], &[INVOKER]), [("grants", young)]));
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let (t, young) = if reversed { (at(2), at(1)) } else { (at(1), at(2)) };
        index.apply_target(target("young"), target_spec(&["l"], &allow_all()), young);
        index.apply_target(target("t"), target_spec(&["l"], &allow_all()), t);
        index.apply_inventory(&target("young"), inventory(&["a"]));
        let (winner, loser) = if reversed { ("y", "m") } else { ("m", "y") };
        let lines = index.wanted(&document("a"));
        assert!(lines.len() == 2 && lines.iter().all(|line| line.contains(&format!(" {winner} "))), "{lines:?}");
        assert_eq!(index.enforcement_of(loser, &document("a")), Enforcement::Frozen(FreezeReason::OverlappingTarget));
        assert_eq!(index.mapping(&key(loser)).unwrap().acceptance, Acceptance::OverlappingTarget);
        let view = index.target(&target(if reversed { "t" } else { "young" })).unwrap();
        assert_eq!(view.overlapped, BTreeMap::from([("l".into(), target(if reversed { "young" } else { "t" }))]));
    }
}

#[test]
fn effects_of_a_change_do_not_grow_with_the_group() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    for n in 100..5_100 {
        index.change(&person(n));
    }
    let everybody: Vec<u128> = (100..5_100).collect();
    let effects = index.change(&joined(1, &everybody));
    assert_eq!(effects.dirty.len(), 1);
    assert_eq!(index.people("a").len(), 5_002);
    let effects = index.change(&inactive(100));
    assert_eq!((effects.dirty.len(), effects.mappings.len()), (1, 1));
}

#[test]
fn labels_of_a_namespace_delegate_as_its_name_does_and_withdraw_it_when_they_go() {
    let mut index = index();
    let labelled = |value: &str| -> BTreeMap<String, String> {
        [("team", value), ("env", "dev")].map(|(label, value)| (label.to_owned(), value.to_owned())).into()
    };
    let mut allowing = index.targets[&target("t")].spec.clone();
    for allow in &mut allowing.allow {
        allow.namespaces = crate::api::NamespacesSpec {
            names: vec!["elsewhere".to_owned()],
            match_labels: [("team".to_owned(), "checkout".to_owned())].into(),
        };
    }
    let _ = index.apply_target(target("t"), allowing, Timestamp::UNIX_EPOCH);
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    assert!(index.wanted(&document("a")).is_empty(), "no labels are known yet");

    let namespace = key("m").namespace().to_owned();
    let effects = index.apply_namespace(&namespace, labelled("checkout"));
    assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Addition)]));
    assert_eq!(index.wanted(&document("a")).len(), 2);
    assert!(index.apply_namespace(&namespace, labelled("checkout")).dirty.is_empty(), "the same labels again");
    assert!(index.apply_namespace("other", labelled("checkout")).dirty.is_empty());

    let effects = index.apply_namespace(&namespace, labelled("billing"));
    assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Revocation)]));
    assert!(index.wanted(&document("a")).is_empty());
    let mapping = index.mapping(&key("m")).unwrap();
    assert_eq!(mapping.acceptance, Acceptance::NotDelegated);
}

#[test]
fn a_target_permits_by_namespace_provider_resource_and_role() {
    let permitting = |permit: &str, roles: &[&str]| {
        let mut entry = allow(&["okta"], &["services/a"], roles);
        entry["permit"] = json!([permit]);
        target_spec(&["l"], &json!([entry, allow(&["okta", "entra"], &["services/*"], &[INVOKER, VIEWER])]))
    };
    let red = || spec(&["red"], &["services/*"], &[INVOKER, VIEWER]);
    let roles =
        |roles: &[&str]| roles.iter().map(|role| crate::model::Role::new(role).unwrap()).collect::<BTreeSet<_>>();
    let mut index = index();
    let suspended = |index: &Catalog, service: &str| {
        index.desired(&document(service), &BTreeSet::new()).may_suspend.get(&key("m")).cloned().unwrap_or_default()
    };
    index.map("m", red());
    index.apply_target(target("t"), permitting("Suspend", &[INVOKER]), Timestamp::UNIX_EPOCH);
    assert_eq!(suspended(&index, "a"), roles(&[]), "a mapping in force does not suspend anything");
    index.map("m", with(&red(), [("mode", json!("Suspend"))]));
    assert_eq!(suspended(&index, "a"), roles(&[INVOKER]));
    assert_eq!(suspended(&index, "b"), roles(&[]));
    let both = json!([
        {"identityProvider": "okta", "groups": [{"displayName": "red"}]},
        {"identityProvider": "entra", "groups": [{"displayName": "red"}]},
    ]);
    index.map("m", with(&red(), [("mode", json!("Observe")), ("subjects", both)]));
    assert_eq!(suspended(&index, "a"), roles(&[]), "for the people of one provider only");

    index.map("m", with(&red(), [("deletionPolicy", json!("Orphan"))]));
    index.delete("m");
    let orphaned = |index: &Catalog| index.desired(&document("a"), &BTreeSet::new()).may_orphan[&key("m")].clone();
    assert_eq!(orphaned(&index), roles(&[]));
    index.apply_target(target("t"), permitting("Orphan", &[VIEWER]), Timestamp::UNIX_EPOCH);
    assert_eq!(orphaned(&index), roles(&[VIEWER]));
    index.advance(&key("m"), PhaseEvent::OnlyOrphansLeft);
    assert_eq!(index.enforcement_of("m", &document("a")), crate::model::Enforcement::Ended { orphan: true });
    assert_eq!(orphaned(&index), roles(&[VIEWER]));
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
