//! One attribute in two spellings of one object: the same value is taken once, different values are refused. For every
//! attribute that a client may write, in POST, PUT and PATCH.

use serde_json::{Value, json};

use super::super::schema::{Attribute, ENTERPRISE_URN, GROUP_URN, Kind, Mutability, USER_URN};
use super::super::*;
use super::{ONE, TWO, group_id, map, user_id};

/// An attribute or part of one that a client may write.
struct Written {
    of: ResourceType,
    urn: &'static str,
    attribute: &'static Attribute,
    sub: Option<&'static Attribute>,
}

fn is_written(attribute: &Attribute) -> bool {
    attribute.mutability != Mutability::ReadOnly && attribute.name != "schemas"
}

/// Everything in the tables that a client may write.
fn everything() -> Vec<Written> {
    let mut all = Vec::new();
    let external_id = |of: ResourceType| of.core_attribute("externalId").unwrap();
    for of in ResourceType::ALL {
        let core = std::iter::once(external_id(of)).chain(of.attributes()).map(|attribute| (of.urn(), attribute));
        let extensions = of.extensions().iter().flat_map(|known| known.attributes.iter().map(|one| (known.urn, one)));
        for (urn, attribute) in core.chain(extensions).filter(|(_, attribute)| is_written(attribute)) {
            all.push(Written { of, urn, attribute, sub: None });
            if !attribute.multi {
                let subs = attribute.subs.iter().filter(|sub| is_written(sub));
                all.extend(subs.map(|sub| Written { of, urn, attribute, sub: Some(sub) }));
            }
        }
    }
    all
}

fn simple(attribute: &Attribute, second: bool) -> Value {
    match attribute.kind {
        Kind::Boolean => json!(!second),
        Kind::Binary => json!(if second { "AQID" } else { "BAUG" }),
        _ => json!(if second { "second" } else { "first" }),
    }
}

impl Written {
    fn value(&self, second: bool) -> Value {
        if self.attribute.name == "members" {
            return json!([{"value": if second { TWO } else { ONE }}]);
        }
        if let Some(sub) = self.sub {
            return simple(sub, second);
        }
        if self.attribute.kind != Kind::Complex {
            return simple(self.attribute, second);
        }
        let part =
            self.attribute.subs.iter().find(|sub| matches!(sub.kind, Kind::String | Kind::Binary | Kind::Reference));
        let part = part.unwrap();
        let object = json!({part.name: simple(part, second)});
        if self.attribute.multi { json!([object]) } else { object }
    }

    /// The names by which a path or a key says it.
    fn names(&self) -> Vec<String> {
        let name =
            self.sub.map_or(self.attribute.name.to_owned(), |sub| format!("{}.{}", self.attribute.name, sub.name));
        let urn = self.urn;
        vec![
            name.clone(),
            name.to_lowercase(),
            name.to_uppercase(),
            format!("{urn}:{name}"),
            format!("{}:{}", urn.to_uppercase(), name.to_lowercase()),
            format!("{urn}.{name}"),
        ]
    }

    /// The members of an object that say it, as JSON text.
    fn members(&self, value: &Value) -> Vec<String> {
        let urn = self.urn;
        let mut all: Vec<String> = self.names().iter().map(|name| format!("\"{name}\": {value}")).collect();
        all.extend(self.names().iter().map(|name| format!("\"{urn}\": {{\"{name}\": {value}}}")));
        if let Some(sub) = self.sub {
            let (name, part) = (self.attribute.name, sub.name);
            all.push(format!("\"{name}\": {{\"{part}\": {value}}}"));
            all.push(format!("\"{}\": {{\"{}\": {value}}}", name.to_uppercase(), part.to_lowercase()));
            all.push(format!("\"{urn}\": {{\"{name}\": {{\"{part}\": {value}}}}}"));
        }
        all
    }

    fn base(&self) -> &'static str {
        match self.of.home() {
            Home::Users | Home::Resources => "userName",
            Home::Groups => "displayName",
        }
    }

    fn stored(&self) -> Value {
        json!({"schemas": [self.of.urn()], self.base(): "base"})
    }

    /// What a request does: the resource and the changes of members, as text to compare.
    fn outcome(&self, method: &str, members: &str) -> Result<String, ScimError> {
        let findings = &mut Findings::new();
        let whole = if self.attribute.name == self.base() {
            format!("{{{members}}}")
        } else {
            format!("{{\"{}\": \"base\", {members}}}", self.base())
        };
        let body = match method {
            "POST" | "PUT" => whole,
            "one operation" => format!("{{\"Operations\": {{\"op\": \"replace\", \"value\": {{{members}}}}}}}"),
            op => format!("{{\"Operations\": [{{\"op\": \"{op}\", \"value\": {{{members}}}}}]}}"),
        };
        let body = json::object(body.as_bytes(), findings)?;
        match (self.of.home(), method) {
            (Home::Users | Home::Resources, "POST") => {
                Ok(new_resource(ResourceType::User, body, findings)?.to_string())
            }
            (Home::Users | Home::Resources, "PUT") => {
                Ok(ResourceChange::put(ResourceType::User, user_id(), body, findings)?
                    .apply(&self.stored())?
                    .to_string())
            }
            (Home::Users | Home::Resources, _) => {
                Ok(ResourceChange::patch(ResourceType::User, user_id(), body, findings)?
                    .apply(&self.stored())?
                    .to_string())
            }
            (Home::Groups, "POST") => Ok(format!("{:?}", new_group(ResourceType::Group, body, findings)?)),
            (Home::Groups, "PUT") => self.group(&GroupChange::put(ResourceType::Group, group_id(), body, findings)?),
            (Home::Groups, _) => self.group(&GroupChange::patch(ResourceType::Group, group_id(), body, findings)?),
        }
    }

    fn group(&self, change: &GroupChange) -> Result<String, ScimError> {
        Ok(format!("{:?} {:?}", change.apply(&self.stored())?, change.members))
    }
}

