//! Uninstalling: all grants are settled first.

use crate::support::*;

/// 12 people granted through two mappings, whose removal the guard would hold, and one who was granted by somebody
/// else.
async fn team() -> (Fixture, Vec<String>) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    manifests.push(("second.yaml", mapping("second", "team-checkout", &["services/checkout-web"], &[VIEWER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.stranger_adds("checkout-api", INVOKER, "user:stranger@example.com").await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    let mut members = vec!["user:stranger@example.com".to_owned()];
    for n in 0..12 {
        ids.push(scim.create_user(&format!("p{n:02}@example.com")).await);
        members.push(format!("user:p{n:02}@example.com"));
    }
    let ids: Vec<&String> = ids.iter().collect();
    scim.create_group("team-checkout", &ids.iter().map(|id| id.as_str()).collect::<Vec<_>>()).await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    fixture.members_become("checkout-api", INVOKER, &all).await;
    fixture.members_become("checkout-web", VIEWER, &all[1..]).await;
    (fixture, members)
}

// Needs several threads: the command waits for the emulator in this process.
#[tokio::test(flavor = "multi_thread")]
async fn uninstall_revokes_all_that_is_ours_past_the_guard_and_grants_nothing_until_it_is_cancelled() {
    let (mut fixture, members) = team().await;
    fixture.command(&["uninstall", "--revoke", "--timeout", "20"]);
    fixture.members_become("checkout-api", INVOKER, &["user:stranger@example.com"]).await;
    fixture.members_become("checkout-web", VIEWER, &[]).await;
    fixture.restart().await;
    fixture.write("third.yaml", &mapping("third", "team-checkout", &["services/checkout-api"], &[VIEWER], ""));
    fixture.members_stay("checkout-api", INVOKER, &["user:stranger@example.com"]).await;
    fixture.members_stay("checkout-api", VIEWER, &[]).await;
    fixture.command(&["uninstall", "--cancel"]);
    fixture.restart().await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    fixture.members_become("checkout-api", INVOKER, &all).await;
    fixture.members_become("checkout-api", VIEWER, &all[1..]).await;
}

// Needs several threads: the command waits for the emulator in this process.
#[tokio::test(flavor = "multi_thread")]
async fn uninstall_that_orphans_leaves_what_was_granted_and_forgets_it() {
    let (mut fixture, members) = team().await;
    fixture.command(&["uninstall", "--orphan", "--timeout", "20"]);
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    fixture.restart().await;
    fixture.members_stay("checkout-web", VIEWER, &all[1..]).await;
    // The grant is foreign now: when it is wanted again, it was there before.
    fixture.command(&["uninstall", "--cancel"]);
    fixture.restart().await;
    fixture.mapping_status("checkout/second", "not ours", |s| s["grants"]["unowned"] == 12).await;
}
