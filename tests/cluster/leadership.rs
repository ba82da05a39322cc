//! Two processes, at the same time or in sequence, on one database: what the first starts, the second finishes, exactly
//! once.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::*;

const STRANGER: &str = "user:stranger@elsewhere.example";

/// Injects a fault into the next write of a policy.
async fn next_write(fixture: &Fixture, action: Value) {
    fixture.fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "count": 1}, "action": action})).await;
}

async fn write_is_under_way(fixture: &Fixture) {
    eventually("a write under way", async || match fixture.faults_fired().await {
        0 => Err(tail(&fixture.pod.said())),
        _ => Ok(()),
    })
    .await;
}

#[tokio::test]
async fn operator_that_is_killed_between_intend_and_settle_leaves_no_orphan() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    fixture.stranger_adds("checkout-api", INVOKER, STRANGER).await;
    let bob = team.scim.create_user("bob@example.com").await;
    // Either the call is lost or its answer; each time one person joins the team and one leaves.
    let edges = [
        (json!({"type": "hang", "when": "before"}), &bob, BOB),
        (json!({"type": "hang", "when": "after"}), &team.alice, ALICE),
    ];
    for (action, comes, stays) in edges {
        next_write(&fixture, action).await;
        team.scim.replace_members(&team.group, &[comes]).await;
        write_is_under_way(&fixture).await;
        let killed = Instant::now();
        fixture.pod.kill();
        fixture.clear_faults().await;
        fixture.pod.start().await;
        fixture.pod.at_work().await;
        println!("measured: at work again after SIGKILL: {:.1} s", killed.elapsed().as_secs_f64());
        fixture.members_become("checkout-api", INVOKER, &[STRANGER, stays]).await;
    }
    // The grant is still known as owned: it is removed when it is no longer wanted, and the foreign one stays.
    team.scim.remove_member(&team.group, &team.alice).await;
    fixture.members_become("checkout-api", INVOKER, &[STRANGER]).await;
    fixture.agree().await;
}

/// Suspends the leader while Google processes its call that grants Bob. Returns another pod on standby, and Bob.
async fn stopped_mid_write(fixture: &mut Fixture, team: &Team, action: Value) -> (Pod, String) {
    let mut standby = fixture.release.pod(&fixture.cluster, "rolecall-1", fixture.proxy.address).await;
    standby.start().await;
    next_write(fixture, action).await;
    let bob = team.add_bob().await;
    write_is_under_way(fixture).await;
    fixture.pod.signal("STOP");
    (standby, bob)
}

/// Resumes the first process, which finds that it lost the leadership, and exits.
async fn wakes_and_ends(fixture: &mut Fixture) {
    fixture.pod.signal("CONT");
    assert_eq!(fixture.pod.end().await, Some(3), "{}", tail(&fixture.pod.said()));
    assert!(fixture.pod.said().contains("LeadershipLost"), "it says why:\n{}", tail(&fixture.pod.said()));
}

#[tokio::test]
async fn leader_that_is_stopped_mid_write_grants_nothing_twice_when_it_wakes() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let writes = fixture.emulator_writes("checkout-api");
    // The write takes effect while the leader is suspended: its late write is the one that would settle it.
    let (mut standby, _) = stopped_mid_write(&mut fixture, &team, json!({"type": "latency", "latencyMs": 1500})).await;
    let stopped = Instant::now();
    standby.at_work().await;
    println!("measured: take-over from a stopped leader: {:.1} s", stopped.elapsed().as_secs_f64());
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    let slept = stopped.elapsed();
    wakes_and_ends(&mut fixture).await;
    // Suspended for longer than a call may take, so that the answer is not read.
    if slept.as_secs() < 28 {
        let refused = "the store cannot record the step, so it is not taken: another rolecall took over";
        assert!(fixture.pod.said().contains(refused), "its late write is refused:\n{}", tail(&fixture.pod.said()));
    }
    standby.progress().settled_and_read().await;
    fixture.members_are("checkout-api", INVOKER, &[ALICE, BOB]).await;
    // One write granted him. One more proves the read that shows the outcome, since nothing else has to be written.
    let since = fixture.emulator_writes("checkout-api") - writes;
    assert!((1..=2).contains(&since), "{since} writes");
    // The second process knows the grant as owned.
    let scim = standby.scim("okta", TOKEN);
    scim.replace_members(&team.group, &[&team.alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    standby.shutdown().await;
    agree(&fixture.google, &fixture.release.database()).await;
}

#[tokio::test]
async fn call_of_a_suspended_leader_grants_nobody_who_was_removed_meanwhile() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let before = fixture.emulator.journal().len();
    let (mut standby, bob) =
        stopped_mid_write(&mut fixture, &team, json!({"type": "latency", "latencyMs": 30000})).await;
    let stopped = Instant::now();
    let scim = standby.scim("okta", TOKEN);
    scim.remove_member(&team.group, &bob).await;
    standby.at_work().await;
    let took_over = stopped.elapsed();
    println!("measured: take-over from a stopped leader: {:.1} s", took_over.as_secs_f64());
    let late = eventually_within(std::time::Duration::from_mins(1), "the late call, taken up", async || {
        let journal = fixture.emulator.journal();
        let found = journal[before..].iter().find(|call| call.fault == Some("latency"));
        found.and_then(|call| call.status).ok_or_else(|| "not taken up yet".to_owned())
    })
    .await;
    if took_over.as_secs() < 25 {
        assert_eq!(late, 409, "the second has made its etag invalid:\n{}", tail(&standby.said()));
    }
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    wakes_and_ends(&mut fixture).await;
    standby.progress().settled_and_read().await;
    fixture.members_are("checkout-api", INVOKER, &[ALICE]).await;
    standby.shutdown().await;
    agree(&fixture.google, &fixture.release.database()).await;
}

#[tokio::test]
async fn standby_serves_scim_and_the_leader_follows() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let mut standby = fixture.release.pod(&fixture.cluster, "rolecall-1", fixture.proxy.address).await;
    let then = fixture.cluster.now();
    standby.start().await;
    let scim = standby.scim("okta", TOKEN);
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(&team.group, &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.mapping_status("checkout/team", "counts Bob", |s| s["grants"]["verified"] == 2).await;
    assert!(!standby.said().contains("leading since"), "the first leads:\n{}", standby.said());
    // It also takes over from a leader that shuts down.
    let ended = Instant::now();
    fixture.pod.shutdown().await;
    standby.at_work().await;
    let took = ended.elapsed();
    println!("measured: take-over from a leader that ended: {:.1} s", took.as_secs_f64());
    // One watch of a kind serves the tokens and the controller.
    let is_list =
        |call: &Call| call.verb == "list" && call.resource == "identityproviders" && call.uri.contains("limit=");
    let lists: Vec<Call> = fixture.cluster.calls_since(then).into_iter().filter(is_list).collect();
    assert_eq!(lists.len(), 1, "{lists:#?}");
    scim.remove_member(&team.group, &bob).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    standby.shutdown().await;
    agree(&fixture.google, &fixture.release.database()).await;
}
