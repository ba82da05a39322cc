//! Members that are named by `externalId` or before they exist (RFC 7643 §3.1 leaves `externalId` to the client).

use serde_json::{Value, json};

use super::{Reply, Server};
use crate::scim::FindingCode;

impl Server {
    /// Creates a user with this `externalId` and returns its id.
    async fn named(&self, name: &str, external_id: &str) -> String {
        let reply = self.okta("POST", "/Users", Some(json!({"userName": name, "externalId": external_id}))).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    async fn waiting(&self) -> u64 {
        self.store.counts(&"okta".parse().unwrap()).await.unwrap().pending
    }

    async fn change(&self, group: &str, op: &str, value: Value) -> Reply {
        let operations = json!([{"op": op, "path": "members", "value": value}]);
        self.patch(&format!("/Groups/{group}"), operations).await
    }
}

fn list(ids: &[&str]) -> Value {
    ids.iter().map(|id| json!({"value": id})).collect()
}

fn set(ids: &[&String]) -> std::collections::BTreeSet<String> {
    ids.iter().map(|id| (*id).clone()).collect()
}

#[tokio::test]
async fn a_member_named_by_external_id_is_found_in_each_kind_of_request() {
    let server = Server::start().await;
    let alice = server.named("alice", "HR-1").await;
    let bob = server.named("bob", "8AA1A0C0-0000-4000-8000-0000000000AA").await;
    let group = server.group("created", &["HR-1", "8aa1a0c0-0000-4000-8000-0000000000aa"]).await;
    assert_eq!(server.members(&group).await, set(&[&alice, &bob]));
    assert!(server.found(FindingCode::MemberIdForeign));

    let group = server.group("patched", &[]).await;
    assert!(server.change(&group, "add", list(&["HR-1"])).await.status < 300);
    assert_eq!(server.members(&group).await, set(&[&alice]));
    assert!(server.change(&group, "replace", list(&["8AA1A0C0-0000-4000-8000-0000000000AA"])).await.status < 300);
    assert_eq!(server.members(&group).await, set(&[&bob]));
    let put = json!({"displayName": "patched", "members": list(&["HR-1", &bob])});
    let version =
        server.okta("PUT", &format!("/Groups/{group}"), Some(put.clone())).await.json()["meta"]["version"].clone();
    assert_eq!(server.members(&group).await, set(&[&alice, &bob]));
    let again = server.okta("PUT", &format!("/Groups/{group}"), Some(put)).await;
    assert_eq!(again.json()["meta"]["version"], version, "the same members are no change");

    let filter = json!([{"op": "remove", "path": "members[value eq \"HR-1\"]"}]);
    assert!(server.patch(&format!("/Groups/{group}"), filter).await.status < 300);
    assert_eq!(server.members(&group).await, set(&[&bob]));
    assert!(server.change(&group, "remove", list(&["8aa1a0c0-0000-4000-8000-0000000000aa"])).await.status < 300);
    assert_eq!(server.members(&group).await, set(&[]));
    assert_eq!(server.waiting().await, 0);
}

#[tokio::test]
async fn operations_of_one_request_apply_in_order_whatever_name_a_member_has() {
    let server = Server::start().await;
    let alice = server.named("alice", "HR-1").await;
    let group = server.group("team", &[&alice]).await;
    let op = |op: &str, id: &str| json!({"op": op, "path": "members", "value": [{"value": id}]});
    for (operations, expected) in [
        (json!([op("remove", "HR-1"), op("add", &alice)]), true),
        (json!([op("add", &alice), op("remove", "HR-1")]), false),
        (json!([op("remove", "HR-1"), op("add", "HR-1")]), true),
        (json!([op("replace", "HR-1"), op("remove", &alice)]), false),
    ] {
        assert!(server.patch(&format!("/Groups/{group}"), operations.clone()).await.status < 300);
        let expected = if expected { set(&[&alice]) } else { set(&[]) };
        assert_eq!(server.members(&group).await, expected, "{operations}");
    }
}

#[tokio::test]
async fn a_member_waits_for_the_only_one_who_has_its_external_id() {
    let server = Server::start().await;
    let group = server.group("team", &["HR-1", "HR-2", "0a21f0f2-0000-4000-8000-000000000001"]).await;
    assert_eq!((server.members(&group).await.len(), server.waiting().await), (0, 3));

    let alice = server.named("alice", "HR-1").await;
    assert_eq!(server.members(&group).await, set(&[&alice]));
    let bob = server.user("bob").await;
    let patch = json!([{"op": "add", "path": "externalId", "value": "HR-2"}]);
    assert_eq!(server.patch(&format!("/Users/{bob}"), patch).await.status, 200);
    assert_eq!(server.members(&group).await, set(&[&alice, &bob]));
    let carol = server.named("carol", "0A21F0F2-0000-4000-8000-000000000001").await;
    assert_eq!(server.members(&group).await, set(&[&alice, &bob, &carol]));
    assert_eq!(server.waiting().await, 0);
    let read = server.okta("GET", &format!("/Groups/{group}"), None).await.json();
    assert_eq!(read["members"].as_array().map(Vec::len), Some(3));

    // A later owner of the same value changes nothing about a member that was found.
    server.named("dave", "HR-1").await;
    assert_eq!(server.members(&group).await, set(&[&alice, &bob, &carol]));
}

#[tokio::test]
async fn an_external_id_that_looks_like_an_id_is_found_in_any_case() {
    let (mixed, lower) = ("8AA1a0c0-0000-4000-8000-0000000000Aa", "8aa1a0c0-0000-4000-8000-0000000000aa");
    let server = Server::start().await;
    let early = server.group("early", &[lower]).await;
    let alice = server.named("alice", mixed).await;
    for (index, text) in [mixed, lower, &lower.to_uppercase()].into_iter().enumerate() {
        let group = server.group(&format!("late{index}"), &[text]).await;
        assert_eq!(server.members(&group).await, set(&[&alice]), "{text}");
        assert!(server.change(&group, "remove", list(&[text])).await.status < 300);
        assert_eq!(server.members(&group).await, set(&[]), "{text}");
    }
    assert_eq!((server.members(&early).await, server.waiting().await), (set(&[&alice]), 0));
    // Two people have the `externalId` now, in different cases.
    server.named("bob", lower).await;
    let group = server.group("shared", &[lower]).await;
    assert_eq!((server.members(&group).await, server.waiting().await), (set(&[]), 1));
}

#[tokio::test]
async fn a_name_that_waits_although_it_has_one_owner_is_resolved_when_it_is_sent_again() {
    let server = Server::start().await;
    for (index, op) in ["add", "replace", "PUT", "remove"].into_iter().enumerate() {
        let (name, external) = (format!("alice{index}"), format!("HR-{index}"));
        let bob = server.user(&format!("bob{index}")).await;
        let group = server.group(&format!("team{index}"), &[&external, &bob]).await;
        let alice = server.named(&name, "elsewhere").await;
        // As an earlier version left it: the owner is known, and the name waits all the same.
        server.store.tamper(format!("UPDATE users SET external_id = '{external}' WHERE user_name = '{name}'")).await;
        assert_eq!(server.waiting().await, 1, "{op}");
        let body = list(&[&external, &bob]);
        let reply = match op {
            "PUT" => {
                let body = json!({"displayName": format!("team{index}"), "members": body});
                server.okta("PUT", &format!("/Groups/{group}"), Some(body)).await
            }
            _ => server.change(&group, op, body).await,
        };
        assert!(reply.status < 300, "{op}: {}", reply.text);
        let expected = if op == "remove" { set(&[]) } else { set(&[&alice, &bob]) };
        assert_eq!((server.members(&group).await, server.waiting().await), (expected, 0), "{op}");
        let group = crate::model::GroupId(group.parse().unwrap());
        let stored = server.store.group(&"okta".parse().unwrap(), group).await.unwrap().unwrap();
        assert_eq!(stored.member_count, if op == "remove" { 0 } else { 2 }, "{op}");
    }
}

#[tokio::test]
async fn what_a_change_of_a_group_makes_of_a_waiting_member_is_in_its_audit_row() {
    let server = Server::start().await;
    let set_id = |id: &str| json!([{"op": "replace", "path": "externalId", "value": id}]);
    let other = server.group("other", &[]).await;
    assert_eq!(server.patch(&format!("/Groups/{other}"), set_id("G-3")).await.status, 200);
    server.named("alice", "G-3").await;
    server.group("shared", &["G-3"]).await;
    assert_eq!(server.patch(&format!("/Groups/{other}"), set_id("G-4")).await.status, 200);
    let last = server.store.highest_seq().await.unwrap();
    let rows = server.store.audit_after(0, 100).await.unwrap();
    let row = rows.into_iter().rfind(|row| row.entry.action == "group.update").unwrap();
    assert_eq!(row.entry.cause_seqs, [last - 1, last], "the change of the group, and of the members of another");
}

#[tokio::test]
async fn a_group_that_gets_the_external_id_later_joins_where_it_waits() {
    let server = Server::start().await;
    let okta: crate::model::ProviderName = "okta".parse().unwrap();
    let team = server.group("team", &["G-1"]).await;
    let nested = server.group("nested", &["G-2"]).await;
    let set_id = |id: &str| json!([{"op": "replace", "path": "externalId", "value": id}]);
    assert_eq!(server.patch(&format!("/Groups/{nested}"), set_id("G-1")).await.status, 200);
    assert_eq!((server.members(&team).await, server.waiting().await), (set(&[&nested]), 1));

    // Shared until one of the two gives it up.
    let other = server.group("other", &[]).await;
    assert_eq!(server.patch(&format!("/Groups/{other}"), set_id("G-3")).await.status, 200);
    let alice = server.named("alice", "G-3").await;
    let shared = server.group("shared", &["G-3"]).await;
    assert_eq!(server.waiting().await, 2);
    assert_eq!(server.patch(&format!("/Groups/{other}"), set_id("G-4")).await.status, 200);
    assert_eq!((server.members(&shared).await, server.waiting().await), (set(&[&alice]), 1));

    // A group that waits for itself is counted, and its answer has the version that is stored.
    let reply = server.patch(&format!("/Groups/{nested}"), set_id("G-2")).await;
    let read = server.okta("GET", &format!("/Groups/{nested}"), None).await;
    assert_eq!(reply.header("etag"), read.header("etag"));
    let stored = server.store.group(&okta, crate::model::GroupId(nested.parse().unwrap())).await.unwrap().unwrap();
    assert_eq!((stored.member_count, server.waiting().await), (1, 0));
}

#[tokio::test]
async fn a_shared_external_id_names_nobody() {
    let server = Server::start().await;
    let alice = server.named("alice", "same").await;
    let bob = server.named("bob", "same").await;
    let group = server.group("team", &["same"]).await;
    assert_eq!((server.members(&group).await.len(), server.waiting().await), (0, 1));
    server.change(&group, "replace", list(&["same"])).await.refused(400, Some("invalidValue"));
    assert_eq!(server.waiting().await, 1);

    let patch = json!([{"op": "replace", "path": "externalId", "value": "other"}]);
    assert_eq!(server.patch(&format!("/Users/{bob}"), patch).await.status, 200);
    assert_eq!(server.members(&group).await, set(&[&alice]), "unique now");

    let group = server.group("second", &["third"]).await;
    assert!(server.change(&group, "remove", list(&["third"])).await.status < 300);
    server.named("carol", "third").await;
    assert_eq!(server.members(&group).await, set(&[]), "removed before it came");
}

#[tokio::test]
async fn whoever_leaves_takes_the_waiting_memberships_along() {
    let server = Server::start().await;
    for leave in ["deactivate", "deactivate and rename", "delete"] {
        let id = |name: &str| format!("{name}-{}", leave.replace(' ', "-"));
        let alice = server.named(&id("alice"), leave).await;
        server.named(&id("bob"), leave).await;
        let group = server.group(leave, &[leave]).await;
        assert_eq!(server.waiting().await, 1);
        let path = format!("/Users/{alice}");
        let left = match leave {
            "delete" => server.okta("DELETE", &path, None).await,
            "deactivate and rename" => {
                let both = json!({"active": false, "externalId": "gone"});
                server.patch(&path, json!([{"op": "replace", "value": both}])).await
            }
            _ => server.patch(&path, json!([{"op": "replace", "value": {"active": false}}])).await,
        };
        assert!(left.status < 300, "{}", left.text);
        assert_eq!(server.waiting().await, 0, "{leave}");
        if leave == "deactivate" {
            let renamed = json!([{"op": "replace", "path": "externalId", "value": "renamed"}]);
            assert_eq!(server.patch(&path, renamed).await.status, 200);
        }
        assert_eq!(server.members(&group).await, set(&[]), "{leave}");
    }
}

#[tokio::test]
async fn more_waiting_members_than_are_kept_are_refused_as_a_whole() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let group = server.group("team", &[]).await;
    let many = |count: usize| -> Vec<String> { (0..count).map(|n| format!("HR-{n}")).collect() };
    let ids = many(10_001);
    let ids: Vec<&str> = ids.iter().map(String::as_str).chain([alice.as_str()]).collect();
    for op in ["add", "replace"] {
        server.change(&group, op, list(&ids)).await.refused(400, Some("invalidValue"));
    }
    let body = json!({"displayName": "team", "members": list(&ids)});
    server.okta("PUT", &format!("/Groups/{group}"), Some(body)).await.refused(400, Some("invalidValue"));
    let body = json!({"displayName": "other", "members": list(&ids)});
    server.okta("POST", "/Groups", Some(body)).await.refused(400, Some("invalidValue"));
    assert_eq!((server.members(&group).await.len(), server.waiting().await), (0, 0));

