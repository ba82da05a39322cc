//! Drift: its kinds, since when it is known, what a target ignores, how often policies are read, and how full they are.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";
const ALICE: &str = "user:alice@example.com";
const EVE: &str = "user:eve@elsewhere.example";

async fn granted(drift: &str, target_spec: &str, extra: &str) -> (Fixture, Scim) {
    let mut manifests = base();
    manifests[1].1 = format!("{}{target_spec}", target(&["services/*"], &[INVOKER, VIEWER]));
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], extra)));
    let mut fixture = Fixture::prepare(&manifests).await;
    drift.clone_into(&mut fixture.drift);
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "Converged")).await;
    (fixture, scim)
}

fn stranger(fixture: &Fixture, role: &str, member: &str) {
    let add = json!({"add": [{"role": role, "member": member}]});
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &add).expect("a stranger's member");
}

/// `rolecall drift -o json`: exit status and entries.
fn listed(fixture: &Fixture, more: &[&str]) -> (i32, Vec<Value>) {
    let mut arguments = vec!["drift", "--admin", &fixture.admin_url, "-o", "json"];
    arguments.extend(more);
    let (code, out, error) = Fixture::rolecall(&arguments);
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code}: {out} {error}"));
    (code, found["drift"].as_array().cloned().expect("a list"))
}

fn types(entries: &[Value]) -> Vec<String> {
    entries.iter().filter_map(|entry| entry["type"].as_str().map(str::to_owned)).collect()
}

async fn drift_becomes(fixture: &Fixture, wanted: &[&str]) -> Vec<Value> {
    eventually(&format!("drift {wanted:?}"), async || {
        let (_, entries) = listed(fixture, &[]);
        if types(&entries) == wanted { Ok(entries) } else { Err(format!("{entries:#?}; {}", tail(&fixture.log()))) }
    })
    .await
}

#[tokio::test]
async fn drift_has_a_type_and_is_listed_whole_with_names_for_those_who_may_see_them() {
    let (fixture, _) = granted("1s", "", "  onMissing: Report\n").await;
    assert_eq!(listed(&fixture, &[]), (0, vec![]), "nobody changed anything");
    stranger(&fixture, VIEWER, EVE);
    stranger(&fixture, VIEWER, "deleted:user:gone@elsewhere.example?uid=123456789012345678901");
    stranger(&fixture, INVOKER, "allUsers");
    fixture.stranger_removes("checkout-api", INVOKER, ALICE).await;
    let entries = drift_becomes(&fixture, &["PublicPrincipal", "GrantMissing", "GrantUnexpected", "Tombstone"]).await;
    assert!(entries.iter().all(|entry| entry["outcome"] == "Reported" && entry["firstSeen"].is_string()));
    assert_eq!(entries[1]["mappings"], json!(["checkout/team"]));
    assert!(!format!("{entries:?}").contains("eve@"), "{entries:?}");
    let database = format!("sqlite:{}", fixture.database.display());
    let (code, entries) = listed(&fixture, &["--show-principals", "--database", &database]);
    assert_eq!(code, 1, "there is drift");
    assert_eq!(entries[2]["principal"], EVE);
    let (code, table, _) = Fixture::rolecall(&["drift", "shop-dev", "--admin", &fixture.admin_url]);
    assert_eq!(code, 1);
    assert!(table.contains("PublicPrincipal") && table.contains("allUsers") && table.contains("TYPE"), "{table}");
    let (code, yaml, _) = Fixture::rolecall(&["drift", "--admin", &fixture.admin_url, "-o", "yaml"]);
    assert!(code == 1 && yaml.contains("type: Tombstone"), "{yaml}");
    assert_eq!(Fixture::rolecall(&["drift", "other", "--admin", &fixture.admin_url]).0, 0);
    assert_eq!(Fixture::rolecall(&["drift", "--admin", "http://127.0.0.1:1"]).0, 3);
    fixture
        .status_of_target("counted", |s| {
            let counts = &s["driftCounts"];
            counts["public"] == 1 && counts["missing"] == 1 && counts["foreign"] == 1 && counts["tombstones"] == 1
        })
        .await;
    let metrics = fixture.http.get(format!("{}/metrics", fixture.admin_url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("rolecall_engine_drift{type=\"Tombstone\"} 1"), "{metrics}");
}

#[tokio::test]
async fn first_observation_survives_a_restart_and_what_is_over_is_gone() {
    let (mut fixture, scim) = granted("1s", "", "  onMissing: Report\n").await;
    stranger(&fixture, VIEWER, EVE);
    // A grant that was there before: it remains when nobody wants it any more.
    stranger(&fixture, INVOKER, "user:bob@example.com");
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-b", &[&bob]).await;
    fixture.write("b.yaml", &mapping("b", "team-b", &["services/checkout-api"], &[INVOKER], ""));
    fixture.mapping_status("checkout/b", "unowned", |s| s["grants"]["unowned"] == 1).await;
    scim.remove_member(&group, &bob).await;
    let before = drift_becomes(&fixture, &["GrantRemains", "GrantUnexpected"]).await;
    assert_eq!(before[0]["mappings"], json!(["checkout/b"]));
    let seen = |entries: &[Value]| entries.iter().map(|entry| entry["firstSeen"].clone()).collect::<Vec<_>>();
    fixture.shutdown().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fixture.run().await;
    let after = drift_becomes(&fixture, &["GrantRemains", "GrantUnexpected"]).await;
    assert_eq!(seen(&after), seen(&before));
    fixture.mapping_status("checkout/b", "still told", |s| has(s, "Drifted", "True", "GrantRemains")).await;
    // Somebody takes both out, also where nothing of rolecall is left.
    fixture.stranger_removes("checkout-api", VIEWER, EVE).await;
    fixture.stranger_removes("checkout-api", INVOKER, "user:bob@example.com").await;
    drift_becomes(&fixture, &[]).await;
    fixture.restart().await;
    drift_becomes(&fixture, &[]).await;
}

#[tokio::test]
async fn grant_that_remains_is_forgotten_when_it_is_taken_out_although_nothing_else_concerns_the_policy() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    stranger(&fixture, INVOKER, ALICE);
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.mapping_status("checkout/team", "unowned", |s| s["grants"]["unowned"] == 1).await;
    scim.remove_member(&group, &alice).await;
    drift_becomes(&fixture, &["GrantRemains"]).await;
    fixture.stranger_removes("checkout-api", INVOKER, ALICE).await;
    drift_becomes(&fixture, &[]).await;
    fixture.mapping_status("checkout/team", "no drift", |s| s["drift"]["remaining"] == 0).await;
}

