//! Bad input is refused with a clear answer and changes nothing. Also input that looks bad but is not.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use crate::model::ProviderName;
use crate::scim::FindingCode;
use crate::scim_server::Limits;
use serde_json::{Value, json};

use super::{ENTRA_TOKEN, OKTA_TOKEN, Server};

const NOBODY: &str = "00000000-0000-4000-8000-0000000000ff";

fn set<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.into_iter().map(str::to_owned).collect()
}

async fn raw(server: &Server, method: &str, path: &str, body: Vec<u8>) -> super::Reply {
    let authorization = format!("Bearer {OKTA_TOKEN}");
    let headers = [("authorization", Some(authorization.as_str())), ("content-type", Some("application/scim+json"))];
    server.send("okta", method, path, &headers, Some(body)).await
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_answered_with_413() {
    let server = Server::start().await;
    let body = format!("{{\"userName\":\"{}\"}}", "a".repeat(10 * 1024 * 1024));
    raw(&server, "POST", "/Users", body.into_bytes()).await.refused(413, None);
    assert_eq!(server.okta("GET", "/Users", None).await.json()["totalResults"], 0);
}

#[tokio::test]
async fn json_nested_ten_thousand_deep_is_answered_with_400() {
    let server = Server::start().await;
    let body = format!("{{\"userName\":\"a\",\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    raw(&server, "POST", "/Users", body.into_bytes()).await.refused(400, Some("invalidSyntax"));
    assert_eq!(server.okta("GET", "/Users", None).await.json()["totalResults"], 0);
}

#[tokio::test]
async fn what_is_not_a_json_object_is_answered_with_400() {
    let server = Server::start().await;
    for body in ["", "[]", "{", "nonsense", "\u{feff}", "\u{feff}\u{feff}{}", "{\"userName\":\"\\ud800\"}"] {
        raw(&server, "POST", "/Users", body.into()).await.refused(400, Some("invalidSyntax"));
    }
    raw(&server, "POST", "/Users", vec![b'{', 0xff, 0xfe, b'}']).await.refused(400, Some("invalidSyntax"));
}

#[tokio::test]
async fn filters_that_are_too_long_too_deep_or_unknown_are_answered_with_400() {
    let server = Server::start().await;
    let filters = [
        format!("userName eq \"{}\"", "a".repeat(10_000)),
        format!("{}userName eq \"a\"{}", "(".repeat(2_000), ")".repeat(2_000)),
        "(".repeat(10_000),
        "userName".to_owned(),
        "userName eq".to_owned(),
        "userName eq \"a".to_owned(),
        "email co \"a\"".to_owned(),
        "userName is \"a\"".to_owned(),
        "title eq 'a'".to_owned(),
        "active gt true".to_owned(),
    ];
    for filter in filters {
        let query: String = filter.bytes().map(|byte| format!("%{byte:02X}")).take(15_000).collect();
        server.okta("GET", &format!("/Users?filter={query}"), None).await.refused(400, Some("invalidFilter"));
        let search = json!({"filter": filter});
        server.okta("POST", "/Users/.search", Some(search)).await.refused(400, Some("invalidFilter"));
    }
    let long = json!({"filter": format!("userName eq \"{}\"", "a".repeat(100_000))});
    server.okta("POST", "/Users/.search", Some(long)).await.refused(400, Some("invalidFilter"));
}

#[tokio::test]
async fn a_filter_of_a_hundred_kilobytes_in_the_url_is_refused_and_the_server_continues() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    // Sent by hand, because the client refuses to send it.
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /idp/okta/scim/v2/Users?filter={} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OKTA_TOKEN}\r\n\r\n",
        "a".repeat(100_000)
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    assert!(status.starts_with("HTTP/1.1 414 "), "{status}");
    assert_eq!(server.okta("GET", "/Users", None).await.status, 200);
    // A request that fits into a URL is answered in the form of SCIM.
    let filter = "a".repeat(50_000);
    server.okta("GET", &format!("/Users?filter={filter}"), None).await.refused(400, Some("invalidFilter"));
}

