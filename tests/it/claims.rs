//! Grants that somebody else made before: taken over where that is asked for and permitted, and otherwise never touched.

use serde_json::Value;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";
const STRANGER: &str = "user:stranger@example.com";

/// A target that permits `Adopt`, or does not.
fn target(permit: &str) -> String {
    let (_, text) = base().remove(1);
    format!("{text}      permit: [{permit}]\n")
}

fn team(annotations: &str) -> String {
    let text = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "");
    text.replace("  name: team\n", &format!("  name: team\n{annotations}"))
}

const ADOPT: &str = "  annotations: {rolecall.dev/adopt: \"true\"}\n";

/// A service on which somebody granted the role to alice and to a stranger, and the group with alice and bob.
async fn brown_field(permit: &str, annotations: &str) -> (Fixture, Scim, String) {
    let mut fixture = Fixture::prepare(&[
        ("provider.yaml", base().remove(0).1),
        ("target.yaml", target(permit)),
        ("mapping.yaml", team(annotations)),
    ])
    .await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.stranger_adds("checkout-api", INVOKER, ALICE).await;
    fixture.stranger_adds("checkout-api", INVOKER, STRANGER).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&alice, &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB, STRANGER]).await;
    (fixture, scim, alice)
}

fn unowned(status: &Value) -> Value {
    status["grants"]["unowned"].clone()
}

#[tokio::test]
async fn adopted_grants_need_no_outage_and_leave_with_their_people() {
    let (mut fixture, scim, alice) = brown_field("Adopt", "").await;
    fixture.mapping_status("checkout/team", "not adopted", |s| unowned(s) == 1).await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.write("mapping.yaml", &team(ADOPT));
    let status = fixture.mapping_status("checkout/team", "adopted", |s| unowned(s) == 0).await;
    assert!(has(&status, "Ready", "True", ""), "{status}");
    assert!(fixture.emulator_writes("checkout-api") <= writes + 1, "at most one write, which proves the read");
    fixture.members_are("checkout-api", INVOKER, &[ALICE, BOB, STRANGER]).await;
    fixture.restart().await;
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB, STRANGER]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn without_permission_of_the_target_nothing_is_adopted() {
    let (mut fixture, scim, alice) = brown_field("Orphan", ADOPT).await;
    fixture.mapping_status("checkout/team", "not adopted", |s| unowned(s) == 1).await;
    scim.set_active(&alice, false).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB, STRANGER]).await;
    fixture.agree().await;
}