    assert!(server.change(&group, "add", list(&ids[1..])).await.status < 300);
    assert_eq!((server.members(&group).await, server.waiting().await), (set(&[&alice]), 10_000));
    server.change(&group, "add", list(&["one more"])).await.refused(400, Some("invalidValue"));
    assert!(server.change(&group, "add", list(&["HR-7"])).await.status < 300, "it waits already");
    assert_eq!(server.waiting().await, 10_000);
}

#[tokio::test]
async fn a_patch_of_a_group_answers_the_group_unless_it_is_large_or_of_entra() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let group = server.group("team", &[]).await;
    let reply = server.change(&group, "add", list(&[&alice])).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["members"][0]["value"], json!(alice));
    assert_eq!(reply.json()["meta"]["version"], json!(reply.header("etag")));

    let okta: crate::model::ProviderName = "okta".parse().unwrap();
    let entra = std::collections::BTreeMap::from([(okta, crate::scim::Dialect::Entra)]);
    server.tokens.set_dialects(entra);
    let reply = server.change(&group, "add", list(&[&alice])).await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    let path = format!("/Groups/{group}?attributes=displayName");
    let add = json!([{"op": "add", "path": "members", "value": list(&[&alice])}]);
    assert_eq!(server.patch(&path, add).await.json()["displayName"], "team", "attributes force an answer");
    server.tokens.set_dialects(std::collections::BTreeMap::new());

    // The signs of one request are enough.
    let add = json!([{"op": "Add", "path": "members", "value": list(&[&alice])}]);
    assert_eq!(server.patch(&format!("/Groups/{group}"), add).await.status, 204);
}

#[tokio::test]
async fn a_patch_of_a_group_of_more_than_a_thousand_is_answered_without_it() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for index in 0..1_001 {
        ids.push(server.user(&format!("u{index}")).await);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let group = server.group("team", &ids[..999]).await;
    assert_eq!(
        server.change(&group, "add", list(&ids[999..1_000])).await.json()["members"].as_array().map(Vec::len),
        Some(1_000)
    );
    assert_eq!(server.change(&group, "add", list(&ids[1_000..])).await.status, 204);
}

#[tokio::test]
async fn a_name_that_waits_can_be_removed_and_added_in_one_request() {
    let server = Server::start().await;
    let group = server.group("team", &["HR-1"]).await;
    let op = |op: &str| json!({"op": op, "path": "members", "value": [{"value": "HR-1"}]});
    let both = json!([op("remove"), op("add")]);
    assert_eq!(server.patch(&format!("/Groups/{group}"), both).await.status, 200);
    assert_eq!(server.waiting().await, 1);
}
