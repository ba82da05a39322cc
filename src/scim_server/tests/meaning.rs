//! A change takes effect, or it is refused and changes nothing. It is never answered with success and dropped.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Reply, Server};

const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

fn set<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.into_iter().map(str::to_owned).collect()
}

fn is_done(reply: &Reply) -> bool {
    assert!(matches!(reply.status, 200 | 201 | 204 | 400), "{}", reply.text);
    reply.status != 400
}

#[tokio::test]
async fn members_are_changed_however_the_schema_is_written() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let value = json!([{"value": bob}]);
    for (name, operation, wanted) in [
        ("a", json!({"op": "replace", "value": {GROUP: {"members": []}}}), set([])),
        ("b", json!({"op": "replace", "path": GROUP, "value": {"members": []}}), set([])),
        ("c", json!({"op": "replace", "path": GROUP.to_uppercase(), "value": {"MEMBERS": value}}), set([&bob])),
        ("d", json!({"op": "add", "value": {GROUP: {"Members": value}}}), set([&alice, &bob])),
        ("e", json!({"op": "add", "path": format!("{GROUP}:members"), "value": value}), set([&alice, &bob])),
        ("f", json!({"op": "remove", "path": format!("{GROUP}:members[value eq \"{alice}\"]")}), set([])),
        ("g", json!({"op": "replace", "value": {format!("{GROUP}:members"): value}}), set([&bob])),
        ("h", json!({"op": "replace", "value": {GROUP: {GROUP: {"members": value}}}}), set([&bob])),
        ("i", json!({"op": "replace", "value": json!({GROUP: {"members": []}}).to_string()}), set([])),
    ] {
        let group = server.group(name, &[&alice]).await;
        let reply = server.patch(&format!("/Groups/{group}"), json!([operation])).await;
        assert!(is_done(&reply), "{operation}: {}", reply.text);
        assert_eq!(server.members(&group).await, wanted, "{operation}");
    }
}

#[tokio::test]
async fn members_inside_the_urn_of_a_post_or_put_are_stored_and_not_only_shown() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let body = |id: &str| json!({"schemas": [GROUP], GROUP: {"displayName": "team", "members": [{"value": id}]}});
    let reply = server.okta("POST", "/Groups", Some(body(&alice))).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let group = reply.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.members(&group).await, set([&alice]));
    let member_of = async |id: &str| {
        let filter = format!("/Groups?filter=members%20eq%20%22{id}%22&attributes=id");
        server.okta("GET", &filter, None).await.json()["totalResults"].clone()
    };
    assert_eq!((member_of(&alice).await, member_of(&bob).await), (json!(1), json!(0)));
    assert_eq!(server.okta("PUT", &format!("/Groups/{group}"), Some(body(&bob))).await.status, 200);
    assert_eq!(server.members(&group).await, set([&bob]));
    assert_eq!((member_of(&alice).await, member_of(&bob).await), (json!(0), json!(1)));
}

#[tokio::test]
async fn a_leaver_is_inactive_however_the_schema_is_written() {
    let server = Server::start().await;
    for (name, body) in [
        ("a", json!({"op": "replace", "value": {USER: {"active": false}}})),
        ("b", json!({"op": "replace", "path": USER, "value": {"Active": "False"}})),
        ("c", json!({"op": "Replace", "path": format!("{USER}:active"), "value": false})),
        ("d", json!({"op": "add", "path": USER.to_uppercase(), "value": {"ACTIVE": false}})),
        ("e", json!({"op": "replace", "value": {format!("{USER}:ACTIVE"): "false"}})),
    ] {
        let user = server.user(name).await;
        let reply = server.patch(&format!("/Users/{user}"), json!([body])).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!(server.okta("GET", &format!("/Users/{user}"), None).await.json()["active"], false, "{body}");
    }
    for (name, body) in [
        ("f", json!({"userName": "f", USER: {"active": false}})),
        ("g", json!({USER: {"userName": "g", "active": false}})),
        ("h", json!({"userName": "h", format!("{USER}:active"): "False"})),
    ] {
        let user = server.user(name).await;
        let reply = server.okta("PUT", &format!("/Users/{user}"), Some(body.clone())).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!(server.okta("GET", &format!("/Users/{user}"), None).await.json()["active"], false, "{body}");
    }
}

