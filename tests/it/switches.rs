//! Every switch of the emulator is used by some test. Switches that no other test uses are tested here.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";
const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";

/// The sources of the tests that run rolecall or its client of Google.
fn sources() -> String {
    let mut text = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("tests"), root.join("src/target/google")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of tests") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                text.push_str(&std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    text
}

/// True when a control call of this topic contains the switch, in its path or soon after it.
fn plays(sources: &str, topic: &str, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    match (topic, name) {
        ("faults", _) => sources.contains(&format!("\"type\": {quoted}")),
        ("directory", "delete" | "undelete") => sources.contains(&format!("directory/{name}\"")),
        ("resources", "recreate") => sources.contains(&format!(":{name}\"")),
        _ => sources.match_indices(&format!("\"{topic}")).any(|(at, _)| {
            let call: String = sources[at..].chars().take(400).collect();
            name.is_empty() || call.contains(&quoted)
        }),
    }
}

#[tokio::test]
async fn every_switch_of_the_emulator_is_played_by_a_test() {
    let fixture = Fixture::prepare(&[]).await;
    let listed = fixture.emulator.control("GET", "", &Value::Null).expect("the control API");
    let switches = listed["switches"].as_object().expect("switches by topic");
    let sources = sources();
    let mut unplayed = Vec::new();
    for (topic, names) in switches {
        let names: Vec<&str> = names.as_array().expect("names").iter().filter_map(Value::as_str).collect();
        for name in if names.is_empty() { vec![""] } else { names } {
            if !plays(&sources, topic, name) {
                unplayed.push(format!("{topic} {name}"));
            }
        }
    }
    assert!(switches.len() >= 9 && unplayed.is_empty(), "no test plays {unplayed:?}");
    assert!(!plays(&sources, "lag", &["write", "Ms"].concat()), "what does not exist is not found");
}

/// A fixture whose group `team-checkout` has alice, mapped onto `checkout-api`; rolecall reads policies without a cause
/// only after an hour.
async fn team() -> (Fixture, Scim, String) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    "1h".clone_into(&mut fixture.drift);
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    (fixture, scim, group)
}

async fn add_bob(scim: &Scim, group: &str) {
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(group, &[&bob]).await;
}

#[tokio::test]
async fn acknowledged_grant_that_google_does_not_honour_yet_is_not_written_again() {
    let (fixture, _, _) = team().await;
    switch(&fixture, "PUT", "lag", &json!({"effectMs": 600_000}));
    switch(&fixture, "PUT", "callers", &json!({"tokens": {"alice": ALICE}}));
    fixture.mapping_status("checkout/team", "acknowledged", |s| s["grants"]["acknowledged"] == 1).await;
    let may = async || {
        let url = format!("{}/v2/{SERVICE}:testIamPermissions", fixture.url);
        let body = json!({"permissions": ["run.routes.invoke"]});
        let answer = fixture.http.post(url).bearer_auth("alice").json(&body).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        answer["permissions"].as_array().is_some_and(|held| !held.is_empty())
    };
    assert!(!may().await, "not in force yet");
    let writes = fixture.emulator_writes("checkout-api");
    switch(&fixture, "POST", "clock", &json!({"advanceMs": 601_000}));
    assert!(may().await, "in force");
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes);
}

#[tokio::test]
async fn account_that_google_does_not_know_yet_blocks_nobody_else() {
    let (fixture, scim, group) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let ci = "ci@shop-dev.iam.gserviceaccount.com";
    switch(&fixture, "PUT", "directory", &json!({"groups": ["ops@example.com"], "serviceAccounts": [ci]}));
    switch(&fixture, "PUT", "directory", &json!({"mode": "strict", "users": ["alice@example.com"]}));
    switch(&fixture, "PUT", "directory", &json!({"users": ["bob@example.com"], "existsInMs": 3_600_000}));
    switch(&fixture, "PUT", "directory", &json!({"users": ["carol@example.com"]}));
    add_bob(&scim, &group).await;
    let carol = scim.create_user("carol@example.com").await;
    scim.add_members(&group, &[&carol]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, "user:carol@example.com"]).await;
    fixture.mapping_status("checkout/team", "bob is missing", |s| has(s, "Ready", "False", "")).await;
}

