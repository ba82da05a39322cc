//! Google keeps members under another spelling than they were sent: ownership follows the account.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::*;

const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";

async fn world() -> (World, Scim) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    (world, scim)
}

fn directory(world: &World, entry: &serde_json::Value) {
    world.emulator.control("POST", "directory", entry).expect("a directory");
}

/// Some drift intervals in which nothing may be written.
async fn no_more_writes(world: &World) {
    let before = world.emulator_writes("checkout-api");
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(world.emulator_writes("checkout-api"), before, "nothing is left to write");
}

#[tokio::test]
async fn an_alias_that_comes_back_as_the_primary_address_is_written_once_and_goes_with_the_person() {
    let (mut world, scim) = world().await;
    directory(&world, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bobby]).await;
    world.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    world.mapping_status("checkout/team", "Ready", |status| has(status, "Ready", "True", "")).await;
    no_more_writes(&world).await;
    world.restart().await;
    scim.set_active(&bobby, false).await;
    world.members_become("checkout-api", INVOKER, &[]).await;
    world.agree().await;
}

#[tokio::test]
async fn an_account_renamed_at_google_first_goes_with_the_person() {
    let (mut world, scim) = world().await;
    let bobby = scim.create_user("bobby@example.com").await;
    let carol = scim.create_user("carol@example.com").await;
    let group = scim.create_group("team-checkout", &[&bobby]).await;
    world.members_become("checkout-api", INVOKER, &["user:bobby@example.com"]).await;
    directory(&world, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    scim.add_members(&group, &[&carol]).await;
    world.members_become("checkout-api", INVOKER, &["user:bob@example.com", "user:carol@example.com"]).await;
    no_more_writes(&world).await;
    scim.set_active(&bobby, false).await;
    world.members_become("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    world.agree().await;
}

#[tokio::test]
async fn the_account_that_a_stranger_put_there_before_stays_when_its_alias_leaves() {
    let (mut world, scim) = world().await;
    directory(&world, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    world.stranger_adds("checkout-api", INVOKER, "user:bob@example.com").await;
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bobby]).await;
    world.mapping_status("checkout/team", "unowned", |status| status["grants"]["unowned"] == 1).await;
    no_more_writes(&world).await;
    scim.set_active(&bobby, false).await;
    world
        .mapping_status("checkout/team", "what remains is named", |status| status.to_string().contains("GrantRemains"))
        .await;
    world.members_stay("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    world.agree().await;
}

#[tokio::test]
async fn two_aliases_that_cannot_be_told_apart_leave_together_and_who_stays_is_written_again_in_the_same_call() {
    let (mut world, scim) = world().await;
    directory(
        &world,
        &json!({"aliases": {"bobby@example.com": "bob@example.com", "annie@example.com": "ann@example.com"}}),
    );
    let bobby = scim.create_user("bobby@example.com").await;
    let annie = scim.create_user("annie@example.com").await;
    scim.create_group("team-checkout", &[&bobby, &annie]).await;
    world.members_become("checkout-api", INVOKER, &["user:ann@example.com", "user:bob@example.com"]).await;
    no_more_writes(&world).await;
    let before = world.emulator_writes("checkout-api");
    scim.set_active(&bobby, false).await;
    world.members_become("checkout-api", INVOKER, &["user:ann@example.com"]).await;
    no_more_writes(&world).await;
    assert_eq!(world.emulator_writes("checkout-api"), before + 1);
    scim.set_active(&annie, false).await;
    world.members_become("checkout-api", INVOKER, &[]).await;
    world.agree().await;
}

#[tokio::test]
async fn the_same_account_under_two_names_stays_as_long_as_one_of_them_is_wanted() {
    let (mut world, scim) = world().await;
    directory(&world, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    let bob = scim.create_user("bob@example.com").await;
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bob, &bobby]).await;
    world.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    no_more_writes(&world).await;
    scim.set_active(&bob, false).await;
    world.members_stay("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    scim.set_active(&bobby, false).await;
    world.members_become("checkout-api", INVOKER, &[]).await;
    world.agree().await;
}

#[tokio::test]
async fn a_name_that_the_idp_corrects_to_the_primary_address_stays_ours() {
    let (mut world, scim) = world().await;
    directory(&world, &json!({"aliases": {"bobby@example.com": "bob@example.com"}}));
    let bobby = scim.create_user("bobby@example.com").await;
    scim.create_group("team-checkout", &[&bobby]).await;
    world.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "userName", "value": "bob@example.com"}]});
    let (status, answer) = scim.send(reqwest::Method::PATCH, &format!("/Users/{bobby}"), Some(body)).await;
    assert!(status < 300, "{answer}");
    world.members_stay("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    scim.set_active(&bobby, false).await;
    world.members_become("checkout-api", INVOKER, &[]).await;
    world.agree().await;
}

