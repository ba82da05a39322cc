//! A random sequence of changes by PATCH and PUT gives what an interpreter of plain JSON documents gives.
//!
//! The interpreter is written from RFC 7644 §3.5 and shares no code with the server. Requests are drawn so that the RFC leaves one
//! meaning: an element is added that is new or there already as it is, and a filter is used that matches.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Server;
use super::draws::Draws;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
const SEEDS: u64 = 8;
const REQUESTS: usize = 60;
const TEXTS: [&str; 5] = ["Ann", "ann", "Böb", "a b", "x\"y"];
const SIMPLE: [&str; 4] = ["title", "nickName", "displayName", "externalId"];
const TYPES: [&str; 3] = ["work", "home", "other"];

/// An operation of a PATCH, as it is sent and as it is meant.
struct Operation {
    sent: Value,
    meant: Meant,
}

enum Meant {
    Set(Vec<&'static str>, Value),
    Unset(Vec<&'static str>),
    Merge(Value),
    Append(&'static str, Vec<Value>),
    /// Elements of `emails` with this sub-attribute.
    Matching {
        name: &'static str,
        value: String,
        change: Change,
    },
    Members(Members),
    /// The request is refused.
    Refused(u16),
}

enum Change {
    Remove,
    Put(Value),
    Set(&'static str, Value),
    Unset(&'static str),
}

enum Members {
    Add(Vec<String>),
    Remove(Vec<String>),
    Replace(Vec<String>),
}

/// Name or path in another case or with its schema.
fn spelled(draws: &Draws, path: &str, schema: &str) -> String {
    let cased = match draws.below(4) {
        0 => path.to_uppercase(),
        1 => path.to_lowercase(),
        _ => path.to_owned(),
    };
    if draws.one_in(5) { format!("{schema}:{cased}") } else { cased }
}

fn verb(draws: &Draws, op: &str) -> String {
    let capital = format!("{}{}", op[..1].to_uppercase(), &op[1..]);
    (*draws.pick(&[op, op, capital.as_str()])).to_owned()
}

/// At most one element is primary: the one that was set last.
fn one_primary(list: &mut [Value], primary: usize) {
    for (index, element) in list.iter_mut().enumerate() {
        if index != primary {
            element.as_object_mut().unwrap().remove("primary");
        }
    }
}

fn is_primary(element: &Value) -> bool {
    element["primary"] == true
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match (into.get_mut(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            _ => drop(into.insert(name.clone(), value.clone())),
        }
    }
}

/// The document after an operation, or the status of the refusal.
fn interpret(document: &mut Map<String, Value>, meant: &Meant) -> Result<(), u16> {
    match meant {
        Meant::Refused(status) => return Err(*status),
        Meant::Set(path, value) => match path.as_slice() {
            [one] => drop(document.insert((*one).to_owned(), value.clone())),
            [one, sub] => {
                let object = document.entry(*one).or_insert_with(|| json!({}));
                object[*sub] = value.clone();
            }
            _ => unreachable!(),
        },
        Meant::Unset(path) => match path.as_slice() {
            [one] => drop(document.remove(*one)),
            [one, sub] => {
                if let Some(object) = document.get_mut(*one).and_then(Value::as_object_mut) {
                    object.remove(*sub);
                }
            }
            _ => unreachable!(),
        },
        Meant::Merge(value) => merge(document, value.as_object().unwrap()),
        Meant::Append(name, elements) => {
            let list = document.entry(*name).or_insert_with(|| json!([])).as_array_mut().unwrap();
            for element in elements {
                if !list.contains(element) {
                    list.push(element.clone());
                    if is_primary(element) {
                        let newest = list.len() - 1;
                        one_primary(list, newest);
                    }
                }
            }
        }
        Meant::Matching { name, value, change } => {
            let list = document["emails"].as_array_mut().unwrap();
            let matches =
                |element: &Value| element[*name].as_str().is_some_and(|text| text.eq_ignore_ascii_case(value));
            let matching: Vec<usize> = (0..list.len()).filter(|index| matches(&list[*index])).collect();
            match change {
                Change::Remove => list.retain(|element| !matches(element)),
                Change::Put(element) => list[matching[0]] = element.clone(),
                Change::Set(sub, value) => {
                    for index in &matching {
                        list[*index][*sub] = value.clone();
                    }
                }
                Change::Unset(sub) => {
                    for index in &matching {
                        list[*index].as_object_mut().unwrap().remove(*sub);
                    }
                }
            }
            let sets_primary = matches!(change, Change::Set("primary", _))
                || matches!(change, Change::Put(element) if is_primary(element));
            if sets_primary {
                one_primary(list, matching[0]);
            }
        }
        Meant::Members(change) => {
            let mut members: BTreeSet<String> = document.get("members").map(ids).unwrap_or_default();
            match change {
                Members::Add(added) => members.extend(added.iter().cloned()),
                Members::Remove(removed) => members.retain(|id| !removed.contains(id)),
                Members::Replace(all) => members = all.iter().cloned().collect(),
            }
            document.insert("members".into(), members.into_iter().collect());
        }
    }
    Ok(())
}

fn ids(list: &Value) -> BTreeSet<String> {
    let id = |member: &Value| member.as_str().or(member["value"].as_str()).unwrap().to_owned();
    list.as_array().into_iter().flatten().map(id).collect()
}

/// What a document says, without empty values and what the server adds.
fn plain(document: &Map<String, Value>) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in document {
        let kept = match value {
            Value::Object(object) => Value::Object(plain(object)),
            Value::Array(list) if name == "emails" => {
                list.iter().map(|element| Value::Object(plain(element.as_object().unwrap()))).collect()
            }
            Value::Array(_) if name == "members" => ids(value).into_iter().collect(),
            other => other.clone(),
        };
        let is_empty = kept.as_object().is_some_and(Map::is_empty) || kept.as_array().is_some_and(Vec::is_empty);
        let is_computed = ["id", "meta", "schemas"].contains(&name.as_str());
        let is_false = name == "primary" && kept == false;
        if !(is_empty || is_computed || is_false || kept.is_null()) {
            all.insert(name.clone(), kept);
        }
    }
    all.sort_keys();
    all
}

fn emails(document: &Map<String, Value>) -> Vec<Value> {
    document.get("emails").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn email(draws: &Draws, number: usize) -> Value {
    let mut email = json!({"value": format!("e{number}@example.com"), "type": draws.pick(&TYPES)});
    if draws.one_in(3) {
        email["primary"] = true.into();
    }
    email
}

/// Emails that have different values, of which at most one is primary.
fn some_emails(draws: &Draws, from: usize) -> Vec<Value> {
    let mut list: Vec<Value> = (0..draws.below(4)).map(|number| email(draws, from + number)).collect();
    if let Some(first) = list.iter().position(is_primary) {
        one_primary(&mut list, first);
    }
    list
}

fn text(draws: &Draws) -> Value {
    json!(draws.pick(&TEXTS))
}

#[expect(clippy::too_many_lines, reason = "one arm for each form of operation")]
fn of_user(draws: &Draws, document: &Map<String, Value>, fresh: usize) -> Operation {
    let path = |path: &str| spelled(draws, path, USER);
    let write = |draws: &Draws| verb(draws, draws.pick::<&str>(&["add", "replace"]));
    let sub = *draws.pick(&["givenName", "familyName"]);
    let simple = *draws.pick(&SIMPLE);
    let operation = |sent: Value, meant: Meant| Operation { sent, meant };
    let elements = emails(document);
    match draws.below(16) {
        0 | 1 => {
            let value = text(draws);
            operation(
                json!({"op": write(draws), "path": path(simple), "value": value}),
                Meant::Set(vec![simple], value),
            )
        }
        2 => operation(json!({"op": verb(draws, "remove"), "path": path(simple)}), Meant::Unset(vec![simple])),
        3 => {
            let value = text(draws);
            let sent = json!({"op": write(draws), "path": path(&format!("name.{sub}")), "value": value});
            operation(sent, Meant::Set(vec!["name", sub], value))
        }
        4 => operation(
            json!({"op": verb(draws, "remove"), "path": path(&format!("name.{sub}"))}),
            Meant::Unset(vec!["name", sub]),
        ),
        5 => {
            let value = json!({sub: text(draws)});
            let sent = json!({"op": write(draws), "path": path("name"), "value": value});
            operation(sent, Meant::Merge(json!({"name": value})))
        }
        6 => {
            let value =
                json!({simple: text(draws), "name": {sub: text(draws)}, ENTERPRISE: {"department": text(draws)}});
            operation(json!({"op": write(draws), "value": value}), Meant::Merge(value))
        }
        7 => {
            let active = draws.one_in(2);
            let value = if draws.one_in(3) { json!(if active { "True" } else { "False" }) } else { json!(active) };
            operation(
                json!({"op": write(draws), "path": path("active"), "value": value}),
                Meant::Set(vec!["active"], json!(active)),
            )
        }
        8 => {
            let value = text(draws);
            let sent = json!({"op": write(draws), "path": format!("{ENTERPRISE}:department"), "value": value});
            operation(sent, Meant::Set(vec![ENTERPRISE, "department"], value))
        }
        9 => {
            let list = some_emails(draws, fresh);
            let sent = if draws.one_in(2) {
                json!({"op": verb(draws, "replace"), "path": path("emails"), "value": list})
            } else {
                json!({"op": verb(draws, "replace"), "value": {"emails": list}})
            };
            operation(sent, Meant::Set(vec!["emails"], json!(list)))
        }
        10 if !elements.is_empty() => {
            let again = draws.pick(&elements).clone();
            operation(
                json!({"op": verb(draws, "add"), "path": path("emails"), "value": [again]}),
                Meant::Append("emails", vec![again]),
            )
        }
        11 | 12 if !elements.is_empty() => matching(draws, &elements, fresh),
        13 => {
            let (value, taken) = (format!("user{}@example.com", draws.below(9)), draws.one_in(8));
            let value = if taken { "TAKEN@example.com".to_owned() } else { value };
            let sent = json!({"op": write(draws), "path": path("userName"), "value": value});
            operation(sent, if taken { Meant::Refused(409) } else { Meant::Set(vec!["userName"], json!(value)) })
        }
        14 if draws.one_in(3) => match draws.below(3) {
            0 => operation(json!({"op": "replace", "path": "nothing", "value": "x"}), Meant::Refused(400)),
            1 => operation(json!({"op": "remove", "path": path("userName")}), Meant::Refused(400)),
            _ => operation(json!({"op": "replace", "path": "meta.version", "value": "x"}), Meant::Refused(400)),
        },
        _ => {
            let new = email(draws, fresh);
            let sent = match draws.below(3) {
                0 => json!({"op": verb(draws, "add"), "value": {"emails": [new]}}),
                1 => json!({"op": verb(draws, "add"), "path": path("emails"), "value": new}),
                _ => json!({"op": verb(draws, "add"), "path": path("emails"), "value": [new]}),
            };
            operation(sent, Meant::Append("emails", vec![new]))
        }
    }
}

/// An operation on elements of `emails` that a filter matches.
fn matching(draws: &Draws, elements: &[Value], fresh: usize) -> Operation {
    let element = draws.pick(elements);
    let by_type = element["type"].as_str().filter(|_| draws.one_in(2));
    let (name, value) = match by_type {
        Some(kind) => ("type", kind.to_owned()),
        None => ("value", element["value"].as_str().unwrap().to_owned()),
    };
    let count = elements.iter().filter(|one| one[name] == *value).count();
    let filter = format!(
        "{}[{} {} \"{}\"]",
        spelled(draws, "emails", USER),
        name,
        draws.pick(&["eq", "EQ"]),
        draws.pick(&[value.clone(), value.to_uppercase()])
    );
    let (sent, change) = match draws.below(5) {
        0 => (json!({"op": verb(draws, "remove"), "path": filter}), Change::Remove),
        1 if count == 1 => {
            let new = email(draws, fresh);
            (json!({"op": verb(draws, "replace"), "path": filter, "value": new}), Change::Put(new))
        }
        2 if count == 1 => (
            json!({"op": verb(draws, "replace"), "path": format!("{filter}.primary"), "value": true}),
            Change::Set("primary", json!(true)),
        ),
        3 => (json!({"op": verb(draws, "remove"), "path": format!("{filter}.display")}), Change::Unset("display")),
        _ => {
            let value = text(draws);
            (
                json!({"op": verb(draws, "replace"), "path": format!("{filter}.Display"), "value": value}),
                Change::Set("display", value),
            )
        }
    };
    Operation { sent, meant: Meant::Matching { name, value, change } }
}

fn of_group(draws: &Draws, users: &[String]) -> Operation {
    let some: Vec<String> = (0..=draws.below(3)).map(|_| draws.pick(users).clone()).collect();
    let listed: Vec<Value> = some.iter().map(|id| json!({"value": id})).collect();
    let path = spelled(draws, "members", GROUP);
    let (sent, meant) = match draws.below(9) {
        0 | 1 => (json!({"op": verb(draws, "add"), "path": path, "value": listed}), Members::Add(some)),
        2 => (json!({"op": verb(draws, "add"), "value": {"members": listed}}), Members::Add(some)),
        3 => (
            json!({"op": verb(draws, "remove"), "path": format!("{path}[value eq \"{}\"]", some[0])}),
            Members::Remove(vec![some[0].clone()]),
        ),
        4 => (json!({"op": verb(draws, "remove"), "path": path, "value": listed}), Members::Remove(some)),
        5 => (json!({"op": verb(draws, "replace"), "path": path, "value": listed}), Members::Replace(some)),
        6 if draws.one_in(2) => (json!({"op": verb(draws, "remove"), "path": path}), Members::Replace(vec![])),
        7 => {
            let value = text(draws);
            let sent =
                json!({"op": verb(draws, "replace"), "path": spelled(draws, "externalId", GROUP), "value": value});
            return Operation { sent, meant: Meant::Set(vec!["externalId"], value) };
        }
        8 if draws.one_in(3) => {
            return Operation {
                sent: json!({"op": "replace", "path": "id", "value": "x"}),
                meant: Meant::Refused(400),
            };
        }
        _ => {
            let value = json!(format!("team {}", draws.below(5)));
            let sent = json!({"op": verb(draws, "replace"), "value": {"displayName": value}});
            return Operation { sent, meant: Meant::Set(vec!["displayName"], value) };
        }
    };
    Operation { sent, meant: Meant::Members(meant) }
}

/// A whole document for a PUT, and what it comes to.
fn put(
    draws: &Draws,
    before: &Map<String, Value>,
    users: Option<&[String]>,
    fresh: usize,
) -> (Value, Map<String, Value>) {
    let mut sent = json!({"schemas": [if users.is_some() { GROUP } else { USER }]});
    if let Some(users) = users {
        sent["displayName"] = format!("team {}", draws.below(5)).into();
        if draws.one_in(2) {
            sent["members"] = (0..draws.below(4)).map(|_| json!({"value": draws.pick(users)})).collect();
        }
    } else {
        sent["userName"] = format!("user{}@example.com", draws.below(9)).into();
        for name in SIMPLE {
            if draws.one_in(3) {
                sent[name] = text(draws);
            }
        }
        if draws.one_in(2) {
            sent["emails"] = json!(some_emails(draws, fresh));
        }
        if draws.one_in(2) {
            sent["name"] = json!({"givenName": text(draws)});
        }
        if draws.one_in(2) {
            sent["active"] = draws.one_in(2).into();
        }
        if draws.one_in(3) {
            sent[ENTERPRISE] = json!({"department": text(draws)});
        }
    }
    let mut after = sent.as_object().unwrap().clone();
    // What is not mentioned and must not be lost by that (docs/guides/security-admin.md).
    for kept in ["active", "externalId", "members"] {
        if let (false, Some(value)) = (after.contains_key(kept), before.get(kept)) {
            after.insert(kept.to_owned(), value.clone());
        }
    }
    (sent, after)
}

async fn run(seed: u64) {
    let draws = Draws::new(seed);
    let server = Server::start().await;
    server.user("taken@example.com").await;
    let mut users = Vec::new();
    for number in 0..5 {
        users.push(server.user(&format!("member{number}@example.com")).await);
    }
    let (user, group) = (server.user("user0@example.com").await, server.group("team 0", &[]).await);
    let mut documents = [
        json!({"userName": "user0@example.com", "active": true}).as_object().unwrap().clone(),
        json!({"displayName": "team 0"}).as_object().unwrap().clone(),
    ];
    let paths = [format!("/Users/{user}"), format!("/Groups/{group}")];
    let mut tags = [String::new(), String::new()];
    for number in 0..REQUESTS {
        let which = draws.below(2);
        let (path, before) = (&paths[which], documents[which].clone());
        let (method, sent, meant) = if draws.one_in(5) {
            let (sent, after) = put(&draws, &before, (which == 1).then_some(&users), number * 10);
            ("PUT", sent, Ok(after))
        } else {
            let mut after = before.clone();
            let (mut operations, mut refused) = (Vec::new(), None);
            for index in 0..=draws.below(3) {
                let fresh = number * 10 + index * 4;
                let operation = if which == 0 { of_user(&draws, &after, fresh) } else { of_group(&draws, &users) };
                operations.push(operation.sent);
                refused = refused.or(interpret(&mut after, &operation.meant).err());
            }
            // What is malformed is found before anything is looked up.
            ("PATCH", json!({"Operations": operations}), refused.map_or(Ok(after), Err))
        };
        let reply = server.okta(method, path, Some(sent.clone())).await;
        let shown =
            format!("seed {seed}, request {number}: {method} {path} {sent:#}\nbefore {before:#?}\n{}", reply.text);
        match &meant {
            Ok(_) => assert!(matches!(reply.status, 200 | 204), "{shown}"),
            Err(_) => assert!(matches!(reply.status, 400 | 409), "{shown}"),
        }
        if let Ok(after) = meant {
            documents[which] = after;
        }
        let read = server.okta("GET", path, None).await;
        let wanted = plain(&documents[which]);
        assert_eq!(plain(read.json().as_object().unwrap()), wanted, "{shown}");
        let tag = read.header("etag").to_owned();
        let same = plain(&before) == wanted && !tags[which].is_empty();
        if same {
            assert_eq!(tag, tags[which], "a change of nothing is no new version: {shown}");
        }
        tags[which] = tag;
    }
}

#[tokio::test]
async fn patches_and_puts_do_to_users_and_groups_what_a_plain_interpreter_does_to_documents() {
    for seed in 1..=SEEDS {
        run(seed).await;
    }
}
