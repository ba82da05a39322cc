//! Statuses that say what is, and do not contradict each other.

use serde_json::json;

use crate::support::*;

const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";
const ALICE: &str = "user:alice@example.com";

async fn granted(extra: &str) -> (Fixture, Scim, String) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], extra)));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "Converged")).await;
    (fixture, scim, alice)
}

fn stranger(fixture: &Fixture, role: &str, member: &str) {
    let add = json!({"add": [{"role": role, "member": member}]});
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &add).expect("a stranger's member");
}

/// Denies the lists of these kinds in the words of Google for a project or region that does not exist.
async fn deny_lists(fixture: &Fixture, kinds: &[&str]) {
    for kind in kinds {
        let noun = kind.to_lowercase();
        let text = format!(
            "Permission 'run.{noun}.list' denied on resource 'namespaces/shop-dev/{noun}' (or resource may not exist)."
        );
        fixture
            .fault(json!({"match": {"pathRegex": format!("/locations/[^/]+/{kind}$"), "method": "GET"},
                "action": {"type": "error", "status": 403, "message": text}}))
            .await;
    }
}

#[tokio::test]
async fn drift_of_a_mapping_is_drift_of_its_target() {
    let (fixture, _, _) = granted("").await;
    stranger(&fixture, INVOKER, "serviceAccount:ci@shop-dev.iam.gserviceaccount.com");
    fixture
        .mapping_status("checkout/team", "a stranger is told", |s| has(s, "Drifted", "True", "ForeignMembers"))
        .await;
    fixture
        .status_of_target("so it is by the target", |s| {
            has(s, "Drifted", "True", "ForeignMembers") && s["policies"]["drifted"] == 1
        })
        .await;
    fixture.stranger_removes("checkout-api", INVOKER, "serviceAccount:ci@shop-dev.iam.gserviceaccount.com").await;
    fixture.stranger_removes("checkout-api", INVOKER, ALICE).await;
    fixture.mapping_status("checkout/team", "reverted", |s| has(s, "Drifted", "True", "Reverted")).await;
    fixture.status_of_target("so it is by the target", |s| has(s, "Drifted", "True", "Reverted")).await;
}

#[tokio::test]
async fn public_principals_are_no_foreign_members_like_others() {
    for public in ["allUsers", "allAuthenticatedUsers"] {
        let (fixture, _, _) = granted("").await;
        stranger(&fixture, INVOKER, public);
        let status = fixture
            .mapping_status("checkout/team", "told", |s| says(s, "Drifted", "True", "PublicPrincipal", public))
            .await;
        assert_eq!(status["drift"]["foreign"], 0, "{status:#}");
        assert_eq!(status["drift"]["public"], 1, "{status:#}");
        fixture
            .status_of_target("told", |s| {
                says(s, "Drifted", "True", "PublicPrincipal", public)
                    && s["drift"][0]["type"] == "PublicPrincipal"
                    && s["drift"][0]["principal"] == public
            })
            .await;
    }
}

#[tokio::test]
async fn one_grant_that_flaps_is_one_grant() {
    let (fixture, _, _) = granted("").await;
    // Another time, and it is contested.
    for _ in 0..2 {
        fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
        fixture.stranger_removes("checkout-api", INVOKER, ALICE).await;
    }
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let status = fixture
        .mapping_status("checkout/team", "one grant, twice", |s| {
            says(s, "Drifted", "True", "Reverted", "1 grant was") && says(s, "Drifted", "True", "Reverted", "2 times")
        })
        .await;
    assert_eq!(status["drift"]["reverted"], 1, "{status:#}");
}

#[tokio::test]
async fn mapping_without_grants_has_no_lag_of_another_one() {
    let (fixture, scim, _) = granted("").await;
    scim.create_group("team-empty", &[]).await;
    fixture.write("empty.yaml", &mapping("empty", "team-empty", &["services/checkout-api"], &[INVOKER], ""));
    fixture.mapping_status("checkout/empty", "well", |s| has(s, "Ready", "True", "Converged")).await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-b", &[&bob]).await;
    fixture.write("b.yaml", &mapping("b", "team-b", &["services/checkout-api"], &[INVOKER], ""));
    fixture.mapping_status("checkout/b", "a lag", |s| s["lag"].is_string()).await;
    fixture.progress().rounds(2).await;
    let status = fixture.mapping_status("checkout/empty", "well", |s| has(s, "Ready", "True", "Converged")).await;
    assert!(status["lag"].is_null(), "{status:#}");
}

#[tokio::test]
async fn denied_list_is_a_missing_permission_and_a_kind_that_nobody_maps_does_not_matter() {
    let (mut fixture, _, _) = granted("").await;
    fixture.shutdown().await;
    deny_lists(&fixture, &["jobs", "workerPools"]).await;
    fixture.run().await;
    let status = fixture
        .status_of_target("ready, with what is missing", |s| {
            has(s, "Ready", "True", "") && has(s, "PermissionsValid", "False", "PermissionDenied")
        })
        .await;
    assert_eq!(status["missingPermissions"], json!(["run.jobs.list", "run.workerpools.list"]), "{status:#}");
    fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "Converged")).await;
    // Somebody maps it.
    fixture.write("target.yaml", &target(&["services/*", "jobs/*"], &[INVOKER]));
    fixture.write("jobs.yaml", &mapping("jobs", "team-checkout", &["jobs/*"], &[INVOKER], ""));
    fixture.status_of_target("not ready", |s| has(s, "Ready", "False", "PermissionDenied")).await;
    fixture.mapping_status("checkout/jobs", "not ready", |s| has(s, "Ready", "False", "")).await;
    fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "Converged")).await;
}

