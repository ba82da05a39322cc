//! Pacing: how many writes a backlog takes under a quota, and when its last removal is done.
//!
//! A run counts the writes since the change, the refused ones, and the time of the last one that was accepted. What the
//! quota allows is known from the emulator's token bucket: the tokens at the start, and one more every 60/quota seconds.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::support::*;

/// Time from a change to its first write, and from the last accepted write to its entry in the journal.
const START: Duration = Duration::from_millis(500);

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:03}")).collect()
}

fn members(fixture: &Fixture, service: &str) -> Vec<String> {
    let resource = format!("projects/shop-dev/locations/europe-west1/services/{service}");
    let policy = fixture.emulator.policy(&resource).unwrap_or_default();
    let bindings = policy["bindings"].as_array().cloned().unwrap_or_default();
    let members = bindings.iter().flat_map(|binding| binding["members"].as_array().cloned().unwrap_or_default());
    members.filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

/// A mapping of `group` in `namespace` to invoker on `resources`.
fn mapping_in(namespace: &str, name: &str, group: &str, resources: &[&str]) -> String {
    mapping(name, group, resources, &[INVOKER], "").replace("namespace: checkout", &format!("namespace: {namespace}"))
}

/// The services `a…`, mapped by `checkout/a` to group `a`, and `b…`, mapped by `billing/b` to group `b`.
async fn installed(a: usize, b: usize) -> (Fixture, Scim) {
    let mut manifests = base();
    manifests[1].1 = target(&["services/*"], &[INVOKER, VIEWER]).replace("[checkout]", "[checkout, billing]");
    manifests.push(("a.yaml", mapping_in("checkout", "a", "a", &["services/a*"])));
    manifests.push(("b.yaml", mapping_in("billing", "b", "b", &["services/b*"])));
    let mut fixture = Fixture::prepare(&manifests).await;
    "10m".clone_into(&mut fixture.drift);
    let services: Vec<String> = names("a", a).into_iter().chain(names("b", b)).collect();
    fixture.create_services("shop-dev", &services.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

async fn have(fixture: &Fixture, services: &[String], within: Duration, wanted: &[&str]) {
    eventually_within(within, &format!("{wanted:?} on all services"), async || {
        let mut wanted: Vec<String> = wanted.iter().map(|name| format!("user:{name}@example.com")).collect();
        wanted.sort();
        let others = services.iter().filter(|service| {
            let mut members = members(fixture, service);
            members.sort();
            members != wanted
        });
        match others.count() {
            0 => Ok(()),
            n => Err(format!("{n} of {} are not; {}", services.len(), tail(&fixture.log()))),
        }
    })
    .await;
}

/// The writes since `since`.
#[derive(Debug)]
struct Writes {
    all: usize,
    refused: usize,
    /// Time of the last accepted one, by the prefix of its service.
    last: Duration,
}

fn writes(fixture: &Fixture, since: Timestamp, service: &str) -> Writes {
    let mut found = Writes { all: 0, refused: 0, last: Duration::ZERO };
    for call in fixture.emulator.journal() {
        let of = call.path.contains(&format!("/services/{service}")) && call.path.ends_with(":setIamPolicy");
        if !of || call.time < since {
            continue;
        }
        found.all += 1;
        match call.status {
            Some(429) => found.refused += 1,
            _ => found.last = Duration::try_from(call.time.duration_since(since)).expect("a time"),
        }
    }
    found
}

/// Compares a run with what was necessary, and with what the quota allows.
fn compare(what: &str, fixture: &Fixture, since: Timestamp, necessary: usize, bound: Duration) {
    let all = writes(fixture, since, "");
    println!(
        "measured: {what}: {} writes for {necessary}, {} refused, last after {:.1} s of {:.1} s",
        all.all,
        all.refused,
        all.last.as_secs_f64(),
        bound.as_secs_f64()
    );
    assert!(all.all * 10 <= necessary * 11, "{} writes where {necessary} are necessary", all.all);
    assert!(all.last <= bound + Duration::from_secs(1) + START, "{:?} where {bound:?} are allowed", all.last);
}

/// What a quota allows: `writes` with `tokens` at the start.
fn allowed(writes: usize, tokens: usize, per_minute: usize) -> Duration {
    let milliseconds = writes.saturating_sub(tokens) * 60_000 / per_minute;
    Duration::from_millis(milliseconds.try_into().expect("a time"))
}

fn quota(fixture: &Fixture, per_minute: usize, retry_after: Option<u64>) {
    let body = json!({"reads": 6000, "writes": per_minute, "retryAfter": retry_after});
    fixture.emulator.control("PUT", "quota", &body).expect("a quota");
}

/// A leaver of 150 services at 120 writes a minute.
async fn leaver(what: &str, retry_after: Option<u64>) {
    let (fixture, scim) = installed(150, 0).await;
    let services = names("a", 150);
    let lea = scim.create_user("lea@example.com").await;
    scim.create_group("a", &[&lea]).await;
    have(&fixture, &services, Duration::from_mins(1), &["lea"]).await;
    quota(&fixture, 120, retry_after);
    let since = now();
    scim.set_active(&lea, false).await;
    have(&fixture, &services, Duration::from_mins(2), &[]).await;
    compare(what, &fixture, since, 150, allowed(150, 120, 120));
}

#[tokio::test]
async fn leaver_of_a_hundred_and_twenty_services_at_sixty_writes_a_minute() {
    let (fixture, scim) = installed(120, 0).await;
    let services = names("a", 120);
    let lea = scim.create_user("lea@example.com").await;
    scim.create_group("a", &[&lea]).await;
    have(&fixture, &services, Duration::from_mins(1), &["lea"]).await;
    quota(&fixture, 60, None);
    let since = now();
    scim.set_active(&lea, false).await;
    have(&fixture, &services, Duration::from_mins(4), &[]).await;
    compare("a leaver at 60 a minute", &fixture, since, 120, allowed(120, 60, 60));
}

#[tokio::test]
async fn leaver_where_google_says_when_to_call_again() {
    leaver("a leaver with Retry-After", Some(1)).await;
}

#[tokio::test]
async fn leaver_where_google_does_not_say_when_to_call_again() {
    leaver("a leaver without Retry-After", None).await;
}

#[tokio::test]
async fn leaver_while_additions_are_queued_on_the_same_and_other_services() {
    let (fixture, scim) = installed(100, 50).await;
    let (a, b) = (names("a", 100), names("b", 50));
    let lea = scim.create_user("lea@example.com").await;
    let group = scim.create_group("a", &[&lea]).await;
    have(&fixture, &a, Duration::from_mins(1), &["lea"]).await;
    let (new, other) = (scim.create_user("new@example.com").await, scim.create_user("other@example.com").await);
    quota(&fixture, 60, None);
    let since = now();
    scim.create_group("b", &[&other]).await;
    scim.add_members(&group, &[&new]).await;
    scim.set_active(&lea, false).await;
    have(&fixture, &a, Duration::from_mins(2), &["new"]).await;
    let removals = writes(&fixture, since, "a");
    let bound = allowed(100, 60, 60) + Duration::from_secs(1) + START;
    println!("measured: the last removal beside additions after {:?} of {bound:?}", removals.last);
    have(&fixture, &b, Duration::from_mins(4), &["other"]).await;
    compare("a leaver beside additions", &fixture, since, 150, allowed(150, 60, 60));
    assert!(removals.last <= bound, "{removals:?}, {bound:?} are allowed");
}

#[tokio::test]
async fn namespace_with_one_service_does_not_wait_for_the_many_of_another() {
    let (fixture, scim) = installed(150, 2).await;
    let (a, b) = (names("a", 150), names("b", 2));
    let (alice, bob) = (scim.create_user("alice@example.com").await, scim.create_user("bob@example.com").await);
    let small = scim.create_group("b", &[]).await;
    quota(&fixture, 120, None);
    let since = now();
    scim.create_group("a", &[&alice]).await;
    let refused = || writes(&fixture, since, "").refused;
    eventually("the quota is spent", async || if refused() > 0 { Ok(()) } else { Err(tail(&fixture.log())) }).await;
    let begun = now();
    scim.add_members(&small, &[&bob]).await;
    have(&fixture, &b, Duration::from_secs(30), &["bob"]).await;
    let after = writes(&fixture, begun, "b").last;
    println!("measured: two services beside 150 of another namespace after {after:?}");
    have(&fixture, &a, Duration::from_mins(2), &["alice"]).await;
    compare("two namespaces", &fixture, since, 152, allowed(152, 120, 120));
    assert!(after < Duration::from_secs(5), "{after:?}");
}

#[tokio::test]
async fn leaver_with_a_restart_in_the_middle() {
    let (mut fixture, scim) = installed(120, 0).await;
    let services = names("a", 120);
    let lea = scim.create_user("lea@example.com").await;
    scim.create_group("a", &[&lea]).await;
    have(&fixture, &services, Duration::from_mins(1), &["lea"]).await;
    quota(&fixture, 60, None);
    let since = now();
    scim.set_active(&lea, false).await;
    eventually("half of them", async || {
        let left = services.iter().filter(|service| !members(&fixture, service).is_empty()).count();
        if left < 40 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    fixture.restart().await;
    have(&fixture, &services, Duration::from_mins(4), &[]).await;
    compare("a leaver with a restart", &fixture, since, 120, allowed(120, 60, 60));
}

#[tokio::test]
async fn quota_that_begins_in_the_middle_of_a_backlog() {
    let (fixture, scim) = installed(200, 0).await;
    let services = names("a", 200);
    let alice = scim.create_user("alice@example.com").await;
    let since = now();
    scim.create_group("a", &[&alice]).await;
    eventually("some of them", async || {
        let done = services.iter().filter(|service| !members(&fixture, service).is_empty()).count();
        if done > 20 { Ok(()) } else { Err(done.to_string()) }
    })
    .await;
    quota(&fixture, 120, None);
    let begun = now();
    let before = writes(&fixture, since, "").all - writes(&fixture, begun, "").all;
    have(&fixture, &services, Duration::from_mins(2), &["alice"]).await;
    compare("a quota that begins late", &fixture, begun, 200 - before, allowed(200 - before, 120, 120));
}

/// Calls about the policy of a service since `since`: reads and writes.
fn calls(fixture: &Fixture, since: Timestamp, service: &str) -> [usize; 2] {
    let of = |verb: &str| {
        let path = format!("/services/{service}:{verb}");
        fixture.emulator.journal().iter().filter(|call| call.time >= since && call.path.ends_with(&path)).count()
    };
    [of("getIamPolicy"), of("setIamPolicy")]
}

#[tokio::test]
async fn policy_that_always_conflicts_costs_few_calls_and_delays_nobody() {
    let (fixture, scim) = installed(3, 0).await;
    let services = names("a", 3);
    let lea = scim.create_user("lea@example.com").await;
    scim.create_group("a", &[&lea]).await;
    have(&fixture, &services, Duration::from_mins(1), &["lea"]).await;
    let conflict =
        json!({"match": {"pathRegex": "/services/a001:setIamPolicy"}, "action": {"type": "error", "status": 409}});
    fixture.fault(conflict).await;
    let since = now();
    scim.set_active(&lea, false).await;
    have(&fixture, &["a000".to_owned(), "a002".to_owned()], Duration::from_secs(10), &[]).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let calls = calls(&fixture, since, "a001");
    println!("measured: a policy that always conflicts: {calls:?} reads and writes in 40 s");
    assert!(calls[0] <= 20 && calls[1] <= 20, "{calls:?}");
    assert!(calls[1] >= 7, "the removal is still tried: {calls:?}");
    fixture.clear_faults().await;
    have(&fixture, &services, Duration::from_secs(30), &[]).await;
}

#[tokio::test]
async fn grant_that_somebody_takes_away_again_and_again_is_contested_and_made_again_ever_more_rarely() {
    let mut manifests = base();
    manifests.push(("a.yaml", mapping_in("checkout", "a", "a", &["services/a*"])));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["a000"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let (lea, bob) = (scim.create_user("lea@example.com").await, scim.create_user("bob@example.com").await);
    scim.create_group("a", &[&lea, &bob]).await;
    let service = ["a000".to_owned()];
    have(&fixture, &service, Duration::from_secs(30), &["bob", "lea"]).await;
    for _ in 0..3 {
        fixture.stranger_removes("a000", INVOKER, "user:lea@example.com").await;
        have(&fixture, &service, Duration::from_secs(10), &["bob", "lea"]).await;
    }
    fixture.stranger_removes("a000", INVOKER, "user:lea@example.com").await;
    let since = now();
    for what in ["contested", "contested while it is missing"] {
        fixture
            .mapping_status("checkout/a", what, |s| {
                has(s, "Drifted", "True", "Contested") && has(s, "Ready", "False", "Contested")
            })
            .await;
    }
    fixture.status_of_target("contested", |s| has(s, "Drifted", "True", "Contested")).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let [_, writes] = calls(&fixture, since, "a000");
    assert!(writes <= 1, "{writes} writes although nothing may be made again");
    // A restart does not begin anew.
    fixture.restart().await;
    fixture.mapping_status("checkout/a", "still contested", |s| has(s, "Drifted", "True", "Contested")).await;
    // Removals are made at once.
    scim.set_active(&bob, false).await;
    have(&fixture, &service, Duration::from_secs(10), &[]).await;
}
