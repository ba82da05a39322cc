//! However a change is spelled, the stored resource equals that of a small model, or the answer is 400.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::schema::{ENTERPRISE_URN, GROUP_URN, USER_URN};
use super::super::*;
use super::{ONE, TWO, alice, group_id, map, member_changes, patched, user, user_id};
use crate::model::MemberChange;

/// One attribute with one value: URN, name, sub-attribute.
type Field = (&'static str, &'static str, Option<&'static str>);

const FIELDS: [Field; 7] = [
    (USER_URN, "active", None),
    (USER_URN, "title", None),
    (USER_URN, "externalId", None),
    (USER_URN, "name", Some("givenName")),
    (USER_URN, "name", Some("familyName")),
    (ENTERPRISE_URN, "department", None),
    (ENTERPRISE_URN, "manager", Some("value")),
];

fn plain((_, name, sub): Field) -> String {
    sub.map_or(name.to_owned(), |sub| format!("{name}.{sub}"))
}

/// The text with the case of every other letter swapped.
fn swapped(text: &str) -> String {
    text.char_indices().map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
}

/// A request that sets a field, in one of the possible spellings. `None` removes the value.
fn spelled(field: Field, value: Option<&Value>, way: usize, remove: bool) -> Value {
    let (urn, ..) = field;
    let short = plain(field);
    let long = format!("{urn}:{short}");
    let verb = if way.is_multiple_of(2) { "replace" } else { "Add" };
    // Without a value: `remove` with a path, or `replace` with null.
    let verb = if value.is_none() { "Replace" } else { verb };
    if value.is_none() && remove {
        let path = [short.clone(), swapped(&short), long.clone(), swapped(&long)][way % 4].clone();
        return json!({"op": "Remove", "path": path});
    }
    match way {
        0 => json!({"op": verb, "path": short, "value": value}),
        1 => json!({"op": verb, "path": swapped(&short), "value": value}),
        2 => json!({"op": verb, "path": long, "value": value}),
        3 => json!({"op": verb, "path": swapped(&long), "value": value}),
        4 => json!({"op": verb, "value": {short: value}}),
        5 => json!({"op": verb, "VALUE": {swapped(&long): value}}),
        6 => json!({"op": verb, "value": {swapped(urn): {short: value}}}),
        7 => json!({"op": verb, "path": urn, "value": {swapped(&short): value}}),
        8 => json!({"op": verb, "path": swapped(urn), "value": {short: value}}),
        9 => json!({"op": verb, "value": json!({urn: {short: value}}).to_string()}),
        _ => json!({"op": verb, "value": {USER_URN: {long: value}}}),
    }
}

fn shown(user: &Value) -> BTreeMap<String, Value> {
    let found = FIELDS.iter().filter_map(|field| {
        let (urn, name, sub) = *field;
        let home = if urn == USER_URN { Some(user) } else { user.get(urn) };
        let value = home?.get(name)?;
        let value = sub.map_or(Some(value), |sub| value.get(sub))?;
        Some((plain(*field), value.clone()))
    });
    found.collect()
}

fn changes() -> impl Strategy<Value = Vec<(usize, Option<u8>, usize, bool)>> {
    prop::collection::vec((0..FIELDS.len(), prop::option::of(any::<u8>()), 0_usize..11, any::<bool>()), 1..8)
}

fn value_of(field: Field, number: u8) -> Value {
    if field.1 == "active" { json!(number.is_multiple_of(2)) } else { json!(format!("v{number}")) }
}

/// Requests that must never succeed, because they have no effect.
fn nonsense() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({"op": "replace", "path": "active.value", "value": false}),
        json!({"op": "replace", "path": "active", "value": ""}),
        json!({"op": "replace", "path": "actve", "value": false}),
        json!({"op": "remove", "path": "nothing"}),
        json!({"op": "remove", "path": "urn:example:User:nothing"}),
        json!({"op": "replace", "value": {"active.value": false}}),
        json!({"op": "replace", "value": {USER_URN: {"actve": false}}}),
        json!({"op": "replace", "value": {"urn:ietf:params:scim:schemas:core:1.0:User": {"active": false}}}),
        json!({"op": "add", "path": "groups", "value": [{"value": "g"}]}),
        json!({"op": "replace", "path": format!("{USER_URN}:groups"), "value": []}),
        json!({"op": "replace", "path": USER_URN, "value": "active"}),
        json!({"op": "replace", "value": {"active": true, format!("{USER_URN}:active"): false}}),
    ])
}