#[tokio::test]
async fn a_patch_whose_path_does_not_parse_changes_nothing() {
    let server = Server::start().await;
    let user = server.user("alice@example.com").await;
    let before = server.okta("GET", &format!("/Users/{user}"), None).await.text;
    for path in ["emails[type eq", "emails[type eq \"work\"", "1 2", "name..givenName", "emails[]", "]", "a b"] {
        let operations =
            json!([{"op": "replace", "path": "title", "value": "x"}, {"op": "replace", "path": path, "value": "y"}]);
        let reply = server.patch(&format!("/Users/{user}"), operations).await;
        let detail = reply.refused(400, Some("invalidPath")).json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("operation 1: "), "{detail}");
    }
    assert_eq!(server.okta("GET", &format!("/Users/{user}"), None).await.text, before);
}

#[tokio::test]
async fn a_members_path_that_is_not_understood_changes_nothing() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let group = server.group("team", &[&alice, &bob]).await;
    let path = format!("/Groups/{group}");
    for (op, target, scim_type) in [
        ("remove", "members[display eq \"Alice\"]".to_owned(), "invalidPath"),
        ("remove", "members[type eq \"User\"]".to_owned(), "invalidPath"),
        ("remove", format!("members[value ne \"{alice}\"]"), "invalidPath"),
        ("remove", format!("members[not (value eq \"{alice}\")]"), "invalidPath"),
        ("remove", format!("members[value eq \"{alice}\" and type eq \"Robot\"]"), "invalidPath"),
        ("remove", format!("members[value eq \"{alice}\" and display eq \"Alice\"]"), "invalidPath"),
        ("remove", "members.display".to_owned(), "invalidPath"),
        ("remove", "members.value".to_owned(), "invalidPath"),
        ("remove", "members[value eq \"\"]".to_owned(), "invalidValue"),
        ("remove", "members[".to_owned(), "invalidPath"),
        ("remove", "member".to_owned(), "invalidPath"),
        ("remove", "members[0]".to_owned(), "invalidPath"),
        ("replace", format!("members[value eq \"{alice}\"].value"), "mutability"),
        ("add", format!("members[value eq \"{alice}\"]"), "invalidPath"),
    ] {
        let operation = json!([{"op": op, "path": target, "value": bob}]);
        server.patch(&path, operation).await.refused(400, Some(scim_type));
        assert_eq!(server.members(&group).await, set([&alice, &bob]), "{op} {target}");
    }
}

#[tokio::test]
async fn one_bad_operation_among_good_ones_means_none_is_applied() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let group = server.group("team", &[&alice]).await;
    for (bad, scim_type) in [
        (json!({"op": "remove"}), "noTarget"),
        (json!({"op": "destroy", "path": "members"}), "invalidSyntax"),
        (json!({"path": "members", "value": []}), "invalidSyntax"),
        (json!({"op": "add", "path": "members"}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": 7}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": [{"value": " "}]}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": [{"display": "x"}]}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": [["x"]]}), "invalidValue"),
        (json!({"op": "replace", "path": "displayName", "value": ""}), "invalidValue"),
        (json!({"op": "replace", "path": "displayName", "value": {"a": 1}}), "invalidValue"),
        (json!({"op": "remove", "path": "displayName"}), "mutability"),
        (json!({"op": "replace", "value": {"id": NOBODY}}), "mutability"),
        (json!({"op": "replace", "value": "text"}), "invalidValue"),
        (json!({"op": "replace", "path": 7, "value": "text"}), "invalidPath"),
        (json!("replace"), "invalidSyntax"),
    ] {
        for good_first in [true, false] {
            let good = [
                json!({"op": "add", "path": "members", "value": [{"value": bob}]}),
                json!({"op": "replace", "path": "displayName", "value": "renamed"}),
            ];
            let mut operations: Vec<Value> = good.to_vec();
            operations.insert(if good_first { 2 } else { 0 }, bad.clone());
            server.patch(&format!("/Groups/{group}"), json!(operations)).await.refused(400, Some(scim_type));
            let shown = server.okta("GET", &format!("/Groups/{group}"), None).await.json();
            assert_eq!(shown["displayName"], "team", "{bad}");
            assert_eq!(shown["meta"]["version"], "W/\"1\"", "{bad}");
            assert_eq!(server.members(&group).await, set([&alice]), "{bad}");
        }
    }
    let user =
        json!([{"op": "replace", "path": "title", "value": "x"}, {"op": "replace", "path": "active", "value": "nope"}]);
    server.patch(&format!("/Users/{alice}"), user).await.refused(400, Some("invalidValue"));
    assert_eq!(server.okta("GET", &format!("/Users/{alice}"), None).await.json().get("title"), None);
}

