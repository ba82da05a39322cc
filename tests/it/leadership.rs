//! Two processes on one database: the one that started last works, the other writes nothing more and ends.

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";

async fn granted() -> (World, String) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    world.members_become("checkout-api", INVOKER, &[ALICE]).await;
    world.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    (world, group)
}

/// The second process works, and Google saw each change once.
async fn second_works(world: &mut World, group: &str, writes: usize) {
    let scim = world.scim("okta", TOKEN);
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(group, &[&bob]).await;
    world.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    assert_eq!(world.emulator_writes("checkout-api"), writes + 1);
}

#[tokio::test]
async fn first_of_two_processes_ends_and_says_that_the_second_took_over() {
    let (mut world, group) = granted().await;
    let writes = world.emulator_writes("checkout-api");
    world.run_another().await;
    assert_eq!(world.first_ends().await, Some(3));
    let log = world.log();
    let last = log.lines().find(|line| line.contains("LeadershipLost") && line.contains("only one rolecall works"));
    assert!(last.is_some_and(|line| line.contains(&world.scim_url)), "it says which one took over: {log}");
    second_works(&mut world, &group, writes).await;
    world.agree().await;
}

#[tokio::test]
async fn first_that_was_suspended_meanwhile_writes_nothing_when_it_wakes() {
    let (mut world, group) = granted().await;
    let writes = world.emulator_writes("checkout-api");
    world.suspend();
    world.run_another().await;
    second_works(&mut world, &group, writes).await;
    world.stranger_removes("checkout-api", INVOKER, BOB).await;
    world.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    let writes = world.emulator_writes("checkout-api");
    world.resume_first();
    assert_eq!(world.first_ends().await, Some(3));
    assert_eq!(world.emulator_writes("checkout-api"), writes, "the policy was in step already");
    world.agree().await;
}
