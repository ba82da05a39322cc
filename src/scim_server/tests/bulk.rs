//! Bulk requests (RFC 7644 §3.7).

use serde_json::{Value, json};

use super::{Reply, Server};
use crate::scim::FindingCode;

const URN: &str = "urn:ietf:params:scim:api:messages:2.0:BulkRequest";

impl Server {
    async fn bulk(&self, operations: Value) -> Reply {
        self.okta("POST", "/Bulk", Some(json!({"schemas": [URN], "Operations": operations}))).await
    }
}

/// The status of each operation in the answer.
fn statuses(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    assert_eq!(body["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:BulkResponse"]));
    body["Operations"].as_array().unwrap().iter().map(|done| done["status"].as_str().unwrap().to_owned()).collect()
}

fn id(reply: &Reply, index: usize) -> String {
    let body = reply.json();
    let location = body["Operations"][index]["location"].as_str().unwrap();
    location.rsplit('/').next().unwrap().to_owned()
}

fn post(path: &str, bulk_id: &str, data: &Value) -> Value {
    json!({"method": "POST", "path": path, "bulkId": bulk_id, "data": data})
}

#[tokio::test]
async fn operations_of_each_method_are_carried_out_and_answered_in_order() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let version = server.okta("GET", &format!("/Users/{alice}"), None).await.header("etag").to_owned();
    let operations = json!([
        post("/Users", "qwerty", &json!({"userName": "carol"})),
        {"method": "put", "path": format!("/Users/{alice}"), "version": version, "data": {"userName": "alicia"}},
        {"method": "PATCH", "path": format!("Users/{alice}"), "data": {"Operations": [{"op": "replace", "path": "title", "value": "x"}]}},
        {"method": "PATCH", "path": format!("/Users/{alice}"), "version": version, "data": {"Operations": [{"op": "remove", "path": "title"}]}},
        {"method": "DELETE", "path": format!("/Users/{bob}")},
        {"method": "DELETE", "path": format!("/Users/{bob}")},
        {"method": "GET", "path": format!("/Users/{alice}")},
        post("/Users", "taken", &json!({"userName": "ALICIA"})),
        {"method": "POST", "path": "/Users", "data": {"userName": "nobody"}},
        {"method": "POST", "path": "/Things", "bulkId": "t", "data": {}},
        {"method": "PUT", "path": "/Users", "data": {"userName": "x"}},
        post("/Users", "none", &Value::Null),
    ]);
    let reply = server.bulk(operations).await;
    let expected = ["201", "200", "200", "412", "204", "404", "405", "409", "400", "404", "400", "400"];
    assert_eq!(statuses(&reply), expected, "{}", reply.text);
    let done = &reply.json()["Operations"];
    assert_eq!((&done[0]["bulkId"], &done[0]["method"]), (&json!("qwerty"), &json!("POST")));
    let carol = server.okta("GET", &format!("/Users/{}", id(&reply, 0)), None).await;
    assert_eq!(carol.json()["meta"]["location"], done[0]["location"]);
    assert_eq!(done[0]["version"], json!(carol.header("etag")));
    assert_eq!(done[7]["response"]["scimType"], "uniqueness");
    assert_eq!(done[7].get("location"), None, "nothing was created");
    let user = server.okta("GET", &format!("/Users/{alice}"), None).await.json();
    assert_eq!((&user["userName"], &user["title"]), (&json!("alicia"), &json!("x")));
    assert!(
        server
            .traffic
            .of(&"okta".parse().unwrap())
            .findings
            .keys()
            .any(|finding| finding.code.as_str() == "Uniqueness")
    );
}

#[tokio::test]
async fn references_are_followed_in_any_order_and_in_paths() {
    let server = Server::start().await;
    let operations = json!([
        {"method": "PATCH", "path": "/Groups/bulkId:g", "data": {"Operations": [{"op": "add", "path": "members", "value": [{"value": "bulkId:b"}]}]}},
        {"method": "PATCH", "path": "/Groups/bulkId:g", "data": {"Operations": [{"op": "remove", "path": "members[value eq \"bulkId:a\"]"}]}},
        post("/Groups", "g", &json!({"displayName": "team", "members": [{"value": "bulkId:a"}, {"value": "bulkId:c"}]})),
        post("/Users", "a", &json!({"userName": "alice"})),
        post("/Users", "b", &json!({"userName": "bob"})),
        post("/Users", "c", &json!({"userName": "carol", "title": "bulkId is no reference"})),
    ]);
    let reply = server.bulk(operations).await;
    assert_eq!(statuses(&reply), ["200", "200", "201", "201", "201", "201"], "{}", reply.text);
    let expected = std::collections::BTreeSet::from([id(&reply, 4), id(&reply, 5)]);
    assert_eq!(server.members(&id(&reply, 2)).await, expected);
    assert!(!server.found(FindingCode::MemberUnknown), "each comes after those that it refers to");
}

