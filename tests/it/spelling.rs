//! Google stores members under another spelling than they were sent: ownership follows the account.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::*;

const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";

async fn fixture() -> (Fixture, Scim) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

fn directory(fixture: &Fixture, entry: &serde_json::Value) {
    fixture.emulator.control("POST", "directory", entry).expect("a directory");
}

/// Waits until everything was read twice, in which time nothing may be written.
async fn no_more_writes(fixture: &Fixture) {
    let before = fixture.emulator_writes("checkout-api");
    fixture.progress().rounds(2).await;
    fixture.progress().settled().await;
    assert_eq!(fixture.emulator_writes("checkout-api"), before, "nothing is left to write");
}

#[tokio::test]
async fn an_alias_stored_as_the_primary_address_is_written_once_and_removed_with_the_person() {
    let (mut fixture, scim) = fixture().await;
    directory(&fixture, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bobby]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    fixture.mapping_status("checkout/team", "Ready", |status| has(status, "Ready", "True", "")).await;
    no_more_writes(&fixture).await;
    fixture.restart().await;
    scim.set_active(&bobby, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn an_account_renamed_at_google_first_is_removed_with_the_person() {
    let (mut fixture, scim) = fixture().await;
    let bobby = scim.create_user("bobby@example.com").await;
    let carol = scim.create_user("carol@example.com").await;
    let group = scim.create_group("team-checkout", &[&bobby]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bobby@example.com"]).await;
    directory(&fixture, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    scim.add_members(&group, &[&carol]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com", "user:carol@example.com"]).await;
    no_more_writes(&fixture).await;
    scim.set_active(&bobby, false).await;
    fixture.members_become("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn the_account_that_somebody_else_granted_before_stays_when_its_alias_leaves() {
    let (mut fixture, scim) = fixture().await;
    directory(&fixture, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    fixture.stranger_adds("checkout-api", INVOKER, "user:bob@example.com").await;
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bobby]).await;
    fixture.mapping_status("checkout/team", "unowned", |status| status["grants"]["unowned"] == 1).await;
    no_more_writes(&fixture).await;
    scim.set_active(&bobby, false).await;
    fixture
        .mapping_status("checkout/team", "what remains is named", |status| {
            has(status, "Drifted", "True", "LeaverHasForeignGrant")
        })
        .await;
    fixture.members_stay("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn two_aliases_that_cannot_be_told_apart_leave_together_and_who_stays_is_written_again_in_the_same_call() {
    let (mut fixture, scim) = fixture().await;
    directory(
        &fixture,
        &json!({"aliases": {"bobby@example.com": "bob@example.com", "annie@example.com": "ann@example.com"}}),
    );
    let bobby = scim.create_user("bobby@example.com").await;
    let annie = scim.create_user("annie@example.com").await;
    scim.create_group("team-checkout", &[&bobby, &annie]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:ann@example.com", "user:bob@example.com"]).await;
    no_more_writes(&fixture).await;
    let before = fixture.emulator_writes("checkout-api");
    scim.set_active(&bobby, false).await;
    fixture.members_become("checkout-api", INVOKER, &["user:ann@example.com"]).await;
    no_more_writes(&fixture).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), before + 1);
    scim.set_active(&annie, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn the_same_account_under_two_names_stays_as_long_as_one_of_them_is_wanted() {
    let (mut fixture, scim) = fixture().await;
    directory(&fixture, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    let bob = scim.create_user("bob@example.com").await;
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bob, &bobby]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    no_more_writes(&fixture).await;
    scim.set_active(&bob, false).await;
    fixture.members_stay("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    scim.set_active(&bobby, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn a_name_that_the_idp_corrects_to_the_primary_address_stays_ours() {
    let (mut fixture, scim) = fixture().await;
    directory(&fixture, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bobby]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "userName", "value": "bob@example.com"}]});
    let (status, answer) = scim.send(reqwest::Method::PATCH, &format!("/Users/{bobby}"), Some(body)).await;
    assert!(status < 300, "{answer}");
    fixture.members_stay("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    scim.set_active(&bobby, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn an_alias_of_an_address_outside_allowed_domains_is_removed_and_not_sent_again() {
    let (mut fixture, scim) = fixture().await;
    directory(&fixture, &json!({"aliases": {"bobby@example.com": "bob@gmail.example"}}));
    let bobby = scim.create_user("bobby@example.com").await;
    let carol = scim.create_user("carol@example.com").await;
    let group = scim.create_group("team-checkout", &[&bobby]).await;
    fixture
        .mapping_status("checkout/team", "respelled", |status| has(status, "Ready", "False", "PrincipalRespelled"))
        .await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    no_more_writes(&fixture).await;
    scim.add_members(&group, &[&carol]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    let status = fixture.mapping_status("checkout/team", "one failed", |s| s["grants"]["failed"] == 1).await;
    assert!(!has(&status, "Ready", "True", ""), "{status:#}");
    // Once the domain is allowed, the account is wanted under that spelling.
    let provider = provider("okta", TOKEN).replace("[example.com]", "[example.com, gmail.example]");
    fixture.write("provider.yaml", &provider);
    fixture.members_become("checkout-api", INVOKER, &["user:bob@gmail.example", "user:carol@example.com"]).await;
    scim.set_active(&bobby, false).await;
    fixture.members_become("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn what_google_leaves_of_a_deleted_account_of_ours_is_swept_out() {
    let (fixture, scim) = fixture().await;
    let foreign = "deleted:user:alice@example.com?uid=1";
    let edit = json!({"add": [{"role": INVOKER, "member": foreign}]});
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &edit).expect("an edit");
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&alice, &bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[foreign, "user:alice@example.com", "user:bob@example.com"]).await;
    for (member, uid) in [("user:alice@example.com", 123), ("user:bob@example.com", 124)] {
        fixture.emulator.control("POST", "directory/delete", &json!({"member": member, "uid": uid})).expect("deleted");
    }
    // Alice left at the IdP too; bob was only deleted at Google.
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[foreign]).await;
    fixture
        .emulator
        .control("POST", "directory/undelete", &json!({"member": "user:alice@example.com"}))
        .expect("undeleted");
    fixture.progress().settled_and_read().await;
    let members: BTreeSet<String> = fixture.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
    assert!(!members.contains("user:alice@example.com"), "{members:?}");
}

/// Bobby and annie are granted in one write, and Google stores them under addresses that cannot be told apart.
async fn bobby_and_annie() -> (Fixture, Scim, [String; 2]) {
    let (fixture, scim) = fixture().await;
    directory(
        &fixture,
        &json!({"aliases": {"bobby@example.com": "bob@example.com", "annie@example.com": "ann@example.com"}}),
    );
    let bobby = scim.create_user("bobby@example.com").await;
    let annie = scim.create_user("annie@example.com").await;
    scim.create_group("team-checkout", &[&bobby, &annie]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:ann@example.com", "user:bob@example.com"]).await;
    no_more_writes(&fixture).await;
    (fixture, scim, [bobby, annie])
}

#[tokio::test]
async fn leaver_is_removed_although_google_refuses_a_member_that_has_to_be_written_again_in_the_call() {
    let (fixture, scim, [bobby, _]) = bobby_and_annie().await;
    fixture
        .fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "body": "annie@example.com"},
            "action": {"type": "error", "status": 400, "reason": "INVALID_ARGUMENT", "message": "Invalid argument."}}))
        .await;
    let before = fixture.emulator_writes("checkout-api");
    scim.set_active(&bobby, false).await;
    eventually("bob is out", async || {
        let members = fixture.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
        let writes = fixture.emulator_writes("checkout-api") - before;
        if members.contains("user:bob@example.com") { Err(format!("{writes} writes")) } else { Ok(()) }
    })
    .await;
    fixture.mapping_status("checkout/team", "annie is refused", |s| has(s, "Ready", "False", "PolicyRefused")).await;
    let writes = fixture.emulator_writes("checkout-api") - before;
    assert!(writes <= 14, "{writes} writes");
}

#[tokio::test]
async fn what_is_left_of_a_joint_grant_after_a_foreign_edit_is_removed_with_its_person() {
    let (mut fixture, scim, [bobby, annie]) = bobby_and_annie().await;
    fixture.stranger_removes("checkout-api", INVOKER, "user:ann@example.com").await;
    fixture.members_become("checkout-api", INVOKER, &["user:ann@example.com", "user:bob@example.com"]).await;
    no_more_writes(&fixture).await;
    scim.set_active(&bobby, false).await;
    fixture.members_become("checkout-api", INVOKER, &["user:ann@example.com"]).await;
    no_more_writes(&fixture).await;
    scim.set_active(&annie, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}
