//! Outdated reads: nothing is concluded from them, and nobody keeps access because of them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::*;

const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";

/// The invokers as last written, whatever a read shows.
fn invokers(fixture: &Fixture) -> BTreeSet<String> {
    let policy = fixture.emulator.policy(SERVICE).unwrap_or_default();
    let bindings = policy["bindings"].as_array().cloned().unwrap_or_default();
    let ours = bindings.iter().filter(|binding| binding["role"] == INVOKER);
    ours.flat_map(|binding| binding["members"].as_array().cloned().unwrap_or_default())
        .filter_map(|member| member.as_str().map(str::to_owned))
        .collect()
}

async fn invokers_become(fixture: &Fixture, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|&member| member.to_owned()).collect();
    eventually_within(Duration::from_mins(1), &format!("invokers = {wanted:?}"), async || {
        let seen = invokers(fixture);
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}; log:\n{}", tail(&fixture.log()))) }
    })
    .await;
}

fn lag(fixture: &Fixture, read_ms: u64) {
    fixture.emulator.control("PUT", "lag", &json!({"readMs": read_ms})).expect("a lag");
}

async fn fixture_with(extra: &str) -> (Fixture, Scim) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], extra)));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

/// Thirty people join at five a second, and ten of them are deactivated at once, which no guard holds. Returns the
/// number of writes.
async fn thirty_come_and_ten_go(read_ms: u64) -> usize {
    let (mut fixture, scim) = fixture_with("").await;
    let group = scim.create_group("team-checkout", &[]).await;
    lag(&fixture, read_ms);
    let mut people = Vec::new();
    for person in 0..30 {
        let id = scim.create_user(&format!("p{person}@example.com")).await;
        scim.add_members(&group, &[&id]).await;
        people.push(id);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for id in &people[..10] {
        scim.set_active(id, false).await;
    }
    let left: Vec<String> = (10..30).map(|person| format!("user:p{person}@example.com")).collect();
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    invokers_become(&fixture, &left).await;
    let before = fixture.emulator_writes("checkout-api");
    fixture.progress().rounds(2).await;
    fixture.progress().settled().await;
    invokers_become(&fixture, &left).await;
    fixture.mapping_status("checkout/team", "Ready", |status| has(status, "Ready", "True", "")).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), before, "nothing more is written");
    lag(&fixture, 0);
    fixture.agree().await;
    before
}

#[tokio::test]
async fn leavers_lose_access_while_reads_lag_behind() {
    thirty_come_and_ten_go(400).await;
}

#[tokio::test]
async fn owned_and_missing_in_a_stale_read_is_not_lost_and_is_removed_when_the_person_leaves() {
    let (mut fixture, scim) = fixture_with("").await;
    let (alice, bob) = (scim.create_user("alice@example.com").await, scim.create_user("bob@example.com").await);
    let group = scim.create_group("team-checkout", &[]).await;
    lag(&fixture, 3000);
    scim.add_members(&group, &[&alice]).await;
    invokers_become(&fixture, &["user:alice@example.com"]).await;
    scim.add_members(&group, &[&bob]).await;
    invokers_become(&fixture, &["user:alice@example.com", "user:bob@example.com"]).await;
    scim.set_active(&alice, false).await;
    scim.set_active(&bob, false).await;
    invokers_become(&fixture, &[]).await;
    lag(&fixture, 0);
    fixture.agree().await;
}

#[tokio::test]
async fn a_restart_does_not_forget_which_reads_are_old() {
    let (mut fixture, scim) = fixture_with("").await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[]).await;
    lag(&fixture, 8000);
    scim.add_members(&group, &[&alice]).await;
    invokers_become(&fixture, &["user:alice@example.com"]).await;
    fixture.kill();
    fixture.run().await;
    scim.set_active(&alice, false).await;
    invokers_become(&fixture, &[]).await;
    lag(&fixture, 0);
    fixture.agree().await;
}

#[tokio::test]
async fn a_lost_answer_while_reads_lag_leaves_nobody_behind() {
    let (mut fixture, scim) = fixture_with("").await;
    let (alice, bob) = (scim.create_user("alice@example.com").await, scim.create_user("bob@example.com").await);
    let group = scim.create_group("team-checkout", &[]).await;
    scim.add_members(&group, &[&alice]).await;
    invokers_become(&fixture, &["user:alice@example.com"]).await;
    lag(&fixture, 1500);
    fixture
        .fault(json!({"match": {"path": ":setIamPolicy", "count": 1}, "action": {"type": "drop", "when": "after"}}))
        .await;
    scim.add_members(&group, &[&bob]).await;
    invokers_become(&fixture, &["user:alice@example.com", "user:bob@example.com"]).await;
    scim.set_active(&bob, false).await;
    scim.set_active(&alice, false).await;
    invokers_become(&fixture, &[]).await;
    lag(&fixture, 0);
    fixture.agree().await;
}

#[tokio::test]
async fn nobody_else_edits_and_the_lag_costs_no_more_writes() {
    let without = thirty_come_and_ten_go(0).await;
    let with = thirty_come_and_ten_go(1000).await;
    println!("measured: {without} writes without lag, {with} with a second of lag");
    assert!(with * 100 <= without * 105, "{with} writes with lag, {without} without");
}

#[tokio::test]
async fn a_grant_removed_by_somebody_else_is_reported_as_missing_only_once_it_is_proven() {
    let (mut fixture, scim) = fixture_with("  onMissing: Report\n").await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    invokers_become(&fixture, &["user:alice@example.com"]).await;
    fixture.stranger_removes("checkout-api", INVOKER, "user:alice@example.com").await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.mapping_status("checkout/team", "one missing", |status| status["drift"]["missing"] == 1).await;
    fixture.progress().rounds(2).await;
    fixture.progress().settled().await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes + 1, "one write of the policy as read proves it");
    assert_eq!(invokers(&fixture), BTreeSet::new());
    fixture.agree().await;
}
