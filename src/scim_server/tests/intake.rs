//! Values in forms that clients send although the RFCs have another.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Server;
use crate::scim::FindingCode;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";

async fn created(server: &Server, body: Value) -> (String, Value) {
    let reply = server.okta("POST", "/Users", Some(body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let user = reply.json();
    (format!("/Users/{}", user["id"].as_str().unwrap()), user)
}

#[tokio::test]
async fn active_stays_what_it_is_when_it_is_unset_and_is_always_shown() {
    let server = Server::start().await;
    for active in [true, false] {
        let name = format!("{active}@corp.example");
        let body = json!({"schemas": [USER], "userName": name, "active": active});
        let (path, _) = created(&server, body).await;
        for operation in [
            json!({"op": "remove", "path": "active"}),
            json!({"op": "replace", "path": "active", "value": null}),
            json!({"op": "replace", "value": {"active": null}}),
            json!({"op": "add", "path": "active", "value": null}),
            json!({"op": "remove", "path": format!("{USER}:active")}),
        ] {
            let reply = server.patch(&path, json!([operation])).await;
            assert_eq!((reply.status, &reply.json()["active"]), (200, &json!(active)), "{operation}");
        }
        for body in [json!({"userName": name}), json!({"userName": name, "active": null})] {
            let reply = server.okta("PUT", &path, Some(body.clone())).await;
            assert_eq!((reply.status, &reply.json()["active"]), (200, &json!(active)), "{body}");
        }
        assert_eq!(server.okta("GET", &path, None).await.json()["active"], json!(active));
    }
}

#[tokio::test]
async fn required_and_read_only_attributes_cannot_be_removed_or_changed() {
    let server = Server::start().await;
    let user = format!("/Users/{}", server.user("alice@corp.example").await);
    let group = format!("/Groups/{}", server.group("team", &[]).await);
    for (path, operation) in [
        (&user, json!({"op": "remove", "path": "userName"})),
        (&user, json!({"op": "remove", "path": "id"})),
        (&user, json!({"op": "replace", "path": "id", "value": "x"})),
        (&user, json!({"op": "replace", "path": "meta", "value": {"version": "x"}})),
        (&user, json!({"op": "replace", "path": "meta.version", "value": "x"})),
        (&user, json!({"op": "remove", "path": "meta"})),
        (&user, json!({"op": "replace", "value": {"meta": {"version": "x"}}})),
        (&user, json!({"op": "add", "path": "groups", "value": [{"value": "x"}]})),
        (&user, json!({"op": "remove", "path": "groups"})),
        (&user, json!({"op": "remove", "path": "groups[value eq \"x\"]"})),
        (&user, json!({"op": "add", "value": {"groups": [{"value": "x"}]}})),
        (&group, json!({"op": "remove", "path": "displayName"})),
        (&group, json!({"op": "replace", "path": "meta", "value": {}})),
    ] {
        server.patch(path, json!([operation.clone()])).await.refused(400, Some("mutability"));
    }
}

#[tokio::test]
async fn members_as_json_text_are_read_with_a_path_too_and_none_is_dropped() {
    let server = Server::start().await;
    let a = server.user("a@corp.example").await;
    let b = server.user("b@corp.example").await;
    let both = BTreeSet::from([a.clone(), b.clone()]);
    let one = |id: &str| json!({"value": id}).to_string();
    for value in [
        json!([{"value": a}, one(&b)]),
        json!([one(&a), one(&b)]),
        json!(json!([{"value": a}, {"value": b}]).to_string()),
    ] {
        for verb in ["add", "replace"] {
            let group = server.group(&format!("{verb} {value}").chars().take(90).collect::<String>(), &[]).await;
            let path = format!("/Groups/{group}");
            let reply = server.patch(&path, json!([{"op": verb, "path": "members", "value": value}])).await;
            assert!(reply.status < 300, "{}", reply.text);
            assert_eq!(server.members(&group).await, both, "{verb} {value}");
            let reply = server.patch(&path, json!([{"op": "remove", "path": "members", "value": value}])).await;
            assert!(reply.status < 300, "{}", reply.text);
            assert_eq!(server.members(&group).await, BTreeSet::new(), "{value}");
        }
    }
    assert!(server.found(FindingCode::JsonInString));
    let group = format!("/Groups/{}", server.group("text", &[]).await);
    for value in [json!("[{\"value\": "), json!("{\"value\": [1]}"), json!([{"value": a}, "{}"]), json!("[1]")] {
        server
            .patch(&group, json!([{"op": "add", "path": "members", "value": value}]))
            .await
            .refused(400, Some("invalidValue"));
    }
}

#[tokio::test]
async fn a_member_is_removed_by_its_id_and_type() {
    let server = Server::start().await;
    let (a, b) = (server.user("a@corp.example").await, server.user("b@corp.example").await);
    let group = server.group("team", &[&a, &b]).await;
    let path = format!("members[type eq \"User\" and value eq \"{a}\"]");
    let reply = server.patch(&format!("/Groups/{group}"), json!([{"op": "remove", "path": path}])).await;
    assert!(reply.status < 300, "{}", reply.text);
    assert_eq!(server.members(&group).await, BTreeSet::from([b]));
}

#[tokio::test]
async fn a_number_for_a_text_and_a_wrapped_simple_value_refuse_nobody() {
    let server = Server::start().await;
    let enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
    let (path, user) = created(
        &server,
        json!({
            "userName": "a@corp.example", "title": 7, "nickName": {"value": "al"}, "externalId": 12.5,
            "displayName": [{"$ref": null, "value": "Alice"}], "active": {"value": "True"}, enterprise: {"employeeNumber": 4711},
            "name": {"givenName": 1},
        }),
    )
    .await;
    assert_eq!(user["title"], "7");
    assert_eq!(user["externalId"], "12.5");
    assert_eq!(user["nickName"], "al");
    assert_eq!(user["displayName"], "Alice");
    assert_eq!(user["active"], true);
    assert_eq!(user["name"]["givenName"], "1");
    assert_eq!(user[enterprise]["employeeNumber"], "4711");
    assert!(server.found(FindingCode::NumberAsText));
    let operations = json!([{"op": "replace", "path": "title", "value": [{"$ref": null, "value": "Chief"}]}]);
    assert_eq!(server.patch(&path, operations).await.json()["title"], "Chief");
    for value in [json!({"value": "x", "other": 1}), json!({"a": "x"}), json!({"value": {"value": "x"}}), json!([1, 2])]
    {
        let operations = json!([{"op": "replace", "path": "title", "value": value}]);
        server.patch(&path, operations).await.refused(400, Some("invalidValue"));
    }
}

#[tokio::test]
async fn replacing_an_element_leaves_nothing_of_the_old_one_but_what_selects_it() {
    let server = Server::start().await;
    let emails = json!([{"value": "old@corp.example", "type": "work", "primary": true, "display": "Old"}, {"value": "h@corp.example", "type": "home"}]);
    let (path, _) = created(&server, json!({"userName": "a@corp.example", "emails": emails})).await;
    let replace =
        json!([{"op": "replace", "path": "emails[type eq \"work\"]", "value": {"value": "new@corp.example"}}]);
    let user = server.patch(&path, replace).await.json();
    let wanted = json!([{"value": "h@corp.example", "type": "home"}, {"value": "new@corp.example", "type": "work"}]);
    let mut given = user["emails"].as_array().unwrap().clone();
    given.sort_by_key(|email| email["value"].as_str().unwrap().to_owned());
    assert_eq!(json!(given), wanted);
    let add = json!([{"op": "add", "path": "emails[type eq \"work\"]", "value": {"display": "New"}}]);
    let user = server.patch(&path, add).await.json();
    assert!(user["emails"].to_string().contains("new@corp.example"), "an addition completes: {user}");
}

#[tokio::test]
async fn a_certificate_has_to_be_base64() {
    let server = Server::start().await;
    let body = |value: &str| json!({"userName": "a@corp.example", "x509Certificates": [{"value": value}]});
    for value in ["not base64!", "AAA", "A"] {
        server.okta("POST", "/Users", Some(body(value))).await.refused(400, Some("invalidValue"));
    }
    created(&server, body("MIIB/+8=")).await;
}

#[tokio::test]
async fn endpoints_have_no_case_and_a_byte_order_mark_is_no_part_of_the_body() {
    let server = Server::start().await;
    let id = server.user("a@corp.example").await;
    for path in ["/users", "/USERS", "/users/", "/groups", "/serviceproviderconfig", "/schemas", "/resourcetypes"] {
        assert_eq!(server.okta("GET", path, None).await.status, 200, "{path}");
    }
    assert_eq!(server.okta("GET", &format!("/users/{id}"), None).await.status, 200);
    assert_eq!(server.okta("POST", "/users/.Search", Some(json!({}))).await.status, 200);
    let url = format!("http://{}/idp/okta/scim/v2/Users", server.address);
    let request =
        server.client.post(url).bearer_auth(super::OKTA_TOKEN).header("content-type", "application/scim+json");
    let reply = request.body("\u{feff}{\"userName\": \"b@corp.example\"}").send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 201);
}
