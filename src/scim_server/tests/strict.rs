//! `strictness: Strict`: what is accepted out of kindness otherwise is refused, with the way to mend it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ENTRA_TOKEN, Server};
use crate::model::ProviderName;
use crate::scim::FindingCode;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
const FOREIGN: &str = "jyoung";

/// A server for which `okta` is strict and `entra` is not.
async fn started() -> Server {
    let server = Server::start().await;
    server.tokens.set_strict(BTreeSet::from([ProviderName::new("okta").unwrap()]));
    server
}

fn user(name: &str, more: &Value) -> Value {
    let mut body = json!({"schemas": [USER], "userName": name});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_body_that_deviates_is_refused_with_its_place_and_the_way_to_mend_it() {
    let server = started().await;
    for (more, scim_type, words) in [
        (json!({"active": "True"}), "invalidValue", ["`active`", "without quotation marks"]),
        (json!({"title": 7}), "invalidValue", ["`title`", "string"]),
        (json!({"title": {"value": "a"}}), "invalidValue", ["`title`", "send the value itself"]),
        (json!({"title": ["a"]}), "invalidValue", ["`title`", "not a list"]),
        (json!({"emails": {"value": "a@b"}}), "invalidValue", ["`emails`", "must be a list"]),
        (json!({"emails": ["a@b"]}), "invalidValue", ["`emails`", "object"]),
        (
            json!({"emails": [{"value": "a", "primary": true}, {"value": "b", "primary": true}]}),
            "invalidValue",
            ["`emails`", "mark one"],
        ),
        (json!({"email": "a@b"}), "invalidValue", ["`email`", "did you mean `emails[0].value`?"]),
        (json!({"name": {"nick": "a"}}), "invalidValue", ["`name.nick`", "no attribute"]),
        (json!({"department": "a"}), "invalidValue", ["`department`", "inside the extension's URN"]),
        (json!({"Title": "a", "title": "a"}), "invalidSyntax", ["`title`", "one spelling"]),
        (json!({"title": "a", USER: {"title": "a"}}), "invalidSyntax", ["`title`", "one spelling"]),
        (json!({"schemas": [USER, "urn:scim:schemas:core:1.0"]}), "invalidValue", ["core:1.0", "`/Schemas`"]),
    ] {
        let body = user("a", &more);
        let kind = server.of("entra", ENTRA_TOKEN, "POST", "/Users", Some(body.clone())).await;
        assert_eq!(kind.status, 201, "{body}: {}", kind.text);
        let path = format!("/Users/{}", kind.json()["id"].as_str().unwrap());
        assert_eq!(server.of("entra", ENTRA_TOKEN, "DELETE", &path, None).await.status, 204);
        let reply = server.okta("POST", "/Users", Some(body.clone())).await;
        reply.refused(400, Some(scim_type));
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        for word in words.into_iter().chain(["strictness: Strict"]) {
            assert!(detail.contains(word), "{body}: {detail}");
        }
    }
    let missing = server.okta("POST", "/Users", Some(json!({"userName": "a"}))).await;
    assert!(missing.refused(400, Some("invalidSyntax")).text.contains("`schemas` is missing"));
    assert_eq!(server.okta("GET", "/Users", None).await.json()["totalResults"], 0, "nothing of them is stored");
    // The status says that they were refused, and not how they would have been taken.
    assert!(!server.found(FindingCode::BooleanAsString) && !server.found(FindingCode::AttributeNotStored));
}

#[tokio::test]
async fn an_operation_that_deviates_is_refused_with_its_index() {
    let server = started().await;
    let reply = server.okta("POST", "/Users", Some(user("a@corp.example", &json!({})))).await;
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let group = server.group("team", &[&id]).await;
    let (one, team) = (format!("/Users/{id}"), format!("/Groups/{group}"));
    let good = json!({"op": "replace", "path": "externalId", "value": "e"});
    for (path, operation, scim_type) in [
        (&one, json!({"op": "replace", "path": "active", "value": "False"}), "invalidValue"),
        (&one, json!({"op": "replace", "path": "", "value": {"title": "a"}}), "invalidPath"),
        (&one, json!({"op": "replace", "path": null, "value": {"title": "a"}}), "invalidPath"),
        (&one, json!({"op": "replace", "path": "department", "value": "a"}), "invalidPath"),
        (&one, json!({"op": "replace", "path": "favorite", "value": "a"}), "invalidPath"),
        (&one, json!({"op": "replace", "value": "{\"title\": \"a\"}"}), "invalidValue"),
        (&one, json!({"op": "replace", "value": {"title": "a", "TITLE": "a"}}), "invalidSyntax"),
        (&one, json!({"op": "replace", "path": "emails[type eq \"work\"].value", "value": "a@b"}), "noTarget"),
        (&one, json!({"op": "replace", "path": "emails[type eq work].value", "value": "a@b"}), "invalidPath"),
        (&team, json!({"op": "add", "path": "members", "value": id}), "invalidValue"),
        (&team, json!({"op": "add", "path": "members", "value": {"value": id}}), "invalidValue"),
        (&team, json!({"op": "add", "path": "members", "value": [id]}), "invalidValue"),
        (&team, json!({"op": "add", "path": "members", "value": [{"value": FOREIGN}]}), "invalidValue"),
        (&team, json!({"op": "remove", "path": "members", "value": [{"value": id}]}), "invalidValue"),
        (&team, json!({"op": "remove", "path": "members", "value": []}), "invalidValue"),
    ] {
        let before = server.okta("GET", path, None).await.text;
        let reply = server.patch(path, json!([good, operation])).await;
        reply.refused(400, Some(scim_type));
        // Names that are sent twice are seen before there are operations.
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("operation 1: ") || scim_type == "invalidSyntax" || scim_type == "noTarget",
            "{detail}"
        );
        assert_eq!(server.okta("GET", path, None).await.text, before, "{operation}");
    }
    let operation = json!({"op": "replace", "path": "title", "value": "a"});
    for body in [json!({"schemas": [PATCH], "Operations": operation}), json!({"Operations": [operation]})] {
        server.okta("PATCH", &one, Some(body)).await.refused(400, Some("invalidSyntax"));
    }
    server.okta("GET", "/Users?filter=externalId%20eq%20jyoung", None).await.refused(400, Some("invalidFilter"));
    server.okta("PUT", &one, Some(json!({"userName": "b"}))).await.refused(400, Some("invalidSyntax"));
    let put = json!({"schemas": [GROUP], "displayName": "team", "members": {"value": id}});
    server.okta("PUT", &team, Some(put)).await.refused(400, Some("invalidValue"));
}

