//! Foreign content of policies, additions that Google refuses, and changes of the resources behind the policies.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";
const API: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";

/// A fixture with these services and mapping `checkout/team` of `team-checkout` to invoker on `resources`.
async fn mapped(services: &[&str], resources: &[&str]) -> (Fixture, Scim) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", resources, &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", services).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

/// The policy of a resource of any kind, as a read of version 3 shows it.
fn bindings(fixture: &Fixture, resource: &str) -> Vec<Value> {
    let policy = fixture.emulator.policy(resource).expect("a policy");
    policy["bindings"].as_array().cloned().unwrap_or_default()
}

async fn bindings_become(fixture: &Fixture, resource: &str, wanted: Value) {
    eventually(&format!("{resource} = {wanted}"), async || {
        let seen = bindings(fixture, resource);
        if json!(seen) == wanted { Ok(()) } else { Err(json!(seen).to_string()) }
    })
    .await;
}

/// Replaces a policy without the checks of a call and without any trace.
fn put_policy(fixture: &Fixture, resource: &str, bindings: &Value) {
    fixture.emulator.control("PUT", &format!("policies/{resource}"), &json!({"bindings": bindings})).expect("a policy");
}

async fn delete_service(fixture: &Fixture, name: &str) {
    let url = format!("{}/v2/projects/shop-dev/locations/europe-west1/services/{name}", fixture.google.url);
    let answer = fixture.http.delete(url).send().await.expect("delete a service");
    assert!(answer.status().is_success(), "delete {name}: {}", answer.status());
}

#[tokio::test]
async fn service_created_after_the_mapping_is_bound() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-*"]).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.create_services("shop-dev", &["checkout-new", "other"]).await;
    fixture.members_become("checkout-new", INVOKER, &[ALICE]).await;
    assert!(fixture.policy("other").await.is_empty(), "what no pattern names is not written");
}

#[tokio::test]
async fn service_deleted_and_created_again_is_granted_again() {
    let (mut fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    delete_service(&fixture, "checkout-api").await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    // A grant that was made again is owned again.
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn service_deleted_for_good_neither_stalls_the_rest_nor_the_end_of_the_mapping() {
    let (fixture, scim) = mapped(&["checkout-api", "checkout-web"], &["services/checkout-*"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE]).await;
    delete_service(&fixture, "checkout-api").await;
    scim.add_members(&group, &[&bob]).await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE, BOB]).await;
    fixture
        .mapping_status("checkout/team", "Ready without the deleted service", |s| {
            has(s, "Ready", "True", "") && s["grants"]["desired"] == 2 && s["grants"]["acknowledged"] == 2
        })
        .await;
    fixture.write("second.yaml", &mapping("second", "team-none", &["services/checkout-web"], &[VIEWER], ""));
    fixture.mapping_status("checkout/second", "there", |s| !s.is_null()).await;
    fixture.remove("mapping.yaml");
    fixture.members_become("checkout-web", INVOKER, &[]).await;
    fixture.mapping_status("checkout/team", "done with", Value::is_null).await;
}

#[tokio::test]
async fn jobs_and_worker_pools_are_bound_like_services() {
    let mut manifests = vec![("provider.yaml", provider("okta", TOKEN))];
    manifests.push(("target.yaml", target(&["services/*", "jobs/nightly", "workerPools/*"], &[INVOKER])));
    let resources = ["services/checkout-api", "jobs/*", "workerPools/w*"];
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &resources, &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    let parent = "projects/shop-dev/locations/europe-west1";
    for (kind, id, names) in [("jobs", "jobId", ["nightly", "other"]), ("workerPools", "workerPoolId", ["w1", "x1"])] {
        for name in names {
            let url = format!("{}/v2/{parent}/{kind}?{id}={name}", fixture.google.url);
            let container = json!({"containers": [{"image": "example/image"}]});
            let template = if kind == "jobs" { json!({"template": container}) } else { container };
            let answer = fixture.http.post(url).json(&json!({"template": template})).send().await.expect("create");
            assert!(answer.status().is_success(), "create {kind}/{name}: {}", answer.status());
        }
    }
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    let bound = json!([{"role": INVOKER, "members": [ALICE]}]);
    for resource in ["services/checkout-api", "jobs/nightly", "workerPools/w1"] {
        bindings_become(&fixture, &format!("{parent}/{resource}"), bound.clone()).await;
    }
    for resource in ["jobs/other", "workerPools/x1"] {
        assert!(
            bindings(&fixture, &format!("{parent}/{resource}")).is_empty(),
            "{resource} is not delegated or not named"
        );
    }
    scim.set_active(&alice, false).await;
    for resource in ["services/checkout-api", "jobs/nightly", "workerPools/w1"] {
        bindings_become(&fixture, &format!("{parent}/{resource}"), json!([])).await;
    }
}

