//! Limits on what a tenant can make the server store and answer.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Server;
use crate::model::{EmailFact, GroupFacts, GroupId, ProviderName, UserFacts, UserId};
use crate::store::{NewGroup, NewUser, Origin, Quota};

/// Largest number of bytes of a page, plus a margin: one resource, and what the server adds to each.
const PAGE: usize = 8 * 1024 * 1024 + 1024 * 1024;

fn okta() -> ProviderName {
    ProviderName::new("okta").expect("a name")
}

fn origin() -> Origin {
    Origin { token: "a".to_owned(), request_id: None }
}

/// Stores a user without the endpoint's checks, as a version without limits did.
async fn old_user(server: &Server, name: &str) -> String {
    let email = EmailFact { value: name.to_owned(), kind: Some("work".into()), primary: true };
    let user = NewUser {
        resource: json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name, "active": true,
            "emails": [{"value": name, "type": "work", "primary": true}],
        }),
        facts: UserFacts {
            id: UserId(Uuid::new_v4()),
            active: true,
            user_name: name.to_owned(),
            external_id: None,
            emails: vec![email],
        },
    };
    server.store.create_user(&okta(), &origin(), user).await.expect("a stored user").facts.id.to_string()
}

#[tokio::test]
async fn a_user_name_of_4_megabytes_is_refused_and_nothing_of_it_is_stored() {
    let server = Server::start().await;
    let name = "x".repeat(4 * 1024 * 1024 - 200);
    let reply = server.okta("POST", "/Users", Some(json!({"userName": name}))).await;
    reply.refused(400, Some("invalidValue"));
    assert!(reply.text.contains("userName") && reply.text.contains("256") && reply.text.len() < 1000, "{}", reply.text);
    server.okta("POST", "/Users", Some(json!({"userName": "x".repeat(257)}))).await.refused(400, Some("invalidValue"));
    let id = server.user(&"x".repeat(256)).await;
    let rename = json!([{"op": "replace", "path": "userName", "value": "y".repeat(257)}]);
    server.patch(&format!("/Users/{id}"), rename).await.refused(400, Some("invalidValue"));
    let long = json!({"displayName": "g".repeat(513)});
    server.okta("POST", "/Groups", Some(long)).await.refused(400, Some("invalidValue"));
    let usage = server.store.usage(&okta()).await.expect("usage");
    assert!(usage.users == 1 && usage.groups == 0 && usage.bytes < 1000, "{usage:?}");
}

#[tokio::test]
async fn a_resource_of_more_than_64_kilobytes_is_refused_however_it_gets_there() {
    let server = Server::start().await;
    let photos = |count: usize| -> Value {
        (0..count).map(|n| json!({"value": format!("https://x.example/{n}/{}", "x".repeat(8000))})).collect()
    };
    let body = |count| json!({"userName": "a", "photos": photos(count)});
    server.okta("POST", "/Users", Some(body(9))).await.refused(400, Some("invalidValue"));
    let created = server.okta("POST", "/Users", Some(body(7))).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let path = format!("/Users/{}", created.json()["id"].as_str().expect("an id"));
    server.okta("PUT", &path, Some(body(9))).await.refused(400, Some("invalidValue"));
    let more = json!([{"op": "add", "path": "photos", "value": [{"value": "y".repeat(8000)}]}]);
    assert_eq!(server.patch(&path, more).await.status, 200);
    let more = json!([{"op": "add", "path": "photos", "value": [{"value": "z".repeat(8000)}]}]);
    server.patch(&path, more).await.refused(400, Some("invalidValue"));
}

#[tokio::test]
async fn an_old_record_above_todays_bounds_can_be_deactivated_renamed_and_deleted_but_not_grow() {
    let server = Server::start().await;
    let name = "x".repeat(1_000_000);
    let id = old_user(&server, &name).await;
    let path = format!("/Users/{id}");
    let group = server.group("team", &[&id]).await;

    let reply = server.patch(&path, json!([{"op": "replace", "path": "active", "value": false}])).await;
    assert_eq!(reply.status, 200, "PATCH");
    assert_eq!(server.patch(&path, json!([{"op": "replace", "path": "active", "value": true}])).await.status, 200);
    let put = json!({"userName": name, "active": false, "emails": [{"value": name, "type": "work", "primary": true}]});
    let reply = server.okta("PUT", &path, Some(put)).await;
    assert_eq!((reply.status, &reply.json()["active"]), (200, &json!(false)), "PUT, as Okta's custom applications do");

    let more = json!([{"op": "replace", "path": "title", "value": "Director of Everything"}]);
    server.patch(&path, more).await.refused(400, Some("invalidValue"));
    let out = json!([{"op": "remove", "path": format!("members[value eq \"{id}\"]")}]);
    assert_eq!(server.patch(&format!("/Groups/{group}"), out).await.status, 200);
    let rename = json!([{"op": "replace", "path": "userName", "value": "short@example.com"}]);
    assert_eq!(server.patch(&path, rename).await.status, 200);
    assert_eq!(server.okta("DELETE", &path, None).await.status, 204);
}