#[tokio::test]
async fn grant_under_another_condition_and_a_service_without_a_check_and_a_new_service_have_types() {
    let (fixture, _) = granted("1s", "", "  onMissing: Report\n").await;
    fixture
        .edit_policy("checkout-api", |bindings| {
            for binding in bindings.iter_mut().filter(|binding| binding["role"] == INVOKER) {
                binding["condition"] =
                    json!({"title": "t", "expression": "request.time < timestamp('2099-01-01T00:00:00Z')"});
            }
        })
        .await;
    let entries = drift_becomes(&fixture, &["ConditionChanged"]).await;
    assert_eq!(entries[0]["mappings"], json!(["checkout/team"]));
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Drifted", "True", "ConditionChanged")).await;
    fixture.status_of_target("told", |s| has(s, "Drifted", "True", "ConditionChanged")).await;
    let url = format!("{}/v2/{SERVICE}", fixture.google.url);
    let patched =
        fixture.http.patch(format!("{url}?updateMask=invokerIamDisabled")).json(&json!({"invokerIamDisabled": true}));
    assert!(patched.send().await.unwrap().status().is_success());
    drift_becomes(&fixture, &["ConditionChanged", "InvokerCheckDisabled"]).await;
    assert!(fixture.http.delete(url).send().await.unwrap().status().is_success());
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    drift_becomes(&fixture, &["TargetRecreated"]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Drifted", "True", "TargetRecreated")).await;
}

#[tokio::test]
async fn target_says_what_is_no_drift_and_changes_its_mind() {
    let rules = "  documents:\n    - resources: [\"services/*\"]\n      ignore: [\"serviceAccount:*\", allUsers]\n";
    let (fixture, _) = granted("1s", rules, "").await;
    stranger(&fixture, INVOKER, "serviceAccount:ci@shop-dev.iam.gserviceaccount.com");
    stranger(&fixture, INVOKER, "allUsers");
    stranger(&fixture, VIEWER, EVE);
    drift_becomes(&fixture, &["GrantUnexpected"]).await;
    let ignore = rules.replace("      ignore: [\"serviceAccount:*\", allUsers]\n", "      unexpected: Ignore\n");
    fixture.write("target.yaml", &format!("{}{ignore}", target(&["services/*"], &[INVOKER, VIEWER])));
    drift_becomes(&fixture, &["PublicPrincipal"]).await;
    fixture
        .mapping_status("checkout/team", "told", |s| {
            has(s, "Drifted", "True", "PublicPrincipal") && s["drift"]["foreign"] == 0
        })
        .await;
    fixture.write("target.yaml", &target(&["services/*"], &[INVOKER, VIEWER]));
    drift_becomes(&fixture, &["PublicPrincipal", "GrantUnexpected", "GrantUnexpected"]).await;
}

#[tokio::test]
async fn each_policy_is_read_once_an_interval_whatever_the_number_of_mappings_and_the_target_sets_the_interval() {
    let (fixture, scim) = granted("1h", "  driftInterval: 2s\n", "").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-b", &[&bob]).await;
    for n in 0..12 {
        fixture.write(&format!("b{n}.yaml"), &mapping(&format!("b{n}"), "team-b", &["services/*"], &[INVOKER], ""));
    }
    for n in 0..12 {
        fixture.mapping_status(&format!("checkout/b{n}"), "well", |s| has(s, "Ready", "True", "Converged")).await;
    }
    fixture.progress().settled().await;
    let reads = || fixture.emulator.count("GET", ":getIamPolicy");
    let before = reads();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let seen = reads() - before;
    assert!((4..=6).contains(&seen), "{seen} reads in 10 s");
    // Without an interval of its own, that of the process counts.
    fixture.write("target.yaml", &target(&["services/*"], &[INVOKER, VIEWER]));
    eventually("reads end", async || {
        let before = reads();
        tokio::time::sleep(Duration::from_secs(5)).await;
        if reads() == before { Ok(()) } else { Err(format!("{} more", reads() - before)) }
    })
    .await;
    stranger(&fixture, VIEWER, EVE);
    fixture.write("target.yaml", &format!("{}  driftInterval: 1s\n", target(&["services/*"], &[INVOKER, VIEWER])));
    drift_becomes(&fixture, &["GrantUnexpected"]).await;
}

fn crowd(fixture: &Fixture, members: impl Iterator<Item = String>) {
    let add: Vec<Value> = members.map(|member| json!({"role": VIEWER, "member": member})).collect();
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &json!({"add": add})).expect("a crowd");
}