#[tokio::test]
async fn a_patch_without_operations_or_with_too_many_is_answered_with_400() {
    let server = Server::start().await;
    let user = server.user("alice@example.com").await;
    let path = format!("/Users/{user}");
    for body in [json!({}), json!({"Operations": []}), json!({"Operations": {}}), json!({"Operations": null})] {
        server.okta("PATCH", &path, Some(body)).await.refused(400, Some("invalidSyntax"));
    }
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "add", "path": "title", "value": "x"})).collect();
    server.patch(&path, json!(many)).await.refused(400, Some("invalidSyntax"));
    server.patch(&path, json!(&many[..10_000])).await;
    assert_eq!(server.okta("GET", &path, None).await.json()["title"], "x");
}

#[tokio::test]
async fn a_user_name_used_in_another_case_is_answered_with_409() {
    let server = Server::start().await;
    let alice = server.user("Alice@example.com").await;
    let bob = server.user("bob@example.com").await;
    let again = json!({"userName": "aLICE@EXAMPLE.com", "active": false});
    server.okta("POST", "/Users", Some(again.clone())).await.refused(409, Some("uniqueness"));
    server.okta("PUT", &format!("/Users/{bob}"), Some(again)).await.refused(409, Some("uniqueness"));
    let rename = json!([{"op": "replace", "path": "userName", "value": "ALICE@example.com"}]);
    server.patch(&format!("/Users/{bob}"), rename.clone()).await.refused(409, Some("uniqueness"));
    assert_eq!(server.okta("GET", &format!("/Users/{alice}"), None).await.json()["active"], true);
    assert_eq!(server.patch(&format!("/Users/{alice}"), rename).await.status, 200);
    let other = server.of("entra", ENTRA_TOKEN, "POST", "/Users", Some(json!({"userName": "alice@example.com"}))).await;
    assert_eq!(other.status, 201, "{}", other.text);
}

#[tokio::test]
async fn a_used_group_name_is_answered_with_409() {
    let server = Server::start().await;
    server.group("team", &[]).await;
    server.okta("POST", "/Groups", Some(json!({"displayName": "team"}))).await.refused(409, Some("uniqueness"));
}

#[tokio::test]
async fn a_user_without_a_usable_user_name_is_answered_with_400() {
    let server = Server::start().await;
    for body in [
        json!({}),
        json!({"userName": null}),
        json!({"userName": ""}),
        json!({"userName": "  "}),
        json!({"userName": true}),
        json!({"userName": ["a", "b"]}),
        json!({"userName": "a", "active": "perhaps"}),
        json!({"userName": "a", "active": 0}),
        json!({"userName": "a", "emails": 7}),
        json!({"userName": "a", "emails": [7]}),
        json!({"userName": "a", "name": "Alice"}),
        json!({"userName": "a", "emails": vec![json!({"value": "x"}); 501]}),
    ] {
        server.okta("POST", "/Users", Some(body)).await.refused(400, Some("invalidValue"));
    }
    let user = server.user("alice@example.com").await;
    for value in [json!(""), json!(null)] {
        let clear = json!([{"op": "replace", "path": "userName", "value": value}]);
        server.patch(&format!("/Users/{user}"), clear).await.refused(400, Some("invalidValue"));
    }
    let id = json!({"id": NOBODY, "userName": "alice@example.com"});
    server.okta("PUT", &format!("/Users/{user}"), Some(id)).await.refused(400, Some("invalidValue"));
}

