//! The compiled-in guard, two tenants, and one token shared by two providers.

use serde_json::json;

use crate::support::*;

async fn team_of(count: usize) -> (Fixture, Scim, String, Vec<String>, Vec<String>) {
    team_with(count, &[]).await
}

async fn team_with(count: usize, flags: &[(&'static str, &str)]) -> (Fixture, Scim, String, Vec<String>, Vec<String>) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.more.extend(flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())));
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let (mut ids, mut members) = (Vec::new(), Vec::new());
    for i in 0..count {
        ids.push(scim.create_user(&format!("user{i}@example.com")).await);
        members.push(format!("user:user{i}@example.com"));
    }
    let users: Vec<&str> = ids.iter().map(String::as_str).collect();
    let group = scim.create_group("team-checkout", &users).await;
    let wanted: Vec<&str> = members.iter().map(String::as_str).collect();
    fixture.members_become("checkout-api", INVOKER, &wanted).await;
    (fixture, scim, group, ids, members)
}

#[tokio::test]
async fn mass_removal_is_held_and_listed_and_released_by_its_hash_only() {
    let (fixture, scim, group, ids, members) = team_of(20).await;
    scim.replace_members(&group, &[&ids[0]]).await;
    let status = fixture.mapping_status("checkout/team", "19 people are held", |s| s["held"]["people"] == 19).await;
    assert!(has(&status, "Held", "True", ""), "{status:#}");
    assert!(has(&status, "Ready", "True", ""), "held is not broken: {status:#}");
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    // A single leaver passes anyway.
    scim.set_active(&ids[19], false).await;
    fixture.members_become("checkout-api", INVOKER, &all[..19]).await;
    let status = fixture.mapping_status("checkout/team", "18 are held", |s| s["held"]["people"] == 18).await;
    let now = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    assert_ne!(hash, now, "another plan has another hash");
    let annotated = |hash: &str| {
        mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")
            .replace("  name: team\n", &format!("  name: team\n  annotations: {{rolecall.dev/release: \"{hash}\"}}\n"))
    };
    fixture.write("mapping.yaml", &annotated(&hash));
    fixture.members_stay("checkout-api", INVOKER, &all[..19]).await;
    fixture.write("mapping.yaml", &annotated(&now));
    fixture.members_become("checkout-api", INVOKER, &all[..1]).await;
    fixture.mapping_status("checkout/team", "nothing is held", |s| s["held"]["people"] == 0).await;
}

#[tokio::test]
async fn mapping_deleted_with_many_people_is_held_too_and_released_by_its_hash() {
    let (fixture, _, _, _, members) = team_of(15).await;
    // A second mapping, so that one deleted file is not more than half of all.
    fixture.write("second.yaml", &mapping("second", "team-none", &["services/checkout-api"], &[VIEWER], ""));
    fixture.mapping_status("checkout/second", "there", |s| !s.is_null()).await;
    fixture.remove("mapping.yaml");
    fixture.mapping_status("checkout/team", "15 people are held", |s| s["held"]["people"] == 15).await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    let status = fixture.status("RoleMapping", "checkout/team").await;
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    fixture.command(&["release", "plan", "0123456789abcdef"]);
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    fixture.command(&["release", "plan", &hash]);
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    eventually("the mapping is forgotten", async || {
        let status = fixture.status("RoleMapping", "checkout/team").await;
        if status.is_null() { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

/// Number of people granted by rolecall in the policy of a service.
async fn in_policy(fixture: &Fixture, service: &str) -> usize {
    fixture.policy(service).await.get(INVOKER).map_or(0, std::collections::BTreeSet::len)
}

/// Waits until nothing is in progress for a mapping: everybody who is still in the policy is held.
async fn all_held(fixture: &Fixture, name: &str, service: &str) -> serde_json::Value {
    eventually(&format!("{name}: who is left in {service} is held"), async || {
        let left = in_policy(fixture, service).await;
        let status = fixture.status("RoleMapping", name).await;
        let done = status["held"]["people"] == left && status["grants"]["revoking"] == 0;
        if done { Ok(status) } else { Err(format!("{left} left; {status:#}")) }
    })
    .await
}

#[tokio::test]
async fn sixty_people_deactivated_one_after_the_other_are_held_from_the_half_on_also_over_a_restart() {
    let (mut fixture, scim, _, ids, _) = team_of(60).await;
    for id in &ids[..40] {
        scim.set_active(id, false).await;
    }
    fixture.restart().await;
    for id in &ids[40..] {
        scim.set_active(id, false).await;
    }
    let status = all_held(&fixture, "checkout/team", "checkout-api").await;
    let left = in_policy(&fixture, "checkout-api").await;
    assert!((31..=59).contains(&left), "some leave at once, and half of all are held: {left}");
    assert!(has(&status, "Ready", "False", "RevocationPending"), "a leaver keeps access: {status:#}");
    assert!(has(&status, "Held", "True", "MassRemoval"), "{status:#}");
    assert_eq!(status["grants"]["held"], left);
    let metrics =
        fixture.http.get(format!("{}/metrics", fixture.admin_url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(&format!("rolecall_engine_held_members{{action=\"leaver\"}} {left}")), "{metrics}");
    fixture.restart().await;
    let status = all_held(&fixture, "checkout/team", "checkout-api").await;
    assert_eq!(in_policy(&fixture, "checkout-api").await, left, "a restart lets nobody go");
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    fixture.command(&["release", "plan", &hash]);
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.mapping_status("checkout/team", "ready", |s| has(s, "Ready", "True", "")).await;
}

#[tokio::test]
async fn exactly_half_is_held_and_so_is_the_half_of_the_rest_six_times_in_a_row() {
    let (fixture, scim, group, ids, members) = team_of(64).await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    for keep in [32, 16, 8, 4, 2, 1] {
        let kept: Vec<&str> = ids[..keep].iter().map(String::as_str).collect();
        scim.replace_members(&group, &kept).await;
        fixture.mapping_status("checkout/team", "all are held", |s| s["held"]["people"] == 64 - keep).await;
    }
    fixture.members_stay("checkout-api", INVOKER, &all).await;
}

#[tokio::test]
async fn people_who_leave_different_services_of_different_mappings_are_counted_together() {
    let services = ["checkout-a", "checkout-b", "checkout-c", "checkout-d"];
    let mut manifests = base();
    let files = ["a.yaml", "b.yaml", "c.yaml", "d.yaml"];
    for (file, service) in files.iter().zip(services) {
        let resource = format!("services/{service}");
        manifests.push((file, mapping(service, &format!("team-{service}"), &[&resource], &[INVOKER], "")));
    }
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &services).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for service in services {
        let (mut users, mut members) = (Vec::new(), Vec::new());
        for i in 0..10 {
            users.push(scim.create_user(&format!("{service}-{i}@example.com")).await);
            members.push(format!("user:{service}-{i}@example.com"));
        }
        scim.create_group(&format!("team-{service}"), &users.iter().map(String::as_str).collect::<Vec<_>>()).await;
        fixture.members_become(service, INVOKER, &members.iter().map(String::as_str).collect::<Vec<_>>()).await;
        ids.extend(users);
    }
    for id in &ids {
        scim.set_active(id, false).await;
    }
    let mut left = 0;
    for service in services {
        all_held(&fixture, &format!("checkout/{service}"), service).await;
        left += in_policy(&fixture, service).await;
    }
    assert!((21..=39).contains(&left), "ten on each of four services are forty: {left}");
}

#[tokio::test]
async fn one_hash_covers_what_a_mapping_holds_on_all_its_services_and_no_other_mapping_can_use_it() {
    let services = ["checkout-api", "checkout-web", "checkout-job"];
    let team = |annotations: &str| {
        let text = mapping("team", "team-checkout", &["services/checkout-*"], &[INVOKER], "");
        text.replace("  name: team\n", &format!("  name: team\n{annotations}"))
    };
    let other = |annotations: &str| {
        let text = mapping("other", "team-other", &["services/checkout-api"], &[INVOKER], "");
        text.replace("  name: other\n", &format!("  name: other\n{annotations}"))
    };
    let mut manifests = base();
    manifests.push(("mapping.yaml", team("")));
    manifests.push(("other.yaml", other("")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &services).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let (mut ids, mut members) = (Vec::new(), Vec::new());
    for i in 0..12 {
        ids.push(scim.create_user(&format!("user{i:02}@example.com")).await);
        members.push(format!("user:user{i:02}@example.com"));
    }
    let guest = scim.create_user("guest@example.com").await;
    scim.create_group("team-other", &[&ids[0], &guest]).await;
    let group = scim.create_group("team-checkout", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    for service in &services[1..] {
        fixture.members_become(service, INVOKER, &all).await;
    }
    scim.replace_members(&group, &[]).await;
    let status = fixture.mapping_status("checkout/team", "held on all services", |s| s["grants"]["held"] == 35).await;
    assert_eq!(
        status["held"]["people"], 12,
        "the same people on three services, one of them wanted on one: {status:#}"
    );
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    assert_eq!(hash.len(), 16, "one hash: {hash}");
    let status = fixture.status("RoleMapping", "checkout/other").await;
    assert_eq!(status["held"]["people"], 0, "nothing of the other mapping is held: {status:#}");
    let release = format!("  annotations: {{rolecall.dev/release: \"{hash}\"}}\n");
    fixture.write("other.yaml", &other(&release));
    for service in &services[1..] {
        fixture.members_stay(service, INVOKER, &all).await;
    }
    // A mapping with few people is removed although another mapping has held grants on the same service.
    fixture.remove("other.yaml");
    eventually("the other mapping is forgotten", async || {
        let status = fixture.status("RoleMapping", "checkout/other").await;
        if status.is_null() { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    fixture.members_become("checkout-api", INVOKER, &all[1..]).await;
    fixture.write("mapping.yaml", &team(&release));
    for service in services {
        fixture.members_become(service, INVOKER, &[]).await;
    }
    fixture.mapping_status("checkout/team", "nothing is held", |s| s["held"]["people"] == 0).await;
}

#[tokio::test]
async fn flags_of_the_guard_let_everybody_go_or_hold_the_second_person() {
    let high = [("--guard-removals-per-hour", "10000"), ("--guard-leavers-per-hour", "10000")];
    let (fixture, scim, group, ids, members) = team_with(30, &high).await;
    for id in &ids[..15] {
        scim.set_active(id, false).await;
    }
    scim.replace_members(&group, &[&ids[29]]).await;
    fixture.members_become("checkout-api", INVOKER, &[&members[29]]).await;
    drop(fixture);

    let low = [("--guard-removals-per-hour", "1"), ("--guard-leavers-per-hour", "1")];
    let (fixture, scim, group, ids, members) = team_with(4, &low).await;
    scim.remove_member(&group, &ids[0]).await;
    fixture.members_become("checkout-api", INVOKER, &[&members[1], &members[2], &members[3]]).await;
    scim.remove_member(&group, &ids[1]).await;
    fixture.mapping_status("checkout/team", "the second of the hour", |s| s["held"]["people"] == 1).await;
    scim.set_active(&ids[2], false).await;
    fixture.members_become("checkout-api", INVOKER, &[&members[1], &members[3]]).await;
}

#[tokio::test]
async fn single_deactivated_user_always_passes() {
    let (fixture, scim, _, ids, members) = team_of(3).await;
    for i in 0..3 {
        scim.set_active(&ids[i], false).await;
        let left: Vec<&str> = members[i + 1..].iter().map(String::as_str).collect();
        fixture.members_become("checkout-api", INVOKER, &left).await;
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
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let (okta, entra) = (fixture.scim("okta", TOKEN), fixture.scim("entra", other));
    let okta_alice = okta.create_user("alice@example.com").await;
    let entra_alice = entra.create_user("alice@example.com").await;
    let entra_bob = entra.create_user("bob@example.com").await;
    assert_ne!(okta_alice, entra_alice);
    let okta_team = okta.create_group("team", &[&okta_alice]).await;
    let entra_team = entra.create_group("team", &[&entra_bob]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.members_become("checkout-api", VIEWER, &["user:bob@example.com"]).await;
    // Ids of one tenant are unknown to the other, whatever the request.
    for (scim, user, group) in [(&okta, &entra_bob, &entra_team), (&entra, &okta_alice, &okta_team)] {
        assert_eq!(scim.send(reqwest::Method::GET, &format!("/Users/{user}"), None).await.0, 404);
        assert_eq!(scim.send(reqwest::Method::DELETE, &format!("/Users/{user}"), None).await.0, 404);
        assert_eq!(scim.send(reqwest::Method::DELETE, &format!("/Groups/{group}"), None).await.0, 404);
    }
    okta.add_members(&okta_team, &[&okta_alice, &entra_bob]).await;
    let (_, listed) = okta.send(reqwest::Method::GET, "/Users", None).await;
    assert_eq!(listed["totalResults"], 1);
    assert_eq!(okta.send(reqwest::Method::GET, "/Users", None).await.0, 200);
    let stolen = fixture.scim("entra", TOKEN);
    assert_eq!(stolen.send(reqwest::Method::GET, "/Users", None).await.0, 401);
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    okta.set_active(&okta_alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.members_stay("checkout-api", VIEWER, &["user:bob@example.com"]).await;
}

#[tokio::test]
async fn one_token_used_by_two_providers_is_refused_for_both_and_reported_in_status() {
    let mut manifests = base();
    manifests.push(("entra.yaml", provider("entra", TOKEN)));
    let fixture = Fixture::start(&manifests).await;
    for name in ["okta", "entra"] {
        let (status, body) = fixture.scim(name, TOKEN).send(reqwest::Method::GET, "/Users", None).await;
        assert_eq!(status, 401, "{body}");
        eventually(&format!("{name} says it"), async || {
            let status = fixture.status("IdentityProvider", name).await;
            if has(&status, "TokensValid", "False", "TokenShared") { Ok(()) } else { Err(format!("{status:#}")) }
        })
        .await;
    }
    fixture.write("entra.yaml", &provider("entra", "another-token-0123456789abcdef0123"));
    eventually("a token of its own works", async || {
        let (status, _) = fixture.scim("okta", TOKEN).send(reqwest::Method::GET, "/Users", None).await;
        if status == 200 { Ok(()) } else { Err(json!(status).to_string()) }
    })
    .await;
}