#[tokio::test]
async fn policy_that_is_nearly_full_is_reported_with_numbers_before_anything_is_left_out() {
    let (fixture, _) = granted("1s", "", "").await;
    crowd(&fixture, (0..1210).map(|n| format!("serviceAccount:s{n}@p.iam.gserviceaccount.com")));
    let text = "1211 of 1500 principals, 0 of 250 groups";
    fixture
        .mapping_status("checkout/team", "told", |s| {
            says(s, "NearlyFull", "True", "PolicyNearlyFull", text) && has(s, "Ready", "True", "Converged")
        })
        .await;
    fixture.status_of_target("told", |s| says(s, "NearlyFull", "True", "PolicyNearlyFull", text)).await;
    let metrics = fixture.http.get(format!("{}/metrics", fixture.admin_url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("rolecall_engine_fullest_document_percent{} 80"), "{metrics}");
    assert!(metrics.contains("rolecall_engine_nearly_full_documents{} 1"), "{metrics}");
}

#[tokio::test]
async fn groups_and_domains_are_counted_by_themselves() {
    let (fixture, _) = granted("1s", "", "").await;
    crowd(&fixture, (0..205).map(|n| format!("group:g{n}@example.com")));
    fixture
        .mapping_status("checkout/team", "told", |s| {
            says(s, "NearlyFull", "True", "PolicyNearlyFull", "206 of 1500 principals, 205 of 250 groups")
        })
        .await;
}

#[tokio::test]
async fn policy_that_google_finds_too_large_gets_what_fits_and_removals_are_written() {
    let (fixture, scim) = granted("1s", "", "").await;
    let limit = json!({"policyBytes": INVOKER.len() + 22 * 12});
    fixture.emulator.control("PUT", "settings", &limit).expect("a limit");
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(scim.create_user(&format!("p{n:04}@example.com")).await);
    }
    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
    scim.create_group("team-many", &refs).await;
    fixture.write("many.yaml", &mapping("many", "team-many", &["services/checkout-api"], &[INVOKER], ""));
    let status = fixture
        .mapping_status("checkout/many", "some fit", |s| {
            has(s, "Ready", "False", "PolicyFull") && s["grants"]["acknowledged"].as_i64().unwrap_or_default() >= 8
        })
        .await;
    assert!(condition(&status, "Ready")["message"].to_string().contains("split the resource"), "{status:#}");
    fixture.mapping_status("checkout/team", "not concerned", |s| has(s, "Ready", "True", "Converged")).await;
    scim.set_active(&ids[0], false).await;
    eventually("the leaver is out", async || {
        let seen = fixture.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
        if seen.contains("user:p0000@example.com") { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
}
