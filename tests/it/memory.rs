//! The database and all checkpoints are lost together: that is not a first start.

use serde_json::json;

use crate::support::*;

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

fn members() -> Vec<String> {
    PEOPLE.map(|name| format!("user:{name}@example.com")).to_vec()
}

fn manifests() -> Vec<(&'static str, String)> {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-*"], &[INVOKER], "")));
    manifests
}

/// A fixture in which mapping `checkout/team` granted each of these the invoker role on `checkout-api`.
async fn granted(people: &[&str]) -> Fixture {
    let mut fixture = Fixture::prepare(&manifests()).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    push(&fixture, people).await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "Converged")).await;
    let held: Vec<String> = people.iter().map(|name| format!("user:{name}@example.com")).collect();
    fixture.members_become("checkout-api", INVOKER, &held.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fixture
}

async fn push(fixture: &Fixture, people: &[&str]) {
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for name in people {
        ids.push(scim.create_user(&format!("{name}@example.com")).await);
    }
    scim.create_group("team-checkout", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

async fn frozen(fixture: &Fixture) {
    let status =
        fixture.mapping_status("checkout/team", "StoreMismatch", |s| has(s, "Frozen", "True", "StoreMismatch"));
    assert!(has(&status.await, "Ready", "False", "StoreMismatch"));
}

fn lose(fixture: &mut Fixture, pattern: &str) {
    fixture.kill();
    for entry in std::fs::read_dir(fixture.folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_file() && name.contains(pattern) && path.extension().is_none_or(|it| it != "log") {
            std::fs::remove_file(&path).expect("remove a file");
        }
    }
}

#[tokio::test]
async fn new_database_without_any_memory_over_policies_with_our_people_freezes_until_it_is_accepted() {
    let mut fixture = granted(&PEOPLE).await;
    lose(&mut fixture, "rolecall");
    fixture.run().await;
    frozen(&fixture).await;
    let writes = fixture.emulator_writes("checkout-api");
    // Carol left meanwhile, which the new database cannot know; dave joined.
    push(&fixture, &["alice", "bob", "dave"]).await;
    fixture.restart().await;
    frozen(&fixture).await;
    let members = members();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    fixture.members_stay("checkout-api", INVOKER, &members).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "nothing is written");
    assert!(fixture.log().contains("database that was lost"), "the log says why:\n{}", tail(&fixture.log()));
    fixture.store_accept();
    fixture
        .members_become("checkout-api", INVOKER, &[members[0], members[1], members[2], "user:dave@example.com"])
        .await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    fixture.restart().await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
}

#[tokio::test]
async fn lost_database_is_detected_by_the_checkpoint_next_to_it_when_that_next_to_the_manifests_is_lost_too() {
    let mut fixture = granted(&["alice"]).await;
    lose(&mut fixture, ".manifests.rolecall-store");
    lose(&mut fixture, "rolecall.db");
    fixture.run().await;
    frozen(&fixture).await;
    push(&fixture, &["bob"]).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.store_accept();
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com", "user:bob@example.com"]).await;
}

#[tokio::test]
async fn checkpoint_that_cannot_be_written_does_not_make_a_lost_database_a_first_start() {
    let mut fixture = Fixture::prepare(&manifests()).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    // A folder in place of the file, which not even root can write.
    let mirror = fixture.folder.path().join(".manifests.rolecall-store.json.new");
    std::fs::create_dir(&mirror).expect("a folder");
    fixture.run().await;
    push(&fixture, &["alice"]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    eventually("said", async || {
        if fixture.log().contains("CheckpointUnavailable") { Ok(()) } else { Err(tail(&fixture.log())) }
    })
    .await;
    lose(&mut fixture, "rolecall.db");
    fixture.run().await;
    frozen(&fixture).await;
    fixture.store_accept();
    fixture.mapping_status("checkout/team", "goes on", |s| !has(s, "Frozen", "True", "StoreMismatch")).await;
}

#[tokio::test]
async fn first_installation_over_grants_made_by_hand_is_not_doubted() {
    let mut fixture = Fixture::prepare(&manifests()).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    let by_hand = [
        "user:alice@example.com",
        "user:bob@example.com",
        "user:carol@elsewhere.example",
        "user:dave@elsewhere.example",
        "group:everybody@example.com",
        "serviceAccount:ci@shop-dev.iam.gserviceaccount.com",
    ];
    for service in ["checkout-api", "checkout-web"] {
        let policy = format!("policies/projects/shop-dev/locations/europe-west1/services/{service}");
        let bindings = json!([{"role": INVOKER, "members": by_hand}, {"role": "roles/run.developer", "members": [
            "user:erin@example.com", "user:frank@example.com", "user:grace@example.com"]}]);
        fixture.emulator.control("PUT", &policy, &json!({"bindings": bindings})).expect("a policy");
    }
    fixture.run().await;
    push(&fixture, &["alice", "heidi"]).await;
    let mut members = by_hand.to_vec();
    members.push("user:heidi@example.com");
    for service in ["checkout-api", "checkout-web"] {
        fixture.members_become(service, INVOKER, &members).await;
    }
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
}