#[tokio::test]
async fn a_page_is_bounded_by_bytes_and_the_pages_together_have_everybody() {
    let server = Server::start().await;
    let mut expected = BTreeSet::new();
    for index in 0..24 {
        expected.insert(old_user(&server, &format!("{index}{}", "x".repeat(500_000))).await);
    }
    let mut seen = BTreeSet::new();
    let mut start = 1;
    let mut pages = 0;
    while seen.len() < expected.len() {
        let reply = server.okta("GET", &format!("/Users?startIndex={start}&count=60"), None).await;
        assert_eq!(reply.status, 200);
        assert!(reply.text.len() < PAGE, "{} bytes", reply.text.len());
        let page = reply.json();
        let resources = page["Resources"].as_array().expect("resources");
        assert_eq!((&page["totalResults"], &page["startIndex"]), (&json!(24), &json!(start)));
        assert_eq!(page["itemsPerPage"], json!(resources.len()));
        assert!(!resources.is_empty(), "each page has something");
        start += resources.len();
        pages += 1;
        seen.extend(resources.iter().map(|user| user["id"].as_str().expect("an id").to_owned()));
    }
    assert_eq!(seen, expected);
    assert!(pages > 1, "all of it would have been too large for one");
}

#[tokio::test]
async fn a_group_of_many_members_is_sent_whole_and_projected() {
    let server = Server::start().await;
    let names: Vec<String> = (0..600).map(|index| format!("user{index}@example.com")).collect();
    let users = futures::future::join_all(names.iter().map(|name| old_user(&server, name))).await;
    let members: BTreeSet<String> = users.into_iter().collect();
    let ids: Vec<Uuid> = members.iter().map(|id| id.parse().expect("an id")).collect();
    let group = GroupId(Uuid::new_v4());
    let new = NewGroup {
        resource: json!({"displayName": "team"}),
        facts: GroupFacts { id: group, display_name: "team".into(), external_id: None },
        members: vec![crate::store::MemberChange::Add(ids)].into(),
    };
    server.store.create_group(&okta(), &origin(), new).await.expect("a stored group");

    assert_eq!(server.members(&group.to_string()).await, members);
    let listed = server.okta("GET", "/Groups", None).await;
    assert_eq!(listed.header("transfer-encoding"), "chunked", "it is not made in memory first");
    let listed = listed.json();
    assert_eq!((&listed["totalResults"], &listed["itemsPerPage"]), (&json!(1), &json!(1)));
    assert_eq!(listed["Resources"][0]["members"].as_array().map(Vec::len), Some(600));
    let only = server.okta("GET", &format!("/Groups/{group}?attributes=members.value"), None).await.json();
    let first = only["members"][0].as_object().expect("a member");
    assert!(first.contains_key("value") && first.len() == 1 && only.get("displayName").is_none(), "{first:?}");
    let without = server.okta("GET", &format!("/Groups/{group}?excludedAttributes=members"), None).await;
    assert!(without.text.len() < 1000, "{}", without.text);
    let head = server.okta("HEAD", &format!("/Groups/{group}"), None).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn above_its_quota_a_tenant_is_refused_with_507_and_can_take_everything_away() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let group = server.group("team", &[&alice, &bob]).await;
    server.store.set_quota(Quota { rows: 4, bytes: 1 << 30 });
    let reply = server.okta("POST", "/Users", Some(json!({"userName": "carol"}))).await;
    reply.refused(507, None);
    assert!(reply.text.contains("quota of 4 rows"), "{}", reply.text);
    let (path, put) = (format!("/Users/{bob}"), json!({"userName": "bob", "active": false}));
    assert_eq!(server.okta("PUT", &path, Some(put)).await.status, 200);
    let smaller = json!({"displayName": "team", "members": [{"value": alice}]});
    assert_eq!(server.okta("PUT", &format!("/Groups/{group}"), Some(smaller)).await.status, 200);
    assert_eq!(server.members(&group).await, BTreeSet::from([alice.clone()]));
    assert_eq!(server.okta("DELETE", &path, None).await.status, 204);
    assert_eq!(server.okta("DELETE", &format!("/Users/{alice}"), None).await.status, 204);
    assert_eq!(server.okta("POST", "/Users", Some(json!({"userName": "carol"}))).await.status, 201);
}
