//! End to end through a cluster: manifests, a push of the IdP, a binding, a status, and the removal of all that.

use serde_json::{Value, json};

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

fn team() -> String {
    mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")
}

/// A fixture with the service `checkout-api`, and Alice in the group `team-checkout`.
async fn checkout() -> (Fixture, Scim) {
    let fixture = Fixture::start().await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    let scim = fixture.scim("okta", TOKEN);
    accepted(&scim, 200).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    (fixture, scim)
}

/// Waits until a token is answered with this status.
async fn accepted(scim: &Scim, wanted: u16) {
    eventually(&format!("{wanted} for a token"), async || {
        let (status, answer) = scim.send(reqwest::Method::GET, "/Users?count=1", None).await;
        if status == wanted { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
}

#[tokio::test]
async fn applied_manifests_and_a_push_become_a_binding_and_a_ready_mapping() {
    let (fixture, _) = checkout().await;
    fixture.admin().apply(&team()).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let waited = ["wait", "--for=condition=Ready", "rolemapping/team", "--namespace=checkout", "--timeout=20s"];
    fixture.cluster.kubectl(&waited).await.ok();
    let status =
        fixture.mapping_status("checkout/team", "verified by a later read", |s| s["grants"]["verified"] == 1).await;
    assert_eq!(status["grants"]["summary"], "1/1");
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["subjects"][0]["members"], 1);
    let mapping = fixture.object("RoleMapping", "checkout/team").await;
    assert_eq!(mapping["metadata"]["finalizers"], json!(["rolecall.dev/revoke"]));
    assert_eq!(kstatus(&[mapping]).await[0].0, "Current");
    for (kind, name) in [("CloudRunTarget", "shop-dev"), ("IdentityProvider", "okta")] {
        let object = fixture.until(kind, name, "Ready", |object| has(&object["status"], "Ready", "True", "")).await;
        assert_eq!(object["status"]["observedGeneration"], 1, "{kind}");
    }
}

#[tokio::test]
async fn namespace_without_delegation_is_reported_and_nothing_is_written() {
    let (fixture, _) = checkout().await;
    fixture.admin().namespace("stranger", &json!({})).await;
    fixture.admin().apply(&team().replace("namespace: checkout", "namespace: stranger")).await;
    let refused = |status: &Value| {
        has(status, "Accepted", "False", "NotDelegated")
            && has(status, "Ready", "False", "NotDelegated")
            && has(status, "Stalled", "True", "NotDelegated")
    };
    // While the target is listed for the first time, the mapping is reported as in progress.
    fixture.mapping_status("stranger/team", "refused", refused).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), 0);
    let judged = kstatus(&[fixture.object("RoleMapping", "stranger/team").await]).await;
    assert_eq!(judged[0].0, "Failed");
}

#[tokio::test]
async fn deleted_mapping_is_removed_after_its_grants_are_revoked() {
    let (fixture, _) = checkout().await;
    fixture.admin().apply(&team()).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let fault = json!({"match": {"method": "POST", "path": ":setIamPolicy", "count": 2}, "action": {"type": "error", "status": 503}});
    fixture.fault(fault).await;
    fixture.admin().delete("RoleMapping", "checkout/team").await;
    fixture.gone("RoleMapping", "checkout/team").await;
    assert!(!fixture.policy("checkout-api").await.contains_key(INVOKER), "revoked before the object went");
}

#[tokio::test]
async fn rotated_secret_takes_effect_without_a_restart() {
    let (fixture, scim) = checkout().await;
    let other = "another-token-of-okta-0123456789abcdef";
    let patch = json!({"stringData": {"token": other}});
    fixture.admin().patch("Secret", &format!("{SYSTEM}/okta-scim"), &patch).await.expect("a new token");
    accepted(&fixture.scim("okta", other), 200).await;
    accepted(&scim, 401).await;
}
