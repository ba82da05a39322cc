//! Argo CD, Flux and others: manifests applied by another field manager, pruned, applied again, and evaluated by
//! kstatus.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::support::*;

const ARGOCD: &str = "argocd-controller";

/// Server-side apply of everything by Argo CD, conflicts forced.
async fn sync(fixture: &Fixture, manifests: &[Value]) {
    for manifest in manifests {
        if let Err(refused) = fixture.admin().apply_as(ARGOCD, "", manifest).await {
            panic!("{manifest}: {refused}");
        }
    }
}

/// The resource versions of the objects in these manifests.
async fn versions(fixture: &Fixture, manifests: &[Value]) -> Vec<Value> {
    let mut versions = Vec::new();
    for manifest in manifests {
        let (kind, name) = named(manifest);
        versions.push(fixture.object(&kind, &name).await["metadata"]["resourceVersion"].clone());
    }
    versions
}

fn is_ready(status: &Value) -> bool {
    has(status, "Ready", "True", "Converged")
}

#[tokio::test]
async fn manifests_of_another_field_manager_are_not_fought_over_and_may_be_pruned_and_applied_again() {
    let mut fixture = Fixture::prepare(&[]).await;
    fixture.pod.start().await;
    let mut manifests: Vec<Value> = base().iter().flat_map(|(_, text)| documents(text)).collect();
    manifests.extend(documents(&team()));
    sync(&fixture, &manifests).await;
    two_people(&fixture).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture
        .mapping_status("checkout/team", "verified", |status| is_ready(status) && status["grants"]["verified"] == 2)
        .await;
    quiet(&fixture).await;

    // Repeated applies change nothing and cause no writes.
    let (then, before) = (fixture.cluster.now(), versions(&fixture, &manifests).await);
    for _ in 0..10 {
        sync(&fixture, &manifests).await;
    }
    fixture.progress().rounds(2).await;
    assert_eq!(versions(&fixture, &manifests).await, before);
    assert!(patches(&fixture, then).is_empty(), "{:?}", patches(&fixture, then));
    let all = manifests.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
    let diff = ["diff", "--server-side", "--force-conflicts", "--field-manager", ARGOCD, "-f", "-"];
    assert_eq!(fixture.cluster.kubectl_with(&diff, &all).await.ok(), "");

    // A change takes effect, and only the status is written.
    let changed = documents(&mapping("team", "team-checkout", &["services/checkout-web"], &[VIEWER], "")).remove(0);
    for _ in 0..3 {
        sync(&fixture, std::slice::from_ref(&changed)).await;
    }
    fixture.members_become("checkout-web", VIEWER, &[ALICE, BOB]).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    let object = fixture
        .until("RoleMapping", "checkout/team", "ready", |object| {
            is_ready(&object["status"]) && object["status"]["observedGeneration"] == 2
        })
        .await;
    let grants = &object["spec"]["grants"][0];
    assert_eq!((&grants["resources"], &grants["roles"]), (&json!(["services/checkout-web"]), &json!([VIEWER])));
    assert_eq!(object["metadata"]["finalizers"], json!(["rolecall.dev/revoke"]));
    // The API server writes its audit log after its answers.
    let written = eventually("the status was patched", async || {
        let written = patches(&fixture, then);
        if written.is_empty() { Err("no patch yet".to_owned()) } else { Ok(written) }
    })
    .await;
    assert!(written.iter().all(|call| call.contains("/status ")), "{written:?}");

    // A replacement (PUT) without the finalizer removes it: it is added again, and nothing was frozen.
    let mut whole = changed.clone();
    whole["spec"]["grants"][0]["roles"] = json!([INVOKER]);
    eventually("kubectl replace", async || {
        whole["metadata"]["resourceVersion"] =
            fixture.object("RoleMapping", "checkout/team").await["metadata"]["resourceVersion"].clone();
        fixture.admin().replace(&whole).await.map(|_| ()).map_err(|refused| refused.to_string())
    })
    .await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE, BOB]).await;
    fixture.members_become("checkout-web", VIEWER, &[]).await;
    fixture
        .until("RoleMapping", "checkout/team", "held again", |object| {
            object["metadata"]["finalizers"] == json!(["rolecall.dev/revoke"]) && is_ready(&object["status"])
        })
        .await;

    // Pruned, and applied again.
    fixture.admin().delete("RoleMapping", "checkout/team").await;
    fixture.gone("RoleMapping", "checkout/team").await;
    assert!(fixture.policy("checkout-web").await.is_empty(), "revoked before it went");
    sync(&fixture, &manifests).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.mapping_status("checkout/team", "ready again", is_ready).await;
}

