//! Conclusions that others draw from a status: kstatus from the creation on, and the status shown when the API server
//! refuses a write.

use serde_json::{Value, json};

use crate::support::*;

/// The kstatus of an object.
async fn judgement(object: &Value) -> String {
    kstatus(std::slice::from_ref(object)).await.remove(0).0
}

/// Every object of the smallest set, without the Secret, as returned by the API server on creation.
async fn created(fixture: &Fixture) -> Vec<Value> {
    let mut created = Vec::new();
    for manifest in base().iter().flat_map(|(_, text)| documents(text)).chain(documents(&team())) {
        let answer = fixture.admin().create(&manifest).await.expect("created");
        if answer["kind"] != "Secret" {
            created.push(answer);
        }
    }
    created
}

#[tokio::test]
async fn object_that_was_not_reconciled_yet_is_in_progress_from_the_moment_of_its_creation() {
    let mut fixture = Fixture::prepare(&[]).await;
    let seen = created(&fixture).await;
    assert_eq!(seen.len(), 3);
    for object in &seen {
        assert_eq!(object["status"], json!({"observedGeneration": -1}), "as Flux's own kinds have it");
        assert_eq!(judgement(object).await, "InProgress", "{object:#}");
        let (kind, name) = named(object);
        let read = fixture.object(&kind, &name).await;
        assert_eq!(judgement(&read).await, "InProgress", "rolecall is down, and it stays so: {read:#}");
    }

    // Until rolecall has reconciled the objects, and until Google has the grants, nothing is Current.
    fixture.pod.start().await;
    two_people(&fixture).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    for object in &seen {
        let (kind, name) = named(object);
        let ready = fixture.until(&kind, &name, "ready", |object| has(&object["status"], "Ready", "True", "")).await;
        assert_eq!(judgement(&ready).await, "Current");
    }
    for turn in 0..4 {
        let name = format!("late-{turn}");
        let late = documents(&mapping(&name, "team-checkout", &["services/checkout-web"], &[VIEWER], "")).remove(0);
        let object = fixture.admin().create(&late).await.expect("created while rolecall is up");
        assert_eq!(judgement(&object).await, "InProgress", "{object:#}");
        let name = format!("checkout/{name}");
        let object = eventually("Current", async || {
            let object = fixture.object("RoleMapping", &name).await;
            match judgement(&object).await.as_str() {
                "Current" => Ok(object),
                other => {
                    assert_eq!(other, "InProgress", "{object:#}");
                    Err(object["status"].to_string())
                }
            }
        })
        .await;
        let granted = fixture.policy("checkout-web").await.remove(VIEWER).unwrap_or_default();
        assert_eq!(granted.len(), 2, "Current is said of what is granted: {object:#}");
        fixture.admin().delete("RoleMapping", &name).await;
        fixture.gone("RoleMapping", &name).await;
    }
}

#[tokio::test]
async fn an_annotation_longer_than_the_schema_takes_does_not_keep_the_status_from_being_written() {
    let (fixture, ..) = granted().await;
    let long = json!({"metadata": {"annotations": {"rolecall.dev/reconcile-requested-at": "x".repeat(300)}}});
    fixture.admin().patch("RoleMapping", "checkout/team", &long).await.expect("an annotation");
    fixture.admin().patch("CloudRunTarget", "shop-dev", &long).await.expect("an annotation");
    fixture.admin().patch("IdentityProvider", "okta", &long).await.expect("an annotation");
    let suspend = json!({"spec": {"mode": "Suspend"}});
    fixture.admin().patch("RoleMapping", "checkout/team", &suspend).await.expect("a suspension");
    let echoed =
        |object: &Value| object["status"]["lastHandledReconcileAt"].as_str().unwrap_or("").chars().count() == 256;
    fixture
        .until("RoleMapping", "checkout/team", "suspended", |object| {
            has(&object["status"], "Frozen", "True", "Suspended") && echoed(object)
        })
        .await;
    fixture.until("CloudRunTarget", "shop-dev", "echoed", echoed).await;
    fixture.until("IdentityProvider", "okta", "echoed", echoed).await;
}

/// The schema of the summary of grants in the CRD of mappings, with this bound.
fn bounded(crd: &Value, most: u64) -> Value {
    let mut crd = crd.clone();
    crd["metadata"].as_object_mut().expect("metadata").remove("managedFields");
    crd["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/grants/properties/summary/maxLength";
    *crd.pointer_mut(path).expect("a bound") = json!(most);
    crd
}

#[tokio::test]
async fn status_that_the_api_server_refuses_is_replaced_by_one_that_reports_it() {
    let (fixture, scim, [group, alice, bob]) = granted().await;
    let name = "rolemappings.rolecall.dev";
    let crd = fixture.admin().get("CustomResourceDefinition", name).await.expect("the CRD");
    let most = |bound: u64| json!({"spec": bounded(&crd, bound)["spec"]});
    fixture.admin().patch("CustomResourceDefinition", name, &most(1)).await.expect("a narrower CRD");
    // From now on a changed summary is refused, as soon as the API server validates against the new schema.
    let suspend = |mode: &str| json!({"spec": {"mode": mode}});
    let refused = |object: &Value| has(&object["status"], "Ready", "False", "StatusRefused");
    eventually("the status says that it is refused", async || {
        for members in [vec![&*alice], vec![&*alice, &*bob]] {
            scim.replace_members(&group, &members).await;
            let count = members.len();
            eventually("the policy follows", async || {
                let seen = fixture.policy("checkout-api").await.remove(INVOKER).unwrap_or_default().len();
                if seen == count { Ok(()) } else { Err(seen.to_string()) }
            })
            .await;
        }
        let object = fixture.object("RoleMapping", "checkout/team").await;
        if refused(&object) { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
    fixture.admin().patch("RoleMapping", "checkout/team", &suspend("Suspend")).await.expect("a mode");
    let of_this_generation =
        |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"] && refused(object);
    let object = fixture.until("RoleMapping", "checkout/team", "refused", of_this_generation).await;
    assert!(object["status"]["grants"].is_null(), "nothing old is left: {object:#}");
    assert_eq!(judgement(&object).await, "Failed", "{object:#}");
    assert!(fixture.log().contains("refused the status"), "{}", tail(&fixture.log()));
    let metrics = fixture.http.get(format!("{}/metrics", fixture.pod.admin_url)).send().await.expect("metrics");
    let asked = ("rolecall_cluster_status_writes_total", Some(("outcome", "Refused")));
    let counted = crate::common::alerts::value_of(&metrics.text().await.expect("text"), asked);
    assert!(counted.is_some_and(|count| count >= 1.0), "{counted:?}");

    fixture.admin().patch("CustomResourceDefinition", name, &most(48)).await.expect("the CRD as it was");
    eventually_within(std::time::Duration::from_mins(1), "the whole status", async || {
        let object = fixture.object("RoleMapping", "checkout/team").await;
        let whole = has(&object["status"], "Frozen", "True", "Suspended") && object["status"]["grants"].is_object();
        if whole { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
}
