//! SIGKILL at each edge between intend, set and settle, and at random times in a burst.

use std::time::Duration;

use serde_json::json;

use crate::support::*;

async fn fixture_with(services: &[&str], resources: &[&str]) -> (Fixture, Scim) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", resources, &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", services).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

/// Kills rolecall during a write, at the edge that `action` creates, and checks that nothing is orphaned and no foreign
/// grant is lost.
async fn killed_at(action: serde_json::Value) {
    let (mut fixture, scim) = fixture_with(&["checkout-api"], &["services/checkout-api"]).await;
    fixture.stranger_adds("checkout-api", INVOKER, "user:stranger@elsewhere.example").await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    let stranger = "user:stranger@elsewhere.example";
    fixture.members_become("checkout-api", INVOKER, &[stranger, "user:alice@example.com"]).await;
    fixture.fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "count": 1}, "action": action})).await;
    let writes = fixture.emulator_writes("checkout-api");
    scim.add_members(&group, &[&bob]).await;
    scim.remove_member(&group, &alice).await;
    eventually("a write under way", async || {
        if fixture.emulator_writes("checkout-api") > writes { Ok(()) } else { Err("no write yet".to_owned()) }
    })
    .await;
    fixture.kill();
    fixture.clear_faults().await;
    fixture.run().await;
    fixture.members_become("checkout-api", INVOKER, &[stranger, "user:bob@example.com"]).await;
    // The ledger still knows the grant: it is removed when it is no longer wanted, and the foreign one stays.
    scim.remove_member(&group, &bob).await;
    fixture.members_become("checkout-api", INVOKER, &[stranger]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn killed_after_intend_before_set() {
    killed_at(json!({"type": "drop", "when": "before", "latencyMs": 400})).await;
}

#[tokio::test]
async fn killed_after_set_before_settle() {
    killed_at(json!({"type": "hang", "when": "after"})).await;
}

#[tokio::test]
async fn killed_while_google_is_still_deciding() {
    killed_at(json!({"type": "latency", "latencyMs": 600})).await;
}

#[tokio::test]
async fn call_that_google_takes_up_long_after_the_kill_leaves_no_grant_of_who_was_removed_meanwhile() {
    let (mut fixture, scim) = fixture_with(&["checkout-api"], &["services/checkout-api"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    let before = fixture.emulator.journal().len();
    let (set, get) =
        (json!({"method": "POST", "path": ":setIamPolicy"}), json!({"method": "GET", "path": ":getIamPolicy"}));
    fixture.fault(json!({"match": set, "action": {"type": "latency", "latencyMs": 6000}})).await;
    scim.add_members(&group, &[&bob]).await;
    eventually("a write that Google has not taken up", async || {
        if fixture.faults_fired().await > 0 { Ok(()) } else { Err("no write yet".to_owned()) }
    })
    .await;
    fixture.kill();
    fixture.clear_faults().await;
    // No reconcile may read the policy before bob is removed; otherwise he would be granted again, and that write would
    // be the fence.
    fixture.fault(json!({"match": get, "action": {"type": "error", "status": 503}})).await;
    fixture.run().await;
    scim.remove_member(&group, &bob).await;
    fixture.clear_faults().await;
    let late = eventually("the late call, refused", async || {
        let journal = fixture.emulator.journal();
        let found = journal[before..].iter().find(|call| call.fault == Some("latency"));
        found.map(|call| call.status).ok_or_else(|| "not taken up yet".to_owned())
    });
    assert_eq!(late.await, Some(409), "its etag is gone");
    let sets = |committed: bool| {
        let journal = fixture.emulator.journal();
        let sets = journal[before..].iter().filter(|call| call.path.ends_with(":setIamPolicy"));
        sets.filter(|call| call.committed == committed).count()
    };
    assert_eq!((sets(true), sets(false)), (1, 1), "one write that changes nothing, and the late call");
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn killed_at_random_in_a_burst_of_2000_membership_changes() {
    let services = ["checkout-a", "checkout-b", "checkout-c", "checkout-d"];
    let (mut fixture, scim) = fixture_with(&services, &["services/checkout-*"]).await;
    // Hundreds of people join and leave within a minute, which is not what the guard is for.
    fixture.more =
        ["--guard-removals-per-hour", "--guard-leavers-per-hour"].map(|flag| (flag, "10000".to_owned())).to_vec();
    fixture.restart().await;
    for service in services {
        fixture.stranger_adds(service, INVOKER, "user:stranger@elsewhere.example").await;
    }
    let mut users = Vec::new();
    for i in 0..50 {
        users.push((scim.create_user(&format!("user{i}@example.com")).await, format!("user:user{i}@example.com")));
    }
    let group = scim.create_group("team-checkout", &[]).await;
    let mut state = vec![false; users.len()];
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut kills = 0;
    for change in 0..2000 {
        let i = usize::try_from(random() % 50).expect("an index");
        let wanted = !state[i];
        // The IdP retries requests without an answer, as real ones do.
        loop {
            let operation = if wanted {
                json!([{"op": "add", "path": "members", "value": [{"value": users[i].0}]}])
            } else {
                json!([{"op": "remove", "path": format!("members[value eq \"{}\"]", users[i].0)}])
            };
            let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operation});
            let sent = scim
                .http
                .patch(format!("{}/Groups/{group}", scim.base))
                .bearer_auth(&scim.token)
                .header("content-type", "application/scim+json")
                .body(body.to_string())
                .send()
                .await;
            match sent {
                Ok(answer) if answer.status().is_success() => break,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        state[i] = wanted;
        if change % 250 == 100 {
            fixture.kill();
            kills += 1;
            fixture.spawn();
        }
    }
    assert!(kills >= 8);
    let mut wanted = vec!["user:stranger@elsewhere.example"];
    wanted.extend(users.iter().zip(&state).filter(|(_, member)| **member).map(|((_, name), _)| name.as_str()));
    // More than half may have left at once while rolecall was down; then the guard holds, which is correct too. The
    // random changes toggle single members, so at rest the policy is exact.
    for service in services {
        fixture.members_become(service, INVOKER, &wanted).await;
    }
    fixture.agree().await;
}
