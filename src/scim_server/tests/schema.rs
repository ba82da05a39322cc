//! What `/Schemas` says of each attribute, and what the server does with it.

use serde_json::{Map, Value, json};

use super::Server;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

/// The attributes of a published schema.
async fn published(server: &Server, urn: &str) -> Vec<Value> {
    let reply = server.okta("GET", &format!("/Schemas/{urn}"), None).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["attributes"].as_array().unwrap().clone()
}

fn of<'a>(attributes: &'a [Value], path: &str) -> Option<&'a Value> {
    let (name, sub) = path.split_once('.').unwrap_or((path, ""));
    let found = attributes.iter().find(|one| one["name"] == name)?;
    if sub.is_empty() { Some(found) } else { of(found["subAttributes"].as_array()?, sub) }
}

/// The resources to which references of a model point.
struct Referred {
    user: String,
}

/// A value as a client makes it that knows nothing but the published attribute. None: only the server sets it.
fn value(attribute: &Value, referred: &Referred, counter: &mut u32) -> Option<Value> {
    if attribute["mutability"] == "readOnly" {
        return None;
    }
    *counter += 1;
    let one = match attribute["type"].as_str().unwrap() {
        "boolean" => json!(true),
        "dateTime" => json!("2026-01-31T12:00:00Z"),
        "binary" => json!("AQIDBA=="),
        "reference" if attribute["referenceTypes"] == json!(["User"]) => {
            json!(format!("https://rolecall.example.com/idp/okta/scim/v2/Users/{}", referred.user))
        }
        "reference" => json!(format!("https://{counter}.example")),
        "complex" => {
            let subs = attribute["subAttributes"].as_array().unwrap();
            let parts = subs
                .iter()
                .filter_map(|sub| Some((sub["name"].as_str().unwrap().to_owned(), value(sub, referred, counter)?)));
            Value::Object(parts.collect())
        }
        "string" => match attribute["canonicalValues"].as_array() {
            Some(canonical) => canonical[0].clone(),
            None => json!(format!("Text {counter}")),
        },
        other => panic!("no such type: {other}"),
    };
    Some(if attribute["multiValued"] == true { json!([one]) } else { one })
}

/// A body with everything that a client may write, and the part of it that can be read back.
fn model(attributes: &[Value], referred: &Referred, counter: &mut u32) -> (Map<String, Value>, Map<String, Value>) {
    let (mut body, mut readable) = (Map::new(), Map::new());
    for attribute in attributes {
        let Some(value) = value(attribute, referred, counter) else { continue };
        let name = attribute["name"].as_str().unwrap().to_owned();
        if attribute["mutability"] == "readWrite" && attribute["returned"] != "never" {
            readable.insert(name.clone(), value.clone());
        }
        body.insert(name, value);
    }
    (body, readable)
}

