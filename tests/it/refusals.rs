//! What Google refuses, and who is held up by it.

use std::time::Duration;

use serde_json::json;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

/// A world with these services and mapping `checkout/team` of `team-checkout` to invoker on `resources`.
async fn mapped(services: &[&str], resources: &[&str]) -> (World, Scim) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", resources, &[INVOKER], "")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", services).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    (world, scim)
}

#[tokio::test]
async fn address_that_no_google_account_has_is_not_sent_and_holds_up_nobody() {
    let (world, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let mut people = Vec::new();
    for name in ["alice@example.com", "x<y@example.com", "x..y@example.com", "\"q\"@example.com"] {
        people.push(scim.create_user(name).await);
    }
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    scim.create_group("team-checkout", &people).await;
    world.members_become("checkout-api", INVOKER, &[ALICE]).await;
    world.mapping_status("checkout/team", "three are left out", |s| s.to_string().contains("PrincipalInvalid")).await;
    for call in world.emulator.journal() {
        assert_eq!(call.status, Some(200), "nothing was refused: {call:?}");
    }
}

#[tokio::test]
async fn target_whose_list_is_not_permitted_is_listed_ever_more_rarely_and_at_once_on_request() {
    let mut manifests = base();
    manifests[1].1 = target(&["services/*"], &[INVOKER]).replace("discoveryInterval: 1s", "discoveryInterval: 2s");
    let mut world = World::prepare(&manifests).await;
    let denied = json!({"match": {"path": "/services", "method": "GET"}, "action": {"type": "error", "status": 403}});
    world.fault(denied).await;
    world.run().await;
    let lists = || world.emulator.count("GET", "/locations/europe-west1/services");
    // Asked after 2, 4, 8 and 16 s: whoever repeats at the interval or more often asks a fourth time within 7 s.
    eventually("the second list", async || if lists() >= 2 { Ok(()) } else { Err(lists().to_string()) }).await;
    let before = lists();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(lists() <= before + 2, "{before} lists, then {}", lists());
    world.clear_faults().await;
    let asked = target(&["services/*"], &[INVOKER])
        .replace("discoveryInterval: 1s", "discoveryInterval: 2s")
        .replace("{name: shop-dev}", "{name: shop-dev, annotations: {rolecall.dev/reconcile-requested-at: now}}");
    world.write("target.yaml", &asked);
    eventually("reachable again", async || {
        let status = world.status("CloudRunTarget", "shop-dev").await;
        if has(&status, "Reachable", "True", "") { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}