#[tokio::test]
async fn groups_that_refer_to_each_other_are_all_created_or_none() {
    let server = Server::start().await;
    let circle = |last: &str| {
        json!([
            post("/Groups", "a", &json!({"displayName": "a", "members": [{"value": "bulkId:b"}]})),
            post("/Groups", "b", &json!({"displayName": "b", "members": [{"value": "bulkId:c"}]})),
            post("/Groups", "c", &json!({"displayName": last, "members": [{"value": "bulkId:a"}]})),
            {"method": "PATCH", "path": "/Groups/bulkId:a", "data": {"Operations": [{"op": "replace", "path": "displayName", "value": "first"}]}},
        ])
    };
    let reply = server.bulk(circle("b")).await;
    assert_eq!(statuses(&reply), ["400", "400", "409", "400"], "{}", reply.text);
    assert_eq!(server.okta("GET", "/Groups", None).await.json()["totalResults"], 0);
    assert_eq!(server.store.counts(&"okta".parse().unwrap()).await.unwrap().pending, 0);
    let reply = server.bulk(circle("c")).await;
    assert_eq!(statuses(&reply), ["201", "201", "201", "200"], "{}", reply.text);
    for (index, member) in [(0, 1), (1, 2), (2, 0)] {
        assert!(server.members(&id(&reply, index)).await.contains(&id(&reply, member)), "{index}");
    }
}

#[tokio::test]
async fn what_refers_to_a_failure_fails_and_nothing_else() {
    let server = Server::start().await;
    server.user("alice").await;
    let operations = json!([
        post("/Users", "a", &json!({"userName": "alice"})),
        post("/Groups", "g", &json!({"displayName": "team", "members": [{"value": "bulkId:a"}]})),
        post("/Groups", "h", &json!({"displayName": "other", "members": [{"value": "bulkId:nobody"}]})),
        post("/Groups", "i", &json!({"displayName": "third"})),
    ]);
    assert_eq!(statuses(&server.bulk(operations).await), ["409", "400", "400", "201"]);
    assert_eq!(server.okta("GET", "/Groups", None).await.json()["totalResults"], 1);
}

#[tokio::test]
async fn the_rest_is_not_tried_after_as_many_failures_as_permitted() {
    let server = Server::start().await;
    let user = |name: &str, bulk_id: &str| post("/Users", bulk_id, &json!({"userName": name}));
    let operations = json!([user("a", "1"), user("a", "2"), user("b", "3"), user("a", "4"), user("c", "5")]);
    let body = |limit: u32| json!({"schemas": [URN], "failOnErrors": limit, "Operations": operations});
    assert_eq!(statuses(&server.okta("POST", "/Bulk", Some(body(2))).await), ["201", "409", "201", "409"]);
    assert_eq!(statuses(&server.okta("POST", "/Bulk", Some(body(1))).await), ["409"]);
    assert_eq!(server.okta("GET", "/Users", None).await.json()["totalResults"], 2);
}

#[tokio::test]
async fn a_bulk_request_that_cannot_be_meant_is_refused_as_a_whole() {
    let server = Server::start().await;
    let user = |bulk_id: &str| post("/Users", bulk_id, &json!({"userName": bulk_id}));
    for (body, scim_type) in [
        (json!({}), "invalidSyntax"),
        (json!({"Operations": {}}), "invalidSyntax"),
        (json!({"Operations": [7]}), "invalidSyntax"),
        (json!({"Operations": [user("a"), {"method": 7}]}), "invalidSyntax"),
        (json!({"Operations": [user("a")], "failOnErrors": "1"}), "invalidSyntax"),
        (json!({"Operations": [user("a"), user("a")]}), "invalidValue"),
    ] {
        server.okta("POST", "/Bulk", Some(body)).await.refused(400, Some(scim_type));
    }
    let many: Vec<Value> = (0..1_001).map(|number| user(&number.to_string())).collect();
    server.bulk(json!(many)).await.refused(413, None);
    assert_eq!(server.okta("GET", "/Users", None).await.json()["totalResults"], 0);
    let config = server.okta("GET", "/ServiceProviderConfig", None).await.json();
    assert_eq!((&config["bulk"]["supported"], &config["bulk"]["maxOperations"]), (&json!(true), &json!(1_000)));
    server.okta("GET", "/Bulk", None).await.refused(405, None);
}

#[tokio::test]
async fn references_as_deep_as_a_request_permits_are_followed() {
    let server = Server::start().await;
    let group = |number: usize| {
        let members = if number == 999 { json!([]) } else { json!([{"value": format!("bulkId:{}", number + 1)}]) };
        post("/Groups", &number.to_string(), &json!({"displayName": format!("g{number}"), "members": members}))
    };
    let operations: Vec<Value> = (0..1_000).map(group).collect();
    let reply = server.bulk(json!(operations)).await;
    assert!(statuses(&reply).iter().all(|status| status == "201"));
    assert_eq!(server.members(&id(&reply, 0)).await, std::collections::BTreeSet::from([id(&reply, 1)]));
}

#[tokio::test]
async fn a_deviation_of_one_operation_refuses_no_other() {
    let server = Server::start().await;
    server.tokens.set_strict(std::collections::BTreeSet::from(["okta".parse().unwrap()]));
    let user = |name: &str| json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name});
    let mut odd = user("odd");
    odd["active"] = json!("true");
    odd["emails"] = json!(7);
    let operations = json!([post("/Users", "1", &odd), post("/Users", "2", &user("even"))]);
    assert_eq!(statuses(&server.bulk(operations).await), ["400", "201"]);
    let odd: Vec<Value> =
        (0..60).map(|n| json!({"userName": format!("u{n}"), "active": "true", "nickName": n})).collect();
    let odd: Vec<Value> = odd.iter().enumerate().map(|(n, user)| post("/Users", &n.to_string(), user)).collect();
    assert!(statuses(&server.bulk(json!(odd)).await).iter().all(|status| status == "400"));
}
