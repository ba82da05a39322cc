//! The compiled-in guard, two tenants, and one token for two providers.

use serde_json::json;

use crate::support::*;

async fn team_of(count: usize) -> (World, Scim, String, Vec<String>, Vec<String>) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    let (mut ids, mut members) = (Vec::new(), Vec::new());
    for i in 0..count {
        ids.push(scim.create_user(&format!("user{i}@example.com")).await);
        members.push(format!("user:user{i}@example.com"));
    }
    let users: Vec<&str> = ids.iter().map(String::as_str).collect();
    let group = scim.create_group("team-checkout", &users).await;
    let wanted: Vec<&str> = members.iter().map(String::as_str).collect();
    world.members_become("checkout-api", INVOKER, &wanted).await;
    (world, scim, group, ids, members)
}

#[tokio::test]
async fn mass_removal_is_held_and_listed_and_released_by_its_hash_only() {
    let (world, scim, group, ids, members) = team_of(20).await;
    scim.replace_members(&group, &[&ids[0]]).await;
    let status = world.mapping_status("checkout/team", "19 people are held", |s| s["held"]["people"] == 19).await;
    assert!(has(&status, "Held", "True", ""), "{status:#}");
    assert!(has(&status, "Ready", "True", ""), "held is not broken: {status:#}");
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    world.members_stay("checkout-api", INVOKER, &all).await;
    // A single leaver passes all the same.
    scim.set_active(&ids[19], false).await;
    world.members_become("checkout-api", INVOKER, &all[..19]).await;
    let status = world.mapping_status("checkout/team", "18 are held", |s| s["held"]["people"] == 18).await;
    let now = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    assert_ne!(hash, now, "another plan has another hash");
    let annotated = |hash: &str| {
        mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")
            .replace("  name: team\n", &format!("  name: team\n  annotations: {{rolecall.dev/release: \"{hash}\"}}\n"))
    };
    world.write("mapping.yaml", &annotated(&hash));
    world.members_stay("checkout-api", INVOKER, &all[..19]).await;
    world.write("mapping.yaml", &annotated(&now));
    world.members_become("checkout-api", INVOKER, &all[..1]).await;
    world.mapping_status("checkout/team", "nothing is held", |s| s["held"]["people"] == 0).await;
}

#[tokio::test]
async fn mapping_deleted_with_many_people_is_held_too_and_released_by_its_hash() {
    let (world, _, _, _, members) = team_of(15).await;
    // A second mapping, so that one deleted file is not more than half of all.
    world.write("second.yaml", &mapping("second", "team-none", &["services/checkout-api"], &[VIEWER], ""));
    world.mapping_status("checkout/second", "there", |s| !s.is_null()).await;
    world.remove("mapping.yaml");
    world.mapping_status("checkout/team", "15 people are held", |s| s["held"]["people"] == 15).await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    world.members_stay("checkout-api", INVOKER, &all).await;
    let status = world.status("RoleMapping", "checkout/team").await;
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    world.command(&["release", "plan", "0123456789abcdef"]);
    world.members_stay("checkout-api", INVOKER, &all).await;
    world.command(&["release", "plan", &hash]);
    world.members_become("checkout-api", INVOKER, &[]).await;
    eventually("the mapping is forgotten", async || {
        let status = world.status("RoleMapping", "checkout/team").await;
        if status.is_null() { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

#[tokio::test]
async fn single_deactivated_user_always_passes() {
    let (world, scim, _, ids, members) = team_of(3).await;
    for i in 0..3 {
        scim.set_active(&ids[i], false).await;
        let left: Vec<&str> = members[i + 1..].iter().map(String::as_str).collect();
        world.members_become("checkout-api", INVOKER, &left).await;
    }
}

#[tokio::test]
async fn two_tenants_with_the_same_names_never_mix() {
    let other = "scim-token-of-entra-0123456789abcdef";
    let mut manifests = base();
    manifests.push(("entra.yaml", provider("entra", other)));
    manifests.push(("okta-map.yaml", mapping("okta", "team", &["services/checkout-api"], &[INVOKER], "")));
    let entra = mapping("entra", "team", &["services/checkout-api"], &[VIEWER], "");
    manifests.push(("entra-map.yaml", entra.replace("identityProvider: okta", "identityProvider: entra")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    world.run().await;
    let (okta, entra) = (world.scim("okta", TOKEN), world.scim("entra", other));
    let okta_alice = okta.create_user("alice@example.com").await;
    let entra_alice = entra.create_user("alice@example.com").await;
    let entra_bob = entra.create_user("bob@example.com").await;
    assert_ne!(okta_alice, entra_alice);
    let okta_team = okta.create_group("team", &[&okta_alice]).await;
    let entra_team = entra.create_group("team", &[&entra_bob]).await;
    world.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    world.members_become("checkout-api", VIEWER, &["user:bob@example.com"]).await;
    // Ids of one tenant are unknown to the other, whatever is tried with them.
    for (scim, user, group) in [(&okta, &entra_bob, &entra_team), (&entra, &okta_alice, &okta_team)] {
        assert_eq!(scim.send(reqwest::Method::GET, &format!("/Users/{user}"), None).await.0, 404);
        assert_eq!(scim.send(reqwest::Method::DELETE, &format!("/Users/{user}"), None).await.0, 404);
        assert_eq!(scim.send(reqwest::Method::DELETE, &format!("/Groups/{group}"), None).await.0, 404);
    }
    okta.add_members(&okta_team, &[&okta_alice, &entra_bob]).await;
    let (_, listed) = okta.send(reqwest::Method::GET, "/Users", None).await;
    assert_eq!(listed["totalResults"], 1);
    assert_eq!(okta.send(reqwest::Method::GET, "/Users", None).await.0, 200);
    let stolen = world.scim("entra", TOKEN);
    assert_eq!(stolen.send(reqwest::Method::GET, "/Users", None).await.0, 401);
    world.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    okta.set_active(&okta_alice, false).await;
    world.members_become("checkout-api", INVOKER, &[]).await;
    world.members_stay("checkout-api", VIEWER, &["user:bob@example.com"]).await;
}

#[tokio::test]
async fn one_token_used_by_two_providers_is_refused_for_both_and_said_in_status() {
    let mut manifests = base();
    manifests.push(("entra.yaml", provider("entra", TOKEN)));
    let world = World::start(&manifests).await;
    for name in ["okta", "entra"] {
        let (status, body) = world.scim(name, TOKEN).send(reqwest::Method::GET, "/Users", None).await;
        assert_eq!(status, 401, "{body}");
        eventually(&format!("{name} says it"), async || {
            let status = world.status("IdentityProvider", name).await;
            if has(&status, "TokensValid", "False", "TokenShared") { Ok(()) } else { Err(format!("{status:#}")) }
        })
        .await;
    }
    world.write("entra.yaml", &provider("entra", "another-token-0123456789abcdef0123"));
    eventually("a token of its own works", async || {
        let (status, _) = world.scim("okta", TOKEN).send(reqwest::Method::GET, "/Users", None).await;
        if status == 200 { Ok(()) } else { Err(json!(status).to_string()) }
    })
    .await;
}