#[tokio::test]
async fn unknown_members_wait_beside_known_ones_and_never_empty_a_group() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let group = server.group("team", &[&alice]).await;
    let path = format!("/Groups/{group}");
    let add = json!([{"op": "add", "path": "members", "value": [{"value": bob}, {"value": NOBODY}]}]);
    assert_eq!(server.patch(&path, add).await.status, 200);
    assert_eq!(server.members(&group).await, set([&alice, &bob]));
    assert!(server.found(FindingCode::MemberUnknown));
    let replace = json!([{"op": "replace", "path": "members", "value": [{"value": NOBODY}]}]);
    server.patch(&path, replace).await.refused(400, Some("invalidValue"));
    let put = json!({"displayName": "team", "members": [{"value": NOBODY}]});
    server.okta("PUT", &path, Some(put)).await.refused(400, Some("invalidValue"));
    let never = json!([{"op": "replace", "path": "members", "value": [{"value": "not-an-id"}]}]);
    server.patch(&path, never).await.refused(400, Some("invalidValue"));
    assert_eq!(server.members(&group).await, set([&alice, &bob]));
}

#[tokio::test]
async fn member_id_of_a_foreign_form_beside_a_good_one_is_kept_and_can_be_removed() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let group = server.group("team", &[&alice]).await;
    let path = format!("/Groups/{group}");
    let foreign = "00u1a2b3c4d5e6f7";
    let version = async || server.okta("GET", &path, None).await.json()["meta"]["version"].clone();
    let add = json!([{"op": "add", "path": "members", "value": [{"value": bob}, {"value": foreign}]}]);
    assert_eq!(server.patch(&path, add.clone()).await.status, 200);
    assert_eq!(server.members(&group).await, set([&alice, &bob]));
    assert!(server.found(FindingCode::MemberIdForeign));
    assert_eq!(server.store.counts(&"okta".parse().unwrap()).await.unwrap().pending, 1, "what was answered is stored");
    let before = version().await;
    assert_eq!(server.patch(&path, add).await.status, 200);
    assert_eq!(version().await, before, "the same text is the same member");
    let remove = json!([{"op": "remove", "path": format!("members[value eq \"{foreign}\"]")}]);
    assert_eq!(server.patch(&path, remove).await.status, 200);
    assert_eq!(server.store.counts(&"okta".parse().unwrap()).await.unwrap().pending, 0);
    assert_eq!(server.members(&group).await, set([&alice, &bob]));
}

#[tokio::test]
async fn users_of_another_provider_are_unknown_ids() {
    let server = Server::start().await;
    let alice = server.user("alice@example.com").await;
    let group = server.group("team", &[&alice]).await;
    for path in [format!("/Users/{alice}"), format!("/Groups/{group}")] {
        server.of("entra", ENTRA_TOKEN, "GET", &path, None).await.refused(404, None);
        server.of("entra", ENTRA_TOKEN, "DELETE", &path, None).await.refused(404, None);
        let change = json!({"Operations": [{"op": "replace", "path": "displayName", "value": "x"}]});
        server.of("entra", ENTRA_TOKEN, "PATCH", &path, Some(change)).await.refused(404, None);
    }
    let theirs = json!({"displayName": "team", "members": [{"value": alice}]});
    let theirs = server.of("entra", ENTRA_TOKEN, "POST", "/Groups", Some(theirs)).await;
    assert_eq!(theirs.status, 201);
    assert_eq!(theirs.json().get("members"), None);
    assert_eq!(server.of("entra", ENTRA_TOKEN, "GET", "/Users", None).await.json()["totalResults"], 0);
    assert_eq!(server.members(&group).await, set([&alice]));
}

