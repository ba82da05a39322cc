//! Absences, modes and phases of mappings.

use super::*;

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