#[tokio::test]
async fn account_that_was_deleted_and_restored_keeps_what_it_was_granted() {
    let (fixture, scim, group) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    switch(&fixture, "POST", "directory/delete", &json!({"member": ALICE, "uid": 123}));
    fixture.members_become("checkout-api", INVOKER, &["deleted:user:alice@example.com?uid=123"]).await;
    switch(&fixture, "POST", "directory/undelete", &json!({"member": ALICE}));
    add_bob(&scim, &group).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
}

#[tokio::test]
async fn person_whose_address_is_an_alias_is_granted_the_role_once() {
    let (fixture, scim, group) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    switch(&fixture, "PUT", "directory", &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    let bobby = scim.create_user("bobby@example.com").await;
    scim.add_members(&group, &[&bobby]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
}

#[tokio::test]
async fn domain_that_google_does_not_let_in_is_not_granted_anything_and_the_mapping_is_not_ready() {
    let (fixture, scim, group) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    switch(&fixture, "PUT", "directory", &json!({"allowedDomains": ["elsewhere.example"]}));
    add_bob(&scim, &group).await;
    fixture.mapping_status("checkout/team", "refused", |s| has(s, "Ready", "False", "")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn reads_that_lag_behind_delay_and_lose_nothing() {
    let (fixture, scim, group) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    switch(&fixture, "PUT", "lag", &json!({"readMs": 300}));
    add_bob(&scim, &group).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    switch(&fixture, "DELETE", "lag", &Value::Null);
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;
}

#[tokio::test]
async fn service_that_was_made_again_gets_all_grants_again() {
    let (fixture, _, _) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    switch(&fixture, "POST", &[format!("resources/{SERVICE}").as_str(), ":recreate"].concat(), &Value::Null);
    fixture.write("mapping.yaml", &mapping("team", "team-checkout", &["services/*"], &[INVOKER], ""));
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn missing_permission_is_reported_and_waiting_work_is_done_once_it_is_granted() {
    let (mut fixture, scim, group) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let read = ["run.services.list", "run.services.getIamPolicy", "run.jobs.*", "run.workerpools.*"];
    switch(&fixture, "PUT", "callers", &json!({"permissions": {"anonymous": read}}));
    add_bob(&scim, &group).await;
    fixture.mapping_status("checkout/team", "denied", |s| has(s, "Ready", "False", "PermissionDenied")).await;
    switch(&fixture, "DELETE", "callers", &Value::Null);
    switch(&fixture, "PUT", "callers", &json!({"requireToken": true}));
    fixture.restart().await;
    eventually("rolecall is refused", async || {
        let refused = fixture.emulator.journal().iter().any(|call| call.status == Some(401));
        if refused { Ok(()) } else { Err(tail(&fixture.log())) }
    })
    .await;
    switch(&fixture, "DELETE", "callers", &Value::Null);
    fixture.restart().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
}

#[tokio::test]
async fn foreign_edits_and_exceeded_quotas_delay_and_lose_nothing() {
    let (fixture, scim, group) = team().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    switch(&fixture, "PUT", "quota", &json!({"reads": 600, "writes": 1, "status": 429, "retryAfter": 1}));
    let stranger = |member: &str| json!([{"role": INVOKER, "members": [member]}]);
    let policy = ["policies", SERVICE].join("/");
    let edit = json!({"add": stranger("user:carol@elsewhere.example"), "remove": stranger("user:nobody@example.com")});
    switch(&fixture, "POST", &policy, &edit);
    add_bob(&scim, &group).await;
    let (status, _) = scim.send(Method::GET, "/Users", None).await;
    assert_eq!(status, 200);
    // A bucket is full again by the emulator's clock.
    switch(&fixture, "POST", "clock", &json!({"set": "2030-01-01T00:00:00Z"}));
    switch(&fixture, "DELETE", "quota", &Value::Null);
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB, "user:carol@elsewhere.example"]).await;
}