proptest! {
    #[test]
    fn a_change_is_stored_as_in_the_model_however_it_is_spelled(changes in changes()) {
        let before = alice();
        let mut model = shown(&before);
        let mut operations = Vec::new();
        for (at, number, way, remove) in changes {
            let field = FIELDS[at];
            let value = number.map(|number| value_of(field, number));
            operations.push(spelled(field, value.as_ref(), way, remove));
            match value {
                Some(value) => drop(model.insert(plain(field), value)),
                // A person is active or not.
                None if field.1 == "active" => {}
                None => drop(model.remove(&plain(field))),
            }
        }
        let after = patched(&before, json!(operations));
        let after = after.map_err(|error| TestCaseError::fail(format!("{error}: {operations:?}")))?;
        prop_assert_eq!(shown(&after), model, "{:?}", operations);
        prop_assert_eq!(&after["userName"], &before["userName"]);
        prop_assert_eq!(&after["emails"], &before["emails"]);
    }

    #[test]
    fn a_change_that_means_nothing_refuses_the_whole_request(changes in changes(), nonsense in nonsense(), at in 0_usize..8) {
        let mut operations: Vec<Value> = changes
            .into_iter()
            .map(|(at, number, way, remove)| {
                let value = number.map(|number| value_of(FIELDS[at], number));
                spelled(FIELDS[at], value.as_ref(), way, remove)
            })
            .collect();
        operations.insert(at.min(operations.len()), nonsense);
        let refused = patched(&alice(), json!(operations));
        prop_assert!(refused.as_ref().is_err_and(|error| error.status() == 400), "{:?}: {:?}", operations, refused);
    }

    #[test]
    fn a_body_however_it_is_spelled_makes_the_same_user(numbers in prop::collection::vec(any::<u8>(), 7), ways in prop::collection::vec(0_usize..4, 7)) {
        let mut body = map(json!({"schemas": [USER_URN], "userName": "a"}));
        let mut model = BTreeMap::new();
        for ((field, number), way) in FIELDS.into_iter().zip(numbers).zip(ways) {
            let (urn, ..) = field;
            let value = value_of(field, number);
            let key = [plain(field), swapped(&plain(field)), format!("{urn}:{}", plain(field))];
            if let Some(key) = key.get(way) {
                body.insert(key.clone(), value.clone());
            } else {
                let inner = body.entry(urn).or_insert_with(|| json!({}));
                inner[plain(field)] = value.clone();
            }
            model.insert(plain(field), value);
        }
        prop_assert_eq!(shown(&user(Value::Object(body.clone()))), model.clone());
        let put = ResourceChange::put(ResourceType::User, user_id(), body, &mut Findings::new()).unwrap();
        prop_assert_eq!(shown(&put.apply(&alice()).unwrap()), model);
    }

    #[test]
    fn members_however_they_are_spelled_are_those_of_a_model(list in prop::collection::vec((0_usize..4, 0_usize..3, 0_usize..7), 1..6)) {
        let mut model = BTreeSet::from([ONE.to_owned()]);
        let mut operations = Vec::new();
        for (verb, who, way) in list {
            let who: Vec<&str> = [vec![ONE], vec![TWO], vec![ONE, TWO]][who].clone();
            let value: Value = who.iter().map(|id| json!({"value": id})).collect();
            let long = format!("{GROUP_URN}:members");
            let (op, value) = [("add", value.clone()), ("Replace", value.clone()), ("replace", json!([])), ("remove", value)][verb].clone();
            let paths = ["members".to_owned(), swapped("members"), long.clone(), swapped(&long)];
            operations.push(match (op, way) {
                ("remove", way) => json!({"op": op, "path": paths[way % 4], "value": value}),
                (_, 0..4) => json!({"op": op, "path": paths[way], "value": value}),
                (_, 4) => json!({"op": op, "value": {swapped(GROUP_URN): {"Members": value}}}),
                (_, 5) => json!({"op": op, "path": GROUP_URN, "value": {"members": value}}),
                _ => json!({"op": op, "value": {long: value}}),
            });
            match verb {
                0 => model.extend(who.iter().map(|id| (*id).to_owned())),
                1 => model = who.iter().map(|id| (*id).to_owned()).collect(),
                2 => model.clear(),
                _ => model.retain(|id| !who.contains(&id.as_str())),
            }
        }
        let changes = member_changes(json!(operations)).map_err(|error| TestCaseError::fail(format!("{error}: {operations:?}")))?;
        let mut members = BTreeSet::from([ONE.to_owned()]);
        for change in changes {
            match change {
                MemberChange::Add(ids) => members.extend(ids.iter().map(ToString::to_string)),
                MemberChange::Replace(ids) => members = ids.iter().map(ToString::to_string).collect(),
                MemberChange::Remove(ids) => members.retain(|id| ids.iter().all(|gone| gone.to_string() != *id)),
                MemberChange::Clear => members.clear(),
            }
        }
        prop_assert_eq!(members, model, "{:?}", operations);
    }
}

