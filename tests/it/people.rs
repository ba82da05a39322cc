//! Changes of people and groups that an IdP makes in the course of a year, and their effect on grants.

use serde_json::json;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";

/// Service `checkout-api`, and mapping `checkout/team` of these groups to invoker on it.
async fn mapped(groups: &[&str]) -> (Fixture, Scim) {
    let named: Vec<String> = groups.iter().map(|group| format!("{{displayName: {group}}}")).collect();
    let text = mapping("team", "GROUPS", &["services/checkout-api"], &[INVOKER], "");
    let mut manifests = base();
    manifests.push(("mapping.yaml", text.replace("{displayName: GROUPS}", &named.join(", "))));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

async fn patch_user(scim: &Scim, id: &str, operation: serde_json::Value) -> u16 {
    let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]});
    scim.send(reqwest::Method::PATCH, &format!("/Users/{id}"), Some(body)).await.0
}

#[tokio::test]
async fn user_deleted_over_scim_is_removed_and_stays_removed_over_a_restart() {
    let (mut fixture, scim) = mapped(&["team-checkout"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&alice, &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    scim.delete(&format!("/Users/{alice}")).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    let settled = |s: &serde_json::Value| s["grants"]["desired"] == 1 && s["grants"]["revoking"] == 0;
    fixture.mapping_status("checkout/team", "settled", settled).await;
    fixture.kill();
    // While rolecall is down, somebody grants her again: that grant is foreign and stays foreign.
    fixture.stranger_adds("checkout-api", INVOKER, ALICE).await;
    fixture.run().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn user_with_a_new_address_is_bound_under_it_and_no_longer_under_the_old_one() {
    let (mut fixture, scim) = mapped(&["team-checkout"]).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let renamed = json!({"op": "Replace", "path": "userName", "value": "alice.smith@example.com"});
    assert!([200, 204].contains(&patch_user(&scim, &alice, renamed).await));
    fixture.members_become("checkout-api", INVOKER, &["user:alice.smith@example.com"]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn user_deactivated_with_the_words_of_entra_is_gone() {
    let (fixture, scim) = mapped(&["team-checkout"]).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let operation = json!({"op": "Replace", "path": "active", "value": "False"});
    assert!([200, 204].contains(&patch_user(&scim, &alice, operation).await));
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn member_of_two_mapped_groups_keeps_the_grant_until_the_last_membership_ends() {
    let (fixture, scim) = mapped(&["team-a", "team-b"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let first = scim.create_group("team-a", &[&alice]).await;
    let second = scim.create_group("team-b", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    scim.remove_member(&first, &alice).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    scim.delete(&format!("/Groups/{second}")).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn two_users_with_one_principal_get_nothing_new_and_that_is_reported() {
    let text = provider("okta", TOKEN).replace("attribute: userName", "attribute: \"emails[primary eq true].value\"");
    let mut manifests = base();
    manifests[0].1 = text;
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for name in ["alice", "alice-admin"] {
        let body = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name, "active": true,
            "emails": [{"value": "alice@example.com", "primary": true}]});
        let (status, answer) = scim.send(reqwest::Method::POST, "/Users", Some(body)).await;
        assert_eq!(status, 201, "{answer}");
        ids.push(answer["id"].as_str().expect("an id").to_owned());
    }
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&ids[0], &ids[1], &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    fixture.mapping_status("checkout/team", "said", |s| s["subjects"][0]["reason"] == "PrincipalCollision").await;
    fixture.members_stay("checkout-api", INVOKER, &[BOB]).await;
    // One of the two is deleted, so the other one is meant.
    scim.delete(&format!("/Users/{}", ids[1])).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
}

#[tokio::test]
async fn what_was_changed_while_rolecall_was_down_is_caught_up_with() {
    let (mut fixture, scim) = mapped(&["team-checkout"]).await;
    fixture.write("second.yaml", &mapping("second", "team-checkout", &["services/checkout-api"], &[VIEWER], ""));
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    scim.create_group("team-web", &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.members_become("checkout-api", VIEWER, &[ALICE]).await;
    fixture.kill();
    // One mapping is deleted, one is changed, and somebody else edits the policy.
    fixture.remove("second.yaml");
    fixture.write("mapping.yaml", &mapping("team", "team-web", &["services/checkout-api"], &[INVOKER], ""));
    fixture.stranger_adds("checkout-api", VIEWER, "user:stranger@elsewhere.example").await;
    fixture.run().await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    fixture.members_become("checkout-api", VIEWER, &["user:stranger@elsewhere.example"]).await;
    fixture.mapping_status("checkout/second", "done with", serde_json::Value::is_null).await;
    fixture.agree().await;
}