#[tokio::test]
async fn mapping_of_several_subjects_grants_and_roles_binds_each_combination_and_no_other() {
    let entra_token = "scim-token-of-entra-0123456789abcdef";
    let mut manifests = base();
    manifests.push(("entra.yaml", provider("entra", entra_token)));
    let text = "apiVersion: rolecall.dev/v1alpha1\nkind: RoleMapping\nmetadata: {name: team, namespace: checkout}\nspec:\n  \
        subjects:\n    - identityProvider: okta\n      groups: [{displayName: team-a}, {externalId: b-1}]\n    \
        - identityProvider: entra\n      groups: [{displayName: team-a}]\n  grants:\n    \
        - target: {name: shop-dev}\n      resources: [services/checkout-api]\n      roles: [roles/run.invoker, roles/run.viewer]\n    \
        - target: {name: shop-dev}\n      resources: [services/checkout-web]\n      roles: [roles/run.viewer]\n";
    manifests.push(("mapping.yaml", text.to_owned()));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.run().await;
    let (okta, entra) = (fixture.scim("okta", TOKEN), fixture.scim("entra", entra_token));
    let alice = okta.create_user("alice@example.com").await;
    let bob = okta.create_user("bob@example.com").await;
    let carol = entra.create_user("carol@example.com").await;
    let group = okta.create_group("team-a", &[&alice]).await;
    let body = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "team-b",
        "externalId": "b-1", "members": [{"value": bob}]});
    assert_eq!(okta.send(reqwest::Method::POST, "/Groups", Some(body)).await.0, 201);
    entra.create_group("team-a", &[&carol]).await;
    let all = [ALICE, BOB, "user:carol@example.com"];
    fixture.members_become("checkout-api", INVOKER, &all).await;
    fixture.members_become("checkout-api", VIEWER, &all).await;
    fixture.members_become("checkout-web", VIEWER, &all).await;
    assert!(!fixture.policy("checkout-web").await.contains_key(INVOKER));
    let status = fixture.mapping_status("checkout/team", "nine grants", |s| s["grants"]["acknowledged"] == 9).await;
    assert_eq!(status["subjects"].as_array().map(Vec::len), Some(3), "{status:#}");
    okta.remove_member(&group, &alice).await;
    for (service, role) in [("checkout-api", INVOKER), ("checkout-api", VIEWER), ("checkout-web", VIEWER)] {
        fixture.members_become(service, role, &all[1..]).await;
    }
}

#[tokio::test]
async fn foreign_bindings_with_conditions_are_kept_as_they_are() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let foreign = json!([
        {"role": INVOKER, "members": ["user:zoe@elsewhere.example", "user:alice@example.com"],
         "condition": {"title": "office hours", "description": "as agreed", "expression": "request.time.getHours() < 18"}},
        {"role": INVOKER, "members": ["allUsers", "domain:elsewhere.example"]},
        {"role": "roles/run.developer", "members": ["group:devs@elsewhere.example"],
         "condition": {"title": "until spring", "expression": "request.time < timestamp('2027-03-01T00:00:00Z')"}},
    ]);
    put_policy(&fixture, API, &foreign);
    let conditional = |found: Vec<Value>| -> Vec<Value> {
        found.into_iter().filter(|binding| binding.get("condition").is_some()).collect()
    };
    let before = conditional(bindings(&fixture, API));
    assert_eq!(before.len(), 2);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    // A grant with a condition is not one without: hers is granted beside it.
    fixture.members_become("checkout-api", INVOKER, &["allUsers", "domain:elsewhere.example", ALICE]).await;
    assert_eq!(conditional(bindings(&fixture, API)), before);
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &["allUsers", "domain:elsewhere.example"]).await;
    assert_eq!(conditional(bindings(&fixture, API)), before, "also when ours goes");
}

#[tokio::test]
async fn member_that_is_spelled_in_another_case_is_the_same_member() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    // Google keeps the spelling under which the account was created.
    fixture
        .emulator
        .control("PUT", "directory", &json!({"canonical": ["user:Alice@Example.com"]}))
        .expect("a spelling");
    put_policy(&fixture, API, &json!([{"role": INVOKER, "members": ["user:Alice@Example.com"]}]));
    let alice = scim.create_user("ALICE@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.mapping_status("checkout/team", "it was there before", |s| s["grants"]["unowned"] == 1).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:Alice@Example.com"]).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), 0, "nothing had to be written");
    // A grant of rolecall that somebody else spells differently is still owned.
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(&group, &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:Alice@Example.com", BOB]).await;
    put_policy(
        &fixture,
        API,
        &json!([{"role": INVOKER, "members": ["user:Alice@Example.com", "user:Bob@Example.com"]}]),
    );
    scim.remove_member(&group, &bob).await;
    fixture.members_become("checkout-api", INVOKER, &["user:Alice@Example.com"]).await;
}

