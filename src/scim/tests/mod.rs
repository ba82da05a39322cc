//! Tests across the whole module: properties, tables of PATCH requests, and regressions.

mod cost;
mod filters;
mod meaning;
mod properties;
mod registered;
mod spellings;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::model::MemberChange;
use crate::model::{GroupId, UserId};

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn user(body: Value) -> Value {
    new_resource(ResourceType::User, map(body), &mut Findings::new()).unwrap()
}

fn user_id() -> UserId {
    UserId(Uuid::from_u128(1))
}

fn group_id() -> GroupId {
    GroupId(Uuid::from_u128(2))
}

fn patched(user: &Value, operations: Value) -> Result<Value, ScimError> {
    let body = Map::from_iter([("Operations".to_owned(), operations)]);
    ResourceChange::patch(ResourceType::User, user_id(), body, &mut Findings::new())?.apply(user)
}

fn member_changes(operations: Value) -> Result<Vec<MemberChange>, ScimError> {
    let body = Map::from_iter([("Operations".to_owned(), operations)]);
    GroupChange::patch(ResourceType::Group, group_id(), body, &mut Findings::new()).map(|change| change.members.list)
}

fn codes(findings: &Findings) -> Vec<FindingCode> {
    findings.as_slice().iter().map(|finding| finding.code).collect()
}

fn alice() -> Value {
    user(json!({
        "userName": "alice@example.com",
        "externalId": "x1",
        "name": {"givenName": "Alice", "familyName": "Example"},
        "emails": [{"value": "alice@example.com", "type": "work", "primary": true}],
        "roles": [{"value": "engineer", "primary": "True"}],
    }))
}

// Users

