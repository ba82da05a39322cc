//! rolecall goes: what was granted is settled first.

use crate::support::*;

/// 12 people through two mappings, which the guard would hold, and one whom somebody else granted before.
async fn team() -> (World, Vec<String>) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    manifests.push(("second.yaml", mapping("second", "team-checkout", &["services/checkout-web"], &[VIEWER], "")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    world.stranger_adds("checkout-api", INVOKER, "user:stranger@example.com").await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    let mut ids = Vec::new();
    let mut members = vec!["user:stranger@example.com".to_owned()];
    for n in 0..12 {
        ids.push(scim.create_user(&format!("p{n:02}@example.com")).await);
        members.push(format!("user:p{n:02}@example.com"));
    }
    let ids: Vec<&String> = ids.iter().collect();
    scim.create_group("team-checkout", &ids.iter().map(|id| id.as_str()).collect::<Vec<_>>()).await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    world.members_become("checkout-api", INVOKER, &all).await;
    world.members_become("checkout-web", VIEWER, &all[1..]).await;
    (world, members)
}

// Of several threads: the verb waits for what the emulator in this process does.
#[tokio::test(flavor = "multi_thread")]
async fn uninstall_revokes_all_that_is_ours_past_the_guard_and_grants_nothing_until_it_is_cancelled() {
    let (mut world, members) = team().await;
    world.command(&["uninstall", "--revoke", "--timeout", "20"]);
    world.members_become("checkout-api", INVOKER, &["user:stranger@example.com"]).await;
    world.members_become("checkout-web", VIEWER, &[]).await;
    world.restart().await;
    world.write("third.yaml", &mapping("third", "team-checkout", &["services/checkout-api"], &[VIEWER], ""));
    world.members_stay("checkout-api", INVOKER, &["user:stranger@example.com"]).await;
    world.members_stay("checkout-api", VIEWER, &[]).await;
    world.command(&["uninstall", "--cancel"]);
    world.restart().await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    world.members_become("checkout-api", INVOKER, &all).await;
    world.members_become("checkout-api", VIEWER, &all[1..]).await;
}

// Of several threads: the verb waits for what the emulator in this process does.
#[tokio::test(flavor = "multi_thread")]
async fn uninstall_that_orphans_leaves_what_was_granted_and_forgets_it() {
    let (mut world, members) = team().await;
    world.command(&["uninstall", "--orphan", "--timeout", "20"]);
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    world.members_stay("checkout-api", INVOKER, &all).await;
    world.restart().await;
    world.members_stay("checkout-web", VIEWER, &all[1..]).await;
    // Nobody's any more: what is wanted again was there before.
    world.command(&["uninstall", "--cancel"]);
    world.restart().await;
    world.mapping_status("checkout/second", "not ours", |s| s["grants"]["unowned"] == 12).await;
}
