//! Absence is not deletion: what the cluster or the store lacks removes nothing, and is reported.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{self, *};

const TEAM: &str = "checkout/team";

/// Checks that the mapping is reported as frozen for this reason, and that nothing is written to Google.
async fn frozen(fixture: &Fixture, reason: &str, members: &[&str]) {
    fixture.mapping_status(TEAM, reason, |status| has(status, "Frozen", "True", reason)).await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.members_stay("checkout-api", INVOKER, members).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "not even the same again");
}

async fn ready(fixture: &Fixture) -> Value {
    fixture.mapping_status(TEAM, "ready", |status| has(status, "Ready", "True", "")).await
}

/// Copies the store's files to another folder, which then contains nothing else.
fn copy_store(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the volume") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

#[tokio::test]
async fn restored_old_database_freezes_until_it_is_accepted() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let backup = fixture.cluster.folder().join("backup");
    fixture.pod.shutdown().await;
    copy_store(&fixture.release.volume, &backup);
    fixture.pod.start().await;
    team.add_bob().await;
    team.scim.set_active(&team.alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    fixture.pod.shutdown().await;
    copy_store(&backup, &fixture.release.volume);
    fixture.pod.start().await;
    // According to the old store Alice is to have the role, and Bob is unknown.
    frozen(&fixture, "StoreRewound", &[BOB]).await;
    assert!(fixture.pod.said().contains("rolecall store accept"), "{}", fixture.pod.said());
    let said = fixture.pod.exec(&["store", "accept"]).await.ok();
    assert!(said.contains("is accepted"), "{said}");
    ready(&fixture).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    // Grants that the older store does not know are foreign now; those that it knows are owned.
    team.scim.set_active(&team.alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    // The store is trusted from now on.
    fixture.pod.shutdown().await;
    fixture.pod.start().await;
    fixture.pod.at_work().await;
    ready(&fixture).await;
}

#[tokio::test]
async fn empty_database_freezes_until_it_is_accepted_also_over_a_restart() {
    let (mut fixture, _) = Fixture::with_team(&[]).await;
    fixture.pod.shutdown().await;
    std::fs::remove_dir_all(&fixture.release.volume).expect("the volume");
    std::fs::create_dir_all(&fixture.release.volume).expect("the volume");
    fixture.pod.start().await;
    frozen(&fixture, "StoreMismatch", &[ALICE]).await;
    let scim = fixture.scim("okta", TOKEN);
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&bob]).await;
    frozen(&fixture, "StoreMismatch", &[ALICE]).await;
    fixture.pod.shutdown().await;
    fixture.pod.start().await;
    fixture.pod.at_work().await;
    frozen(&fixture, "StoreMismatch", &[ALICE]).await;
    fixture.pod.exec(&["store", "accept"]).await.ok();
    // There is no record of who granted Alice her role: the grant stays.
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    ready(&fixture).await;
}

#[tokio::test]
async fn database_and_lease_are_lost_and_the_statuses_of_mappings_know() {
    let (mut fixture, _) = Fixture::with_team(&[]).await;
    fixture.pod.shutdown().await;
    std::fs::remove_dir_all(&fixture.release.volume).expect("the volume");
    std::fs::create_dir_all(&fixture.release.volume).expect("the volume");
    fixture.admin().delete("Lease", &format!("{SYSTEM}/rolecall")).await;
    // A re-created provider has no record of the store either.
    fixture.admin().delete("IdentityProvider", "okta").await;
    fixture.admin().apply(&provider("okta", TOKEN)).await;
    fixture.pod.start().await;
    frozen(&fixture, "StoreMismatch", &[ALICE]).await;
    fixture.pod.exec(&["store", "accept"]).await.ok();
    let scim = fixture.scim("okta", TOKEN);
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
}

