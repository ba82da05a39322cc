//! Files of schemas and resource types.

use super::*;

fn schema() -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
        "id": "urn:example:Device",
        "attributes": [{"name": "serial"}, {"name": "owner", "type": "complex", "subAttributes": [{"name": "value"}]}],
    })
}

fn resource_type() -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
        "name": "Device",
        "endpoint": "/Devices",
        "schema": "urn:example:Device",
    })
}

fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    *document.pointer_mut(pointer).unwrap() = value;
    document
}

fn and(mut document: Value, name: &str, value: Value) -> Value {
    document[name] = value;
    document
}

#[test]
fn a_mistake_in_a_file_of_schemas_says_what_is_wrong_where_and_how_to_mend_it() {
    let attribute = |attribute: Value| with(schema(), "/attributes/0", attribute);
    let at = "document 1 (`urn:example:Device`), attributes[0]";
    let cases: Vec<(Vec<Value>, String)> = vec![
        (vec![json!({})], "document 1: `schemas` lists neither".into()),
        (vec![json!("x")], "document 1: `schemas` lists neither".into()),
        (vec![attribute(json!({"name": "a", "type": "text"}))], format!("{at}.type: `text` is none of string, boolean")),
        (vec![attribute(json!({"name": "a", "typ": "string"}))], format!("{at}: `typ` is no member of it; there are name, ")),
        (vec![attribute(json!({"type": "string"}))], format!("{at}: `name` is missing")),
        (vec![attribute(json!({"name": "1a"}))], format!("{at}.name: `1a` is no name of an attribute")),
        (vec![attribute(json!({"name": "a", "required": "yes"}))], format!("{at}.required: must be true or false")),
        (
            vec![attribute(json!({"name": "a", "subAttributes": [{"name": "b"}]}))],
            format!("{at}.subAttributes: only an attribute of the type complex has some"),
        ),
        (vec![attribute(json!({"name": "a", "type": "complex"}))], format!("{at}: an attribute of the type complex needs")),
        (
            vec![attribute(json!({"name": "a", "type": "complex", "subAttributes": [
                {"name": "b", "type": "complex", "subAttributes": [{"name": "c"}]}
            ]}))],
            format!("{at}.subAttributes[0].type: a sub-attribute cannot be complex"),
        ),
        (
            vec![attribute(json!({"name": "a", "multiValued": true, "uniqueness": "server"}))],
            format!("{at}.uniqueness: only an attribute of its own with a single simple value"),
        ),
        (
            vec![attribute(json!({"name": "a", "required": true, "mutability": "readOnly"}))],
            format!("{at}.required: what no client stores cannot be required"),
        ),
        (
            vec![attribute(json!({"name": "OWNER"}))],
            "document 1 (`urn:example:Device`), attributes[1]: another one has the name `owner`".into(),
        ),
        (
            vec![with(schema(), "/attributes", vec![json!({"name": "a"}); 201].into())],
            "document 1 (`urn:example:Device`), attributes: has more than 200 entries".into(),
        ),
        (vec![with(schema(), "/attributes", json!([]))], "document 1 (`urn:example:Device`): `attributes` is missing".into()),
        (vec![with(schema(), "/id", json!("Device"))], "document 1 (`Device`), id: is no URN of a schema".into()),
        (
            vec![with(schema(), "/id", json!(schema::ENTERPRISE_URN))],
            format!("document 1 (`{}`), id: is built in and cannot be described again", schema::ENTERPRISE_URN),
        ),
        (vec![schema(), schema()], "document 2: document 1 describes the same schema".into()),
        (vec![schema()], "document 1 (`urn:example:Device`): no resource type uses this schema".into()),
        (vec![resource_type()], "document 1 (`Device`), schema: there is no schema `urn:example:Device` in the file".into()),
        (
            vec![schema(), with(resource_type(), "/endpoint", json!("/users"))],
            "document 2 (`Device`), endpoint: `/users` is served already: choose another path".into(),
        ),
        (
            vec![schema(), with(resource_type(), "/endpoint", json!("Devices/x"))],
            "document 2 (`Device`), endpoint: is no path of one segment, such as `/Devices`".into(),
        ),
        (vec![schema(), resource_type(), resource_type()], "document 3 (`Device`), name: another document describes".into()),
        (
            vec![with(schema(), "/attributes/0/name", json!("externalid")), resource_type()],
            "document 2 (`Device`), schema: `urn:example:Device` has the attribute `externalid`, which every resource has".into(),
        ),
        (
            vec![schema(), with(and(resource_type(), "schemaExtensions", json!([])), "/name", json!("user"))],
            "document 2 (`user`), endpoint: that of User is `/Users`".into(),
        ),
        (
            vec![
                attribute(json!({"name": "a", "uniqueness": "server"})),
                json!({"schemas": resource_type()["schemas"], "name": "User", "schemaExtensions": [{"schema": "urn:example:Device"}]}),
            ],
            "document 2 (`User`), schemaExtensions[0]: `a` is unique, which is not checked in extensions of users".into(),
        ),
        (vec![json!({"schemas": []}); 101], "document 101: there are more than 100 documents".into()),
    ];
    for (documents, expected) in cases {
        let problem = ResourceTypes::registered(&documents).unwrap_err().to_string();
        assert!(problem.starts_with(&expected), "{problem}\nexpected {expected}");
    }
    assert_eq!(ResourceTypes::registered(&[schema(), resource_type()]).unwrap().all().len(), 3);
    assert_eq!(ResourceTypes::registered(&[]).unwrap().all(), ResourceType::ALL);
}

#[test]
fn what_a_sub_attribute_cannot_be_is_refused() {
    for (sub, multi, expected) in [
        (json!({"name": "b", "multiValued": true}), false, "multiValued: a sub-attribute has a single value here"),
        (json!({"name": "b", "mutability": "immutable"}), true, "mutability: an element of an attribute with several"),
    ] {
        let attribute = json!({"name": "a", "type": "complex", "multiValued": multi, "subAttributes": [sub]});
        let documents = [with(schema(), "/attributes/0", attribute), resource_type()];
        let problem = ResourceTypes::registered(&documents).unwrap_err().to_string();
        let at = "document 1 (`urn:example:Device`), attributes[0].subAttributes[0]";
        assert!(problem.starts_with(&format!("{at}.{expected}")), "{problem}");
    }
}
