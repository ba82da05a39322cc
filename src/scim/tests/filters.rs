//! Filters and paths: forms sent by identity providers, bounds, properties, and a second parser as the oracle.

use proptest::prelude::*;

use super::super::*;

fn parsed(text: &str) -> Result<Filter, ScimError> {
    parse::filter(text, &mut Findings::new())
}

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

fn names() -> impl Strategy<Value = String> {
    "[a-zA-Z$_][a-zA-Z0-9_-]{0,6}"
        .prop_filter("a keyword", |name| !["not", "and", "or"].contains(&name.to_lowercase().as_str()))
}

fn paths() -> impl Strategy<Value = AttributePath> {
    let urn = prop::sample::select(vec![
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
        "urn:example:params:scim:schemas:ext:1.2.3:User",
        "urn:example:params:scim:schemas:ext:1.2.3",
    ]);
    let urn = prop::option::of(urn.prop_map(str::to_owned));
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
    fn a_path_under_a_urn_is_printed_as_it_was_sent(text in "urn(:[a-zA-Z0-9]{1,4}(\\.[a-zA-Z0-9]{1,3}){0,4}){2,5}") {
        let path = parse::patch_path(&text, &mut Findings::new()).unwrap();
        prop_assert_eq!(path.to_string(), text.clone());
        let filter = parsed(&format!("{text} pr")).unwrap();
        prop_assert_eq!(filter.to_string(), format!("{text} pr"));
    }

    #[test]
    fn parsing_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(filter) = parsed(&text) {
            prop_assert_eq!(parsed(&filter.to_string()).unwrap(), filter);
        }
        let _ = parse::patch_path(&text, &mut Findings::new());
        let _ = json::object(&bytes, &mut Findings::new());
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
        // Each parser reads what the other prints, with the same tree as the result.
        let crossed: scim_v2::filter::Filter = ours.to_string().parse().unwrap();
        assert_eq!(crossed, theirs, "{text}");
        assert_eq!(parsed(&theirs.to_string()).unwrap(), ours, "{text}");
    }
}
