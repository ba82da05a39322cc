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
    // The leaver keeps the access, and that is told by both sides, also after a restart, until somebody ends it.
    let told = |s: &Value| says(s, "Drifted", "True", "LeaverHasForeignGrant", "1 grant is still there");
    for _ in 0..2 {
        let status = fixture.mapping_status("checkout/team", "told", told).await;
        assert_eq!(status["drift"]["leavers"], 1, "{status}");
        assert!(has(&status, "Ready", "True", ""), "what rolecall made is gone: {status}");
        fixture.target_status("told", |s| has(s, "Drifted", "True", "LeaverHasForeignGrant")).await;
        fixture.members_are("checkout-api", INVOKER, &[ALICE, BOB, STRANGER]).await;
        fixture.restart().await;
    }
    fixture.stranger_removes("checkout-api", INVOKER, ALICE).await;
    fixture.mapping_status("checkout/team", "over", |s| s["drift"]["leavers"] == 0 && !told(s)).await;
    fixture.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mappings_that_explain_the_policies_of_today_take_them_over() {
    let mut fixture =
        Fixture::prepare(&[("provider.yaml", base().remove(0).1), ("target.yaml", target("Adopt"))]).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    for (service, member) in [("checkout-api", ALICE), ("checkout-api", BOB), ("checkout-web", BOB)] {
        fixture.stranger_adds(service, INVOKER, member).await;
    }
    fixture.stranger_adds("checkout-api", INVOKER, STRANGER).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("Team Checkout", &[&alice, &bob]).await;
    scim.create_group("web", &[&bob]).await;
    let database = format!("sqlite:{}", fixture.database.display());
    let adopt = || {
        Fixture::rolecall(&[
            "adopt",
            "shop-dev",
            "-n",
            "checkout",
            "--database",
            &database,
            "--google-endpoint",
            &fixture.google.url,
            "--google-credentials",
            "none",
        ])
    };
    let (code, manifests, summary) = adopt();
    assert_eq!(code, 1, "{summary}");
    assert!(summary.contains("2 mappings explain 3 of 4 grants (75 %) in 2 policies of shop-dev"), "{summary}");
    assert!(summary.contains("services/checkout-api: 1 to accounts that no identity provider has"), "{summary}");
    assert!(!manifests.contains("alice") && !summary.contains("alice"), "no names of people: {manifests}");
    fixture.write("adopted.yaml", &manifests);
    let adopted = |s: &Value| s["grants"]["acknowledged"] == s["grants"]["desired"] && has(s, "Ready", "True", "");
    fixture.mapping_status("checkout/team-checkout", "adopted", |s| adopted(s) && unowned(s) == 0).await;
    fixture.mapping_status("checkout/web", "adopted", |s| adopted(s) && unowned(s) == 0).await;
    fixture.members_are("checkout-api", INVOKER, &[ALICE, BOB, STRANGER]).await;
    let (_, manifests, summary) = adopt();
    assert!(manifests.is_empty() && summary.contains("explain 0 of 1 grants"), "{summary}");
    scim.set_active(&bob, false).await;
    fixture.members_become("checkout-web", INVOKER, &[]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, STRANGER]).await;
    fixture.agree().await;
}