#[tokio::test]
async fn project_or_region_that_does_not_exist_is_not_ready_and_says_what_to_check() {
    for region in ["europe-west1", "mars-north1"] {
        let mut manifests = base();
        manifests[1].1 = target(&["services/*"], &[INVOKER]).replace("europe-west1", region);
        let mut fixture = Fixture::prepare(&manifests).await;
        deny_lists(&fixture, &["services", "jobs", "workerPools"]).await;
        fixture.run().await;
        let status = fixture
            .status_of_target("not ready", |s| {
                says(s, "Ready", "False", "PermissionDenied", "spec.project")
                    && has(s, "Stalled", "True", "PermissionDenied")
                    && has(s, "Reachable", "False", "PermissionDenied")
                    && has(s, "PermissionsValid", "False", "PermissionDenied")
            })
            .await;
        let said = condition(&status, "Ready")["message"].to_string();
        assert!(said.contains("spec.locations") && said.contains("run.services.list"), "{said}");
        assert_eq!(status["missingPermissions"].as_array().map(Vec::len), Some(3), "{status:#}");
    }
}

#[tokio::test]
async fn project_and_region_in_another_spelling_are_refused_and_no_mapping_is_ready_by_them() {
    for (what, with) in [
        ("project: shop-dev", "project: Shop-Dev"),
        ("project: shop-dev", "project: \"123456789012\""),
        ("project: shop-dev", "project: \"shop-dev \""),
        ("project: shop-dev", "project: projects/shop-dev"),
        ("europe-west1", "\"europe-west1 \""),
        ("europe-west1", "Europe-West1"),
        ("europe-west1", "europe-west1-b"),
        ("europe-west1", "eu"),
    ] {
        let mut manifests = base();
        let spelled = target(&["services/*"], &[INVOKER]).replace(what, with);
        assert!(spelled.contains(with), "{spelled}");
        manifests[1].1 = spelled;
        manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/*"], &[INVOKER], "")));
        let mut fixture = Fixture::prepare(&manifests).await;
        fixture.create_services("shop-dev", &["checkout-api"]).await;
        fixture.run().await;
        let scim = fixture.scim("okta", TOKEN);
        let alice = scim.create_user("alice@example.com").await;
        scim.create_group("team-checkout", &[&alice]).await;
        fixture
            .mapping_status("checkout/team", "not ready", |s| {
                has(s, "Ready", "False", "") && s["grants"]["acknowledged"] == 0
            })
            .await;
        assert_eq!(fixture.emulator.count("POST", ":setIamPolicy"), 0, "{with}");
    }
}

#[tokio::test]
async fn denied_call_without_a_named_permission_is_a_missing_permission_too() {
    let (fixture, scim, _) = granted("").await;
    let fault = json!({"match": {"path": ":setIamPolicy"}, "action": {"type": "error", "status": 403, "message": "Forbidden."}});
    fixture.fault(fault).await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-b", &[&bob]).await;
    fixture.write("b.yaml", &mapping("b", "team-b", &["services/checkout-api"], &[INVOKER], ""));
    let status = fixture.status_of_target("told", |s| has(s, "PermissionsValid", "False", "PermissionDenied")).await;
    assert_eq!(status["missingPermissions"], json!(["run.services.setIamPolicy"]), "{status:#}");
}

#[tokio::test]
async fn mapping_whose_grants_stand_is_ready_although_another_one_overflows() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    let crowd: Vec<_> = (0..1495)
        .map(|n| json!({"role": VIEWER, "member": format!("serviceAccount:s{n}@p.iam.gserviceaccount.com")}))
        .collect();
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &json!({"add": crowd})).expect("a crowd");
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for name in ["a", "b", "x0", "x1", "x2", "x3", "x4"] {
        ids.push(scim.create_user(&format!("{name}@example.com")).await);
    }
    scim.create_group("team-checkout", &[&ids[0], &ids[1]]).await;
    fixture.mapping_status("checkout/team", "two of two", |s| has(s, "Ready", "True", "Converged")).await;
    fixture.write("many.yaml", &mapping("many", "team-many", &["services/checkout-api"], &[INVOKER], ""));
    let refs: Vec<&str> = ids[2..].iter().map(String::as_str).collect();
    scim.create_group("team-many", &refs).await;
    fixture
        .mapping_status("checkout/many", "two do not fit", |s| {
            has(s, "Ready", "False", "PolicyFull") && s["grants"]["acknowledged"] == 3 && s["grants"]["failed"] == 2
        })
        .await;
    let status = fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "Converged")).await;
    assert_eq!(status["grants"]["summary"], "2/2");
    assert!(status["resources"][0]["reason"].is_null(), "{status:#}");
}
