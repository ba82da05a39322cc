//! Absence is not deletion: every row of the table removes nothing, and reports why.

use serde_json::json;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

/// A fixture in which mapping `checkout/team` granted alice the invoker role on `checkout-api`.
async fn granted() -> (Fixture, Scim, String, String) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    (fixture, scim, alice, group)
}

async fn frozen(fixture: &Fixture, reason: &str) {
    fixture.mapping_status("checkout/team", &format!("Frozen {reason}"), |s| has(s, "Frozen", "True", reason)).await;
    let status = fixture.status("RoleMapping", "checkout/team").await;
    assert!(has(&status, "Ready", "False", ""), "frozen is not ready: {status:#}");
    assert!(has(&status, "Stalled", "True", ""), "frozen is stalled: {status:#}");
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn manifest_that_stops_parsing_keeps_its_last_content_in_force_also_over_a_restart() {
    let (mut fixture, scim, _, group) = granted().await;
    fixture.write(
        "mapping.yaml",
        "apiVersion: rolecall.dev/v1alpha1\nkind: RoleMapping\nmetadata: {name: team, namespace: [\n",
    );
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.restart().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(&group, &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, "user:bob@example.com"]).await;
    let status = fixture
        .mapping_status("checkout/team", "the file is reported", |s| has(s, "Accepted", "False", "InvalidManifest"))
        .await;
    let message = condition(&status, "Accepted")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("mapping.yaml:"), "file and line are named: {message}");
    assert!(fixture.log().contains("mapping.yaml:"), "and logged");
}

#[tokio::test]
async fn manifest_with_an_invalid_field_keeps_its_last_content_in_force_and_names_the_field() {
    let (fixture, _, _, _) = granted().await;
    let text = mapping("team", "team-checkout", &["services/checkout-api"], &["roles/owner"], "");
    fixture.write("mapping.yaml", &text);
    let status = fixture
        .mapping_status("checkout/team", "the field is named", |s| has(s, "Accepted", "False", "InvalidManifest"))
        .await;
    let message = condition(&status, "Accepted")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("spec.grants[0].roles[0]"), "{message}");
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn folder_that_is_missing_freezes_also_over_a_restart() {
    let (mut fixture, ..) = granted().await;
    let away = fixture.folder.path().join("away");
    std::fs::rename(fixture.manifests(), &away).expect("move the folder");
    frozen(&fixture, "ManifestsMissing").await;
    fixture.restart_unready().await;
    frozen(&fixture, "ManifestsMissing").await;
    std::fs::rename(&away, fixture.manifests()).expect("move it back");
    fixture.mapping_status("checkout/team", "thawed", |s| has(s, "Ready", "True", "")).await;
}

#[tokio::test]
async fn folder_that_is_empty_freezes() {
    let (fixture, ..) = granted().await;
    for file in ["provider.yaml", "target.yaml", "mapping.yaml"] {
        fixture.remove(file);
    }
    frozen(&fixture, "ManifestsMissing").await;
}