#[tokio::test]
async fn full_policy_gets_what_fits_and_reports_the_rest_and_removals_are_still_written() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let foreign: Vec<String> = (0..1495).map(|i| format!("user:foreign{i}@elsewhere.example")).collect();
    put_policy(&fixture, API, &json!([{"role": "roles/run.developer", "members": foreign}]));
    let mut ids = Vec::new();
    for i in 0..8 {
        ids.push(scim.create_user(&format!("user{i}@example.com")).await);
    }
    let users: Vec<&str> = ids.iter().map(String::as_str).collect();
    scim.create_group("team-checkout", &users).await;
    let ours = async || fixture.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
    eventually("five fit", async || {
        let seen = ours().await;
        if seen.len() == 5 { Ok(()) } else { Err(format!("{seen:?}; log:\n{}", fixture.log())) }
    })
    .await;
    let status = fixture
        .mapping_status("checkout/team", "three are left out", |s| {
            s["grants"]["failed"] == 3 && has(s, "Ready", "False", "PolicyFull")
        })
        .await;
    assert!(says(&status, "Ready", "False", "PolicyFull", "1500"), "the limit is named: {status:#}");
    // Somebody leaves: removed from the policy at once, and the next person takes the place.
    let before = ours().await;
    let leaver = before.iter().next().expect("somebody").clone();
    let index = (0..8).find(|i| leaver == format!("user:user{i}@example.com")).expect("one of ours");
    scim.set_active(&ids[index], false).await;
    eventually("the leaver is out and the place is taken", async || {
        let seen = ours().await;
        if seen.len() == 5 && !seen.contains(&leaver) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let kept: BTreeSet<String> =
        fixture.policy("checkout-api").await.remove("roles/run.developer").expect("the foreign");
    assert_eq!(kept.len(), 1495, "and no stranger lost anything");
}

#[tokio::test]
async fn refusal_that_names_nobody_is_reported_and_the_removals_are_written() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice, &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    // The organization forbids accounts like carol's, and Google does not say which account it was.
    let refused = "One or more users named in the policy do not belong to a permitted customer,  perhaps due to an organization policy.";
    fixture
        .fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "body": "carol@example.com"},
            "action": {"type": "error", "status": 400, "reason": "FAILED_PRECONDITION", "message": refused}}))
        .await;
    let carol = scim.create_user("carol@example.com").await;
    scim.add_members(&group, &[&carol]).await;
    fixture
        .mapping_status("checkout/team", "the refusal is said", |s| has(s, "Ready", "False", "DomainRestricted"))
        .await;
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    fixture.clear_faults().await;
    scim.remove_member(&group, &carol).await;
    fixture.mapping_status("checkout/team", "Ready again", |s| has(s, "Ready", "True", "")).await;
}

#[tokio::test]
async fn quota_that_is_spent_delays_and_its_retry_after_is_kept() {
    for retry_after in [None, Some(2)] {
        let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
        let mut action = json!({"type": "error", "status": 429, "quota": true});
        if let Some(seconds) = retry_after {
            action["retryAfter"] = json!(seconds);
        }
        fixture.fault(json!({"match": {"path": ":setIamPolicy", "count": 1}, "action": action})).await;
        let alice = scim.create_user("alice@example.com").await;
        scim.create_group("team-checkout", &[&alice]).await;
        fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
        let writes: Vec<_> = fixture
            .emulator
            .journal()
            .into_iter()
            .filter(|call| call.path.contains(":setIamPolicy"))
            .map(|call| (call.status, call.time))
            .collect();
        let statuses: Vec<_> = writes.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [Some(429), Some(200)], "one refusal, one write");
        if let Some(seconds) = retry_after {
            let waited = Duration::try_from(writes[1].1.duration_since(writes[0].1)).expect("later");
            assert!(waited >= Duration::from_secs(seconds), "waited {waited:?} of {seconds} s");
        }
    }
}

#[tokio::test]
async fn google_that_is_unavailable_and_slow_is_waited_for() {
    let (mut fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    fixture
        .fault(json!({"match": {"path": ":getIamPolicy", "count": 1}, "action": {"type": "error", "status": 503}}))
        .await;
    fixture
        .fault(json!({"match": {"path": ":setIamPolicy", "count": 1}, "action": {"type": "html", "status": 502}}))
        .await;
    fixture
        .fault(json!({"match": {"path": "IamPolicy", "count": 6}, "action": {"type": "latency", "latencyMs": 300}}))
        .await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}
