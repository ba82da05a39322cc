//! Resolution of groups by name and id, and their pins.

use super::*;

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
