//! Two processes on one database: the one that started last works; the other writes nothing more and exits.

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";

async fn granted() -> (Fixture, String) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    (fixture, group)
}

/// Checks that the second process works, and that Google received each change once.
async fn second_works(fixture: &mut Fixture, group: &str, writes: usize) {
    let scim = fixture.scim("okta", TOKEN);
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(group, &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes + 1);
}

#[tokio::test]
async fn first_of_two_processes_exits_and_logs_that_the_second_took_over() {
    let (mut fixture, group) = granted().await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.run_another().await;
    assert_eq!(fixture.first_ends().await, Some(3));
    let log = fixture.log();
    let last =
        log.lines().find(|line| line.contains("LeadershipLost") && line.contains("only one rolecall may use it"));
    assert!(last.is_some_and(|line| line.contains(&fixture.scim_url)), "it says which one took over: {log}");
    second_works(&mut fixture, &group, writes).await;
    fixture.agree().await;
}

#[tokio::test]
async fn first_that_was_suspended_meanwhile_writes_nothing_when_it_wakes() {
    let (mut fixture, group) = granted().await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.suspend();
    fixture.run_another().await;
    second_works(&mut fixture, &group, writes).await;
    fixture.stranger_removes("checkout-api", INVOKER, BOB).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.resume_first();
    assert_eq!(fixture.first_ends().await, Some(3));
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "the policy was in step already");
    fixture.agree().await;
}