/// Waits for a state and evaluates the object in that state with kstatus.
async fn judged(fixture: &Fixture, kind: &str, name: &str, wanted: &str, reason: &str, state: impl Fn(&Value) -> bool) {
    let seen = |object: &Value| condition(&object["status"], "Ready")["reason"] == reason;
    let object = fixture.until(kind, name, reason, |object| seen(object) && state(object)).await;
    let (status, message) = kstatus(std::slice::from_ref(&object)).await.remove(0);
    assert_eq!(status, wanted, "{kind} {name} ({reason}): {message}\n{object:#}");
}

/// Requests a reconcile, so that a retry that waits after a failure is made at once.
async fn reconcile(fixture: &Fixture, kind: &str, name: &str) {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed).to_string();
    let patch = json!({"metadata": {"annotations": {"rolecall.dev/reconcile-requested-at": asked}}});
    fixture.admin().patch(kind, name, &patch).await.expect("an annotation");
}

fn any(_: &Value) -> bool {
    true
}

/// A fault on each call whose path contains this.
fn failing(path: &str, status: u16) -> Value {
    json!({"match": {"path": path}, "action": {"type": "error", "status": status}})
}

#[tokio::test]
async fn kstatus_agrees_with_the_table_of_conditions_for_mappings() {
    let (fixture, scim, [group, _, bob]) = granted().await;
    fixture.create_services("shop-dev", &["denied", "ill", "unsure", "crowded"]).await;
    let judge = async |name: &str, wanted: &str, reason: &str, state: fn(&Value) -> bool| {
        judged(&fixture, "RoleMapping", &format!("checkout/{name}"), wanted, reason, state).await;
    };
    let apply = async |name: &str, group: &str, resource: &str, roles: &[&str], extra: &str| {
        fixture.admin().apply(&mapping(name, group, &[resource], roles, extra)).await;
    };
    judge("team", "Current", "Converged", any).await;

    fixture.fault(failing("/services/denied:setIamPolicy", 403)).await;
    fixture.fault(failing("/services/ill:getIamPolicy", 503)).await;
    fixture.fault(failing("/services/unsure:setIamPolicy", 503)).await;
    fixture
        .fault(json!({"match": {"path": "/projects/slow-dev/"}, "action": {"type": "latency", "latencyMs": 6000}}))
        .await;
    let slow = target(&["services/*"], &[INVOKER]).replace("shop-dev", "slow-dev");
    fixture.admin().apply(&slow).await;
    let unlisted =
        mapping("unlisted", "team-checkout", &["services/a"], &[INVOKER], "").replace("shop-dev", "slow-dev");
    fixture.admin().apply(&unlisted).await;
    judge("unlisted", "InProgress", "Progressing", |object| has(&object["status"], "Reconciling", "True", "")).await;
    judged(&fixture, "CloudRunTarget", "slow-dev", "InProgress", "Progressing", any).await;

    apply("observing", "team-checkout", "services/checkout-web", &[INVOKER], "  mode: Observe\n").await;
    apply("refused", "team-checkout", "services/checkout-web", &["roles/run.admin"], "").await;
    apply("partly", "team-checkout", "services/checkout-web", &[VIEWER, "roles/run.admin"], "").await;
    apply("groupless", "team-unknown", "services/checkout-web", &[INVOKER], "").await;
    apply("suspended", "team-checkout", "services/checkout-web", &[INVOKER], "  mode: Suspend\n").await;
    apply("denied", "team-checkout", "services/denied", &[INVOKER], "").await;
    apply("ill", "team-checkout", "services/ill", &[INVOKER], "").await;
    apply("unsure", "team-checkout", "services/unsure", &[INVOKER], "").await;
    let stray = mapping("stray", "team-checkout", &["services/a"], &[INVOKER], "").replace("shop-dev", "nowhere");
    fixture.admin().apply(&stray).await;
    judge("observing", "Current", "Observed", any).await;
    judge("refused", "Failed", "NotDelegated", any).await;
    judge("partly", "Current", "Converged", |object| has(&object["status"], "Accepted", "False", "PartlyDelegated"))
        .await;
    judge("groupless", "InProgress", "GroupNotFound", |object| has(&object["status"], "Reconciling", "True", "")).await;
    judge("suspended", "Failed", "Suspended", |object| has(&object["status"], "Frozen", "True", "Suspended")).await;
    judge("stray", "Failed", "TargetNotFound", |object| has(&object["status"], "Stalled", "True", "")).await;
    judge("denied", "Failed", "PermissionDenied", |object| has(&object["status"], "Stalled", "True", "")).await;
    judge("ill", "InProgress", "GoogleUnavailable", |object| has(&object["status"], "Reconciling", "True", "")).await;
    judge("unsure", "InProgress", "OutcomeUnknown", |object| has(&object["status"], "Reconciling", "True", "")).await;
    // The status of the target shows who has to act, too.
    judged(&fixture, "CloudRunTarget", "shop-dev", "Failed", "PermissionDenied", |object| {
        has(&object["status"], "PermissionsValid", "False", "PermissionDenied")
    })
    .await;

    // A removal that Google does not acknowledge, of one person and of the whole mapping.
    fixture.clear_faults().await;
    reconcile(&fixture, "CloudRunTarget", "shop-dev").await;
    for name in ["denied", "ill", "unsure"] {
        judge(name, "Current", "Converged", any).await;
    }
    judged(&fixture, "CloudRunTarget", "shop-dev", "Current", "Converged", any).await;
    fixture.fault(failing("/services/checkout-api:setIamPolicy", 503)).await;
    scim.remove_member(&group, &bob).await;
    judge("team", "InProgress", "RevocationPending", |object| has(&object["status"], "Reconciling", "True", "")).await;
    judged(&fixture, "CloudRunTarget", "shop-dev", "InProgress", "BackingOff", any).await;
    fixture.admin().delete("RoleMapping", "checkout/team").await;
    judge("team", "Terminating", "RevocationPending", |object| object["metadata"]["deletionTimestamp"].is_string())
        .await;
    fixture.clear_faults().await;
    reconcile(&fixture, "CloudRunTarget", "shop-dev").await;
    fixture.gone("RoleMapping", "checkout/team").await;

    // Held by the guard, which is not a failure.
    let mut users = Vec::new();
    for n in 0..20 {
        users.push(scim.create_user(&format!("user{n}@example.com")).await);
    }
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let crowd = scim.create_group("team-crowd", &users).await;
    apply("crowd", "team-crowd", "services/crowded", &[INVOKER], "").await;
    judge("crowd", "Current", "Converged", |object| object["status"]["grants"]["verified"] == 20).await;
    scim.replace_members(&crowd, &users[..1]).await;
    judge("crowd", "Current", "Converged", |object| has(&object["status"], "Held", "True", "MassRemoval")).await;
}

