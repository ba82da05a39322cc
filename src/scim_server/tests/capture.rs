//! Captured requests: what is kept of the dialogues of identity providers, and what becomes of it when it is sent again.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::dialogues::{Ids, files, step};
use super::{ENTRA_TOKEN, OKTA_TOKEN, Server};
use crate::model::{Clock as _, ProviderName};
use crate::scim_server::{Capture, Limits, replay};

fn okta() -> ProviderName {
    "okta".parse().unwrap()
}

impl Server {
    fn capture_for_an_hour(&self) {
        let until = self.clock.now() + jiff::SignedDuration::from_hours(1);
        self.captures.set(&std::collections::BTreeMap::from([(okta(), until)]));
    }

    fn captured(&self) -> Capture {
        let json = self.captures.read(&okta(), &self.tokens, &self.traffic, self.clock.now()).unwrap();
        serde_json::from_slice(&json).unwrap()
    }
}

/// The names of texts that are about people, by the attribute that they are in.
fn personal(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            let uuid = regex::Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
            for (name, value) in members {
                let named = [
                    "userName",
                    "displayName",
                    "givenName",
                    "familyName",
                    "formatted",
                    "nickName",
                    "externalId",
                    "value",
                ];
                if let (true, Value::String(text)) = (named.contains(&name.as_str()), value) {
                    let text = uuid.replace_all(text, " ");
                    let parts = text.split(|one: char| !one.is_alphanumeric());
                    found.extend(parts.filter(|word| word.len() > 4).map(str::to_owned));
                }
                personal(value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|item| personal(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn dialogues_are_captured_without_names_and_answered_alike_when_they_are_sent_again() {
    let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/idp");
    let mut idps: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    idps.sort();
    assert!(idps.len() >= 8, "{idps:?}");
    let (mut problems, mut requests) = (Vec::new(), 0);
    for idp in idps {
        let server = Server::start().await;
        server.capture_for_an_hour();
        let (mut given, mut names) = (Ids::default(), BTreeSet::new());
        for path in files(&idp) {
            let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            if let Err(problem) = step(&server, &mut given, &file).await {
                problems.push(format!("{}: {problem}", path.display()));
            }
            personal(&file["request"]["body"], &mut names);
        }
        let capture = server.captured();
        let text = serde_json::to_string_pretty(&capture).unwrap();
        assert!(!text.contains(OKTA_TOKEN), "{text}");
        let known = ["False", "https", "member", "manager", "Group", "displayName", "externalId", "params", "schemas"];
        for word in names.iter().filter(|word| !known.contains(&word.as_str())) {
            if text.contains(word.as_str()) {
                problems.push(format!("{idp}: `{word}` is in the capture"));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let replayed = replay(&capture, folder.path()).await.unwrap();
        requests += replayed.requests.len();
        for one in replayed.requests.iter().filter(|one| !one.differences.is_empty()) {
            problems.push(format!("{idp}: {one:#?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(requests > 100, "{requests}");
}

#[tokio::test]
async fn requests_are_captured_only_while_they_shall_be_and_of_whom_they_shall_be() {
    let server = Server::start().await;
    server.user("before@example.com").await;
    server.capture_for_an_hour();
    assert_eq!(server.captured().requests, []);
    let created = server
        .okta("POST", "/Users", Some(json!({"userName": "alice@example.com", "email": "x", "password": "secret word"})))
        .await;
    assert_eq!(created.json()["userName"], "alice@example.com", "the answer itself is as ever: {}", created.text);
    server.of("entra", ENTRA_TOKEN, "GET", "/Users", None).await;
    server.of("okta", "wrong", "GET", "/Users", None).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    server.okta("DELETE", &format!("/Users/{id}"), None).await;
    server.okta("GET", "/Users?filter=userName%20eq%20%22alice@example.com%22", None).await;
    let capture = server.captured();
    let heads: Vec<(String, u16)> =
        capture.requests.iter().map(|one| (format!("{} {}", one.method, one.path), one.status)).collect();
    assert_eq!(heads, [("POST /Users".into(), 201), (format!("DELETE /Users/{id}"), 204), ("GET /Users".into(), 200)]);
    let codes: BTreeSet<&str> = capture.requests[0].findings.iter().map(|one| one.code.as_str()).collect();
    assert_eq!(codes, BTreeSet::from(["AttributeNotStored", "SchemasMissing"]));
    let text = serde_json::to_string(&capture).unwrap();
    for word in ["alice", "example.com", "secret word", "before"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    server.clock.advance(std::time::Duration::from_hours(1));
    server.okta("GET", "/Users", None).await;
    assert_eq!(server.captured().requests.len(), 3, "it has ended by itself");
}

#[tokio::test]
async fn of_requests_over_the_rate_limit_nothing_is_kept() {
    let limits = Limits { requests_per_second: std::num::NonZeroU32::new(1), ..Limits::default() };
    let server = Server::with(limits).await;
    server.capture_for_an_hour();
    let query = format!("/Users?filter={}", "q".repeat(60_000));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(server.okta("GET", &query, None).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    let others = statuses.iter().filter(|status| **status != 429).count();
    let capture = server.captured();
    assert_eq!((capture.requests.len(), capture.dropped), (others, 0), "{statuses:?}");
}

#[tokio::test]
async fn requests_that_need_schemas_from_a_file_are_skipped() {
    let server = Server::on(tempfile::tempdir().unwrap(), Limits::default(), super::registered::types()).await;
    server.capture_for_an_hour();
    let device = "urn:example:params:scim:schemas:core:1.2.3:Device";
    let badge = "urn:example:params:scim:schemas:extension:badge:1.0:User";
    server.okta("POST", "/Devices", Some(json!({"schemas": [device], "serialNumber": "S1"}))).await;
    server.okta("GET", "/Schemas", None).await;
    let user = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", badge], "userName": "alice@example.com", badge: {"number": 1}});
    server.okta("POST", "/Users", Some(user)).await;
    let operations = json!([{"method": "POST", "path": "/Devices", "bulkId": "1", "data": {"schemas": [device], "serialNumber": "S2"}}]);
    let bulk = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": operations});
    server.okta("POST", "/Bulk", Some(bulk)).await;
    server.okta("GET", "/Users?filter=userName%20eq%20%22alice@example.com%22", None).await;
    let capture = server.captured();
    assert!(capture.schemas_from_file);
    let needed: Vec<bool> = capture.requests.iter().map(|one| one.needs_schemas_from_file).collect();
    assert_eq!(needed, [true, true, true, true, false]);
    let folder = tempfile::tempdir().unwrap();
    let replayed = replay(&capture, folder.path()).await.unwrap();
    assert!(replayed.is_same() && replayed.skipped() == 4, "{replayed:#?}");
    let shown = serde_json::to_value(&replayed).unwrap();
    assert!(shown["requests"][0]["skipped"].as_str().unwrap().contains("--scim-schemas"), "{shown}");
    assert_eq!(shown["requests"][4]["replayed"], 200, "the user was made all the same");
}

#[tokio::test]
async fn what_existed_before_the_capture_is_created_before_it_is_sent_again() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice@example.com").await, server.user("bob@example.com").await);
    let team = server.group("team", &[&alice]).await;
    server.capture_for_an_hour();
    server.okta("GET", "/Users?filter=userName%20eq%20%22ALICE@example.com%22", None).await;
    server
        .okta("POST", "/Users", Some(json!({"userName": "Alice@EXAMPLE.com"})))
        .await
        .refused(409, Some("uniqueness"));
    server
        .patch(
            &format!("/Groups/{team}?attributes=id"),
            json!([{"op": "add", "path": "members", "value": [{"value": bob}]}]),
        )
        .await;
    server
        .okta("GET", &format!("/Groups?filter=id%20eq%20%22{team}%22%20and%20members%20eq%20%22{bob}%22"), None)
        .await;
    for page in ["/Users?count=1&cursor=", "/Groups/unknown"] {
        server.okta("GET", page, None).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let replayed = replay(&server.captured(), folder.path()).await.unwrap();
    assert!(replayed.is_same(), "{replayed:#?}");
    assert_eq!(replayed.existed_before, 3, "alice, the team, and bob, whom a request names");
}