#[tokio::test]
async fn every_unacceptable_token_gets_the_same_401() {
    let server = Server::start().await;
    let wrong = format!("Bearer {OKTA_TOKEN}x");
    let short = format!("Bearer {}", &OKTA_TOKEN[..8]);
    let entra = format!("Bearer {ENTRA_TOKEN}");
    let basic = format!("Basic {OKTA_TOKEN}");
    let right = format!("Bearer {OKTA_TOKEN}");
    let mut bodies = BTreeSet::new();
    for (provider, authorization) in [
        ("okta", None),
        ("okta", Some("")),
        ("okta", Some("Bearer")),
        ("okta", Some("Bearer ")),
        ("okta", Some(wrong.as_str())),
        ("okta", Some(short.as_str())),
        ("okta", Some(entra.as_str())),
        ("okta", Some(basic.as_str())),
        ("okta", Some(OKTA_TOKEN)),
        ("nobody", Some(right.as_str())),
        ("NOT%20A%20NAME", Some(right.as_str())),
        ("one", Some("Bearer token-of-two-providers")),
        ("two", Some("Bearer token-of-two-providers")),
    ] {
        for path in ["/Users", "/Users/x", "/Schemas", "/no/such/route", ""] {
            let reply = server.send(provider, "GET", path, &[("authorization", authorization)], None).await;
            reply.refused(401, None);
            assert_eq!(reply.header("www-authenticate"), "Bearer");
            bodies.insert(reply.text);
        }
    }
    assert_eq!(bodies.len(), 1);
    assert_eq!(server.traffic.unauthorized(), 13 * 5);
    assert_eq!(server.traffic.of(&ProviderName::new("okta").unwrap()).requests, 0);
    let lower = format!("bearer   {OKTA_TOKEN} ");
    assert_eq!(server.send("okta", "GET", "/Users", &[("authorization", Some(&lower))], None).await.status, 200);
}

#[tokio::test]
async fn routes_methods_and_media_types_that_are_not_served_get_scim_errors() {
    let server = Server::start().await;
    let id = server.user("alice@example.com").await;
    server.okta("GET", "/Nothing", None).await.refused(404, None);
    server.okta("GET", "", None).await.refused(404, None);
    server.okta("GET", "/Users/a/b", None).await.refused(404, None);
    server.okta("GET", "/Users/not-a-uuid", None).await.refused(404, None);
    server.okta("GET", "/Schemas/urn:nothing", None).await.refused(404, None);
    for (method, path, allow) in [
        ("DELETE", "/Users".to_owned(), "GET, HEAD, POST"),
        ("PATCH", "/Groups".to_owned(), "GET, HEAD, POST"),
        ("POST", format!("/Users/{id}"), "GET, HEAD, PUT, PATCH, DELETE"),
        ("POST", "/Schemas".to_owned(), "GET, HEAD"),
        ("PUT", "/ServiceProviderConfig".to_owned(), "GET, HEAD"),
        ("DELETE", "/ResourceTypes/User".to_owned(), "GET, HEAD"),
    ] {
        let reply = server.okta(method, &path, None).await;
        reply.refused(405, None);
        assert_eq!(reply.header("allow"), allow);
    }
    server.okta("GET", "/Me", None).await.refused(501, None);
    server.okta("GET", "/Schemas?filter=id%20eq%20%22a%22", None).await.refused(403, None);
    let authorization = format!("Bearer {OKTA_TOKEN}");
    for kind in ["text/plain", "application/xml", "application/x-www-form-urlencoded", "application/scim"] {
        let headers = [("authorization", Some(authorization.as_str())), ("content-type", Some(kind))];
        server
            .send("okta", "POST", "/Users", &headers, Some(b"{\"userName\":\"x\"}".to_vec()))
            .await
            .refused(415, None);
    }
    let elsewhere = server.client.get(format!("http://{}/elsewhere", server.address)).send().await.unwrap();
    assert_eq!(elsewhere.status().as_u16(), 404);
    let body: Value = serde_json::from_str(&elsewhere.text().await.unwrap()).unwrap();
    assert_eq!(body["status"], "404");
}