#[test]
fn one_name_for_two_different_values_in_one_object_is_refused() {
    for body in [
        r#"{"members": [], "Members": [1]}"#,
        r#"{"active": true, "active": false}"#,
        r#"{"Operations": [], "operations": [{}]}"#,
        r#"{"Operations": [{"op": "replace", "path": "active", "value": true, "Value": false}]}"#,
        r#"{"a1":1,"a2":1,"a3":1,"a4":1,"a5":1,"a6":1,"a7":1,"a8":1,"a9":1,"A9":2}"#,
        r#"{"a1":1,"a2":1,"a3":1,"a4":1,"a5":1,"a6":1,"a7":1,"a8":1,"a9":1,"A1":2}"#,
    ] {
        let refused = json::object(body.as_bytes(), &mut Findings::new()).unwrap_err();
        assert_eq!(refused.scim_type(), Some("invalidSyntax"), "{body}");
        assert!(refused.to_string().contains("two members"), "{refused}");
    }
    let body = br#"{"a":{"x":1,"y":[1.5,-2,true,null,"z"]},"b":{"x":18446744073709551615},"A":{"x":1,"y":[1.5,-2,true,null,"z"]}}"#;
    let mut findings = Findings::new();
    let read = json::object(body, &mut findings).unwrap();
    assert_eq!(findings.as_slice(), [Finding { code: FindingCode::AttributeRepeated, pointer: "A".to_owned() }]);
    assert_eq!(Value::Object(read), json!({"a": {"x": 1, "y": [1.5, -2, true, null, "z"]}, "b": {"x": u64::MAX}}));
}

#[test]
fn a_group_body_may_have_its_members_inside_the_urn() {
    let inside = |members: Value| map(json!({"displayName": "g", GROUP_URN: {"members": members}}));
    let new = new_group(ResourceType::Group, inside(json!([{"value": ONE}])), &mut Findings::new()).unwrap();
    assert_eq!(new.members.list, [MemberChange::Add(super::ids(&[ONE]))]);
    assert_eq!(new.resource, json!({"schemas": [GROUP_URN], "displayName": "g"}));
    let put = GroupChange::put(ResourceType::Group, group_id(), inside(json!([])), &mut Findings::new()).unwrap();
    assert_eq!(put.members.list, [MemberChange::Clear]);
    let twice = map(json!({"displayName": "g", "members": [], GROUP_URN: {"members": [{"value": ONE}]}}));
    assert_eq!(
        new_group(ResourceType::Group, twice, &mut Findings::new()).unwrap_err().scim_type(),
        Some("invalidSyntax")
    );
}

#[test]
fn a_body_that_misplaces_what_access_depends_on_is_refused() {
    for body in [
        json!({"userName": "a", "active": ""}),
        json!({"userName": "a", "active.value": false}),
        json!({"userName": "a", ENTERPRISE_URN: {"active": false}}),
        json!({"userName": "a", "urn:scim:schemas:core:1.0": {"active": false}}),
        json!({"userName": "a", GROUP_URN: {"active": false}}),
    ] {
        let refused =
            ResourceChange::put(ResourceType::User, user_id(), map(body.clone()), &mut Findings::new()).unwrap_err();
        assert_eq!(refused.scim_type(), Some("invalidValue"), "{body}: {refused}");
        assert_eq!(
            new_resource(ResourceType::User, map(body.clone()), &mut Findings::new()).unwrap_err().status(),
            400,
            "{body}"
        );
    }
}

#[test]
fn a_change_beside_the_operations_is_refused() {
    for beside in ["active", "Emails", USER_URN, ENTERPRISE_URN] {
        let body = map(json!({"Operations": [{"op": "replace", "path": "title", "value": "T"}], beside: false}));
        let refused = ResourceChange::patch(ResourceType::User, user_id(), body, &mut Findings::new()).unwrap_err();
        assert_eq!(refused.scim_type(), Some("invalidSyntax"), "{beside}");
    }
    let body = map(json!({"id": "1", "meta": {}, "Operations": [{"op": "replace", "path": "title", "value": "T"}]}));
    assert!(ResourceChange::patch(ResourceType::User, user_id(), body, &mut Findings::new()).is_ok());
    let body = map(json!({"members": [], "Operations": [{"op": "replace", "path": "displayName", "value": "T"}]}));
    assert!(GroupChange::patch(ResourceType::Group, group_id(), body, &mut Findings::new()).is_err());
}
