//! What goes through all of the room: properties, the tables of PATCH, and incidents that must stay impossible.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::model::{GroupId, UserId};

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn user(body: Value) -> Value {
    new_user(map(body), &mut Findings::new()).unwrap()
}

fn user_id() -> UserId {
    UserId(Uuid::from_u128(1))
}

fn group_id() -> GroupId {
    GroupId(Uuid::from_u128(2))
}

fn patched(user: &Value, operations: Value) -> Result<Value, ScimError> {
    let body = map(json!({"Operations": operations}));
    UserChange::patch(user_id(), body, &mut Findings::new())?.apply(user)
}

fn member_changes(operations: Value) -> Result<Vec<MemberChange>, ScimError> {
    let body = map(json!({"Operations": operations}));
    GroupChange::patch(group_id(), body, &mut Findings::new()).map(|change| change.members)
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

fn parsed(text: &str) -> Result<Filter, ScimError> {
    parse::filter(text, &mut Findings::new())
}

// Filters

#[test]
fn filters_that_identity_providers_send_are_parsed_to_their_trees() {
    let eq = |name: &str, sub: Option<&str>, value: &str| {
        let path = AttributePath { schema: None, name: name.into(), sub: sub.map(str::to_owned) };
        Filter::Attribute(path, Test::Compare(CompareOp::Equal, FilterValue::String(value.into())))
    };
    let path = |name: &str| AttributePath { schema: None, name: name.into(), sub: None };
    assert_eq!(parsed("userName eq \"a\"").unwrap(), eq("userName", None, "a"));
    assert_eq!(parsed("name.givenName Eq \"a\"").unwrap(), eq("name", Some("givenName"), "a"));
    assert_eq!(parsed("externalId eq jyoung").unwrap(), eq("externalId", None, "jyoung"));
    assert_eq!(parsed("value eq\"x\"").unwrap(), eq("value", None, "x"));
    assert_eq!(parsed("displayName eq \"a \\\"q\\\"\"").unwrap(), eq("displayName", None, "a \"q\""));
    assert_eq!(
        parsed("emails[type eq \"work\"].value eq \"x\"").unwrap(),
        Filter::Element {
            path: path("emails"),
            filter: Box::new(eq("type", None, "work")),
            then: Some(("value".into(), Test::Compare(CompareOp::Equal, FilterValue::String("x".into())))),
        }
    );
    assert_eq!(
        parsed("a pr or b pr and not (c pr)").unwrap(),
        Filter::Or(vec![
            Filter::Attribute(path("a"), Test::Present),
            Filter::And(vec![
                Filter::Attribute(path("b"), Test::Present),
                Filter::Not(Box::new(Filter::Attribute(path("c"), Test::Present))),
            ]),
        ])
    );
    let urn = parsed("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value eq \"1\"").unwrap();
    let Filter::Attribute(path, _) = urn else { panic!("{urn:?}") };
    assert_eq!(path.schema.as_deref(), Some(schema::ENTERPRISE_URN));
    assert_eq!((path.name.as_str(), path.sub.as_deref()), ("manager", Some("value")));
}

#[test]
fn words_compare_in_any_case_and_numbers_are_numbers() {
    let value = |text: &str| match parsed(&format!("a eq {text}")).unwrap() {
        Filter::Attribute(_, Test::Compare(_, value)) => value,
        other => panic!("{other:?}"),
    };
    assert_eq!(value("TRUE"), FilterValue::Bool(true));
    assert_eq!(value("False"), FilterValue::Bool(false));
    assert_eq!(value("NULL"), FilterValue::Null);
    assert_eq!(value("12"), FilterValue::Number(12.into()));
    assert_eq!(value("12x"), FilterValue::String("12x".into()));
}

#[test]
fn filters_out_of_bounds_or_grammar_are_refused() {
    let deep = |depth: usize| format!("{}a pr{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parsed(&deep(parse::MAX_NESTING)).is_ok());
    let many = |terms: usize| vec!["a pr"; terms].join(" and ");
    assert!(parsed(&many(parse::MAX_TERMS)).is_ok());
    for text in [
        deep(parse::MAX_NESTING + 1),
        many(parse::MAX_TERMS + 1),
        "(".repeat(4000),
        "[".repeat(4000),
        "not ".repeat(1000),
        "a[".repeat(1000),
        format!("a eq \"{}\"", "x".repeat(parse::MAX_LENGTH)),
        String::new(),
        " ".into(),
        "a".into(),
        "a eq".into(),
        "a eq ".into(),
        "a eq \"b".into(),
        "a eq \"\\x\"".into(),
        "a xx \"b\"".into(),
        "a eq \"b\" and".into(),
        "a eq \"b\" c pr".into(),
        "(a pr".into(),
        "a pr)".into(),
        "a[b pr".into(),
        "a[b pr].".into(),
        "a[b pr].c".into(),
        ".a pr".into(),
        "a. pr".into(),
        ":a pr".into(),
        "no:urn pr".into(),
        "ä pr".into(),
    ] {
        let refused = parsed(&text).unwrap_err();
        assert_eq!(refused.scim_type(), Some("invalidFilter"), "{text}");
        assert!(refused.to_string().len() < 300);
    }
}

#[test]
fn a_resolved_filter_has_the_names_of_the_schema() {
    let resolved = |of: ResourceType, text: &str| parsed(text).unwrap().resolved(of).map(|filter| filter.to_string());
    for (of, text, wanted) in [
        (ResourceType::User, "USERNAME eq \"a\"", "userName eq \"a\""),
        (ResourceType::User, "emails eq \"a\"", "emails.value eq \"a\""),
        (ResourceType::User, "Emails[Type eq \"work\"].VALUE eq \"a\"", "emails[type eq \"work\"].value eq \"a\""),
        (ResourceType::User, "urn:ietf:params:scim:schemas:core:2.0:user:title pr", "title pr"),
        (
            ResourceType::User,
            "manager eq \"1\"",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value eq \"1\"",
        ),
        (ResourceType::User, "roles[primary eq \"True\"].value eq \"a\"", "roles[primary eq true].value eq \"a\""),
        (ResourceType::Group, "members eq \"1\"", "members.value eq \"1\""),
    ] {
        assert_eq!(resolved(of, text).unwrap(), wanted);
    }
    for text in [
        "email co \"a\"",
        "emails.foo eq \"a\"",
        "active gt true",
        "active eq \"maybe\"",
        "name eq \"a\"",
        "title eq 7",
    ] {
        assert_eq!(resolved(ResourceType::User, text).unwrap_err().scim_type(), Some("invalidFilter"), "{text}");
    }
}

#[test]
fn filters_are_run_on_values_as_the_rfc_says() {
    let alice = alice();
    let matches =
        |text: &str| parsed(text).unwrap().resolved(ResourceType::User).unwrap().matches(ResourceType::User, &alice);
    for text in [
        "userName eq \"ALICE@example.com\"",
        "userName sw \"alice\" and userName ew \".com\" and userName co \"@\"",
        "externalId eq \"x1\"",
        "emails[type eq \"work\" and primary eq true].value eq \"alice@example.com\"",
        "active eq true",
        "not (title pr)",
        "title eq null",
        "title ne \"x\"",
        "name.givenName gt \"Al\"",
    ] {
        assert!(matches(text), "{text}");
    }
    for text in [
        "externalId eq \"X1\"",
        "emails[type eq \"home\"].value eq \"alice@example.com\"",
        "emails[type eq \"home\"]",
        "active eq false",
        "title pr",
        "displayName eq \"\"",
    ] {
        assert!(!matches(text), "{text}");
    }
}

fn names() -> impl Strategy<Value = String> {
    "[a-zA-Z$_][a-zA-Z0-9_-]{0,6}"
        .prop_filter("a keyword", |name| !["not", "and", "or"].contains(&name.to_lowercase().as_str()))
}

fn paths() -> impl Strategy<Value = AttributePath> {
    let urn = prop::option::of(Just("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User".to_owned()));
    (urn, names(), prop::option::of(names())).prop_map(|(schema, name, sub)| AttributePath { schema, name, sub })
}

fn tests() -> impl Strategy<Value = Test> {
    let ops = prop::sample::select(vec![
        CompareOp::Equal,
        CompareOp::NotEqual,
        CompareOp::Contains,
        CompareOp::StartsWith,
        CompareOp::EndsWith,
        CompareOp::Greater,
        CompareOp::GreaterOrEqual,
        CompareOp::Less,
        CompareOp::LessOrEqual,
    ]);
    let values = prop_oneof![
        any::<String>().prop_map(|text| FilterValue::String(text.chars().take(20).collect())),
        any::<bool>().prop_map(FilterValue::Bool),
        any::<i64>().prop_map(|number| FilterValue::Number(number.into())),
        (-1e9..1e9).prop_map(|number: f64| FilterValue::Number(serde_json::Number::from_f64(number).unwrap())),
        Just(FilterValue::Null),
    ];
    prop_oneof![Just(Test::Present), (ops, values).prop_map(|(op, value)| Test::Compare(op, value))]
}

fn filters() -> impl Strategy<Value = Filter> {
    let leaf = (paths(), tests()).prop_map(|(path, test)| Filter::Attribute(path, test));
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.clone().prop_map(|filter| Filter::Not(Box::new(filter))),
            (paths(), inner, prop::option::of((names(), tests()))).prop_map(|(path, filter, then)| Filter::Element {
                path,
                filter: Box::new(filter),
                then
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_printed_filter_parses_to_the_same_tree(filter in filters()) {
        let text = filter.to_string();
        prop_assume!(text.len() <= parse::MAX_LENGTH);
        prop_assert_eq!(parsed(&text).unwrap(), filter, "{}", text);
    }

    #[test]
    fn a_printed_patch_path_parses_to_the_same_path(attribute in paths(), filter in prop::option::of(filters()), sub in prop::option::of(names())) {
        let sub = if filter.is_some() { sub } else { None };
        let path = PatchPath { attribute, filter, sub };
        let text = path.to_string();
        prop_assume!(text.len() <= parse::MAX_LENGTH);
        prop_assert_eq!(parse::patch_path(&text, &mut Findings::new()).unwrap(), path, "{}", text);
    }

    #[test]
    fn parsing_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(filter) = parsed(&text) {
            prop_assert_eq!(parsed(&filter.to_string()).unwrap(), filter);
        }
        let _ = parse::patch_path(&text, &mut Findings::new());
        let _ = json::object(&bytes);
    }

    #[test]
    fn parsing_what_almost_is_a_filter_never_panics(text in r#"([a-c](\.|\[|\]|\(|\)| eq | and | or |not | pr|"|\\|:|urn:|true|1|é){0,3}){0,20}"#) {
        if let Ok(filter) = parsed(&text) {
            prop_assert_eq!(parsed(&filter.to_string()).unwrap(), filter);
        }
        let _ = parse::patch_path(&text, &mut Findings::new());
    }

    #[test]
    fn what_the_oracle_parses_is_parsed_to_the_same_words(filter in filters()) {
        let text = filter.to_string();
        if let Ok(theirs) = text.parse::<scim_v2::filter::Filter>() {
            let ours = parsed(&text);
            prop_assert!(ours.is_ok(), "{} is {:?} there", text, theirs);
        }
    }
}

#[test]
fn what_the_oracle_parses_is_parsed_here_to_an_equal_tree() {
    for text in [
        "userName eq \"bjensen\"",
        "name.familyName co \"O'Malley\"",
        "userName sw \"J\"",
        "title pr",
        "meta.lastModified gt \"2011-05-13T04:42:34Z\"",
        "title pr and userType eq \"Employee\"",
        "title pr or userType eq \"Intern\"",
        "userType eq \"Employee\" and (emails co \"example.com\" or emails.value co \"example.org\")",
        "userType ne \"Employee\" and not (emails co \"example.com\" or emails.value co \"example.org\")",
        "emails[type eq \"work\" and value co \"@example.com\"]",
        "emails[type eq \"work\" and value co \"@example.com\"] or ims[type eq \"xmpp\" and value co \"@foo.com\"]",
        "id eq \"g\" and members eq \"u\"",
        "displayName eq \"a \\\"q\\\"\"",
        "a eq 1.5 and b eq true and c eq null",
    ] {
        let theirs: scim_v2::filter::Filter = text.parse().unwrap();
        let ours = parsed(text).unwrap();
        // Printed by either and read by the other: the same trees come out.
        let crossed: scim_v2::filter::Filter = ours.to_string().parse().unwrap();
        assert_eq!(crossed, theirs, "{text}");
        assert_eq!(parsed(&theirs.to_string()).unwrap(), ours, "{text}");
    }
}

// Users

#[test]
fn a_new_user_is_stored_in_the_names_of_the_schema_and_active() {
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
            json!({"value": "m"}),
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
        (json!([{"op": "add", "path": "favouriteColour", "value": "blue"}]), "/favouriteColour", Value::Null),
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
        (json!([{"op": "remove", "path": "userName"}]), "invalidValue"),
        (json!([{"op": "replace", "path": "id", "value": "x"}]), "mutability"),
        (json!([{"op": "remove", "path": "id"}]), "mutability"),
        (json!([{"op": "replace", "path": "title"}]), "invalidValue"),
        (json!([{"op": "replace", "path": "emails[foo eq \"x\"].value", "value": "x"}]), "invalidPath"),
        (json!([{"op": "replace", "path": "title[value eq \"x\"]", "value": "x"}]), "invalidPath"),
        (json!([{"op": "add", "path": "emails[value co \"nobody\"].type", "value": "x"}]), "noTarget"),
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
        UserChange::put(user_id(), map(body), &mut Findings::new()).unwrap().apply(current).unwrap()
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
    let leaver = patched(&alice(), json!([{"op": "remove", "path": "active"}])).unwrap();
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
    new_user(
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
        (json!({"op": "remove", "path": "members", "value": [{"value": "stranger"}]}), vec![]),
        (json!({"op": "remove", "path": "members"}), vec![Clear]),
        (json!({"op": "replace", "path": "members", "value": value(ONE)}), vec![Replace(ids(&[ONE]))]),
        (json!({"op": "replace", "path": "members", "value": []}), vec![Clear]),
        (json!({"op": "replace", "path": "members", "value": null}), vec![Clear]),
        (json!({"op": "replace", "value": {"members": value(ONE), "displayName": "x"}}), vec![Replace(ids(&[ONE]))]),
        (json!({"op": "replace", "value": {"displayName": "x"}}), vec![]),
        (json!({"op": "replace", "value": {"id": group_id().to_string(), "displayName": "x"}}), vec![]),
        (json!({"op": "replace", "value": "{\"displayName\":\"x\"}"}), vec![]),
        (json!({"op": "replace", "path": "displayName", "value": "x"}), vec![]),
    ];
    for (operation, wanted) in rows {
        let changes = member_changes(json!([operation])).unwrap_or_else(|error| panic!("{operation}: {error}"));
        assert_eq!(changes, wanted, "{operation}");
    }
}

#[test]
fn member_operations_that_cannot_be_meant_are_refused_and_never_clear() {
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
        (json!({"op": "replace", "path": "members", "value": [{"value": "stranger"}]}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": null}), "invalidValue"),
        (json!({"op": "replace", "value": {"id": ONE}}), "mutability"),
        (json!({"op": "remove", "path": "members[value co \"0\"]"}), "invalidPath"),
        (json!({"op": "remove", "path": "members[]"}), "invalidPath"),
    ] {
        let refused = member_changes(json!([operation])).unwrap_err();
        assert_eq!(refused.scim_type(), Some(scim_type), "{operation}");
    }
}

#[test]
fn a_group_patch_of_members_alone_touches_no_attribute() {
    let body = map(json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": ONE}]}]}));
    let change = GroupChange::patch(group_id(), body, &mut Findings::new()).unwrap();
    assert_eq!(change.apply(&json!({"displayName": "g"})).unwrap(), None);
}

#[test]
fn a_group_put_says_nothing_about_members_that_it_does_not_mention() {
    let put = |body: Value| GroupChange::put(group_id(), map(body), &mut Findings::new()).unwrap();
    assert_eq!(put(json!({"displayName": "g"})).members, vec![]);
    assert_eq!(put(json!({"displayName": "g", "members": []})).members, vec![MemberChange::Clear]);
    assert_eq!(
        put(json!({"displayName": "g", "Members": [{"value": ONE}]})).members,
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

// Properties of changes

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
        // The result is in the stored form: sending all of it back changes nothing.
        let put = UserChange::put(user_id(), map(after.clone()), &mut Findings::new()).unwrap();
        prop_assert_eq!(put.apply(&after).unwrap(), after.clone());
        // And it is a fixed point of a change that says nothing.
        let rest = patched(&after, json!([{"op": "replace", "value": {}}])).unwrap();
        prop_assert_eq!(rest, after);
    }

    #[test]
    fn only_what_says_so_plainly_clears_or_replaces_members(list in prop::collection::vec(operations(), 1..5)) {
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
        if let Ok(user) = new_user(body, &mut Findings::new()) {
            let again = new_user(map(user.clone()), &mut Findings::new()).unwrap();
            prop_assert_eq!(again, user);
        }
    }
}