#[tokio::test]
async fn put_never_creates_and_never_takes_by_silence_what_access_depends_on() {
    let server = Server::start().await;
    server.okta("PUT", &format!("/Users/{NOBODY}"), Some(json!({"userName": "a"}))).await.refused(404, None);
    server.okta("PUT", &format!("/Groups/{NOBODY}"), Some(json!({"displayName": "a"}))).await.refused(404, None);
    let body = json!({"userName": "alice@example.com", "externalId": "x1", "title": "T", "active": false});
    let alice = server.okta("POST", "/Users", Some(body)).await.json()["id"].as_str().unwrap().to_owned();
    let put =
        server.okta("PUT", &format!("/Users/{alice}"), Some(json!({"userName": "alice@example.com"}))).await.json();
    assert_eq!((&put["active"], &put["externalId"], put.get("title")), (&json!(false), &json!("x1"), None));
    let group = server.group("team", &[&alice]).await;
    let put = server.okta("PUT", &format!("/Groups/{group}"), Some(json!({"displayName": "renamed"}))).await;
    assert_eq!(put.status, 200);
    assert_eq!(server.members(&group).await, set([&alice]));
    assert!(server.found(FindingCode::MembersNotAsserted));
}

#[tokio::test]
async fn a_change_of_nothing_leaves_version_and_last_modified() {
    let server = Server::start().await;
    let alice = server.user("alice@example.com").await;
    let group = server.group("team", &[&alice]).await;
    let path = format!("/Groups/{group}");
    let before = server.okta("GET", &path, None).await;
    for operations in [
        json!([{"op": "add", "path": "members", "value": [{"value": alice}]}]),
        json!([{"op": "remove", "path": format!("members[value eq \"{NOBODY}\"]")}]),
        json!([{"op": "remove", "path": "members", "value": []}]),
        json!([{"op": "remove", "path": "members", "value": null}]),
        json!([{"op": "replace", "value": {"id": group, "displayName": "team"}}]),
    ] {
        assert_eq!(server.patch(&path, operations).await.status, 200);
        let after = server.okta("GET", &path, None).await;
        assert_eq!(after.text, before.text);
        assert_eq!(after.header("etag"), "W/\"1\"");
    }
}

#[tokio::test]
async fn a_write_with_a_stale_if_match_is_answered_with_412_and_changes_nothing() {
    let server = Server::start().await;
    let alice = server.user("alice@example.com").await;
    let path = format!("/Users/{alice}");
    let authorization = format!("Bearer {OKTA_TOKEN}");
    let change = json!({"Operations": [{"op": "replace", "path": "title", "value": "x"}]}).to_string().into_bytes();
    let with = |name: &'static str, tag: &'static str| {
        [("authorization", Some(authorization.clone())), (name, Some(tag.to_owned()))]
    };
    for (method, body) in [("PATCH", Some(change.clone())), ("DELETE", None)] {
        let headers = with("if-match", "W/\"7\"");
        let headers: Vec<(&str, Option<&str>)> =
            headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
        server.send("okta", method, &path, &headers, body).await.refused(412, None);
    }
    let headers = with("if-none-match", "W/\"1\"");
    let headers: Vec<(&str, Option<&str>)> = headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
    assert_eq!(server.send("okta", "GET", &path, &headers, None).await.status, 304);
    let headers = with("if-match", "W/\"1\"");
    let headers: Vec<(&str, Option<&str>)> = headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
    let changed = server.send("okta", "PATCH", &path, &headers, Some(change)).await;
    assert_eq!((changed.status, changed.header("etag")), (200, "W/\"2\""));
}

#[tokio::test]
async fn locations_come_from_the_external_url_and_never_from_host() {
    let server = Server::start().await;
    let authorization = format!("Bearer {OKTA_TOKEN}");
    let headers = [
        ("authorization", Some(authorization.as_str())),
        ("content-type", Some("application/json")),
        ("host", Some("evil.example.net")),
        ("x-forwarded-host", Some("evil.example.net")),
        ("x-request-id", Some("abc-123")),
        ("accept", Some("application/json")),
    ];
    let reply = server.send("okta", "POST", "/Users", &headers, Some(b"{\"userName\":\"a\"}".to_vec())).await;
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(reply.header("location"), format!("https://rolecall.example.com/idp/okta/scim/v2/Users/{id}"));
    assert_eq!(reply.header("x-request-id"), "abc-123");
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(!reply.text.contains("evil"));
}

