//! Properties of every change, whatever was sent.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use super::{ONE, TWO, alice, map, member_changes, patched, user_id};
use crate::model::MemberChange;

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec!["", "a", "True", "False", "work", ONE, TWO]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let keys = prop::sample::select(vec![
            "value",
            "type",
            "primary",
            "givenName",
            "members",
            "userName",
            "active",
            "emails",
            "name.givenName",
            "id",
            "x",
            "urn:example:params:scim:schemas:extension:acme:2.0:User",
            "urn:example:params:scim:schemas:extension:acme:2.0:User:value",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

fn operations() -> impl Strategy<Value = Value> {
    let op = prop::sample::select(vec!["add", "Replace", "remove", "Remove", "delete"]);
    let path = prop::option::of(prop::sample::select(vec![
        "active",
        "userName",
        "emails",
        "emails.value",
        "emails[type eq \"work\"].value",
        "emails[type eq \"work\"]",
        "emails[primary eq \"True\"].primary",
        "emails[value co \"a\"]",
        "name.givenName",
        "name",
        "externalId",
        "manager",
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
        "urn:example:params:scim:schemas:extension:acme:2.0:User",
        "urn:example:params:scim:schemas:extension:acme:2.0:User:value",
        "urn:example:params:scim:schemas:extension:acme:2.0:User:x.type",
        "urn:example:params:scim:schemas:extension:acme:2.0:User:x[type eq \"work\"].value",
        "members",
        "members[value eq \"00000000-0000-4000-8000-000000000011\"]",
        "displayName",
        "emails[",
    ]));
    (op, path, prop::option::of(values())).prop_map(|(op, path, value)| {
        let mut operation = map(json!({"op": op}));
        if let Some(path) = path {
            operation.insert("path".into(), path.into());
        }
        if let Some(value) = value {
            operation.insert("value".into(), value);
        }
        Value::Object(operation)
    })
}

proptest! {
    #[test]
    fn whatever_a_patch_does_to_a_user_the_result_is_a_user(list in prop::collection::vec(operations(), 1..5)) {
        let before = alice();
        let Ok(after) = patched(&before, Value::from(list.clone())) else { return Ok(()) };
        prop_assert!(after["userName"].as_str().is_some_and(|name| !name.trim().is_empty()));
        prop_assert!(after.get("active").is_none_or(Value::is_boolean));
        prop_assert!(after.get("id").is_none() && after.get("members").is_none());
        if let Some(emails) = after.get("emails") {
            let emails = emails.as_array().unwrap();
            prop_assert!(!emails.is_empty());
            prop_assert!(emails.iter().filter(|email| email["primary"] == true).count() <= 1, "{:?}", emails);
        }
        // The result is in the stored form: sending it back as a PUT changes nothing.
        let put = ResourceChange::put(ResourceType::User, user_id(), map(after.clone()), &mut Findings::new()).unwrap();
        prop_assert_eq!(put.apply(&after).unwrap(), after.clone());
        // It is also a fixed point of an empty change.
        let rest = patched(&after, json!([{"op": "replace", "value": {}}])).unwrap();
        prop_assert_eq!(rest, after);
    }

    #[test]
    fn only_an_explicit_request_clears_or_replaces_members(list in prop::collection::vec(operations(), 1..5)) {
        let Ok(changes) = member_changes(Value::from(list.clone())) else { return Ok(()) };
        for change in &changes {
            match change {
                MemberChange::Clear => prop_assert!(list.iter().any(|operation| {
                    let op = operation["op"].as_str().unwrap().to_lowercase();
                    match (op.as_str(), operation.get("path").and_then(Value::as_str), operation.get("value")) {
                        ("remove", Some("members"), None) => true,
                        ("replace", Some("members"), Some(value)) => {
                            value.is_null() || value == &json!([]) || value.get("members") == Some(&json!([]))
                        }
                        ("replace", None, Some(value)) => value.get("members").is_some(),
                        _ => false,
                    }
                }), "{:?} from {:?}", changes, list),
                MemberChange::Add(ids) | MemberChange::Remove(ids) | MemberChange::Replace(ids) => {
                    prop_assert!(!ids.is_empty());
                }
            }
        }
    }

    #[test]
    fn whatever_is_posted_becomes_a_user_or_a_refusal(body in values()) {
        let Value::Object(body) = body else { return Ok(()) };
        if let Ok(user) = new_resource(ResourceType::User, body, &mut Findings::new()) {
            let again = new_resource(ResourceType::User, map(user.clone()), &mut Findings::new()).unwrap();
            prop_assert_eq!(again, user);
        }
    }
}
