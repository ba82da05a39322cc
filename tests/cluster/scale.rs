//! Many mappings on many services: the cost until everything is converged, and no writes afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::*;

const MAPPINGS: usize = 2000;
const SERVICES: usize = 500;
/// Number of groups of one person each; the mappings are divided equally among the groups.
const GROUPS: usize = 20;
/// Mappings on one service.
const PER_SERVICE: usize = MAPPINGS / SERVICES;
/// For a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_mins(8);

/// Waits until this many mappings are ready with the grants of this many people each.
async fn converged(fixture: &Fixture, wanted: usize, people: usize) {
    let summary = format!("{people}/{people}");
    eventually_within(PATIENCE, "all mappings are ready", async || {
        let mappings =
            fixture.admin().list("RoleMapping", Some("checkout")).await.map_err(|refused| refused.to_string())?;
        let done = |mapping: &&Value| {
            has(&mapping["status"], "Ready", "True", "Converged") && mapping["status"]["grants"]["summary"] == summary
        };
        let ready = mappings.iter().filter(done).count();
        if ready == wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let one = mappings.iter().find(|mapping| !done(mapping)).map(|mapping| mapping["status"].to_string());
        Err(format!("{ready} of {wanted}, such as {one:?}; log:\n{}", tail(&fixture.pod.said())))
    })
    .await;
}

/// Number of reads and writes of policies so far.
fn google(fixture: &Fixture) -> (usize, usize) {
    (fixture.emulator.count("GET", ":getIamPolicy"), fixture.emulator.count("POST", ":setIamPolicy"))
}

/// Number of calls of rolecall to the API server since then, by verb and resource.
fn kubernetes(fixture: &Fixture, then: usize) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for call in fixture.cluster.calls_since(then).iter().filter(|call| call.user == fixture.pod.user) {
        *counted.entry(format!("{} {}", call.verb, call.resource)).or_default() += 1;
    }
    counted
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn per(count: usize, objects: usize) -> String {
    format!("{:.2}", count as f64 / objects as f64)
}

/// Largest number of calls of one kind for one object since then.
fn most(fixture: &Fixture, then: usize, resource: &str) -> usize {
    let mut counted = BTreeMap::<String, usize>::new();
    for call in fixture.cluster.calls_since(then) {
        if call.user == fixture.pod.user && call.verb == "patch" && call.resource == resource {
            *counted.entry(call.name).or_default() += 1;
        }
    }
    counted.into_values().max().unwrap_or_default()
}