#[tokio::test]
async fn what_a_user_patch_cannot_do_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let user = server.user("alice@example.com").await;
    let path = format!("/Users/{user}");
    let before = server.okta("GET", &path, None).await.text;
    for (operation, scim_type) in [
        (json!({"op": "replace", "path": "active.value", "value": false}), "invalidPath"),
        (json!({"op": "replace", "path": "active", "value": ""}), "invalidValue"),
        (json!({"op": "replace", "value": {"active": ""}}), "invalidValue"),
        (json!({"op": "replace", "value": {"active.value": false}}), "invalidPath"),
        (json!({"op": "replace", "value": {"active": true, format!("{USER}:active"): false}}), "invalidSyntax"),
        (json!({"op": "replace", "value": {"active": true, USER: {"active": false}}}), "invalidSyntax"),
        (json!({"op": "add", "path": "groups", "value": [{"value": "g"}]}), "mutability"),
        (json!({"op": "remove", "path": "groups"}), "mutability"),
        (json!({"op": "remove", "path": "groups[value eq \"g\"]"}), "mutability"),
        (json!({"op": "replace", "path": "groups", "value": []}), "mutability"),
        (json!({"op": "replace", "value": {USER: {"groups": []}}}), "mutability"),
        (json!({"op": "replace", "path": "nothing", "value": "x"}), "invalidPath"),
        (json!({"op": "add", "path": "nothing", "value": "x"}), "invalidPath"),
        (json!({"op": "remove", "path": "nothing"}), "invalidPath"),
        (json!({"op": "remove", "path": "name.nothing"}), "invalidPath"),
        (json!({"op": "remove", "path": "emails[type eq \"work\"].nothing"}), "invalidPath"),
        (json!({"op": "replace", "path": format!("{ENTERPRISE}:nothing"), "value": "x"}), "invalidPath"),
        (json!({"op": "replace", "path": "urn:example:nothing:User", "value": {"active": false}}), "invalidPath"),
        (json!({"op": "replace", "path": "members", "value": []}), "invalidPath"),
        (json!({"op": "replace", "value": {"nothing": "x"}}), "invalidPath"),
        (json!({"op": "replace", "value": {GROUP: {"active": false}}}), "invalidPath"),
        (json!({"op": "replace", "value": {ENTERPRISE: {"active": false}}}), "invalidPath"),
    ] {
        let good = json!({"op": "replace", "path": "title", "value": "T"});
        let reply = server.patch(&path, json!([good, operation])).await;
        reply.refused(400, Some(scim_type));
        assert_eq!(server.okta("GET", &path, None).await.text, before, "{operation}");
    }
}

