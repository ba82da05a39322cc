//! The database and all that remembers it are lost together: that is no first start.

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

/// A world in which mapping `checkout/team` granted each of these the invoker role on `checkout-api`.
async fn granted(people: &[&str]) -> World {
    let mut world = World::prepare(&manifests()).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    world.run().await;
    push(&world, people).await;
    world.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "Converged")).await;
    let held: Vec<String> = people.iter().map(|name| format!("user:{name}@example.com")).collect();
    world.members_become("checkout-api", INVOKER, &held.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world
}

async fn push(world: &World, people: &[&str]) {
    let scim = world.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for name in people {
        ids.push(scim.create_user(&format!("{name}@example.com")).await);
    }
    scim.create_group("team-checkout", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

async fn frozen(world: &World) {
    let status = world.mapping_status("checkout/team", "StoreMismatch", |s| has(s, "Frozen", "True", "StoreMismatch"));
    assert!(has(&status.await, "Ready", "False", "StoreMismatch"));
}

fn lose(world: &mut World, pattern: &str) {
    world.kill();
    for entry in std::fs::read_dir(world.folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_file() && name.contains(pattern) && path.extension().is_none_or(|it| it != "log") {
            std::fs::remove_file(&path).expect("remove a file");
        }
    }
}

#[tokio::test]
async fn new_database_without_any_memory_over_policies_with_our_people_freezes_until_it_is_accepted() {
    let mut world = granted(&PEOPLE).await;
    lose(&mut world, "rolecall");
    world.run().await;
    frozen(&world).await;
    let writes = world.emulator_writes("checkout-api");
    // Carol left meanwhile, which the new database cannot know; dave joined.
    push(&world, &["alice", "bob", "dave"]).await;
    world.restart().await;
    frozen(&world).await;
    let members = members();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    world.members_stay("checkout-api", INVOKER, &members).await;
    assert_eq!(world.emulator_writes("checkout-api"), writes, "nothing is written");
    assert!(world.log().contains("database that was lost"), "the log says why:\n{}", tail(&world.log()));
    world.store_accept();
    world.members_become("checkout-api", INVOKER, &[members[0], members[1], members[2], "user:dave@example.com"]).await;
    world.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    world.restart().await;
    world.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
}

#[tokio::test]
async fn file_beside_the_manifests_and_database_are_lost_and_the_file_beside_the_database_knows() {
    let mut world = granted(&["alice"]).await;
    lose(&mut world, ".manifests.rolecall-store");
    lose(&mut world, "rolecall.db");
    world.run().await;
    frozen(&world).await;
    push(&world, &["bob"]).await;
    world.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    world.store_accept();
    world.members_become("checkout-api", INVOKER, &["user:alice@example.com", "user:bob@example.com"]).await;
}

#[tokio::test]
async fn mirror_that_cannot_be_written_does_not_make_a_lost_database_a_first_start() {
    let mut world = World::prepare(&manifests()).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    // A folder in its place: not even root can write the file.
    let mirror = world.folder.path().join(".manifests.rolecall-store.json.new");
    std::fs::create_dir(&mirror).expect("a folder");
    world.run().await;
    push(&world, &["alice"]).await;
    world.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    eventually(
        "said",
        async || {
            if world.log().contains("CheckpointUnavailable") { Ok(()) } else { Err(tail(&world.log())) }
        },
    )
    .await;
    lose(&mut world, "rolecall.db");
    world.run().await;
    frozen(&world).await;
    world.store_accept();
    world.mapping_status("checkout/team", "goes on", |s| !has(s, "Frozen", "True", "StoreMismatch")).await;
}

#[tokio::test]
async fn first_installation_over_grants_that_were_made_by_hand_goes_on() {
    let mut world = World::prepare(&manifests()).await;
    world.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
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
        world.emulator.control("PUT", &policy, &json!({"bindings": bindings})).expect("a policy");
    }
    world.run().await;
    push(&world, &["alice", "heidi"]).await;
    let mut members = by_hand.to_vec();
    members.push("user:heidi@example.com");
    for service in ["checkout-api", "checkout-web"] {
        world.members_become(service, INVOKER, &members).await;
    }
    world.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
}
