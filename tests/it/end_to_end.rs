//! End-to-end tests: a push of the IdP becomes a binding, and what happens to it afterwards.

use serde_json::json;

use crate::support::*;

fn with(mut manifests: Vec<(&'static str, String)>, file: &'static str, text: String) -> Vec<(&'static str, String)> {
    manifests.push((file, text));
    manifests
}

/// A fixture with services `checkout-api` and `checkout-web`, and one mapping of `team-checkout` to invoker on the first.
async fn checkout() -> (Fixture, Scim) {
    let manifests =
        with(base(), "mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], ""));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

#[tokio::test]
async fn user_added_to_the_group_is_bound() {
    let (fixture, scim) = checkout().await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[]).await;
    scim.add_members(&group, &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    assert!(fixture.policy("checkout-web").await.is_empty(), "nothing outside the mapping is written");
    let status = fixture
        .mapping_status("checkout/team", "Ready with one grant", |status| {
            has(status, "Ready", "True", "") && status["grants"]["acknowledged"] == 1
        })
        .await;
    assert_eq!(status["grants"]["desired"], 1);
    assert_eq!(status["subjects"][0]["members"], 1);
    fixture.mapping_status("checkout/team", "verified by a later read", |s| s["grants"]["verified"] == 1).await;
}

#[tokio::test]
async fn member_removed_from_the_group_is_gone() {
    let (fixture, scim) = checkout().await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice, &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com", "user:bob@example.com"]).await;
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
}

#[tokio::test]
async fn inactive_user_is_removed_while_an_addition_waits() {
    let (fixture, scim) = checkout().await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    // Google refuses every policy that names bob, so his addition waits; the removal of alice must not wait with it.
    fixture.unknown_to_google("user:bob@example.com");
    scim.add_members(&group, &[&bob]).await;
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    scim.set_active(&alice, true).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
}

#[tokio::test]
async fn our_member_removed_by_somebody_else_is_reported_and_granted_again() {
    let (fixture, scim) = checkout().await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    fixture.stranger_removes("checkout-api", INVOKER, "user:alice@example.com").await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.mapping_status("checkout/team", "the repair is counted", |s| s["drift"]["reverted"] == 1).await;
}

#[tokio::test]
async fn our_member_removed_by_somebody_else_is_only_reported_when_on_missing_is_report() {
    let text = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "  onMissing: Report\n");
    let mut fixture = Fixture::prepare(&with(base(), "mapping.yaml", text)).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.stranger_removes("checkout-api", INVOKER, "user:alice@example.com").await;
    fixture.mapping_status("checkout/team", "drift is reported", |s| s["drift"]["missing"] == 1).await;
    let status = fixture.status("RoleMapping", "checkout/team").await;
    assert!(has(&status, "Drifted", "True", ""), "{status:#}");
    fixture.members_stay("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn member_added_by_somebody_else_is_kept_and_counted() {
    let (fixture, scim) = checkout().await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.stranger_adds("checkout-api", INVOKER, "user:Stranger@Elsewhere.example").await;
    fixture.stranger_adds("checkout-api", "roles/run.developer", "group:devs@elsewhere.example").await;
    fixture.mapping_status("checkout/team", "the foreign members are counted", |s| s["drift"]["foreign"] == 2).await;
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &["user:stranger@elsewhere.example"]).await;
    fixture.members_stay("checkout-api", "roles/run.developer", &["group:devs@elsewhere.example"]).await;
}

#[tokio::test]
async fn grant_that_was_there_before_is_unowned_and_stays_and_is_reported_as_remaining() {
    let manifests =
        with(base(), "mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], ""));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.stranger_adds("checkout-api", INVOKER, "user:alice@example.com").await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice, &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com", "user:bob@example.com"]).await;
    fixture.mapping_status("checkout/team", "one grant is unowned", |s| s["grants"]["unowned"] == 1).await;
    scim.remove_member(&group, &alice).await;
    fixture
        .mapping_status("checkout/team", "the remaining grant is said", |s| {
            s["grants"]["desired"] == 1 && s["drift"]["remaining"] == 1
        })
        .await;
    fixture.remove("mapping.yaml");
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
}

#[tokio::test]
async fn grant_shared_by_two_mappings_stays_when_one_of_them_goes() {
    let (fixture, scim) = checkout().await;
    fixture.write("second.yaml", &mapping("second", "team-web", &["services/checkout-*"], &[INVOKER], ""));
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    scim.create_group("team-web", &[&alice]).await;
    fixture.members_become("checkout-web", INVOKER, &["user:alice@example.com"]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.remove("second.yaml");
    fixture.members_become("checkout-web", INVOKER, &[]).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.write("other.yaml", &mapping("other", "team-web", &["services/checkout-web"], &[VIEWER], ""));
    fixture.members_become("checkout-web", VIEWER, &["user:alice@example.com"]).await;
    fixture.remove("mapping.yaml");
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn spec_changed_to_another_group_role_or_service_moves_the_grants() {
    let (fixture, scim) = checkout().await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    scim.create_group("team-web", &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.write("mapping.yaml", &mapping("team", "team-web", &["services/checkout-api"], &[INVOKER], ""));
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    fixture.write("mapping.yaml", &mapping("team", "team-web", &["services/checkout-api"], &[VIEWER], ""));
    fixture.members_become("checkout-api", VIEWER, &["user:bob@example.com"]).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.write("mapping.yaml", &mapping("team", "team-web", &["services/checkout-web"], &[VIEWER], ""));
    fixture.members_become("checkout-web", VIEWER, &["user:bob@example.com"]).await;
    fixture.members_become("checkout-api", VIEWER, &[]).await;
}

#[tokio::test]
async fn deleted_mapping_with_orphan_leaves_and_forgets_its_grants() {
    let text = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "  deletionPolicy: Orphan\n");
    let target = format!("{}      permit: [Orphan]\n", target(&["services/*"], &[INVOKER, VIEWER]));
    let manifests = [("provider.yaml", provider("okta", TOKEN)), ("target.yaml", target), ("mapping.yaml", text)];
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.remove("mapping.yaml");
    eventually("the mapping is forgotten", async || {
        let status = fixture.status("RoleMapping", "checkout/team").await;
        if status.is_null() { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    // The grant is forgotten: the same mapping with Revoke finds a foreign grant, and leaves it when the mapping is
    // deleted.
    fixture.write("mapping.yaml", &mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], ""));
    fixture.mapping_status("checkout/team", "the grant is unowned now", |s| s["grants"]["unowned"] == 1).await;
    scim.remove_member(&group, &alice).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
}

#[tokio::test]
async fn mapping_outside_its_delegation_is_refused_and_the_delegated_part_works() {
    let mut manifests = vec![("provider.yaml", provider("okta", TOKEN))];
    manifests.push(("target.yaml", target(&["services/checkout-*"], &[INVOKER])));
    manifests.push((
        "mapping.yaml",
        mapping("team", "team-checkout", &["services/checkout-api", "services/admin"], &[INVOKER, VIEWER], ""),
    ));
    manifests.push(("outside.yaml", mapping("outside", "team-checkout", &["services/admin"], &[INVOKER], "")));
    let foreign = mapping("elsewhere", "team-checkout", &["services/checkout-api"], &[VIEWER], "");
    manifests.push(("elsewhere.yaml", foreign.replace("namespace: checkout", "namespace: payments")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "admin"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.mapping_status("checkout/team", "partly", |s| has(s, "Accepted", "False", "PartlyDelegated")).await;
    fixture.mapping_status("checkout/outside", "refused", |s| has(s, "Accepted", "False", "NotDelegated")).await;
    fixture.mapping_status("payments/elsewhere", "refused", |s| has(s, "Accepted", "False", "NotDelegated")).await;
    let status = fixture.mapping_status("checkout/team", "the rest works", |s| has(s, "Ready", "True", "")).await;
    let message = condition(&status, "Accepted")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("services/admin"), "the refused path is named: {message}");
    assert!(fixture.policy("admin").await.is_empty());
    assert!(!fixture.policy("checkout-api").await.contains_key(VIEWER));
    // Delegation is withdrawn: the grants that it covered are revoked.
    fixture.write("target.yaml", &target(&["services/other-*"], &[INVOKER]));
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn conflict_storm_converges() {
    let (fixture, scim) = checkout().await;
    fixture.fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "count": 8}, "action": {"type": "error", "status": 409}})).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
}

#[tokio::test]
async fn real_conflicts_with_a_busy_foreign_writer_lose_no_member() {
    let (fixture, scim) = checkout().await;
    let group = scim.create_group("team-checkout", &[]).await;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for i in 0..12 {
        let user = scim.create_user(&format!("user{i}@example.com")).await;
        let stranger = format!("user:stranger{i}@elsewhere.example");
        let added = [user.as_str()];
        tokio::join!(fixture.stranger_adds("checkout-api", INVOKER, &stranger), scim.add_members(&group, &added));
        ours.push(format!("user:user{i}@example.com"));
        theirs.push(stranger);
    }
    let all: Vec<&str> = ours.iter().chain(&theirs).map(String::as_str).collect();
    fixture.members_become("checkout-api", INVOKER, &all).await;
}

#[tokio::test]
async fn member_added_by_somebody_else_after_our_write_was_refused_stays_when_the_mapping_is_deleted() {
    let (fixture, scim) = checkout().await;
    fixture.fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "count": 1000}, "action": {"type": "error", "status": 403}})).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture
        .mapping_status("checkout/team", "the refusal is said", |s| has(s, "Ready", "False", "PermissionDenied"))
        .await;
    fixture.clear_faults().await;
    fixture.stranger_adds("checkout-api", INVOKER, "user:alice@example.com").await;
    fixture.mapping_status("checkout/team", "it is not ours", |s| s["grants"]["unowned"] == 1).await;
    fixture.remove("mapping.yaml");
    fixture.members_stay("checkout-api", INVOKER, &["user:alice@example.com"]).await;
}

#[tokio::test]
async fn write_that_timed_out_after_google_committed_leaves_no_orphan() {
    let (fixture, scim) = checkout().await;
    fixture
        .fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "count": 1}, "action": {"type": "drop", "when": "after"}}))
        .await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:alice@example.com"]).await;
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn burst_of_changes_becomes_few_writes() {
    let (fixture, scim) = checkout().await;
    let group = scim.create_group("team-checkout", &[]).await;
    let mut wanted = Vec::new();
    for i in 0..40 {
        let user = scim.create_user(&format!("user{i}@example.com")).await;
        scim.add_members(&group, &[&user]).await;
        wanted.push(format!("user:user{i}@example.com"));
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    fixture.members_become("checkout-api", INVOKER, &wanted).await;
    fixture.progress().settled().await;
    let writes = fixture.emulator_writes("checkout-api");
    assert!(writes < 30, "40 changes took {writes} writes");
}