#[tokio::test]
async fn an_alias_that_leads_outside_allowed_domains_is_taken_out_and_not_sent_again() {
    let (mut world, scim) = world().await;
    directory(&world, &json!({"aliases": {"bobby@example.com": "bob@gmail.example"}}));
    let bobby = scim.create_user("bobby@example.com").await;
    let carol = scim.create_user("carol@example.com").await;
    let group = scim.create_group("team-checkout", &[&bobby]).await;
    world
        .mapping_status("checkout/team", "respelled", |status| status.to_string().contains("PrincipalRespelled"))
        .await;
    world.members_become("checkout-api", INVOKER, &[]).await;
    no_more_writes(&world).await;
    scim.add_members(&group, &[&carol]).await;
    world.members_become("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    let status = world.mapping_status("checkout/team", "one failed", |s| s["grants"]["failed"] == 1).await;
    assert!(!has(&status, "Ready", "True", ""), "{status:#}");
    // Once the domain is allowed, the account is wanted under that spelling.
    let provider = provider("okta", TOKEN).replace("[example.com]", "[example.com, gmail.example]");
    world.write("provider.yaml", &provider);
    world.members_become("checkout-api", INVOKER, &["user:bob@gmail.example", "user:carol@example.com"]).await;
    scim.set_active(&bobby, false).await;
    world.members_become("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    world.agree().await;
}

#[tokio::test]
async fn what_google_leaves_of_a_deleted_account_of_ours_is_swept_out() {
    let (world, scim) = world().await;
    let foreign = "deleted:user:alice@example.com?uid=1";
    let edit = json!({"add": [{"role": INVOKER, "member": foreign}]});
    world.emulator.control("POST", &format!("policies/{SERVICE}"), &edit).expect("an edit");
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    scim.create_group("team-checkout", &[&alice, &bob]).await;
    world.members_become("checkout-api", INVOKER, &[foreign, "user:alice@example.com", "user:bob@example.com"]).await;
    for (member, uid) in [("user:alice@example.com", 123), ("user:bob@example.com", 124)] {
        world.emulator.control("POST", "directory/delete", &json!({"member": member, "uid": uid})).expect("deleted");
    }
    // Alice left at the IdP too; bob is only gone at Google.
    scim.set_active(&alice, false).await;
    world.members_become("checkout-api", INVOKER, &[foreign]).await;
    world
        .emulator
        .control("POST", "directory/undelete", &json!({"member": "user:alice@example.com"}))
        .expect("undeleted");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let members: BTreeSet<String> = world.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
    assert!(!members.contains("user:alice@example.com"), "{members:?}");
}

/// Bobby and annie came in one write, and Google keeps them under addresses that cannot be told apart.
async fn bobby_and_annie() -> (World, Scim, [String; 2]) {
    let (world, scim) = world().await;
    directory(
        &world,
        &json!({"aliases": {"bobby@example.com": "bob@example.com", "annie@example.com": "ann@example.com"}}),
    );
    let bobby = scim.create_user("bobby@example.com").await;
    let annie = scim.create_user("annie@example.com").await;
    scim.create_group("team-checkout", &[&bobby, &annie]).await;
    world.members_become("checkout-api", INVOKER, &["user:ann@example.com", "user:bob@example.com"]).await;
    no_more_writes(&world).await;
    (world, scim, [bobby, annie])
}

#[tokio::test]
async fn leaver_goes_although_google_refuses_whoever_has_to_be_written_again_with_the_removal() {
    let (world, scim, [bobby, _]) = bobby_and_annie().await;
    world
        .fault(json!({"match": {"method": "POST", "path": ":setIamPolicy", "body": "annie@example.com"},
            "action": {"type": "error", "status": 400, "reason": "INVALID_ARGUMENT", "message": "Invalid argument."}}))
        .await;
    let before = world.emulator_writes("checkout-api");
    scim.set_active(&bobby, false).await;
    eventually("bob is out", async || {
        let members = world.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
        let writes = world.emulator_writes("checkout-api") - before;
        if members.contains("user:bob@example.com") { Err(format!("{writes} writes")) } else { Ok(()) }
    })
    .await;
    world.mapping_status("checkout/team", "annie is refused", |s| has(s, "Ready", "False", "PolicyRefused")).await;
    let writes = world.emulator_writes("checkout-api") - before;
    assert!(writes <= 14, "{writes} writes");
}

#[tokio::test]
async fn what_is_left_of_a_joint_grant_after_a_strangers_edit_goes_with_its_person() {
    let (mut world, scim, [bobby, annie]) = bobby_and_annie().await;
    world.stranger_removes("checkout-api", INVOKER, "user:ann@example.com").await;
    world.members_become("checkout-api", INVOKER, &["user:ann@example.com", "user:bob@example.com"]).await;
    no_more_writes(&world).await;
    scim.set_active(&bobby, false).await;
    world.members_become("checkout-api", INVOKER, &["user:ann@example.com"]).await;
    no_more_writes(&world).await;
    scim.set_active(&annie, false).await;
    world.members_become("checkout-api", INVOKER, &[]).await;
    world.agree().await;
}
