//! What targets and namespaces delegate and permit.

use super::*;

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