#[tokio::test]
async fn identity_provider_that_was_made_again_is_not_served_until_it_is_accepted() {
    let (fixture, _) = Fixture::with_team(&[]).await;
    fixture.admin().delete("IdentityProvider", "okta").await;
    fixture.admin().apply(&provider("okta", TOKEN)).await;
    let changed = |object: &Value| has(&object["status"], "Ready", "False", "IdentityProviderChanged");
    fixture.until("IdentityProvider", "okta", "IdentityProviderChanged", changed).await;
    let scim = fixture.scim("okta", TOKEN);
    let (status, answer) = scim.send(reqwest::Method::GET, "/Users", None).await;
    assert!(status == 503 && !answer.to_string().contains("alice"), "{status} {answer}");
    frozen(&fixture, "IdentityProviderChanged", &[ALICE]).await;
    fixture.pod.exec(&["store", "accept-provider", "okta"]).await.ok();
    fixture.until("IdentityProvider", "okta", "Ready", |object| has(&object["status"], "Ready", "True", "")).await;
    // Its status agrees with its endpoint, also at the moment of the change.
    assert_eq!(scim.send(reqwest::Method::GET, "/Users", None).await.0, 200);
    ready(&fixture).await;
}

#[tokio::test]
async fn second_release_in_another_namespace_touches_nothing_while_the_first_is_alive() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let named = |s: &Value| s["status"]["operatorNamespace"] == SYSTEM && s["status"]["storeId"].is_string();
    let provider = fixture.until("IdentityProvider", "okta", "says whose it is", named).await;
    let values = ["crds.install=false", "finalizerDeadline=1s"];
    let second =
        Release::install(&fixture.cluster, &fixture.google.url, "rolecall-other", "other-system", &values).await;
    let second = second.unwrap_or_else(|output| panic!("helm install: {}{}", output.stdout, output.stderr));
    let then = fixture.cluster.now();
    let written_policies =
        |fixture: &Fixture| fixture.emulator_writes("checkout-api") + fixture.emulator_writes("checkout-web");
    let writes = written_policies(&fixture);
    let mut other = second.pod(&fixture.cluster, "rolecall-other-0", fixture.proxy.address).await;
    // Also after a restart.
    for last in [false, true] {
        other.start().await;
        other.at_work().await;
        other.says("another rolecall in the namespace rolecall-system is at work").await;
        other.says_of("RoleMapping", TEAM, "frozen", |s| has(s, "Frozen", "True", "StoreMismatch")).await;
        fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
        assert_eq!(written_policies(&fixture), writes, "nothing is written");
        if !last {
            other.shutdown().await;
        }
    }
    // The first process continues.
    let bob = team.add_bob().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    team.scim.remove_member(&team.group, &bob).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    assert_eq!(written_policies(&fixture), writes + 2, "each change once");
    let now = fixture.object("IdentityProvider", "okta").await;
    assert_eq!(now["status"]["storeId"], provider["status"]["storeId"]);
    assert_eq!(now["status"]["operatorNamespace"], SYSTEM);
    let status = ready(&fixture).await;
    assert!(!has(&status, "Frozen", "True", ""), "{status:#}");
    // The first process adds the finalizer to a new mapping and removes that of a deleted one. The second does not
    // remove it at any deadline.
    fixture.admin().apply(&mapping("web", "team-checkout", &["services/checkout-web"], &[INVOKER], "")).await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE]).await;
    denied(&fixture).await;
    fixture.admin().delete("RoleMapping", TEAM).await;
    always("the mapping is kept", Duration::from_secs(3), async || {
        let kept = fixture.object("RoleMapping", TEAM).await;
        if kept.is_null() { Err("it went".to_owned()) } else { Ok(()) }
    })
    .await;
    revoked(&fixture).await;
    fixture.gone("RoleMapping", TEAM).await;
    let mut written = fixture.cluster.calls_since(then);
    written.retain(|call| call.user == other.user && !matches!(call.verb.as_str(), "get" | "list" | "watch"));
    written.retain(|call| call.resource != "leases");
    assert!(written.is_empty(), "no status, no Event, no finalizer: {written:#?}");
    fixture.agree().await;
}