#[tokio::test]
async fn what_the_rfcs_permit_is_accepted_in_both_strictnesses() {
    let server = started().await;
    let reply =
        server.okta("POST", "/Users", Some(user("a", &json!({"externalId": "same", "password": "secret"})))).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let body = json!({
        "schemas": [USER, ENTERPRISE], "USERNAME": "b", "externalId": "same", "groups": [], "meta": {"version": "x"},
        format!("{USER}:title"): "T", ENTERPRISE: {"department": "D", "manager": {"value": "m", "$ref": "../Users/m"}},
    });
    let reply = server.okta("POST", "/Users", Some(body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert!(server.found(FindingCode::ExternalIdShared));
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/Users/{id}");
    for operation in [
        json!({"op": "add", "path": "emails", "value": [{"value": "a@b", "type": "work"}]}),
        json!({"op": "replace", "path": "emails[type eq \"work\"].value", "value": "c@d"}),
        json!({"op": "add", "path": "emails[type eq \"home\"].value", "value": "e@f"}),
        json!({"op": "replace", "value": {"title": "a", "name.givenName": "G"}}),
        json!({"op": "remove", "path": "title"}),
    ] {
        let reply = server.patch(&path, json!([operation])).await;
        assert_eq!(reply.status, 200, "{operation}: {}", reply.text);
    }
    let group = server.group("team", &[&id, "00000000-0000-4000-8000-00000000abcd"]).await;
    for operation in [
        json!({"op": "remove", "path": format!("members[value eq \"{id}\"]")}),
        json!({"op": "add", "path": "members", "value": [{"value": id, "display": "b", "$ref": null}]}),
        json!({"op": "replace", "value": {"id": group, "displayName": "team"}}),
        json!({"op": "replace", "path": "members", "value": []}),
        json!({"op": "remove", "path": "members"}),
    ] {
        let reply = server.patch(&format!("/Groups/{group}"), json!([operation])).await;
        assert!(reply.status < 300, "{operation}: {}", reply.text);
    }
}
