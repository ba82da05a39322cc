//! What the provider's statistics say about requests that are refused or accepted out of kindness.

use std::collections::BTreeMap;

use serde_json::json;

use super::{ENTRA_TOKEN, OKTA_TOKEN, Reply, Server};
use crate::model::ProviderName;

impl Reply {
    fn failed(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text);
    }
}

/// The findings of a provider: code, place and number.
fn findings(server: &Server, provider: &str) -> BTreeMap<(&'static str, String), u64> {
    let seen = server.traffic.of(&ProviderName::new(provider).unwrap());
    let each = seen.findings.iter();
    each.map(|(finding, seen)| ((finding.code.as_str(), finding.json_pointer()), seen.count)).collect()
}

fn only(code: &'static str, pointer: &str, count: u64) -> BTreeMap<(&'static str, String), u64> {
    BTreeMap::from([((code, pointer.to_owned()), count)])
}

async fn get(server: &Server, path: &str, authorization: Option<&str>) -> u16 {
    let mut request = server.client.get(format!("http://{}{path}", server.address));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn each_way_to_have_no_accepted_token_is_told_apart() {
    let server = Server::start().await;
    let path = "/idp/okta/scim/v2/Users";
    for _ in 0..3 {
        assert_eq!(get(&server, path, Some("Bearer something-else-0123456789abcdef")).await, 401);
    }
    assert_eq!(findings(&server, "okta"), only("TokenNotAccepted", "", 3));
    assert_eq!(get(&server, path, Some(OKTA_TOKEN)).await, 401);
    assert_eq!(get(&server, path, None).await, 401);
    let found = findings(&server, "okta");
    assert_eq!(found[&("BearerMissing", String::new())], 1);
    assert_eq!(found[&("AuthorizationMissing", String::new())], 1);
    assert_eq!(findings(&server, "entra"), BTreeMap::new());
}

#[tokio::test]
async fn a_wrong_base_url_is_a_finding_of_the_provider_whose_token_comes_with_it() {
    let bearer = format!("Bearer {OKTA_TOKEN}");
    for (path, code) in [
        ("/scim/v2/Users", "BaseUrlWrong"),
        ("/Users", "BaseUrlWrong"),
        ("/idp/octa/scim/v2/Users", "BaseUrlWrong"),
        ("/idp/okta/Users", "BaseUrlWrong"),
        ("/idp/okta/scim/v2/scim/v2/Users", "BaseUrlRepeated"),
        ("/idp/okta/scim/v2/idp/okta/scim/v2/Users", "BaseUrlRepeated"),
        ("/idp/okta/scim/v2/Usersx", "EndpointUnknown"),
    ] {
        let server = Server::start().await;
        let status = get(&server, path, Some(&bearer)).await;
        assert!(status == 404 || status == 401, "{path}: {status}");
        assert_eq!(findings(&server, "okta"), only(code, "", 1), "{path}");
    }
    let server = Server::start().await;
    assert_eq!(get(&server, "/idp/okta/Users", None).await, 404);
    assert_eq!(findings(&server, "okta"), only("BaseUrlWrong", "", 1), "by the name in the path");
    assert_eq!(get(&server, "/scim/v2/Users", Some("Bearer nobody-0123456789abcdef")).await, 404);
    assert_eq!(findings(&server, "okta"), only("BaseUrlWrong", "", 1), "a stranger's request is nobody's");
}

#[tokio::test]
async fn refusals_are_findings_with_the_attribute_and_never_with_a_value() {
    let server = Server::start().await;
    let id = server.user("alice@corp.example").await;
    let patch = |value| json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [value]});
    let user = format!("/Users/{id}");
    server.okta("PATCH", &user, Some(patch(json!({"op": "replace", "path": "email", "value": "x"})))).await.failed(400);
    server
        .okta("PATCH", &user, Some(patch(json!({"op": "replace", "path": "active", "value": "maybe"}))))
        .await
        .failed(400);
    server
        .okta(
            "PATCH",
            &user,
            Some(patch(json!({"op": "replace", "path": "emails[value eq \"bob@corp.example\"", "value": "x"}))),
        )
        .await
        .failed(400);
    server.okta("GET", "/Users?filter=bob@corp.example", None).await.failed(400);
    server.okta("POST", "/Users", Some(json!({"userName": "Alice@corp.example"}))).await.failed(409);
    server.okta("POST", "/Users", Some(json!({"displayName": "x"}))).await.failed(400);
    let found = findings(&server, "okta");
    for wanted in [
        ("InvalidPath", "/email"),
        ("InvalidValue", "/active"),
        ("InvalidFilter", ""),
        ("Uniqueness", ""),
        ("InvalidValue", "/userName"),
    ] {
        assert!(found.contains_key(&(wanted.0, wanted.1.to_owned())), "{wanted:?} in {found:?}");
    }
    assert!(!format!("{found:?}").contains("bob"), "{found:?}");
    let seen = server.traffic.of(&ProviderName::new("okta").unwrap());
    let hints: Vec<String> = seen.findings.keys().map(crate::scim::Finding::hint).collect();
    assert!(hints.iter().any(|hint| hint.contains("did you mean `emails[0].value`?")), "{hints:?}");
}

#[tokio::test]
async fn what_is_right_leaves_no_finding() {
    let server = Server::start().await;
    let id = server.user("alice@corp.example").await;
    server.okta("GET", "/Users/00000000-0000-4000-8000-0000000000ff", None).await.failed(404);
    let reply = server.okta("GET", &format!("/Users/{id}"), None).await;
    assert_eq!(reply.status, 200);
    assert_eq!(server.of("entra", ENTRA_TOKEN, "GET", "/Users", None).await.status, 200);
    assert_eq!(findings(&server, "entra"), BTreeMap::new());
}

#[tokio::test]
async fn several_may_have_one_external_id_and_a_lookup_answers_all_of_them() {
    let server = Server::start().await;
    let schemas = json!(["urn:ietf:params:scim:schemas:core:2.0:User"]);
    let create = async |name: &str| {
        let body = json!({"schemas": schemas, "userName": name, "externalId": "literal"});
        server.okta("POST", "/Users", Some(body)).await
    };
    assert_eq!(create("a@corp.example").await.status, 201);
    assert_eq!(findings(&server, "okta"), BTreeMap::new());
    assert_eq!(create("b@corp.example").await.status, 201);
    assert_eq!(findings(&server, "okta"), only("ExternalIdShared", "/externalId", 1));
    let found = server.okta("GET", "/Users?filter=externalId%20eq%20%22literal%22", None).await.json();
    assert_eq!(found["totalResults"], 2);
    let id = server.user("c@corp.example").await;
    let operations = json!([{"op": "replace", "path": "externalId", "value": "literal"}]);
    assert_eq!(server.patch(&format!("/Users/{id}"), operations).await.status, 200);
    assert_eq!(findings(&server, "okta"), only("ExternalIdShared", "/externalId", 2));
}