#[tokio::test]
async fn definition_that_is_deleted_and_made_again_keeps_the_grants() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let writes = fixture.emulator_writes("checkout-api");
    fixture.admin().delete("CustomResourceDefinition", "rolemappings.rolecall.dev").await;
    fixture.gone("CustomResourceDefinition", "rolemappings.rolecall.dev").await;
    fixture.pod.says_of("RoleMapping", TEAM, "frozen", |s| has(s, "Frozen", "True", "MappingVanished")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    // A leaver is removed anyway, and no new person is granted.
    let bob = team.add_bob().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    team.scim.remove_member(&team.group, &bob).await;
    fixture.cluster.install_crds().await;
    fixture.admin().apply(&support::team()).await;
    let status = eventually_within(Duration::from_mins(1), "ready again", async || {
        let status = fixture.object("RoleMapping", TEAM).await["status"].clone();
        let again = has(&status, "Ready", "True", "") && status["grants"]["verified"] == 1;
        if again { Ok(status) } else { Err(format!("{status:#}; log:\n{}", tail(&fixture.pod.said()))) }
    })
    .await;
    assert_eq!(status["grants"]["unowned"], 0, "they are rolecall's: {status:#}");
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "taken up without a write");
    team.scim.remove_member(&team.group, &team.alice).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

/// Removes the finalizer and deletes the mapping, before rolecall observes either.
async fn strip_and_delete(fixture: &Fixture) {
    fixture.pod.signal("STOP");
    let none = json!({"metadata": {"finalizers": []}});
    fixture.admin().patch("RoleMapping", TEAM, &none).await.expect("no finalizers");
    fixture.admin().delete("RoleMapping", TEAM).await;
    assert!(fixture.object("RoleMapping", TEAM).await.is_null());
    fixture.pod.signal("CONT");
}

#[tokio::test]
async fn mapping_whose_finalizer_was_stripped_keeps_its_grants_until_it_is_released() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let vanished = |status: &Value| has(status, "Frozen", "True", "MappingVanished");
    strip_and_delete(&fixture).await;
    fixture.pod.says_of("RoleMapping", TEAM, "vanished", vanished).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    // Applied again, the mapping continues where it was.
    fixture.admin().apply(&support::team()).await;
    ready(&fixture).await;
    team.add_bob().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    // The same while rolecall is not running, and over another restart.
    fixture.pod.shutdown().await;
    fixture.admin().patch("RoleMapping", TEAM, &json!({"metadata": {"finalizers": []}})).await.expect("no finalizers");
    fixture.admin().delete("RoleMapping", TEAM).await;
    for _ in 0..2 {
        fixture.pod.start().await;
        fixture.pod.at_work().await;
        fixture.pod.says_of("RoleMapping", TEAM, "vanished", vanished).await;
        fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;
        fixture.pod.shutdown().await;
    }
    fixture.pod.start().await;
    fixture.pod.exec(&["release", "mapping", TEAM]).await.ok();
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.pod.says_of("RoleMapping", TEAM, "forgotten", Value::is_null).await;
    fixture.agree().await;
}

#[tokio::test]
async fn target_and_provider_that_are_deleted_freeze_until_they_are_there_again() {
    let (mut fixture, team) = Fixture::with_team(&[]).await;
    let writes = fixture.emulator_writes("checkout-api");
    let [(_, provider), (_, target)] = base().try_into().expect("two manifests");
    fixture.admin().delete("CloudRunTarget", "shop-dev").await;
    frozen(&fixture, "TargetNotFound", &[ALICE]).await;
    fixture.admin().apply(&target).await;
    ready(&fixture).await;
    fixture.admin().delete("IdentityProvider", "okta").await;
    frozen(&fixture, "IdentityProviderNotFound", &[ALICE]).await;
    // Its endpoint is closed.
    accepted(&team.scim, 401).await;
    // Both at once, over a restart.
    fixture.admin().delete("CloudRunTarget", "shop-dev").await;
    fixture.pod.shutdown().await;
    fixture.pod.start().await;
    fixture.pod.at_work().await;
    fixture.mapping_status(TEAM, "frozen", |status| has(status, "Frozen", "True", "")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.admin().apply(&provider).await;
    fixture.admin().apply(&target).await;
    // Another object of the same name: a person has to decide whether the people are its own.
    frozen(&fixture, "IdentityProviderChanged", &[ALICE]).await;
    accepted(&team.scim, 503).await;
    fixture.pod.exec(&["store", "accept-provider", "okta"]).await.ok();
    ready(&fixture).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "taken up without a write");
    accepted(&team.scim, 200).await;
    team.add_bob().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.agree().await;
}

const ABANDONED: &str = "rolecall_engine_abandoned_members";