#[tokio::test]
async fn more_than_half_of_the_mappings_missing_in_one_scan_freezes_them() {
    let mut manifests = base();
    for name in ["a", "b", "c"] {
        manifests.push(match name {
            "a" => ("a.yaml", mapping("a", "team-a", &["services/checkout-api"], &[INVOKER], "")),
            "b" => ("b.yaml", mapping("b", "team-a", &["services/checkout-api"], &[VIEWER], "")),
            _ => ("c.yaml", mapping("c", "team-a", &["services/checkout-web"], &[INVOKER], "")),
        });
    }
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-a", &[&alice]).await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE]).await;
    fixture.members_become("checkout-api", VIEWER, &[ALICE]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    // All in one scan: the folder is swapped for one that lacks two of the three.
    let next = fixture.folder.path().join("next");
    std::fs::create_dir(&next).expect("a folder");
    for file in ["provider.yaml", "target.yaml", "c.yaml"] {
        std::fs::copy(fixture.manifests().join(file), next.join(file)).expect("copy a manifest");
    }
    std::fs::rename(fixture.manifests(), fixture.folder.path().join("before")).expect("swap out");
    std::fs::rename(&next, fixture.manifests()).expect("swap in");
    fixture.mapping_status("checkout/a", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
    fixture.mapping_status("checkout/b", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.members_stay("checkout-api", VIEWER, &[ALICE]).await;
    // A release turns the freeze into a revocation on purpose.
    fixture.command(&["release", "mapping", "checkout/a"]);
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.members_stay("checkout-api", VIEWER, &[ALICE]).await;
}

#[tokio::test]
async fn identity_provider_that_is_missing_freezes() {
    let (fixture, ..) = granted().await;
    fixture.remove("provider.yaml");
    frozen(&fixture, "IdentityProviderNotFound").await;
    let (status, _) = fixture.scim("okta", TOKEN).send(reqwest::Method::GET, "/Users", None).await;
    assert_eq!(status, 401, "and its endpoint is closed");
}

#[tokio::test]
async fn target_that_is_missing_freezes() {
    let (fixture, ..) = granted().await;
    fixture.remove("target.yaml");
    frozen(&fixture, "TargetNotFound").await;
}

#[tokio::test]
async fn observe_and_suspend_freeze() {
    let (fixture, scim, _, group) = granted().await;
    let bob = scim.create_user("bob@example.com").await;
    for (mode, ready, reason) in [("Suspend", "False", "Suspended"), ("Observe", "True", "Observed")] {
        let extra = format!("  mode: {mode}\n");
        fixture.write("mapping.yaml", &mapping("team", "team-checkout", &["services/checkout-api"], &[VIEWER], &extra));
        fixture.mapping_status("checkout/team", mode, |s| has(s, "Ready", ready, reason)).await;
        scim.add_members(&group, &[&bob]).await;
        fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
        assert!(!fixture.policy("checkout-api").await.contains_key(VIEWER));
    }
}

#[tokio::test]
async fn observe_as_the_ceiling_writes_nothing_at_all() {
    let (mut fixture, scim, alice, group) = granted().await;
    fixture.kill();
    fixture.mode = "observe".to_owned();
    fixture.run().await;
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(&group, &[&bob]).await;
    scim.remove_member(&group, &alice).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn group_that_was_never_seen_grants_nothing_and_is_reported() {
    let (fixture, ..) = granted().await;
    fixture.write("mapping.yaml", &mapping("team", "team-typo", &["services/checkout-api"], &[INVOKER], ""));
    fixture.mapping_status("checkout/team", "GroupNotFound", |s| has(s, "Frozen", "True", "GroupNotFound")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn group_name_that_comes_to_mean_another_group_is_held() {
    let (fixture, scim, _, group) = granted().await;
    let mallory = scim.create_user("mallory@example.com").await;
    let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "displayName", "value": "renamed"}]});
    scim.send(reqwest::Method::PATCH, &format!("/Groups/{group}"), Some(body)).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    let other = scim.create_group("team-checkout", &[&mallory]).await;
    fixture
        .mapping_status("checkout/team", "GroupIdentityChanged", |s| has(s, "Frozen", "True", "GroupIdentityChanged"))
        .await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    let accepted = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "").replace(
        "  name: team\n",
        &format!("  name: team\n  annotations: {{rolecall.dev/accept-group: \"{other}\"}}\n"),
    );
    fixture.write("mapping.yaml", &accepted);
    fixture.members_become("checkout-api", INVOKER, &["user:mallory@example.com"]).await;
}

#[tokio::test]
async fn group_deleted_over_scim_revokes_and_a_namesake_gets_nothing() {
    let (fixture, scim, alice, group) = granted().await;
    scim.delete(&format!("/Groups/{group}")).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture
        .mapping_status("checkout/team", "GroupIdentityChanged", |s| has(s, "Frozen", "True", "GroupIdentityChanged"))
        .await;
    fixture.members_stay("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn active_user_whose_address_is_not_admitted_any_more_loses_what_the_former_one_had() {
    let (fixture, scim, alice, _) = granted().await;
    let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "userName", "value": "alice@foreign.example"}]});
    scim.send(reqwest::Method::PATCH, &format!("/Users/{alice}"), Some(body)).await;
    fixture
        .mapping_status("checkout/team", "PrincipalInvalid", |s| s["subjects"][0]["reason"] == "PrincipalInvalid")
        .await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn domain_that_is_not_allowed_any_more_ends_what_it_had_as_far_as_the_guard_lets_it() {
    let (fixture, scim, _, group) = granted().await;
    let provider = |domains: &str| provider("okta", TOKEN).replace("[example.com]", domains);
    fixture.write("provider.yaml", &provider("[example.com, old.example]"));
    let bob = scim.create_user("bob@old.example").await;
    scim.add_members(&group, &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, "user:bob@old.example"]).await;
    fixture.write("provider.yaml", &provider("[example.com]"));
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    for i in 0..11 {
        let id = scim.create_user(&format!("user{i}@example.com")).await;
        scim.add_members(&group, &[&id]).await;
    }
    fixture.mapping_status("checkout/team", "12 are granted", |s| s["grants"]["acknowledged"] == 12).await;
    fixture.write("provider.yaml", &provider("[new.example]"));
    let status = fixture.mapping_status("checkout/team", "held", |s| s["held"]["people"] == 12).await;
    assert!(has(&status, "Held", "True", "MassRemoval"), "{status:#}");
}