const METHODS: [&str; 5] = ["POST", "PUT", "replace", "add", "one operation"];

#[test]
fn every_attribute_is_understood_alike_in_every_spelling() {
    let mut count = 0;
    for written in everything() {
        let value = written.value(false);
        for method in METHODS {
            let spellings = written.members(&value);
            let expected = written.outcome(method, &spellings[0]).unwrap();
            for spelling in &spellings {
                count += 1;
                let refused = |error| panic!("{method} {spelling}: {error:?}");
                assert_eq!(written.outcome(method, spelling).unwrap_or_else(refused), expected, "{method} {spelling}");
            }
        }
        // The path of an operation.
        let expected = written.outcome("replace", &written.members(&value)[0]).unwrap();
        for name in written.names() {
            for verb in ["add", "replace"] {
                let operation = json!({"op": verb, "path": name, "value": value});
                for operations in [json!([operation]), operation] {
                    let body = map(json!({"Operations": operations}));
                    let findings = &mut Findings::new();
                    let done = match written.of.home() {
                        Home::Users | Home::Resources => {
                            let change = ResourceChange::patch(ResourceType::User, user_id(), body, findings);
                            change.and_then(|change| change.apply(&written.stored())).map(|user| user.to_string())
                        }
                        Home::Groups => GroupChange::patch(ResourceType::Group, group_id(), body, findings)
                            .and_then(|change| written.group(&change)),
                    };
                    // An `add` of members is no `replace` of them.
                    if verb == "replace" || written.attribute.name != "members" {
                        assert_eq!(done.as_ref(), Ok(&expected), "{verb} {name}");
                    }
                    assert!(done.is_ok(), "{verb} {name}");
                }
            }
        }
    }
    assert!(count > 1500, "{count}");
}

/// True when two members have one name, and objects that are spelled differently. They are not the same value.
fn differs(one: &str, two: &str) -> bool {
    let key = |text: &str| text.split_once("\": ").map(|(key, _)| key.to_lowercase());
    key(one) == key(two) && one.to_lowercase() != two.to_lowercase()
}

#[test]
fn two_spellings_of_one_attribute_count_once_if_they_agree_and_are_refused_if_not() {
    for written in everything() {
        let (same, other) = (written.members(&written.value(false)), written.members(&written.value(true)));
        for method in METHODS {
            let expected = written.outcome(method, &same[0]).unwrap();
            for one in &same {
                for two in same.iter().filter(|two| !differs(one, two)) {
                    let both = format!("{one}, {two}");
                    let refused = |error| panic!("{method} {both}: {error:?}");
                    assert_eq!(written.outcome(method, &both).unwrap_or_else(refused), expected, "{method} {both}");
                }
                for two in &other {
                    let both = format!("{one}, {two}");
                    let refused = written.outcome(method, &both).expect_err(&both);
                    assert_eq!(refused.scim_type(), Some("invalidSyntax"), "{method} {both}: {refused}");
                }
            }
        }
    }
}

#[test]
fn a_repeated_attribute_and_one_operation_without_a_list_are_findings() {
    let found = |body: &str| {
        let mut findings = Findings::new();
        let body = json::object(body.as_bytes(), &mut findings).unwrap();
        ResourceChange::patch(ResourceType::User, user_id(), body, &mut findings).unwrap();
        findings.into_iter().map(|finding| (finding.code, finding.pointer)).collect::<Vec<_>>()
    };
    let operation = r#"{"op": "replace", "value": {"title": "a", "Title": "a"}}"#;
    let schemas = r#""schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"]"#;
    assert_eq!(
        found(&format!("{{{schemas}, \"Operations\": {operation}}}")),
        [(FindingCode::AttributeRepeated, "Title".to_owned()), (FindingCode::ListExpected, "Operations".to_owned())]
    );
    let operation = format!(r#"{{"op": "replace", "value": {{"title": "a", "{USER_URN}": {{"title": "a"}}}}}}"#);
    assert_eq!(
        found(&format!("{{{schemas}, \"Operations\": [{operation}]}}")),
        [(FindingCode::AttributeRepeated, "title".to_owned())]
    );
}

#[test]
fn a_urn_with_a_dot_behind_it_is_understood_in_filters_too() {
    for (of, text, canonical) in [
        (ResourceType::User, format!("{USER_URN}.userName eq \"a\""), "userName eq \"a\"".to_owned()),
        (ResourceType::User, format!("{USER_URN}.name.givenName pr"), "name.givenName pr".to_owned()),
        (
            ResourceType::User,
            format!("{ENTERPRISE_URN}.manager.value eq \"m\""),
            format!("{ENTERPRISE_URN}:manager.value eq \"m\""),
        ),
        (
            ResourceType::Group,
            format!("{GROUP_URN}.members[value eq \"{ONE}\"]"),
            format!("members[value eq \"{ONE}\"]"),
        ),
    ] {
        let filter = parse::filter(&text, &mut Findings::new()).unwrap().resolved(of).unwrap();
        assert_eq!(filter.to_string(), canonical, "{text}");
    }
}