async fn abandoned(fixture: &Fixture, count: f64) {
    eventually_within(Duration::from_mins(1), &format!("{count} abandoned"), async || {
        let now = fixture.pod.metric(ABANDONED).await;
        if (now - count).abs() < 0.5 { Ok(()) } else { Err(format!("{now}; log:\n{}", tail(&fixture.pod.said()))) }
    })
    .await;
}

/// Makes Google deny every write of a policy.
async fn denied(fixture: &Fixture) {
    let fault =
        json!({"match": {"method": "POST", "path": ":setIamPolicy"}, "action": {"type": "error", "status": 403}});
    fixture.fault(fault).await;
}

/// Waits as long as rolecall waits at most between two attempts.
async fn revoked(fixture: &Fixture) {
    fixture.clear_faults().await;
    let began = std::time::Instant::now();
    eventually_within(Duration::from_secs(90), "revoked", async || {
        let policy = fixture.policy("checkout-api").await;
        if policy.is_empty() { Ok(()) } else { Err(format!("{policy:?}; log:\n{}", tail(&fixture.pod.said()))) }
    })
    .await;
    println!("measured: revoked after the permission returned: {:.1} s", began.elapsed().as_secs_f64());
}

#[tokio::test]
async fn namespace_target_and_mapping_deleted_together_while_google_refuses_go_and_the_grant_follows() {
    let (mut fixture, _) = Fixture::with_team(&["finalizerDeadline=5s"]).await;
    abandoned(&fixture, 0.0).await;
    // Only the mapping is deleted: its target reports what is left.
    denied(&fixture).await;
    fixture.admin().delete("RoleMapping", TEAM).await;
    fixture.mapping_status(TEAM, "waits", |s| has(s, "Ready", "False", "RevocationPending")).await;
    fixture.gone("RoleMapping", TEAM).await;
    abandoned(&fixture, 1.0).await;
    let says = |target: &Value| has(&target["status"], "Ready", "False", "RevocationAbandoned");
    fixture.until("CloudRunTarget", "shop-dev", "says it", says).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    revoked(&fixture).await;
    abandoned(&fixture, 0.0).await;
    let well = |target: &Value| has(&target["status"], "Ready", "True", "");
    fixture.until("CloudRunTarget", "shop-dev", "is well again", well).await;

    // All objects at once.
    fixture.admin().apply(&support::team()).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    ready(&fixture).await;
    denied(&fixture).await;
    let deleted = std::time::Instant::now();
    fixture.admin().delete("CloudRunTarget", "shop-dev").await;
    fixture.admin().delete("RoleMapping", TEAM).await;
    fixture.admin().delete("Namespace", "checkout").await;
    eventually_within(Duration::from_mins(1), "the namespace goes", async || {
        let namespace = fixture.object("Namespace", "checkout").await;
        if namespace.is_null() { Ok(()) } else { Err(format!("{namespace:#}; log:\n{}", tail(&fixture.pod.said()))) }
    })
    .await;
    let complaint = "does not permit rolecall to write this Event";
    assert!(!fixture.pod.said().contains(complaint), "that it takes no Event is as it should be");
    println!("measured: namespace gone with a finalizer deadline of 5 s: {:.1} s", deleted.elapsed().as_secs_f64());
    abandoned(&fixture, 1.0).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    revoked(&fixture).await;
    abandoned(&fixture, 0.0).await;
    fixture.agree().await;
}