#[tokio::test]
async fn active_user_without_an_address_keeps_the_grant_and_is_counted() {
    let text = provider("okta", TOKEN).replace("attribute: userName", "attribute: \"emails[primary eq true].value\"");
    let mut manifests = base();
    manifests[0].1 = text;
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let user = |email: Option<&str>| {
        let emails: Vec<_> = email.iter().map(|email| json!({"value": email, "primary": true})).collect();
        json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "alice", "active": true,
            "emails": emails})
    };
    let (status, created) = scim.send(reqwest::Method::POST, "/Users", Some(user(Some("alice@example.com")))).await;
    assert_eq!(status, 201, "{created}");
    let alice = created["id"].as_str().expect("an id").to_owned();
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let path = format!("/Users/{alice}");
    scim.send(reqwest::Method::PUT, &path, Some(user(None))).await;
    fixture
        .mapping_status("checkout/team", "counted", |s| {
            s["subjects"][0]["reason"] == "PrincipalMissing"
                && says(s, "Ready", "True", "Converged", "keep what they had: 1 ")
        })
        .await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    scim.send(reqwest::Method::PUT, &path, Some(user(Some("alice@elsewhere.example")))).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn group_that_was_never_pushed_freezes_nothing_of_a_group_beside_it() {
    let (mut fixture, scim, alice, group) = granted().await;
    let both = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")
        .replace("[{displayName: team-checkout}]", "[{displayName: team-checkout}, {displayName: team-never}]");
    fixture.write("mapping.yaml", &both);
    fixture.mapping_status("checkout/team", "GroupNotFound", |s| has(s, "Frozen", "True", "GroupNotFound")).await;
    let (bob, carol) = (scim.create_user("bob@example.com").await, scim.create_user("carol@example.com").await);
    scim.add_members(&group, &[&bob, &carol]).await;
    let (bob_member, carol_member) = ("user:bob@example.com", "user:carol@example.com");
    fixture.members_become("checkout-api", INVOKER, &[ALICE, bob_member, carol_member]).await;
    scim.remove_member(&group, &alice).await;
    fixture.members_become("checkout-api", INVOKER, &[bob_member, carol_member]).await;
    fixture.restart().await;
    scim.remove_member(&group, &bob).await;
    fixture.members_become("checkout-api", INVOKER, &[carol_member]).await;
    scim.delete(&format!("/Groups/{group}")).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn list_of_services_that_fails_or_is_partial_removes_nothing() {
    let (mut fixture, ..) = granted().await;
    fixture
        .fault(
            json!({"match": {"method": "GET", "pathRegex": "/services$"}, "action": {"type": "error", "status": 503}}),
        )
        .await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.restart_unready().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/team", "said", |s| has(s, "Frozen", "True", "InventoryIncomplete")).await;
}

#[tokio::test]
async fn database_that_is_empty_or_another_one_freezes_until_it_is_accepted() {
    let (mut fixture, ..) = granted().await;
    fixture.kill();
    fixture.database = fixture.folder.path().join("other.db");
    fixture.run().await;
    frozen(&fixture, "StoreMismatch").await;
    // The IdP pushes a group without alice into the new database: still, nothing is concluded from it.
    let scim = fixture.scim("okta", TOKEN);
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&bob]).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.store_accept();
    fixture.members_become("checkout-api", INVOKER, &[ALICE, "user:bob@example.com"]).await;
}

#[tokio::test]
async fn database_that_is_older_than_what_was_seen_freezes_until_it_is_accepted() {
    let (mut fixture, scim, alice, group) = granted().await;
    fixture.kill();
    let backup = fixture.folder.path().join("backup");
    std::fs::create_dir(&backup).expect("a folder");
    fixture.copy_database(&backup);
    fixture.run().await;
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(&group, &[&bob]).await;
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    fixture.shutdown().await;
    fixture.restore_database(&backup);
    fixture.run().await;
    fixture.mapping_status("checkout/team", "StoreRewound", |s| has(s, "Frozen", "True", "StoreRewound")).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:bob@example.com"]).await;
}
