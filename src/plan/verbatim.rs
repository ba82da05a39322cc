//! What somebody else wrote into a policy is written back as the text that was read.

use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::world::*;
use super::*;
use crate::model::{Binding, Condition, ConditionHash, RawJson};

/// The policy read from this text, in a world that wants `p1` to have the invoker role there.
fn world(bindings: &[String], rest: &str) -> World {
    let mut world = World::new(&json!([]));
    let text = format!(r#"{{"version": 1, "etag": "e0", "bindings": [{}]{rest}}}"#, bindings.join(", "));
    world.live = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    world
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

/// The text of each binding that the plan writes.
fn written(world: &World) -> Vec<String> {
    let policy = serde_json::to_string(world.plan().policy.as_ref().unwrap()).unwrap();
    let bindings = field(&policy, "bindings");
    // A policy that nobody is in any more has none.
    let raw: Vec<Box<RawValue>> = if bindings.is_empty() { vec![] } else { serde_json::from_str(&bindings).unwrap() };
    raw.iter().map(|binding| binding.get().to_owned()).collect()
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
    let mut world = world(&foreign, r#", "auditConfigs": [{"n": 1e400}]"#);
    world.want("m", INVOKER, 1, WRITE);
    let bindings = written(&world);
    assert_eq!(bindings[..5], foreign);
    assert_eq!(bindings[5..], [r#"{"role":"roles/run.invoker","members":["user:p1@corp.example"]}"#]);
    let policy = serde_json::to_string(world.plan().policy.as_ref().unwrap()).unwrap();
    assert_eq!(field(&policy, "auditConfigs"), r#"[{"n": 1e400}]"#);
}

#[test]
fn a_binding_that_gets_a_member_keeps_the_text_of_its_other_fields() {
    let mut world = world(
        &[
            r#"{"role":"roles/run.invoker","members":["user:a@x.example"],"x-new":{"id":99999999999999999999}}"#.into(),
            r#"{"role":"roles/run.invoker","members":["user:b@x.example"],"condition":null}"#.into(),
            r#"{"role":"roles/run.invoker","members":["user:c@x.example"]}"#.into(),
        ],
        "",
    );
    world.want("m", INVOKER, 1, WRITE);
    let bindings = written(&world);
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
    let mut world = granted(1);
    let text = r#"{"version": 1, "etag": "e0", "bindings": [
        {"role":"roles/run.invoker","x-new":1e3,"members":["user:p1@corp.example","user:b@x.example"]},
        {"role":"roles/run.invoker","members":["user:p1@corp.example"]},
        {"role":"roles/run.invoker","members":[]}]}"#;
    world.live = serde_json::from_str(text).unwrap();
    world.unwant("m");
    assert_eq!(
        written(&world),
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

/// The text of a binding, which may hold people of ours.
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
        wanted in prop::collection::btree_set((1_u128..4, any::<bool>()), 0..4),
        owned in prop::collection::btree_set(1_u128..4, 0..3),
    ) {
        let rest: Vec<String> = rest.iter().map(|(name, value)| format!(", {}: {value}", json!(name))).collect();
        let rest = rest.concat();
        let read = world(&bindings, &rest);
        let mut world = granted(3);
        world.unwant("m");
        world.ledger.retain(|_, row| owned.iter().any(|n| row.member == email(*n)));
        world.live = read.live;
        for (n, role) in wanted {
            world.want("m", if role { INVOKER } else { VIEWER }, n, WRITE);
        }
        let plan = world.plan();
        let Some(policy) = &plan.policy else { return Ok(()) };
        let policy_text = serde_json::to_string(policy).unwrap();
        for (name, value) in fields(&format!("{{\"a\":1{rest}}}")).into_iter().skip(1) {
            prop_assert_eq!(field(&policy_text, &name), value);
        }
        let mut written = written(&world).into_iter().peekable();
        let mut added = 0;
        for before in &bindings {
            let (others, members) = split(before);
            let binding: Binding = serde_json::from_str(before).unwrap();
            let condition = ConditionHash::of(binding.condition.as_ref());
            let is_of = |step: &&Step| step.grant().role.as_str() == binding.role && step.grant().condition == condition;
            let is_in = |steps: &[Step], member: &String| steps.iter().filter(is_of).any(|step| step.row.member == *member);
            let kept: Vec<String> = members.iter().filter(|m| !is_in(&plan.remove, m)).cloned().collect();
            let emptied = kept.is_empty() && !members.is_empty();
            let here = |after: &String| {
                let (others_after, members_after) = split(after);
                others_after == others && (!emptied || members_after.iter().all(|member| is_in(&plan.add, member)))
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
            prop_assert!(members_after[kept.len()..].iter().all(|member| is_in(&plan.add, member)));
            added += members_after.len() - kept.len();
        }
        for new in written {
            let (others, members) = split(&new);
            prop_assert_eq!(others.len(), 1, "a new binding has a role and members");
            added += members.len();
        }
        prop_assert_eq!(added, plan.add.len());
    }
}