#[tokio::test]
async fn mass_removal_is_held_until_its_hash_is_released_also_of_a_mapping_that_went_at_its_deadline() {
    let (mut fixture, team) = Fixture::with_team(&["finalizerDeadline=5s"]).await;
    let (mut ids, mut members) = (vec![team.alice.clone()], vec![ALICE.to_owned()]);
    for i in 0..19 {
        ids.push(team.scim.create_user(&format!("user{i}@example.com")).await);
        members.push(format!("user:user{i}@example.com"));
    }
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    let everybody: Vec<&str> = ids.iter().map(String::as_str).collect();
    team.scim.replace_members(&team.group, &everybody).await;
    fixture.members_become("checkout-api", INVOKER, &all).await;
    team.scim.replace_members(&team.group, &[&team.alice]).await;
    let held = |people: i64| move |status: &Value| status["held"]["people"] == people;
    let status = fixture.mapping_status(TEAM, "19 people are held", held(19)).await;
    assert!(has(&status, "Held", "True", "MassRemoval"), "{status:#}");
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    let annotate = async |hash: &str| {
        let patch = json!({"metadata": {"annotations": {"rolecall.dev/release": hash}}});
        fixture.admin().patch("RoleMapping", TEAM, &patch).await.expect("an annotation");
    };
    annotate("0123456789abcdef").await;
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    annotate(&hash).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status(TEAM, "nothing is held", held(0)).await;

    // All people again, and the mapping is deleted.
    team.scim.replace_members(&team.group, &everybody).await;
    fixture.members_become("checkout-api", INVOKER, &all).await;
    fixture.admin().delete("RoleMapping", TEAM).await;
    let status = fixture.mapping_status(TEAM, "20 people are held", held(20)).await;
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    fixture.gone("RoleMapping", TEAM).await;
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    let status = fixture.pod.says_of("RoleMapping", TEAM, "still held", held(20)).await;
    assert_eq!(status["held"]["planHash"], hash.as_str(), "the same plan");
    fixture.pod.exec(&["release", "plan", &hash]).await.ok();
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.pod.says_of("RoleMapping", TEAM, "forgotten", Value::is_null).await;
    abandoned(&fixture, 0.0).await;
    fixture.agree().await;
}

#[tokio::test]
async fn mapping_deleted_while_rolecall_is_down_is_revoked_when_it_comes_back() {
    // rolecall is down for longer than the deadline, which starts only when a deletion can be carried out.
    let (mut fixture, _) = Fixture::with_team(&["finalizerDeadline=2s"]).await;
    fixture.pod.shutdown().await;
    let delete = ["delete", "rolemapping/team", "--namespace=checkout", "--wait=false"];
    fixture.cluster.kubectl(&delete).await.ok();
    let waiting = fixture.object("RoleMapping", TEAM).await;
    assert_eq!(waiting["metadata"]["finalizers"], json!(["rolecall.dev/revoke"]));
    fixture.members_are("checkout-api", INVOKER, &[ALICE]).await;
    fixture.pod.start().await;
    fixture.gone("RoleMapping", TEAM).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn deletion_policy_that_was_edited_while_rolecall_was_down_is_the_one_that_counts() {
    let (mut fixture, _) = Fixture::with_team(&[]).await;
    fixture.pod.shutdown().await;
    let orphan = json!({"spec": {"deletionPolicy": "Orphan"}});
    fixture.admin().patch("RoleMapping", TEAM, &orphan).await.expect("an edit");
    let delete = ["delete", "rolemapping/team", "--namespace=checkout", "--wait=false"];
    fixture.cluster.kubectl(&delete).await.ok();
    fixture.pod.start().await;
    fixture.gone("RoleMapping", TEAM).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn mapping_whose_finalizer_is_refused_reports_that_and_is_granted_when_it_can_be_added() {
    let (fixture, _) = Fixture::with_team(&[]).await;
    let role = fixture.cluster.admin.find("ClusterRole", "rolecall").await;
    let patches = |rule: &Value| rule["resources"] == json!(["rolemappings"]) && rule["verbs"] == json!(["patch"]);
    let mut without = role.clone();
    let rules = without["rules"].as_array_mut().expect("rules");
    let all = rules.len();
    rules.retain(|rule| !patches(rule));
    assert_eq!(rules.len(), all - 1, "one rule is about the finalizer");
    fixture.cluster.admin.replace(&without).await.expect("a role without the right");
    tokio::time::sleep(Duration::from_secs(1)).await;

    let second = mapping("second", "team-checkout", &["services/checkout-api"], &[INVOKER], "");
    fixture.admin().apply(&second).await;
    fixture
        .mapping_status("checkout/second", "refused", |status| {
            has(status, "Ready", "False", "FinalizerRefused") && has(status, "Reconciling", "True", "FinalizerRefused")
        })
        .await;
    let mut back = fixture.cluster.admin.find("ClusterRole", "rolecall").await;
    back["rules"] = role["rules"].clone();
    fixture.cluster.admin.replace(&back).await.expect("the role with the right");
    fixture.mapping_status("checkout/second", "granted", |status| has(status, "Ready", "True", "Converged")).await;
    let object = fixture.object("RoleMapping", "checkout/second").await;
    assert_eq!(object["metadata"]["finalizers"], json!(["rolecall.dev/revoke"]));
}
