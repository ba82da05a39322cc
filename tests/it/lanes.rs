//! An exceeded quota and regions that do not answer: they delay their own documents and no others.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::*;

fn members(fixture: &Fixture, service: &str) -> Vec<String> {
    let resource = format!("projects/shop-dev/locations/europe-west1/services/{service}");
    let policy = fixture.emulator.policy(&resource).unwrap_or_default();
    let of_role = policy["bindings"].as_array().into_iter().flatten().find(|binding| binding["role"] == INVOKER);
    let members = of_role.and_then(|binding| binding["members"].as_array()).cloned().unwrap_or_default();
    members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

/// A fixture with these services and a mapping of `team-checkout` to invoker on all of them.
async fn mapped(services: &[String]) -> (Fixture, Scim) {
    let mut manifests = base();
    let resources = ["services/s*", "services/hang-*", "services/zealous"];
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &resources, &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    "10m".clone_into(&mut fixture.drift);
    fixture.create_services("shop-dev", &services.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

/// Writes as somebody else until Google's quota is exceeded.
async fn spend_the_quota(fixture: &Fixture) {
    fixture.create_services("shop-dev", &["of-somebody-else"]).await;
    let service = "projects/shop-dev/locations/europe-west1/services/of-somebody-else";
    let url = format!("{}/v2/{service}:setIamPolicy", fixture.google.url);
    eventually("the quota is spent", async || {
        let answer = fixture.http.post(&url).json(&json!({"policy": {}})).send().await.expect("an answer");
        if answer.status().as_u16() == 429 { Ok(()) } else { Err(answer.status().to_string()) }
    })
    .await;
}

fn throttled(fixture: &Fixture) -> usize {
    fixture.emulator.journal().iter().filter(|call| call.status == Some(429)).count()
}

#[tokio::test]
async fn leaver_is_revoked_while_google_knows_none_of_sixty_people_and_the_quota_is_spent() {
    let services: Vec<String> = (0..20).map(|n| format!("s{n:02}")).collect();
    let (fixture, scim) = mapped(&services).await;
    fixture
        .emulator
        .control("PUT", "directory", &json!({"mode": "strict", "users": ["lea@example.com"]}))
        .expect("strict");
    let lea = scim.create_user("lea@example.com").await;
    let group = scim.create_group("team-checkout", &[&lea]).await;
    for service in &services {
        fixture.members_become(service, INVOKER, &["user:lea@example.com"]).await;
    }
    fixture.emulator.control("PUT", "quota", &json!({"reads": 600, "writes": 60})).expect("a quota");
    let mut people = Vec::new();
    for n in 0..60 {
        people.push(scim.create_user(&format!("p{n:02}@example.com")).await);
    }
    scim.add_members(&group, &people.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let refused = || fixture.emulator.journal().iter().filter(|call| call.status == Some(400)).count();
    eventually("people are refused", async || if refused() > 0 { Ok(()) } else { Err(tail(&fixture.log())) }).await;
    spend_the_quota(&fixture).await;
    let begun = Instant::now();
    scim.set_active(&lea, false).await;
    eventually_within(Duration::from_secs(110), "the leaver is out everywhere", async || {
        let left: Vec<&String> = services.iter().filter(|service| !members(&fixture, service).is_empty()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("still on {left:?}; {}", tail(&fixture.log()))) }
    })
    .await;
    println!("revoked on 20 services after {:?}", begun.elapsed());
}

#[tokio::test]
async fn refusals_for_the_quota_of_one_region_share_one_back_off() {
    let services: Vec<String> = (0..12).map(|n| format!("s{n:02}")).collect();
    let (fixture, scim) = mapped(&services).await;
    fixture.emulator.control("PUT", "quota", &json!({"reads": 6000, "writes": 2, "retryAfter": 4})).expect("a quota");
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    eventually("the quota is spent", async || if throttled(&fixture) > 0 { Ok(()) } else { Err(tail(&fixture.log())) })
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Only the requests that were in progress together were refused; no other is sent until Google's delay is over.
    let refused = throttled(&fixture);
    assert!(refused <= 8, "{refused} calls were refused for one spent quota");
}

#[tokio::test]
async fn services_that_hang_delay_neither_a_healthy_one_nor_its_leaver() {
    let mut services: Vec<String> = (0..40).map(|n| format!("hang-{n:02}")).collect();
    services.push("zealous".to_owned());
    let (fixture, scim) = mapped(&services).await;
    for call in [":getIamPolicy", ":setIamPolicy"] {
        let path = format!("/services/hang-.*{call}");
        fixture.fault(json!({"match": {"pathRegex": path}, "action": {"type": "hang"}})).await;
    }
    let alice = scim.create_user("alice@example.com").await;
    let begun = Instant::now();
    scim.create_group("team-checkout", &[&alice]).await;
    let healthy = async |wanted: &[&str]| {
        eventually("the healthy service", async || {
            let seen = members(&fixture, "zealous");
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}; {}", tail(&fixture.log()))) }
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
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["a"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("a", INVOKER, &["user:alice@example.com"]).await;
    fixture.fault(json!({"match": {"path": "/locations/europe-west4"}, "action": {"type": "hang"}})).await;
    scim.set_active(&alice, false).await;
    fixture.members_become("a", INVOKER, &[]).await;
}

#[tokio::test]
async fn quota_refusal_of_a_read_of_the_resource_delays_like_any_other() {
    let (fixture, scim) = mapped(&["s00".to_owned()]).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("s00", INVOKER, &["user:alice@example.com"]).await;
    // After a foreign edit a removal first reads the uid of the resource.
    let service = "projects/shop-dev/locations/europe-west1/services/s00";
    let edit = json!({"add": [{"role": VIEWER, "member": "user:stranger@elsewhere.example"}]});
    fixture.emulator.control("POST", &format!("policies/{service}"), &edit).expect("an edit");
    fixture
        .fault(json!({"match": {"method": "GET", "pathRegex": "/services/s00$"}, "action": {"type": "error", "status": 429}}))
        .await;
    scim.set_active(&alice, false).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let refused = throttled(&fixture);
    assert!((1..=8).contains(&refused), "{refused} calls were refused for one spent quota");
    fixture.clear_faults().await;
    eventually("alice is out", async || {
        let seen = members(&fixture, "s00");
        if seen.is_empty() { Ok(()) } else { Err(format!("{seen:?}; {}", tail(&fixture.log()))) }
    })
    .await;
}