#[tokio::test]
async fn attributes_choose_what_is_answered_and_force_a_body_on_patch() {
    let server = Server::start().await;
    let alice = server.user("alice@example.com").await;
    let group = server.group("team", &[&alice]).await;
    let shown = server.okta("GET", &format!("/Groups/{group}?excludedAttributes=MEMBERS,meta"), None).await.json();
    assert_eq!((shown.get("members"), shown.get("meta")), (None, None));
    let shown = server.okta("GET", &format!("/Groups/{group}?attributes=members.value"), None).await.json();
    assert_eq!(shown["members"], json!([{"value": alice}]));
    assert_eq!(shown.get("displayName"), None);
    let body = json!({"Operations": [{"op": "replace", "path": "displayName", "value": "other"}]});
    let reply = server.okta("PATCH", &format!("/Groups/{group}?attributes=displayName"), Some(body)).await;
    assert_eq!((reply.status, &reply.json()["displayName"]), (200, &json!("other")));
}

#[tokio::test]
async fn over_the_rate_limit_is_answered_with_429_and_retry_after() {
    let limits = Limits { requests_per_second: Some(NonZeroU32::MIN), ..Limits::default() };
    let server = Server::with(limits).await;
    let mut refused = 0;
    for _ in 0..60 {
        let reply = server.okta("GET", "/Users?count=0", None).await;
        if reply.status != 200 {
            reply.refused(429, None);
            assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(server.of("entra", ENTRA_TOKEN, "GET", "/Users", None).await.status, 200);
}

#[tokio::test]
async fn concurrent_adds_to_one_group_lose_nobody() {
    let server = std::sync::Arc::new(Server::start().await);
    let mut users = Vec::new();
    for index in 0..40 {
        users.push(server.user(&format!("user{index}@example.com")).await);
    }
    let group = server.group("team", &[]).await;
    let adds = users.iter().map(|user| {
        let (server, path, user) = (server.clone(), format!("/Groups/{group}"), user.clone());
        tokio::spawn(async move {
            server.patch(&path, json!([{"op": "Add", "path": "members", "value": [{"value": user}]}])).await.status
        })
    });
    for add in adds.collect::<Vec<_>>() {
        assert_eq!(add.await.unwrap(), 204);
    }
    assert_eq!(server.members(&group).await, users.into_iter().collect());
}

#[tokio::test]
async fn a_search_over_all_types_pages_through_users_and_then_groups() {
    let server = Server::start().await;
    let users = [server.user("a").await, server.user("b").await];
    let groups = [server.group("g", &[]).await, server.group("h", &[]).await];
    let mut seen = Vec::new();
    for start in 1..=5 {
        let body = json!({"startIndex": start, "count": 1, "attributes": ["id"]});
        let page = server.okta("POST", "/.search", Some(body)).await.json();
        assert_eq!((&page["totalResults"], &page["startIndex"]), (&json!(4), &json!(start)));
        seen.extend(page["Resources"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, users.into_iter().chain(groups.clone()).collect::<Vec<_>>());
    let by_name = json!({"filter": "displayName eq \"h\""});
    let found = server.okta("POST", "/.search", Some(by_name)).await.json();
    assert_eq!((&found["totalResults"], &found["Resources"][0]["id"]), (&json!(1), &json!(groups[1])));
    let nothing = json!({"filter": "nothing eq \"h\""});
    server.okta("POST", "/.search", Some(nothing)).await.refused(400, Some("invalidFilter"));
}

#[tokio::test]
async fn a_list_is_paged_by_start_index_and_count_in_a_stable_order() {
    let server = Server::start().await;
    let mut users = Vec::new();
    for index in 0..12 {
        users.push(server.user(&format!("user{index}@example.com")).await);
    }
    let mut seen = Vec::new();
    for start in [1, 6, 11] {
        let page = server.okta("GET", &format!("/Users?startIndex={start}&count=5"), None).await.json();
        assert_eq!((&page["totalResults"], &page["startIndex"]), (&json!(12), &json!(start)));
        seen.extend(page["Resources"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, users);
    let none = server.okta("GET", "/Users?count=0", None).await.json();
    assert_eq!((&none["totalResults"], &none["Resources"]), (&json!(12), &json!([])));
    server.okta("GET", "/Users?count=many", None).await.refused(400, Some("invalidValue"));
}