#[expect(clippy::too_many_lines, reason = "one story, measured from start to rest")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_mappings_on_five_hundred_services_converge_with_few_calls_and_then_rest() {
    // Reads for drift would distort the counts.
    let mut fixture = Fixture::prepare(&["driftInterval=24h"]).await;
    let services: Vec<Value> = (0..SERVICES)
        .map(|n| json!({"name": format!("projects/shop-dev/locations/europe-west1/services/s{n}")}))
        .collect();
    fixture.emulator.control("POST", "resources", &json!({"resources": services})).expect("services");
    let limits = json!({"journalEntries": 200_000, "journalBytes": 1_u64 << 30});
    fixture.emulator.control("PATCH", "settings", &limits).expect("a long journal");
    for (_, text) in base() {
        fixture.admin().apply(&text.replace("discoveryInterval: 1s", "discoveryInterval: 5m")).await;
    }
    fixture.pod.start().await;
    let scim = fixture.scim("okta", TOKEN);
    accepted(&scim, 200).await;
    let mut groups = Vec::new();
    for n in 0..GROUPS {
        let user = scim.create_user(&format!("user{n}@example.com")).await;
        groups.push(scim.create_group(&format!("team{n}"), &[&user]).await);
    }
    quiet(&fixture).await;
    let idle = fixture.pod.resident();

    // Many people apply manifests at once.
    let (then, reads_and_writes, begun) = (fixture.cluster.now(), google(&fixture), Instant::now());
    let mut applying = JoinSet::new();
    for part in 0..8 {
        let admin = fixture.admin().clone();
        applying.spawn(async move {
            for n in (0..MAPPINGS).filter(|n| n % 8 == part) {
                let (group, service) = (format!("team{}", n % GROUPS), format!("services/s{}", n / PER_SERVICE));
                let text = mapping(&format!("m{n}"), &group, &[&service], &[INVOKER], "");
                admin.create(&documents(&text)[0]).await.unwrap_or_else(|refused| panic!("m{n}: {refused}"));
            }
        });
    }
    while let Some(done) = applying.join_next().await {
        done.expect("all are applied");
    }
    let applied = begun.elapsed();
    converged(&fixture, MAPPINGS, 1).await;
    let took = begun.elapsed();
    quiet(&fixture).await;
    let (reads, writes) = google(&fixture);
    let (reads, writes) = (reads - reads_and_writes.0, writes - reads_and_writes.1);
    println!(
        "measured: {MAPPINGS} mappings on {SERVICES} services applied in {:.1} s, all ready {:.1} s after the first was applied (debug build)",
        applied.as_secs_f64(),
        took.as_secs_f64()
    );
    println!("measured: calls to Google per policy: {} reads, {} writes", per(reads, SERVICES), per(writes, SERVICES));
    for (what, count) in kubernetes(&fixture, then) {
        println!("measured: calls to Kubernetes: {what}: {count}, {} a mapping", per(count, MAPPINGS));
    }
    println!(
        "measured: resident memory: {} MiB idle before, {} MiB with all of it",
        idle / 1024,
        fixture.pod.resident() / 1024
    );
    // The mappings of a policy arrive one after the other: each may cause a reconcile of its own, and none more than
    // one.
    assert!((SERVICES..=MAPPINGS).contains(&writes), "{writes} writes");
    assert!((writes..=MAPPINGS + SERVICES).contains(&reads), "{reads} reads, {writes} writes");
    let finalizers = most(&fixture, then, "rolemappings");
    let statuses = most(&fixture, then, "rolemappings/status");
    println!("measured: at most {finalizers} finalizer patch and {statuses} status patches for one mapping");
    assert_eq!(finalizers, 1);
    // Pending, ready, verified. If it takes long, a mapping that has been pending for a minute reports that, too.
    let all = kubernetes(&fixture, then).remove("patch rolemappings/status").unwrap_or_default();
    assert!(all <= 3 * MAPPINGS, "{all} status patches for {MAPPINGS} mappings");
    assert!(
        statuses <= 3 + usize::from(took > Duration::from_mins(1)) * 3,
        "{statuses} status patches for one mapping"
    );

    // One change of one group affects each policy in which it has a part, and no other.
    let concerned = MAPPINGS / GROUPS;
    let (then, before, since) = (fixture.cluster.now(), google(&fixture), Instant::now());
    let user = scim.create_user("more@example.com").await;
    scim.add_members(&groups[0], &[&user]).await;
    converged(&fixture, concerned, 2).await;
    let took = since.elapsed();
    quiet(&fixture).await;
    let (reads, writes) = google(&fixture);
    let (reads, writes) = (reads - before.0, writes - before.1);
    let statuses = most(&fixture, then, "rolemappings/status");
    println!(
        "measured: one person more in one group: its {concerned} mappings follow within {:.1} s; {reads} reads and {writes} writes of {concerned} policies, at most {statuses} status patches for one mapping",
        took.as_secs_f64(),
    );
    assert!(
        statuses <= 3 + usize::from(took > Duration::from_mins(1)) * 3,
        "{statuses} status patches for one mapping"
    );
    assert_eq!(most(&fixture, then, "rolemappings"), 0, "no finalizer is touched");
    assert_eq!((reads, writes), (concerned, concerned), "one read and one write a policy");

    let then = fixture.cluster.now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let written = patches(&fixture, then);
    assert!(written.is_empty(), "idle: {written:?}");
    println!(
        "measured: idle for 10 s with {MAPPINGS} mappings: 0 patches, {} calls in all",
        kubernetes(&fixture, then).values().sum::<usize>()
    );
}