fn assert_contains(shown: &Value, expected: &Map<String, Value>) {
    for (name, value) in expected {
        assert_eq!(&shown[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_client_built_from_the_schemas_creates_replaces_and_changes_whole_resources() {
    let server = Server::start().await;
    let referred = Referred { user: server.user("manager@corp.example").await };
    let (user, enterprise, group) =
        (published(&server, USER).await, published(&server, ENTERPRISE).await, published(&server, GROUP).await);
    let mut counter = 0;
    let mut path: Option<String> = None;
    for method in ["POST", "PUT", "PATCH"] {
        let (mut body, mut readable) = model(&user, &referred, &mut counter);
        let mut extension = model(&enterprise, &referred, &mut counter);
        // Extensions are objects with a schema of their own in some clients.
        extension.0.insert("schemas".to_owned(), json!([ENTERPRISE]));
        body.insert(ENTERPRISE.to_owned(), Value::Object(extension.0));
        readable.insert(ENTERPRISE.to_owned(), Value::Object(extension.1));
        let reply = match (&path, method) {
            (None, _) => {
                body.insert("schemas".to_owned(), json!([USER, ENTERPRISE]));
                server.okta("POST", "/Users", Some(Value::Object(body))).await
            }
            (Some(path), "PUT") => {
                body.insert("schemas".to_owned(), json!([USER, ENTERPRISE]));
                server.okta("PUT", path, Some(Value::Object(body))).await
            }
            (Some(path), _) => server.patch(path, json!([{"op": "replace", "value": body}])).await,
        };
        assert!(reply.status < 300, "{method}: {}", reply.text);
        let shown = reply.json();
        let at = format!("/Users/{}", shown["id"].as_str().unwrap());
        assert_contains(&shown, &readable);
        let read = server.okta("GET", &at, None).await.json();
        assert_contains(&read, &readable);
        assert_eq!((read.get("password"), shown.get("password")), (None, None));
        path = Some(at);
    }
    let (mut body, readable) = model(&group, &referred, &mut counter);
    body["members"][0]["value"] = json!(referred.user);
    let reply = server.okta("POST", "/Groups", Some(Value::Object(body))).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let mut readable = readable;
    readable.remove("members");
    assert_contains(&reply.json(), &readable);
    assert_eq!(reply.json()["members"][0]["value"], referred.user);
    assert_eq!(reply.json()["members"][0]["type"], "User");
}

#[tokio::test]
async fn the_published_characteristics_are_those_of_the_rfc_and_of_the_server() {
    let server = Server::start().await;
    let (user, enterprise, group) =
        (published(&server, USER).await, published(&server, ENTERPRISE).await, published(&server, GROUP).await);
    for (attributes, path, mutability, returned, case_exact, uniqueness) in [
        (&user, "id", "readOnly", "always", true, "server"),
        (&user, "externalId", "readWrite", "default", true, "none"),
        (&user, "userName", "readWrite", "default", false, "server"),
        (&user, "password", "writeOnly", "never", true, "none"),
        (&user, "groups", "readOnly", "request", false, "none"),
        (&user, "groups.value", "readOnly", "default", true, "none"),
        (&user, "groups.$ref", "readOnly", "default", true, "none"),
        (&user, "groups.display", "readOnly", "default", false, "none"),
        (&user, "groups.type", "readOnly", "default", false, "none"),
        (&enterprise, "manager.value", "readWrite", "default", true, "none"),
        (&enterprise, "manager.$ref", "readWrite", "default", true, "none"),
        (&enterprise, "manager.displayName", "readOnly", "request", false, "none"),
        (&group, "id", "readOnly", "always", true, "server"),
        (&group, "externalId", "readWrite", "default", true, "none"),
        (&group, "displayName", "readWrite", "default", false, "server"),
        (&group, "members.value", "immutable", "default", true, "none"),
        (&group, "members.$ref", "immutable", "default", true, "none"),
        (&group, "members.type", "immutable", "default", false, "none"),
        (&group, "members.display", "readOnly", "request", false, "none"),
    ] {
        let found = of(attributes, path).unwrap_or_else(|| panic!("{path} is not published"));
        let is = (&found["mutability"], &found["returned"], &found["caseExact"], &found["uniqueness"]);
        assert_eq!(is, (&json!(mutability), &json!(returned), &json!(case_exact), &json!(uniqueness)), "{path}");
    }
    // Microsoft Entra ID refuses a schema that has them (sourcegraph #62185).
    assert_eq!((of(&user, "emails.display"), of(&user, "phoneNumbers.display")), (None, None));
    // scim2-client has a model of `meta`, which one from a schema would replace.
    assert_eq!((of(&user, "meta"), of(&user, "schemas")), (None, None));
    assert!(of(&user, "roles.display").is_some());
}

#[tokio::test]
async fn display_of_an_address_is_kept_though_it_is_not_published() {
    let server = Server::start().await;
    let emails = json!([{"value": "a@corp.example", "display": "Ann"}]);
    let body = json!({"userName": "a", "emails": emails, "phoneNumbers": [{"value": "1", "display": "one"}]});
    let user = server.okta("POST", "/Users", Some(body)).await.json();
    assert_eq!((&user["emails"], &user["phoneNumbers"][0]["display"]), (&emails, &json!("one")));
    let path = format!("/Users/{}", user["id"].as_str().unwrap());
    let operation = json!({"op": "replace", "path": "emails[value eq \"a@corp.example\"].display", "value": "Anne"});
    assert_eq!(server.patch(&path, json!([operation])).await.json()["emails"][0]["display"], "Anne");
}

const SECRET: &str = "correct-horse-battery";

#[tokio::test]
async fn a_password_is_accepted_in_every_form_and_is_neither_kept_nor_shown() {
    let server = Server::start().await;
    let path = format!("/Users/{}", server.user("first@corp.example").await);
    let before = server.okta("GET", &path, None).await.json();
    let forms = [
        json!({"password": SECRET}),
        json!({"Password": SECRET}),
        json!({format!("{USER}:password"): SECRET}),
        json!({USER: {"password": SECRET}}),
    ];
    let mut answers = Vec::new();
    for (index, form) in forms.iter().enumerate() {
        for (method, path) in [("POST", "/Users"), ("PUT", path.as_str())] {
            let mut body = form.clone();
            let name = if method == "POST" { format!("u{index}") } else { "first@corp.example".to_owned() };
            body["userName"] = json!(name);
            body["schemas"] = json!([USER]);
            answers.push(server.okta(method, path, Some(body)).await);
        }
        for op in ["add", "replace"] {
            answers.push(server.patch(&path, json!([{"op": op, "value": form}])).await);
        }
    }
    for name in ["password".to_owned(), "PASSWORD".to_owned(), format!("{USER}:password")] {
        for operation in [
            json!({"op": "add", "path": name, "value": SECRET}),
            json!({"op": "replace", "path": name, "value": SECRET}),
            json!({"op": "replace", "path": name, "value": null}),
            json!({"op": "remove", "path": name}),
        ] {
            answers.push(server.patch(&path, json!([operation])).await);
        }
    }
    answers.push(server.okta("GET", &format!("{path}?attributes=password,userName"), None).await);
    for answer in &answers {
        assert!(answer.status < 300 && !answer.text.contains("assword") && !answer.text.contains(SECRET), "{answer:?}");
    }
    // A password changes nothing, so that not even the version differs.
    assert_eq!(server.okta("GET", &path, None).await.json(), before);
    for file in std::fs::read_dir(server.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
    }
    let refused = server.patch(&path, json!([{"op": "replace", "path": "password", "value": {"a": SECRET}}])).await;
    assert!(!refused.refused(400, Some("invalidValue")).text.contains(SECRET));
    server.okta("GET", "/Users?filter=password%20pr", None).await.refused(400, Some("invalidFilter"));
}

#[tokio::test]
async fn groups_of_a_user_are_shown_when_asked_for_with_those_behind_groups() {
    let server = Server::start().await;
    let user = server.user("a@corp.example").await;
    let other = server.user("b@corp.example").await;
    let inner = server.group("inner", &[&user]).await;
    let middle = server.group("middle", &[&inner]).await;
    // A cycle.
    server
        .patch(&format!("/Groups/{inner}"), json!([{"op": "add", "path": "members", "value": [{"value": middle}]}]))
        .await;
    server.group("apart", &[&other]).await;
    let base = "https://rolecall.example.com/idp/okta/scim/v2/Groups";
    let expected = json!([
        {"value": inner, "$ref": format!("{base}/{inner}"), "display": "inner", "type": "direct"},
        {"value": middle, "$ref": format!("{base}/{middle}"), "display": "middle", "type": "indirect"},
    ]);
    let path = format!("/Users/{user}");
    assert_eq!(server.okta("GET", &path, None).await.json().get("groups"), None);
    for query in ["attributes=groups", "attributes=userName,GROUPS", &format!("attributes={USER}:groups")] {
        assert_eq!(server.okta("GET", &format!("{path}?{query}"), None).await.json()["groups"], expected, "{query}");
        let listed = server.okta("GET", &format!("/Users?{query}"), None).await.json();
        let shown = |id: &str| listed["Resources"].as_array().unwrap().iter().find(|one| one["id"] == id).cloned();
        assert_eq!(shown(&user).unwrap()["groups"], expected, "{query}");
        assert_eq!(shown(&other).unwrap()["groups"][0]["display"], "apart");
    }
    let parts = server.okta("GET", &format!("{path}?attributes=groups.value,groups.type"), None).await.json();
    assert_eq!(parts["groups"], json!([{"value": inner, "type": "direct"}, {"value": middle, "type": "indirect"}]));
    let body = json!({"Operations": [{"op": "replace", "path": "title", "value": "T"}]});
    let changed = server.okta("PATCH", &format!("{path}?attributes=groups"), Some(body)).await.json();
    assert_eq!(changed["groups"], expected);
    // The version is that of the user, so that it does not tell whether the groups have changed.
    let tag = server.okta("GET", &path, None).await.header("etag").to_owned();
    let token = format!("Bearer {}", super::OKTA_TOKEN);
    let headers = [("authorization", Some(token.as_str())), ("if-none-match", Some(tag.as_str()))];
    assert_eq!(server.send("okta", "GET", &path, &headers, None).await.status, 304);
    assert_eq!(server.send("okta", "GET", &format!("{path}?attributes=groups"), &headers, None).await.status, 200);
    for (filter, expected) in [
        (format!("groups.value eq \"{inner}\""), 1),
        (format!("groups eq \"{middle}\""), 1),
        ("groups.display eq \"INNER\"".to_owned(), 1),
        ("groups[type eq \"indirect\"]".to_owned(), 1),
        ("groups pr".to_owned(), 2),
        (format!("not (groups.value eq \"{inner}\")"), 1),
    ] {
        let query = percent_encoding::utf8_percent_encode(&filter, percent_encoding::NON_ALPHANUMERIC);
        let found = server.okta("GET", &format!("/Users?filter={query}"), None).await;
        assert_eq!(found.json()["totalResults"], expected, "{filter}: {}", found.text);
    }
}

#[tokio::test]
async fn groups_of_listed_users_count_towards_the_size_of_a_page() {
    let server = Server::start().await;
    let user = server.user("a@corp.example").await;
    let okta = crate::model::ProviderName::new("okta").unwrap();
    let mut rows = vec![crate::store::PlannedRow { position: 1, bytes: 1, members: 0 }; 3];
    for index in 0..3 {
        server.group(&format!("g{index}"), &[&user]).await;
    }
    server.store.count_groups(&okta, &mut rows, 2).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.members).collect::<Vec<_>>(), [3, 3, 3]);
}

#[tokio::test]
async fn names_of_members_and_managers_are_shown_when_asked_for() {
    let server = Server::start().await;
    let boss = json!({"userName": "boss", "displayName": "The Boss"});
    let boss = server.okta("POST", "/Users", Some(boss)).await.json()["id"].as_str().unwrap().to_owned();
    let plain = server.user("plain@corp.example").await;
    let inner = server.group("inner", &[]).await;
    let group = server.group("team", &[&boss, &plain, &inner]).await;
    let shown = server.okta("GET", &format!("/Groups/{group}"), None).await.json();
    assert!(shown["members"].as_array().unwrap().iter().all(|member| member.get("display").is_none()));
    let path = format!("/Groups/{group}?attributes=members.value,members.display");
    let shown = server.okta("GET", &path, None).await.json();
    let mut names: Vec<(String, String)> = (shown["members"].as_array().unwrap().iter())
        .map(|one| (one["value"].as_str().unwrap().to_owned(), one["display"].as_str().unwrap().to_owned()))
        .collect();
    let mut expected = vec![
        (boss.clone(), "The Boss".to_owned()),
        (plain, "plain@corp.example".to_owned()),
        (inner, "inner".to_owned()),
    ];
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    let manager = json!({"value": boss, "$ref": format!("../Users/{boss}"), "displayName": "made up"});
    let body = json!({"userName": "a", ENTERPRISE: {"manager": manager}});
    let user = server.okta("POST", "/Users", Some(body)).await.json();
    assert_eq!(user[ENTERPRISE]["manager"], json!({"value": boss, "$ref": format!("../Users/{boss}")}));
    let path = format!("/Users/{}", user["id"].as_str().unwrap());
    let reply = server.okta("GET", &format!("{path}?attributes={ENTERPRISE}:manager.displayName"), None).await;
    assert_eq!(reply.json()[ENTERPRISE]["manager"], json!({"displayName": "The Boss"}));
    let at = format!("{ENTERPRISE}:manager");
    for operation in [
        json!({"op": "replace", "path": format!("{at}.displayName"), "value": "x"}),
        json!({"op": "replace", "path": at, "value": {"displayName": "x"}}),
    ] {
        server.patch(&path, json!([operation])).await.refused(400, Some("mutability"));
    }
    // The URL of one manager does not stay beside the id of another.
    let moved = server.patch(&path, json!([{"op": "replace", "path": format!("{at}.value"), "value": "other"}])).await;
    assert_eq!(moved.json()[ENTERPRISE]["manager"], json!({"value": "other"}));
    for filter in ["manager.displayName%20eq%20%22x%22", "manager%5BdisplayName%20pr%5D"] {
        server.okta("GET", &format!("/Users?filter={filter}"), None).await.refused(400, Some("invalidFilter"));
    }
    server.okta("GET", "/Groups?filter=members.display%20pr", None).await.refused(400, Some("invalidFilter"));
}