#[tokio::test]
async fn kstatus_tells_a_broken_target_or_provider_from_one_that_is_well() {
    let fixture = Fixture::start().await;
    judged(&fixture, "CloudRunTarget", "shop-dev", "Current", "Converged", any).await;
    judged(&fixture, "IdentityProvider", "okta", "Current", "WaitingForFirstRequest", any).await;

    let other = |project: &str| target(&["services/*"], &[INVOKER]).replace("shop-dev", project);
    fixture.fault(failing("/projects/closed-dev/", 403)).await;
    fixture.fault(failing("/projects/ill-dev/", 503)).await;
    for project in ["closed-dev", "ill-dev"] {
        fixture.admin().apply(&other(project)).await;
    }
    let stalled: fn(&Value) -> bool = |object| has(&object["status"], "Stalled", "True", "");
    let reconciling: fn(&Value) -> bool = |object| has(&object["status"], "Reconciling", "True", "");
    judged(&fixture, "CloudRunTarget", "closed-dev", "Failed", "PermissionDenied", stalled).await;
    judged(&fixture, "CloudRunTarget", "ill-dev", "InProgress", "GoogleUnavailable", reconciling).await;
    let overlapping = target(&["services/*"], &[INVOKER]).replace("{name: shop-dev}", "{name: second}");
    fixture.admin().apply(&overlapping).await;
    judged(&fixture, "CloudRunTarget", "second", "Failed", "OverlappingTarget", stalled).await;
    fixture.clear_faults().await;
    for project in ["closed-dev", "ill-dev"] {
        reconcile(&fixture, "CloudRunTarget", project).await;
        judged(&fixture, "CloudRunTarget", project, "Current", "Converged", any).await;
    }

    let entra = documents(&provider("entra", "scim-token-of-entra-0123456789abcdef"));
    fixture.admin().apply_as("kubectl", "", &entra[1]).await.expect("a provider");
    judged(&fixture, "IdentityProvider", "entra", "Failed", "TokenSecretNotFound", stalled).await;
    fixture.admin().apply_as("kubectl", "", &entra[0]).await.expect("its Secret");
    judged(&fixture, "IdentityProvider", "entra", "Current", "WaitingForFirstRequest", any).await;
    let state = |state: &str| json!({"spec": {"state": state}});
    fixture.admin().patch("IdentityProvider", "entra", &state("Suspended")).await.expect("suspended");
    judged(&fixture, "IdentityProvider", "entra", "Failed", "Suspended", stalled).await;
    fixture.admin().patch("IdentityProvider", "entra", &state("Active")).await.expect("active");
    judged(&fixture, "IdentityProvider", "entra", "Current", "WaitingForFirstRequest", any).await;
}
