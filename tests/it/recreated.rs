//! A service that was deleted and re-created is another one: the grants on it were not made by rolecall.

use serde_json::json;

use crate::support::*;

const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";

async fn fixture(extra: &str) -> (Fixture, Scim, String) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], extra)));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    (fixture, scim, alice)
}

fn recreate(fixture: &Fixture) {
    fixture.emulator.control("POST", &format!("resources/{SERVICE}:recreate"), &json!({})).expect("made again");
}

/// A grant of the deploy pipeline on the new service is foreign, however late the list is.
fn pipeline_grants(fixture: &Fixture, member: &str) {
    let edit = json!({"add": [{"role": INVOKER, "member": member}]});
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &edit).expect("an edit");
}

#[tokio::test]
async fn what_the_pipeline_granted_on_the_new_service_stays_when_our_person_leaves() {
    let (mut fixture, scim, alice) = fixture("").await;
    recreate(&fixture);
    pipeline_grants(&fixture, "user:alice@example.com");
    scim.set_active(&alice, false).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn what_the_pipeline_granted_stays_although_the_list_is_late() {
    let (mut fixture, scim, alice) = fixture("").await;
    fixture
        .fault(
            json!({"match": {"method": "GET", "pathRegex": "services$"}, "action": {"type": "error", "status": 503}}),
        )
        .await;
    recreate(&fixture);
    pipeline_grants(&fixture, "user:alice@example.com");
    scim.set_active(&alice, false).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.clear_faults().await;
    fixture.agree().await;
}

#[tokio::test]
async fn the_new_service_gets_the_grants_also_where_missing_ones_are_only_reported() {
    let (mut fixture, scim, alice) = fixture("  onMissing: Report\n").await;
    recreate(&fixture);
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.mapping_status("checkout/team", "nothing missing", |status| status["drift"]["missing"] == 0).await;
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.progress().settled().await;
    fixture.agree().await;
}

#[tokio::test]
async fn a_service_recreated_while_all_grants_were_gone_gets_grants_at_once() {
    let (mut fixture, scim, alice) = fixture("").await;
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    recreate(&fixture);
    scim.set_active(&alice, true).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.agree().await;
}