#[test]
fn a_new_resource_is_stored_in_the_names_of_the_schema_and_active() {
    let stored = user(json!({
        "SCHEMAS": ["urn:scim:schemas:core:1.0"],
        "USERNAME": "a",
        "password": "secret",
        "groups": [],
        "meta": {"resourceType": "User"},
        "id": "theirs",
        "Name": {"GIVENNAME": "A", "familyName": ""},
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:user": {"Department": "D"},
        "phoneNumbers": null,
        "favouriteColour": "blue",
    }));
    assert_eq!(
        stored,
        json!({
            "schemas": [schema::USER_URN, schema::ENTERPRISE_URN],
            "active": true,
            "userName": "a",
            "name": {"givenName": "A"},
            (schema::ENTERPRISE_URN): {"department": "D"},
        })
    );
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn the_table_of_user_patches_holds() {
    let enterprise = |key: &str| format!("{}:{key}", schema::ENTERPRISE_URN);
    let email = |kind: &str, value: &str| json!({"op": "add", "path": format!("emails[type eq \"{kind}\"].value"), "value": value});
    let rows = [
        (json!([{"op": "Replace", "path": "active", "value": "False"}]), "/active", json!(false)),
        (json!([{"op": "replace", "path": "ACTIVE", "value": ["false"]}]), "/active", json!(false)),
        (json!([{"op": "replace", "value": {"active": false}}]), "/active", json!(false)),
        (json!([{"op": "replace", "value": {"active": false}}]), "/userName", json!("alice@example.com")),
        (
            json!([{"op": "replace", "value": {"name.givenName": "K"}}]),
            "/name",
            json!({"givenName": "K", "familyName": "Example"}),
        ),
        (
            json!([{"op": "replace", "path": "name", "value": {"givenName": "K"}}]),
            "/name",
            json!({"givenName": "K", "familyName": "Example"}),
        ),
        (
            json!([{"op": "replace", "path": "name", "value": {"givenName": null}}]),
            "/name",
            json!({"familyName": "Example"}),
        ),
        (
            json!([{"op": "replace", "value": {enterprise("employeeNumber"): "7"}}]),
            "/schemas/1",
            json!(schema::ENTERPRISE_URN),
        ),
        (
            json!([{"op": "replace", "path": enterprise("department"), "value": "D"}, {"op": "remove", "path": enterprise("department")}]),
            "/schemas",
            json!([schema::USER_URN]),
        ),
        (
            json!([{"op": "add", "path": "manager", "value": [{"$ref": "x", "value": "m"}]}]),
            "/urn:ietf:params:scim:schemas:extension:enterprise:2.0:User/manager",
            json!({"value": "m", "$ref": "x"}),
        ),
        (
            json!([{"op": "replace", "path": enterprise("manager"), "value": "m"}]),
            "/urn:ietf:params:scim:schemas:extension:enterprise:2.0:User/manager",
            json!({"value": "m"}),
        ),
        (
            json!([email("work", "new@example.com")]),
            "/emails",
            json!([{"value": "new@example.com", "type": "work", "primary": true}]),
        ),
        (json!([email("home", "h@example.com")]), "/emails/1", json!({"type": "home", "value": "h@example.com"})),
        (
            json!([email("home", "h@example.com"), email("home", "i@example.com")]),
            "/emails/1",
            json!({"type": "home", "value": "i@example.com"}),
        ),
        (json!([{"op": "replace", "path": "emails[type eq \"work\"].Value", "value": ""}]), "/emails", Value::Null),
        (json!([{"op": "remove", "path": "emails[type eq \"work\"]"}]), "/emails", Value::Null),
        (
            json!([{"op": "remove", "path": "emails", "value": [{"value": "nobody@example.com"}]}]),
            "/emails/0/type",
            json!("work"),
        ),
        (json!([{"op": "remove", "path": "emails", "value": []}]), "/emails/0/type", json!("work")),
        (
            json!([{"op": "add", "path": "emails", "value": [{"value": "b", "primary": true}]}]),
            "/emails/0/primary",
            json!(false),
        ),
        (
            json!([{"op": "add", "path": "emails", "value": {"value": "alice@example.com", "type": "work"}}]),
            "/emails/1",
            Value::Null,
        ),
        (
            json!([{"op": "replace", "path": "roles[primary eq \"True\"].value", "value": "staff"}]),
            "/roles",
            json!([{"value": "staff", "primary": true}]),
        ),
        (json!([{"op": "replace", "path": "externalId", "value": null}]), "/externalId", Value::Null),
        (json!([{"op": "add", "path": "nickName", "value": "Al"}]), "/nickName", json!("Al")),
        (json!([{"op": "replace", "value": {"favouriteColour": null, "title": "T"}}]), "/title", json!("T")),
        (
            json!([{"op": "remove", "path": "emails", "value": [{"value": "ALICE@example.com"}]}]),
            "/emails",
            Value::Null,
        ),
        (json!([{"op": "replace", "path": null, "value": {"title": "T"}}]), "/title", json!("T")),
        (json!([{"op": "replace", "path": "", "value": "{\"title\":\"T\"}"}]), "/title", json!("T")),
    ];
    for (operations, pointer, wanted) in rows {
        let result = patched(&alice(), operations.clone()).unwrap_or_else(|error| panic!("{operations}: {error}"));
        assert_eq!(result.pointer(pointer).cloned().unwrap_or_default(), wanted, "{operations}: {result}");
    }
}

#[test]
fn user_patches_that_cannot_be_meant_are_refused() {
    for (operations, scim_type) in [
        (json!([{"op": "replace", "path": "active", "value": "perhaps"}]), "invalidValue"),
        (json!([{"op": "replace", "path": "active", "value": 0}]), "invalidValue"),
        (json!([{"op": "replace", "path": "userName", "value": ""}]), "invalidValue"),
        (json!([{"op": "remove", "path": "userName"}]), "mutability"),
        (json!([{"op": "replace", "path": "id", "value": "x"}]), "mutability"),
        (json!([{"op": "remove", "path": "id"}]), "mutability"),
        (json!([{"op": "replace", "path": "title"}]), "invalidValue"),
        (json!([{"op": "replace", "path": "emails[foo eq \"x\"].value", "value": "x"}]), "invalidPath"),
        (json!([{"op": "replace", "path": "title[value eq \"x\"]", "value": "x"}]), "invalidPath"),
        (json!([{"op": "add", "path": "emails[value co \"nobody\"].type", "value": "x"}]), "noTarget"),
        (json!([{"op": "replace", "path": "active", "value": ""}]), "invalidValue"),
        (json!([{"op": "replace", "path": "active.value", "value": false}]), "invalidPath"),
        (json!([{"op": "add", "path": "favouriteColour", "value": "blue"}]), "invalidPath"),
        (json!([{"op": "replace", "value": {"favouriteColour": "blue"}}]), "invalidPath"),
        (json!([{"op": "remove", "path": "emails.colour"}]), "invalidPath"),
        (json!([{"op": "remove", "path": "emails[type eq \"work\"].colour"}]), "invalidPath"),
        (json!([{"op": "replace", "path": "name", "value": {"colour": "blue"}}]), "invalidValue"),
        (json!([{"op": "replace", "path": "emails", "value": [{"colour": "blue"}]}]), "invalidValue"),
        (json!([{"op": "remove", "path": "name", "value": {"givenName": "Alice"}}]), "invalidValue"),
        (json!([{"op": "remove", "path": schema::USER_URN}]), "invalidPath"),
        (json!([{"op": "remove", "path": schema::ENTERPRISE_URN, "value": {"department": "D"}}]), "invalidPath"),
        (json!([{"op": "replace", "value": {schema::ENTERPRISE_URN: {"active": false}}}]), "invalidPath"),
        (json!([{"op": "replace", "value": {schema::GROUP_URN: {"active": false}}}]), "invalidPath"),
        (
            json!([{"op": "replace", "value": {"title": "T", format!("{}:title", schema::USER_URN): "U"}}]),
            "invalidSyntax",
        ),
        (json!([{"op": "replace", "value": {"name": null, "name.givenName": "A"}}]), "invalidSyntax"),
        (json!([{"op": "replace", "value": {"emails": [], "emails.value": "A"}}]), "invalidSyntax"),
        (json!([{"op": "add", "path": "groups", "value": [{"value": "g"}]}]), "mutability"),
        (json!([{"op": "remove", "path": "groups[value eq \"g\"]"}]), "mutability"),
        (json!([{"op": "replace", "value": {"groups": []}}]), "mutability"),
        (json!([{"op": "replace", "path": "meta.created", "value": "x"}]), "mutability"),
        (json!([{"op": "add", "path": "schemas", "value": ["x"]}]), "mutability"),
        (json!([{"op": "remove"}]), "noTarget"),
        (json!([{"op": "move", "path": "title"}]), "invalidSyntax"),
    ] {
        let refused = patched(&alice(), operations.clone()).unwrap_err();
        assert_eq!(refused.scim_type(), Some(scim_type), "{operations}");
        assert!(refused.to_string().starts_with("operation 0: "), "{refused}");
    }
}

#[test]
fn a_put_keeps_what_access_depends_on_and_clears_the_rest() {
    let put = |current: &Value, body: Value| {
        ResourceChange::put(ResourceType::User, user_id(), map(body), &mut Findings::new())
            .unwrap()
            .apply(current)
            .unwrap()
    };
    let leaver = patched(&alice(), json!([{"op": "replace", "path": "active", "value": false}])).unwrap();
    let result = put(&leaver, json!({"userName": "alice@example.com"}));
    assert_eq!(
        result,
        json!({"schemas": [schema::USER_URN], "active": false, "externalId": "x1", "userName": "alice@example.com"})
    );
    assert_eq!(put(&leaver, json!({"userName": "a", "externalId": null})).get("externalId"), None);
}

#[test]
fn facts_keep_a_leaver_inactive_when_the_attribute_is_removed() {
    // As earlier versions stored it.
    let mut leaver = alice();
    leaver.as_object_mut().unwrap().remove("active");
    assert!(!user_facts(user_id(), &leaver, false).active);
    assert!(user_facts(user_id(), &leaver, true).active);
    let facts = user_facts(user_id(), &alice(), true);
    assert_eq!((facts.user_name.as_str(), facts.external_id.as_deref()), ("alice@example.com", Some("x1")));
    assert_eq!(facts.emails.len(), 1);
    assert!(facts.emails[0].primary);
}

#[test]
fn deviations_are_found_and_named() {
    let mut findings = Findings::new();
    new_resource(
        ResourceType::User,
        map(json!({
            "schemas": ["urn:scim:schemas:core:1.0"],
            "userName": "a",
            "active": "True",
            "manager": {"value": "m"},
            "emails": {"value": "x"},
            "roles": [{"value": "a", "primary": true}, {"value": "b", "primary": true}],
            "favouriteColour": "blue",
        })),
        &mut findings,
    )
    .unwrap();
    let found = codes(&findings);
    for code in [
        FindingCode::SchemaUnknown,
        FindingCode::BooleanAsString,
        FindingCode::AttributeOutsideExtension,
        FindingCode::ListExpected,
        FindingCode::SeveralPrimaries,
        FindingCode::AttributeNotStored,
    ] {
        assert!(found.contains(&code), "{code:?} in {found:?}");
    }
    assert!(findings.as_slice().iter().all(|finding| !finding.pointer.contains("blue")));
}

// Groups

const ONE: &str = "00000000-0000-4000-8000-000000000011";
const TWO: &str = "00000000-0000-4000-8000-000000000012";

fn ids(texts: &[&str]) -> Vec<Uuid> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_table_of_member_operations_holds() {
    use MemberChange::{Add, Clear, Remove, Replace};
    let value = |id: &str| json!([{"value": id}]);
    let rows = [
        (json!({"op": "Add", "path": "members", "value": value(ONE)}), vec![Add(ids(&[ONE]))]),
        (
            json!({"op": "add", "path": "members", "value": [{"value": ONE}, {"value": ONE}, {"value": TWO}]}),
            vec![Add(ids(&[ONE, TWO]))],
        ),
        (json!({"op": "add", "path": "members", "value": {"value": ONE}}), vec![Add(ids(&[ONE]))]),
        (json!({"op": "add", "path": "members", "value": ONE}), vec![Add(ids(&[ONE]))]),
        (json!({"op": "add", "path": "members", "value": []}), vec![]),
        (json!({"op": "add", "value": {"members": value(ONE)}}), vec![Add(ids(&[ONE]))]),
        (json!({"op": "remove", "path": format!("members[value eq \"{ONE}\"]")}), vec![Remove(ids(&[ONE]))]),
        (
            json!({"op": "remove", "path": format!("MEMBERS[Value Eq \"{ONE}\"]"), "value": value(TWO)}),
            vec![Remove(ids(&[ONE]))],
        ),
        (
            json!({"op": "remove", "path": format!("members[value eq \"{ONE}\" or value eq \"{TWO}\"]")}),
            vec![Remove(ids(&[ONE, TWO]))],
        ),
        (
            json!({"op": "remove", "path": format!("{}:members[value eq \"{ONE}\"]", schema::GROUP_URN)}),
            vec![Remove(ids(&[ONE]))],
        ),
        (json!({"op": "Remove", "path": "members", "value": value(ONE)}), vec![Remove(ids(&[ONE]))]),
        (json!({"op": "remove", "path": "members", "value": {"members": value(ONE)}}), vec![Remove(ids(&[ONE]))]),
        (json!({"op": "remove", "path": "members", "value": []}), vec![]),
        (json!({"op": "remove", "path": "members", "value": null}), vec![]),
        // An id that this server cannot have issued represents itself, so that a parked member can be removed; version
        // 8 is never issued.
        (
            json!({"op": "remove", "path": "members", "value": [{"value": "stranger"}]}),
            vec![Remove(ids(&["8aca4f36-774f-82a6-bc50-7cb9c9667948"]))],
        ),
        (json!({"op": "remove", "path": "members"}), vec![Clear]),
        (json!({"op": "replace", "path": "members", "value": value(ONE)}), vec![Replace(ids(&[ONE]))]),
        (json!({"op": "replace", "path": "members", "value": []}), vec![Clear]),
        (json!({"op": "replace", "path": "members", "value": null}), vec![Clear]),
        (json!({"op": "replace", "value": {"members": value(ONE), "displayName": "x"}}), vec![Replace(ids(&[ONE]))]),
        (json!({"op": "replace", "value": {"displayName": "x"}}), vec![]),
        (json!({"op": "replace", "value": {"id": group_id().to_string(), "displayName": "x"}}), vec![]),
        (json!({"op": "replace", "value": "{\"displayName\":\"x\"}"}), vec![]),
        (json!({"op": "replace", "path": "displayName", "value": "x"}), vec![]),
        (json!({"op": "replace", "value": {schema::GROUP_URN: {"members": []}}}), vec![Clear]),
        (json!({"op": "replace", "value": {schema::GROUP_URN.to_uppercase(): {"MEMBERS": []}}}), vec![Clear]),
        (
            json!({"op": "replace", "path": schema::GROUP_URN, "value": {"members": value(ONE)}}),
            vec![Replace(ids(&[ONE]))],
        ),
        (json!({"op": "add", "path": schema::GROUP_URN, "value": {"members": value(ONE)}}), vec![Add(ids(&[ONE]))]),
        (
            json!({"op": "replace", "value": {"members": value(ONE), format!("{}:members", schema::GROUP_URN): value(ONE)}}),
            vec![Replace(ids(&[ONE]))],
        ),
    ];
    for (operation, wanted) in rows {
        let changes = member_changes(json!([operation])).unwrap_or_else(|error| panic!("{operation}: {error}"));
        assert_eq!(changes, wanted, "{operation}");
    }
}

#[test]
fn member_operations_that_cannot_be_meant_are_refused_and_never_clear() {
    let value = |id: &str| json!([{"value": id}]);
    for (operation, scim_type) in [
        (json!({"op": "remove"}), "noTarget"),
        (json!({"op": "remove", "path": ""}), "noTarget"),
        (json!({"op": "remove", "path": "members", "value": ""}), "invalidValue"),
        (json!({"op": "remove", "path": "members", "value": {}}), "invalidValue"),
        (json!({"op": "remove", "path": "members", "value": false}), "invalidValue"),
        (json!({"op": "replace", "path": "members", "value": ""}), "invalidValue"),
        (json!({"op": "replace", "path": "members", "value": [null]}), "invalidValue"),
        (json!({"op": "replace", "path": "members", "value": [{"value": ""}]}), "invalidValue"),
        (json!({"op": "replace", "path": "members", "value": [{"value": null}]}), "invalidValue"),
        (json!({"op": "replace", "path": "members"}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": null}), "invalidValue"),
        (json!({"op": "replace", "value": {"id": ONE}}), "mutability"),
        (json!({"op": "remove", "path": "members[value co \"0\"]"}), "invalidPath"),
        (json!({"op": "remove", "path": "members[]"}), "invalidPath"),
        (json!({"op": "remove", "path": "members", "value": [format!("{{\"value\":\"{ONE}\"")]}), "invalidValue"),
        (json!({"op": "remove", "path": "members", "value": format!("[{{\"value\":\"{ONE}\"}}")}), "invalidValue"),
        (json!({"op": "remove", "path": schema::GROUP_URN}), "invalidPath"),
        (json!({"op": "remove", "path": schema::GROUP_URN, "value": {"members": value(ONE)}}), "invalidPath"),
        (json!({"op": "replace", "path": schema::GROUP_URN, "value": null}), "invalidValue"),
        (json!({"op": "replace", "path": "owner", "value": "x"}), "invalidPath"),
        (json!({"op": "replace", "value": {schema::USER_URN: {"members": []}}}), "invalidPath"),
        (
            json!({"op": "replace", "value": {"members": [], schema::GROUP_URN: {"members": value(ONE)}}}),
            "invalidSyntax",
        ),
        (json!({"op": "add", "value": {"members[value eq \"x\"]": value(ONE)}}), "invalidPath"),
        (json!({"op": "remove", "path": "members", "value": {"members": value(ONE), "value": TWO}}), "invalidValue"),
    ] {
        let refused = member_changes(json!([operation])).unwrap_err();
        assert_eq!(refused.scim_type(), Some(scim_type), "{operation}");
    }
}

#[test]
fn a_group_patch_of_members_alone_touches_no_attribute() {
    let body = map(json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": ONE}]}]}));
    let change = GroupChange::patch(ResourceType::Group, group_id(), body, &mut Findings::new()).unwrap();
    assert_eq!(change.apply(&json!({"displayName": "g"})).unwrap(), None);
}

#[test]
fn a_group_put_without_members_leaves_them_unchanged() {
    let put = |body: Value| GroupChange::put(ResourceType::Group, group_id(), map(body), &mut Findings::new()).unwrap();
    assert_eq!(put(json!({"displayName": "g"})).members.list, vec![]);
    assert_eq!(put(json!({"displayName": "g", "members": []})).members.list, vec![MemberChange::Clear]);
    assert_eq!(
        put(json!({"displayName": "g", "Members": [{"value": ONE}]})).members.list,
        vec![MemberChange::Replace(ids(&[ONE]))]
    );
    let kept =
        put(json!({"displayName": "h"})).apply(&json!({"displayName": "g", "externalId": "e"})).unwrap().unwrap();
    assert_eq!((&kept["displayName"], &kept["externalId"]), (&json!("h"), &json!("e")));
}

// Projection

#[test]
fn projection_leaves_what_is_asked_for_and_always_id_and_schemas() {
    let resource = json!({
        "schemas": [schema::USER_URN],
        "id": "1",
        "userName": "a",
        "name": {"givenName": "A", "familyName": "B"},
        "emails": [{"value": "x", "type": "work"}, {"value": "y"}],
        (schema::ENTERPRISE_URN): {"department": "D", "division": "V"},
    });
    let project = |attributes: Option<&str>, excluded: Option<&str>| {
        Projection::new(ResourceType::User, attributes, excluded).apply(resource.clone())
    };
    assert_eq!(project(Some("id"), None), json!({"schemas": [schema::USER_URN], "id": "1"}));
    assert_eq!(
        project(Some(" NAME.givenname, emails.value,nothing,"), None),
        json!({"schemas": [schema::USER_URN], "id": "1", "name": {"givenName": "A"}, "emails": [{"value": "x"}, {"value": "y"}]})
    );
    assert_eq!(
        project(Some("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department"), None),
        json!({"schemas": [schema::USER_URN], "id": "1", (schema::ENTERPRISE_URN): {"department": "D"}})
    );
    assert_eq!(
        project(
            None,
            Some("id,schemas,emails,name.familyName,urn:ietf:params:scim:schemas:extension:enterprise:2.0:User")
        ),
        json!({"schemas": [schema::USER_URN], "id": "1", "userName": "a", "name": {"givenName": "A"}})
    );
    let members = |attributes: Option<&str>, excluded: Option<&str>| {
        Projection::new(ResourceType::Group, attributes, excluded).includes("members")
    };
    assert!(members(None, None) && members(Some("members.value"), None) && members(None, Some("members.value")));
    assert!(!members(None, Some("Members")) && !members(Some("displayName"), None));
}
