//! Quota that is spent, and regions that do not answer: who waits for it, and who does not.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::*;

fn members(world: &World, service: &str) -> Vec<String> {
    let resource = format!("projects/shop-dev/locations/europe-west1/services/{service}");
    let policy = world.emulator.policy(&resource).unwrap_or_default();
    let of_role = policy["bindings"].as_array().into_iter().flatten().find(|binding| binding["role"] == INVOKER);
    let members = of_role.and_then(|binding| binding["members"].as_array()).cloned().unwrap_or_default();
    members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

/// A world with these services and a mapping of `team-checkout` to invoker on all of them.
async fn mapped(services: &[String]) -> (World, Scim) {
    let mut manifests = base();
    let resources = ["services/s*", "services/hang-*", "services/zealous"];
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &resources, &[INVOKER], "")));
    let mut world = World::prepare(&manifests).await;
    "10m".clone_into(&mut world.drift);
    world.create_services("shop-dev", &services.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    (world, scim)
}

/// Somebody else writes until Google does not let anybody write any more.
async fn spend_the_quota(world: &World) {
    world.create_services("shop-dev", &["of-somebody-else"]).await;
    let service = "projects/shop-dev/locations/europe-west1/services/of-somebody-else";
    let url = format!("{}/v2/{service}:setIamPolicy", world.google.url);
    eventually("the quota is spent", async || {
        let answer = world.http.post(&url).json(&json!({"policy": {}})).send().await.expect("an answer");
        if answer.status().as_u16() == 429 { Ok(()) } else { Err(answer.status().to_string()) }
    })
    .await;
}

fn throttled(world: &World) -> usize {
    world.emulator.journal().iter().filter(|call| call.status == Some(429)).count()
}

#[tokio::test]
async fn leaver_is_revoked_while_google_knows_none_of_sixty_people_and_the_quota_is_spent() {
    let services: Vec<String> = (0..20).map(|n| format!("s{n:02}")).collect();
    let (world, scim) = mapped(&services).await;
    world
        .emulator
        .control("PUT", "directory", &json!({"mode": "strict", "users": ["lea@example.com"]}))
        .expect("strict");
    let lea = scim.create_user("lea@example.com").await;
    let group = scim.create_group("team-checkout", &[&lea]).await;
    for service in &services {
        world.members_become(service, INVOKER, &["user:lea@example.com"]).await;
    }
    world.emulator.control("PUT", "quota", &json!({"reads": 600, "writes": 60})).expect("a quota");
    let mut people = Vec::new();
    for n in 0..60 {
        people.push(scim.create_user(&format!("p{n:02}@example.com")).await);
    }
    scim.add_members(&group, &people.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let refused = || world.emulator.journal().iter().filter(|call| call.status == Some(400)).count();
    eventually("people are refused", async || if refused() > 0 { Ok(()) } else { Err(tail(&world.log())) }).await;
    spend_the_quota(&world).await;
    let begun = Instant::now();
    scim.set_active(&lea, false).await;
    eventually_within(Duration::from_secs(110), "the leaver is out everywhere", async || {
        let left: Vec<&String> = services.iter().filter(|service| !members(&world, service).is_empty()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("still on {left:?}; {}", tail(&world.log()))) }
    })
    .await;
    println!("revoked on 20 services after {:?}", begun.elapsed());
}

#[tokio::test]
async fn refusals_for_the_quota_of_one_region_share_one_back_off() {
    let services: Vec<String> = (0..12).map(|n| format!("s{n:02}")).collect();
    let (world, scim) = mapped(&services).await;
    world.emulator.control("PUT", "quota", &json!({"reads": 6000, "writes": 2, "retryAfter": 4})).expect("a quota");
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    eventually("the quota is spent", async || if throttled(&world) > 0 { Ok(()) } else { Err(tail(&world.log())) })
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Those that were under way together; none of the others asks while Google wants to be left alone.
    let refused = throttled(&world);
    assert!(refused <= 8, "{refused} calls were refused for one spent quota");
}

#[tokio::test]
async fn services_that_hang_delay_neither_a_healthy_one_nor_its_leaver() {
    let mut services: Vec<String> = (0..40).map(|n| format!("hang-{n:02}")).collect();
    services.push("zealous".to_owned());
    let (world, scim) = mapped(&services).await;
    for call in [":getIamPolicy", ":setIamPolicy"] {
        let path = format!("/services/hang-.*{call}");
        world.fault(json!({"match": {"pathRegex": path}, "action": {"type": "hang"}})).await;
    }
    let alice = scim.create_user("alice@example.com").await;
    let begun = Instant::now();
    scim.create_group("team-checkout", &[&alice]).await;
    let healthy = async |wanted: &[&str]| {
        eventually("the healthy service", async || {
            let seen = members(&world, "zealous");
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}; {}", tail(&world.log()))) }
        })
        .await;
    };
    healthy(&["user:alice@example.com"]).await;
    let granted = begun.elapsed();
    let begun = Instant::now();
    scim.set_active(&alice, false).await;
    healthy(&[]).await;
    let revoked = begun.elapsed();
    println!("granted after {granted:?}, revoked after {revoked:?}");
    assert!(granted < Duration::from_secs(15) && revoked < Duration::from_secs(15), "{granted:?}, {revoked:?}");
}

#[tokio::test]
async fn region_that_does_not_answer_hides_nothing_in_another_region() {
    let mut manifests = base();
    manifests[1].1 = target(&["services/*"], &[INVOKER]).replace("[europe-west1]", "[europe-west4, europe-west1]");
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/*"], &[INVOKER], "")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", &["a"]).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    world.members_become("a", INVOKER, &["user:alice@example.com"]).await;
    world.fault(json!({"match": {"path": "/locations/europe-west4"}, "action": {"type": "hang"}})).await;
    scim.set_active(&alice, false).await;
    world.members_become("a", INVOKER, &[]).await;
}

#[tokio::test]
async fn refusal_for_the_quota_of_a_look_at_the_resource_is_waited_for_like_any_other() {
    let (world, scim) = mapped(&["s00".to_owned()]).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    world.members_become("s00", INVOKER, &["user:alice@example.com"]).await;
    // After a foreign edit a removal first reads the uid of the resource.
    let service = "projects/shop-dev/locations/europe-west1/services/s00";
    let edit = json!({"add": [{"role": VIEWER, "member": "user:stranger@elsewhere.example"}]});
    world.emulator.control("POST", &format!("policies/{service}"), &edit).expect("an edit");
    world
        .fault(json!({"match": {"method": "GET", "pathRegex": "/services/s00$"}, "action": {"type": "error", "status": 429}}))
        .await;
    scim.set_active(&alice, false).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let refused = throttled(&world);
    assert!((1..=8).contains(&refused), "{refused} calls were refused for one spent quota");
    world.clear_faults().await;
    eventually("alice is out", async || {
        let seen = members(&world, "s00");
        if seen.is_empty() { Ok(()) } else { Err(format!("{seen:?}; {}", tail(&world.log()))) }
    })
    .await;
}
