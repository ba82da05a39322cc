//! `/progress` says when a change is done, so that who looks then need not look again.

use serde_json::json;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";

async fn team() -> Fixture {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-*"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    // Policies are read because of a change only.
    "1h".clone_into(&mut fixture.drift);
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.run().await;
    fixture
}

#[tokio::test]
async fn change_that_was_just_answered_or_written_is_done_when_progress_is_settled() {
    let fixture = team().await;
    let scim = fixture.scim("okta", TOKEN);
    let (alice, bob) = (scim.create_user("alice@example.com").await, scim.create_user("bob@example.com").await);
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.progress().settled().await;
    for service in ["checkout-api", "checkout-web"] {
        fixture.members_are(service, INVOKER, &[ALICE]).await;
    }
    for _ in 0..5 {
        scim.add_members(&group, &[&bob]).await;
        fixture.progress().settled().await;
        fixture.members_are("checkout-api", INVOKER, &[ALICE, BOB]).await;
        scim.remove_member(&group, &bob).await;
        fixture.progress().settled().await;
        fixture.members_are("checkout-api", INVOKER, &[ALICE]).await;
    }
    for roles in [&[INVOKER, VIEWER][..], &[INVOKER]] {
        fixture.write("mapping.yaml", &mapping("team", "team-checkout", &["services/checkout-api"], roles, ""));
        fixture.progress().settled().await;
        fixture.members_are("checkout-web", INVOKER, &[]).await;
        let viewers: &[&str] = if roles.contains(&VIEWER) { &[ALICE] } else { &[] };
        fixture.members_are("checkout-api", VIEWER, viewers).await;
    }
    fixture.remove("mapping.yaml");
    fixture.progress().settled().await;
    fixture.members_are("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn call_in_progress_is_not_settled() {
    let fixture = team().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let slow = json!({"match": {"path": "checkout-api:setIamPolicy", "count": 1}, "action": {"type": "latency", "latencyMs": 2000}});
    fixture.fault(slow).await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.progress().settled().await;
    fixture.members_are("checkout-api", INVOKER, &[ALICE]).await;
    assert_eq!(fixture.faults_fired().await, 1);
}
