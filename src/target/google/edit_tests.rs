//! Foreign content of a policy is written back as the text that was read.

use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::edit::{MAX_PRINCIPALS, edited, live};
use super::policy::{Binding, Policy};
use crate::model::{Addition, Changes, Condition, ConditionHash, GrantKey, MemberKey, RawJson, Role};

const INVOKER: &str = "roles/run.invoker";
const VIEWER: &str = "roles/run.viewer";

fn email(n: u128) -> String {
    format!("user:p{n}@corp.example")
}

fn key(role: &str, member: &str) -> GrantKey {
    GrantKey { role: Role::new(role).unwrap(), condition: ConditionHash::default(), member: MemberKey::of(member) }
}

fn addition(role: &str, n: u128) -> Addition {
    Addition { grant: key(role, &email(n)), member: email(n), condition: None }
}

/// Adds `p1` as an invoker.
fn p1_comes() -> Changes {
    Changes { add: vec![addition(INVOKER, 1)], ..Changes::default() }
}

/// Removes `p1`.
fn p1_goes() -> Changes {
    Changes { add: vec![], remove: [key(INVOKER, &email(1))].into() }
}

/// The policy read from this text.
fn read(bindings: &[String], rest: &str) -> Policy {
    let text = format!(r#"{{"version": 1, "etag": "e0", "bindings": [{}]{rest}}}"#, bindings.join(", "));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The text of each field of an object, in order.
fn fields(text: &str) -> Vec<(String, String)> {
    let fields = serde_json::from_str::<RawJson>(text).unwrap().fields().unwrap();
    fields.into_iter().map(|(name, value)| (name, value.text().to_owned())).collect()
}

fn field(text: &str, name: &str) -> String {
    let fields = fields(text);
    fields.into_iter().find(|(field, _)| field == name).map(|(_, value)| value).unwrap_or_default()
}

/// The text of each written binding.
fn written(policy: &Policy) -> Vec<String> {
    let policy = serde_json::to_string(policy).unwrap();
    let bindings = field(&policy, "bindings");
    // A policy without any member has no bindings.
    let raw: Vec<Box<RawValue>> = if bindings.is_empty() { vec![] } else { serde_json::from_str(&bindings).unwrap() };
    raw.iter().map(|binding| binding.get().to_owned()).collect()
}

#[test]
fn a_member_is_added_with_version_3_the_etag_of_the_read_and_everything_else_untouched() {
    let bindings = json!([
        {"role": VIEWER, "members": []},
        {"role": "roles/owner", "members": ["user:Boss@Corp.example"], "x-unknown": {"kept": true}},
        {"role": INVOKER, "members": ["allUsers"], "condition": {"title": "t", "expression": "true"}},
        {"role": INVOKER, "members": ["deleted:user:p1@corp.example?uid=7"]},
    ]);
    let auditing = json!([{"service": "allServices"}]);
    let text = json!({"version": 1, "etag": "e0", "bindings": bindings, "auditConfigs": auditing});
    let policy = edited(&serde_json::from_value(text).unwrap(), &p1_comes());
    let mut expected = bindings;
    expected[3]["members"] = json!(["deleted:user:p1@corp.example?uid=7", "user:p1@corp.example"]);
    let written = serde_json::to_value(policy).unwrap();
    assert_eq!(written, json!({"version": 3, "etag": "e0", "bindings": expected, "auditConfigs": auditing}));
}

#[test]
fn a_new_binding_is_made_when_the_role_has_none_without_condition_and_dropped_when_a_removal_empties_it() {
    let foreign = r#"{"role":"roles/run.invoker","members":["user:a@b.c"],"condition":{"title":"t","expression":"e"}}"#;
    let policy = edited(&read(&[foreign.into()], ""), &p1_comes());
    assert_eq!(written(&policy), [foreign, r#"{"role":"roles/run.invoker","members":["user:p1@corp.example"]}"#]);
    assert_eq!(written(&edited(&policy, &p1_goes())), [foreign]);
}

#[test]
fn a_policy_without_changes_is_written_as_it_is_whoever_is_in_it() {
    let foreign = [r#"{"role":"roles/run.viewer"}"#, r#"{"members":[],"role":"roles/run.invoker","x-new":1}"#];
    let policy = read(&foreign.map(str::to_owned), "");
    let fence = edited(&policy, &Changes::default());
    assert_eq!(written(&fence), foreign);
    assert_eq!((fence.version, &fence.etag), (3, &policy.etag));
}

#[test]
fn a_policy_is_read_as_a_set_with_the_appearances_that_google_counts() {
    let bindings = [
        r#"{"role":"roles/run.invoker","members":["user:P1@corp.example","user:b@x.example"]}"#,
        r#"{"role":"roles/run.invoker","members":["user:p1@corp.example"]}"#,
        r#"{"role":"roles/owner","members":["user:p1@corp.example"]}"#,
        r#"{"role":"roles/run.viewer"}"#,
    ];
    let set = live(&read(&bindings.map(str::to_owned), ""));
    assert_eq!((set.revision.as_str(), set.never_set, set.grants.len(), set.beyond.len()), ("e0", false, 2, 1));
    let stored = &set.grants[&key(INVOKER, &email(1))];
    assert_eq!((stored.member.as_str(), stored.times), ("user:P1@corp.example", 2), "as Google spells it first");
    let capacity = set.capacity.unwrap();
    assert_eq!((capacity.used, capacity.limit), (4, MAX_PRINCIPALS));
    let gone = p1_goes().remove;
    let room = set.room_without(gone.iter()).unwrap();
    assert_eq!((room.kept, room.left), (2, MAX_PRINCIPALS - 2));
    let never = Policy { etag: "ACAB".into(), ..Policy::default() };
    assert!(live(&never).never_set && live(&Policy::default()).is_absent());
}

#[test]
fn foreign_bindings_and_conditions_are_written_back_as_the_text_that_was_read() {
    let foreign = [
        r#"{"role":"roles/x", "members":["user:\u0041@x.example"],"condition":{"title":"t","description":"","expression":"e","priority":18446744073709551617}}"#,
        r#"{"role":"roles/run.viewer"}"#,
        r#"{"members":[],"role":"roles/run.viewer","condition":{"expression":"1.0e+2 == 1E2","title":"t","location":null,"nested":{"b":1.50,"a":[-0.0]}}}"#,
        r#"{"role":"roles/run.invoker","members":["allUsers"],"condition":{}}"#,
        r#"{"role":"roles/run.invoker","members":["user:a@x.example"],"condition":"of another kind"}"#,
    ]
    .map(str::to_owned);
    let policy = edited(&read(&foreign, r#", "auditConfigs": [{"n": 1e400}]"#), &p1_comes());
    let bindings = written(&policy);
    assert_eq!(bindings[..5], foreign);
    assert_eq!(bindings[5..], [r#"{"role":"roles/run.invoker","members":["user:p1@corp.example"]}"#]);
    let policy = serde_json::to_string(&policy).unwrap();
    assert_eq!(field(&policy, "auditConfigs"), r#"[{"n": 1e400}]"#);
}

#[test]
fn a_binding_that_gets_a_member_keeps_the_text_of_its_other_fields() {
    let policy = read(
        &[
            r#"{"role":"roles/run.invoker","members":["user:a@x.example"],"x-new":{"id":99999999999999999999}}"#.into(),
            r#"{"role":"roles/run.invoker","members":["user:b@x.example"],"condition":null}"#.into(),
            r#"{"role":"roles/run.invoker","members":["user:c@x.example"]}"#.into(),
        ],
        "",
    );
    let bindings = written(&edited(&policy, &p1_comes()));
    assert_eq!(
        bindings[0],
        r#"{"role":"roles/run.invoker","members":["user:a@x.example"],"x-new":{"id":99999999999999999999}}"#
    );
    assert_eq!(
        bindings[1],
        r#"{"role":"roles/run.invoker","condition":null,"members":["user:b@x.example","user:p1@corp.example"]}"#
    );
    assert_eq!(bindings[2], r#"{"role":"roles/run.invoker","members":["user:c@x.example"]}"#, "not merged");
}

#[test]
fn a_member_of_ours_leaves_every_binding_of_its_role_and_the_rest_of_them_stays() {
    let text = r#"{"version": 1, "etag": "e0", "bindings": [
        {"role":"roles/run.invoker","x-new":1e3,"members":["user:p1@corp.example","user:b@x.example"]},
        {"role":"roles/run.invoker","members":["user:p1@corp.example"]},
        {"role":"roles/run.invoker","members":[]}]}"#;
    let policy: Policy = serde_json::from_str(text).unwrap();
    assert_eq!(
        written(&edited(&policy, &p1_goes())),
        [
            r#"{"role":"roles/run.invoker","x-new":1e3,"members":["user:b@x.example"]}"#,
            r#"{"role":"roles/run.invoker","members":[]}"#
        ]
    );
}

#[test]
fn the_hash_of_a_condition_is_the_one_that_older_ledger_rows_hold() {
    let hash = |text: &str| ConditionHash::of(Some(&serde_json::from_str::<Condition>(text).unwrap()));
    let plain = hash(r#"{"title":"office","expression":"true"}"#);
    assert_eq!(plain.as_str(), "90c56545983b1fa1");
    assert_eq!(plain, hash(r#"{"expression":"true","title":"office","description":"","location":null}"#));
    assert_ne!(plain, hash(r#"{"title":"office","expression":"true","priority":1}"#));
    let stored = r#"{"title":"office","expression":"true"}"#;
    assert_eq!(serde_json::to_string(&serde_json::from_str::<Condition>(stored).unwrap()).unwrap(), stored);
}

/// JSON text of any kind, with numbers of any size and spelling.
fn any_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,30})",
        "-?(0|[1-9][0-9]{0,5})\\.[0-9]{1,30}",
        "-?[1-9](\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,4}",
    ];
    let text = prop_oneof![any::<String>().prop_map(|text| json!(text).to_string()), Just(r#""\u00e9\/""#.to_owned())];
    let leaf = prop_oneof![Just("null".to_owned()), Just("true".to_owned()), number, text];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::btree_map("[a-z]{1,4}|\\PC{0,3}", inner, 0..4).prop_map(|fields| object(&fields)),
        ]
    })
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{} :{value}", json!(name))).collect();
    format!("{{{}}}", fields.join(" , "))
}

fn any_condition() -> impl Strategy<Value = String> {
    let known = prop_oneof![Just("title"), Just("description"), Just("expression"), Just("location")];
    let name = prop_oneof![3 => known.prop_map(str::to_owned), 1 => "[a-z]{1,5}"];
    let value = prop_oneof![3 => "[a-z]{0,3}".prop_map(|text| json!(text).to_string()), 1 => any_json()];
    prop_oneof![4 => prop::collection::btree_map(name, value, 0..5).prop_map(|fields| object(&fields)), 1 => any_json()]
}

/// The text of a binding, which may include members granted by rolecall.
fn any_text() -> impl Strategy<Value = String> {
    let member = prop_oneof![(1_u128..4).prop_map(email), Just("allUsers".into()), "[a-z]{1,4}:[A-Z@a-z.]{1,5}"];
    let members = prop::option::of(prop::collection::vec(member, 0..4));
    let role = prop_oneof![Just(INVOKER), Just(VIEWER), Just("roles/owner"), Just("nonsense")];
    let condition = prop::option::weighted(0.4, any_condition());
    let unknown = prop::collection::btree_map("[A-Z]{1,5}", any_json(), 0..2);
    (role, members, condition, unknown, any::<bool>()).prop_map(|(role, members, condition, mut all, behind)| {
        all.insert("role".into(), json!(role).to_string());
        all.extend(members.map(|members| ("members".into(), json!(members).to_string())));
        all.extend(condition.map(|condition| ("condition".into(), condition)));
        if behind { object(all.iter().rev()) } else { object(&all) }
    })
}

/// A binding's text without its members, and the members.
fn split(text: &str) -> (Vec<(String, String)>, Vec<String>) {
    let members = field(text, "members");
    let members = if members.is_empty() { vec![] } else { serde_json::from_str(&members).unwrap() };
    (fields(text).into_iter().filter(|(name, _)| name != "members").collect(), members)
}

proptest! {
    #[test]
    fn whatever_json_a_policy_holds_only_the_members_of_a_step_change_in_it(
        bindings in prop::collection::vec(any_text(), 0..6),
        rest in prop::collection::btree_map("[A-Z]{1,5}", any_json(), 0..3),
        added in prop::collection::btree_set((1_u128..4, any::<bool>()), 0..4),
        removed in prop::collection::btree_set(1_u128..4, 0..3),
    ) {
        let rest: Vec<String> = rest.iter().map(|(name, value)| format!(", {}: {value}", json!(name))).collect();
        let rest = rest.concat();
        let policy = read(&bindings, &rest);
        let additions = added.iter().map(|(n, role)| addition(if *role { INVOKER } else { VIEWER }, *n));
        // A member that is already there is not added.
        let before = live(&policy);
        let changes = Changes {
            add: additions.filter(|addition| !before.has(&addition.grant)).collect(),
            remove: removed.iter().map(|n| key(INVOKER, &email(*n))).collect(),
        };
        let policy = edited(&policy, &changes);
        let policy_text = serde_json::to_string(&policy).unwrap();
        for (name, value) in fields(&format!("{{\"a\":1{rest}}}")).into_iter().skip(1) {
            prop_assert_eq!(field(&policy_text, &name), value);
        }
        let mut written = written(&policy).into_iter().peekable();
        let mut added = 0;
        for before in &bindings {
            let (others, members) = split(before);
            let binding: Binding = serde_json::from_str(before).unwrap();
            let condition = ConditionHash::of(binding.condition.as_ref());
            let is_of = |grant: &GrantKey| grant.role.as_str() == binding.role && grant.condition == condition;
            let comes = |member: &String| {
                changes.add.iter().any(|addition| is_of(&addition.grant) && addition.member == *member)
            };
            let goes = |member: &String| {
                changes.remove.iter().any(|grant| is_of(grant) && grant.member == MemberKey::of(member))
            };
            let kept: Vec<String> = members.iter().filter(|member| !goes(member)).cloned().collect();
            let emptied = kept.is_empty() && !members.is_empty();
            let here = |after: &String| {
                let (others_after, members_after) = split(after);
                let refilled = !members_after.is_empty() && members_after.iter().all(comes);
                others_after == others && (!emptied || refilled)
            };
            if emptied && !written.peek().is_some_and(here) {
                continue;
            }
            let after = written.next().unwrap();
            let (others_after, members_after) = split(&after);
            if members == members_after {
                prop_assert_eq!(before, &after);
                continue;
            }
            prop_assert_eq!(&others, &others_after);
            prop_assert!(members_after.starts_with(&kept), "{:?} {:?}", kept, members_after);
            prop_assert!(members_after[kept.len()..].iter().all(comes));
            added += members_after.len() - kept.len();
        }
        for new in written {
            let (others, members) = split(&new);
            prop_assert_eq!(others.len(), 1, "a new binding has a role and members");
            added += members.len();
        }
        prop_assert_eq!(added, changes.add.len());
    }
}