#[tokio::test]
async fn two_spellings_of_one_attribute_in_one_body_are_refused() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let group = server.group("team", &[&alice]).await;
    let (path, member) = (format!("/Groups/{group}"), format!("[{{\"value\":\"{bob}\"}}]"));
    let headers = [
        ("authorization", Some(format!("Bearer {}", super::OKTA_TOKEN))),
        ("content-type", Some("application/scim+json".to_owned())),
    ];
    let headers: Vec<(&str, Option<&str>)> = headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
    for (method, body) in [
        ("PUT", format!(r#"{{"displayName":"team","members":{member},"Members":[]}}"#)),
        ("PUT", format!(r#"{{"displayName":"team","members":{member},"members":[]}}"#)),
        ("PUT", format!(r#"{{"displayName":"team","members":{member},"{GROUP}":{{"members":[]}}}}"#)),
        ("PATCH", format!(r#"{{"Operations":[{{"op":"replace","value":{{"members":{member},"Members":[]}}}}]}}"#)),
        ("PATCH", format!(r#"{{"Operations":[{{"op":"add","path":"members","value":{member},"Value":[]}}]}}"#)),
        ("PATCH", format!(r#"{{"Operations":[],"operations":[{{"op":"add","path":"members","value":{member}}}]}}"#)),
    ] {
        let reply = server.send("okta", method, &path, &headers, Some(body.clone().into_bytes())).await;
        reply.refused(400, Some("invalidSyntax"));
        assert_eq!(server.members(&group).await, set([&alice]), "{body}");
    }
}

#[tokio::test]
async fn a_member_to_remove_that_is_named_otherwise_than_by_its_id_is_not_passed_over() {
    let server = Server::start().await;
    let external = "3F0c4c1e-0000-4000-8000-00000000000a";
    let body = json!({"schemas": [USER], "userName": "alice@example.com", "externalId": external.to_lowercase()});
    let alice = server.okta("POST", "/Users", Some(body)).await.json()["id"].as_str().unwrap().to_owned();
    let bob = server.user("bob@example.com").await;
    let body = json!({"schemas": [USER], "userName": "0d0c4c1e-0000-4000-8000-00000000000b", "externalId": "00u7"});
    let carol = server.okta("POST", "/Users", Some(body)).await.json()["id"].as_str().unwrap().to_owned();
    let group = server.group("team", &[&alice, &bob, &carol]).await;
    let path = format!("/Groups/{group}");
    let all = set([&alice, &bob, &carol]);
    for value in [
        json!([{"value": "alice@example.com"}]),
        json!("0d0c4c1e-0000-4000-8000-00000000000b"),
        json!([{"value": bob}, {"value": "alice@example.com"}]),
        json!({"value": alice.replace('-', "")}),
        json!([{"display": "alice@example.com"}]),
    ] {
        let reply = server.patch(&path, json!([{"op": "remove", "path": "members", "value": value}])).await;
        assert_eq!(reply.status, 400, "{value}: {}", reply.text);
        assert_eq!(server.members(&group).await, all, "{value}");
    }
    let filter = json!([{"op": "remove", "path": "members[value eq \"alice@example.com\"]"}]);
    server.patch(&path, filter).await.refused(400, Some("invalidValue"));
    assert_eq!(server.members(&group).await, all);
    // A person who is not a member, or is unknown, is already removed, which is what was requested.
    let remove = |id: &str| json!([{"op": "remove", "path": "members", "value": [{"value": id}]}]);
    for gone in [bob.as_str(), bob.as_str(), "00000000-0000-4000-8000-0000000000ff"] {
        assert_eq!(server.patch(&path, remove(gone)).await.status, 200);
    }
    assert_eq!(server.members(&group).await, set([&alice, &carol]));
    // An externalId that one person has names this person.
    assert_eq!(server.patch(&path, remove(external)).await.status, 200);
    assert_eq!(server.members(&group).await, set([&carol]));
    assert_eq!(server.okta("DELETE", &format!("/Users/{carol}"), None).await.status, 204);
    assert_eq!(server.patch(&path, remove(&carol)).await.status, 200);
    server.patch(&path, remove("00u7")).await.refused(400, Some("invalidValue"));
    assert_eq!(server.members(&group).await, set([]));
}

#[tokio::test]
async fn an_accepted_patch_of_a_group_takes_effect() {
    let server = Server::start().await;
    let alice = server.user("alice@example.com").await;
    for (name, operation) in [
        ("a", json!({"op": "remove", "path": GROUP})),
        ("b", json!({"op": "remove", "path": GROUP, "value": {"members": []}})),
        ("c", json!({"op": "replace", "path": "members.value", "value": []})),
        ("d", json!({"op": "replace", "path": "Member", "value": []})),
        ("e", json!({"op": "replace", "value": {USER: {"members": []}}})),
        ("f", json!({"op": "replace", "value": {GROUP: []}})),
        ("g", json!({"op": "replace", "value": {"members[value pr]": []}})),
        ("h", json!({"op": "remove", "path": "owners"})),
    ] {
        let group = server.group(name, &[&alice]).await;
        let shown = async || {
            let mut shown = server.okta("GET", &format!("/Groups/{group}"), None).await.json();
            shown.as_object_mut().and_then(|shown| shown.shift_remove("meta"));
            shown
        };
        let before: Value = shown().await;
        let reply = server.patch(&format!("/Groups/{group}"), json!([operation])).await;
        assert_eq!(reply.status, 400, "{operation}: {}", reply.text);
        assert_eq!(shown().await, before, "{operation}");
    }
}
