//! The cost of a request is bounded, and falls on its own tenant.

use serde_json::{Value, json};

use super::{ENTRA_TOKEN, Server};

#[tokio::test]
async fn a_patch_of_seven_hundred_kilobytes_of_filters_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let emails: Vec<Value> = (0..500).map(|number| json!({"value": format!("{number:060}"), "type": "w"})).collect();
    let body = json!({"userName": "heavy", "emails": emails});
    let user = server.okta("POST", "/Users", Some(body)).await.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/Users/{user}");
    let before = server.okta("GET", &path, None).await.text;
    let filter = vec!["value co \"x\""; 64].join(" or ");
    let operation = json!({"op": "remove", "path": format!("emails[{filter}].display"), "name": "y".repeat(100)});
    let operations = json!(vec![operation; 600]);
    assert!(operations.to_string().len() > 700_000);
    let other = json!({"userName": "b"});
    let (heavy, light) =
        tokio::join!(server.patch(&path, operations), server.of("entra", ENTRA_TOKEN, "POST", "/Users", Some(other)),);
    heavy.refused(400, Some("tooMany"));
    assert_eq!(light.status, 201, "{}", light.text);
    assert_eq!(server.okta("GET", &path, None).await.text, before);
}

#[tokio::test]
async fn ten_thousand_members_in_one_request_are_stored_and_replaced_and_removed() {
    let server = Server::start().await;
    let alice = server.user("alice@example.com").await;
    let list = |from: u32| {
        let unknown = (from..from + 10_000).map(|n| json!({"value": format!("00000000-0000-4000-8000-{n:012}")}));
        unknown.chain([json!({"value": alice})]).collect::<Vec<Value>>()
    };
    let body = json!({"displayName": "team", "members": list(0)});
    let created = server.okta("POST", "/Groups", Some(body)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let group = created.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/Groups/{group}?attributes=displayName");
    let pending = async || server.store.counts(&"okta".parse().unwrap()).await.unwrap().pending;
    assert_eq!(pending().await, 10_000);
    let body = json!({"displayName": "renamed", "members": list(5_000)});
    let put = server.okta("PUT", &path, Some(body)).await;
    assert_eq!(put.json()["displayName"], "renamed", "{}", put.text);
    assert_eq!(pending().await, 10_000);
    assert!(server.members(&group).await.contains(&alice));
    assert_eq!(server.patch(&path, json!([{"op": "remove", "path": "members"}])).await.status, 200);
    assert_eq!(pending().await, 0);
    assert!(server.members(&group).await.is_empty());
}
