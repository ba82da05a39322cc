//! Groups that are members of groups, nested over SCIM and seen in the policy.

use serde_json::{Value, json};

use crate::common::database::Database;
use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";
const CAROL: &str = "user:carol@example.com";

fn condition(status: &Value, type_: &str) -> Option<Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_).cloned()
}

#[tokio::test]
async fn members_of_nested_groups_have_access_until_the_nesting_ends_and_over_a_restart() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let carol = scim.create_user("carol@example.com").await;
    let core = scim.create_group("core", &[&carol]).await;
    let inner = scim.create_group("inner", &[&bob, &core]).await;
    let outer = scim.create_group("team-checkout", &[&alice, &inner]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB, CAROL]).await;
    let settled = |s: &Value| s["grants"]["acknowledged"] == 3 && s["subjects"][0]["members"] == 3;
    fixture.mapping_status("checkout/team", "settled", settled).await;

    // A circle gives and takes nothing, and is reported.
    scim.add_members(&core, &[&outer]).await;
    let reported = |s: &Value| condition(s, "NestedGroups").is_some_and(|it| it["reason"] == "NestingCycle");
    let status = fixture.mapping_status("checkout/team", "reported", reported).await;
    assert_eq!(condition(&status, "Ready").unwrap()["status"], "True", "{status}");
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB, CAROL]).await;
    scim.remove_member(&core, &outer).await;
    fixture.mapping_status("checkout/team", "mended", |s| condition(s, "NestedGroups").is_none()).await;

    // `groups` of a user says the same as the policy.
    let (_, shown) = scim.send(reqwest::Method::GET, &format!("/Users/{carol}?attributes=groups"), None).await;
    let names: Vec<&Value> = shown["groups"].as_array().unwrap().iter().map(|group| &group["display"]).collect();
    assert_eq!(names, [&json!("core"), &json!("inner"), &json!("team-checkout")]);

    fixture.restart().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB, CAROL]).await;
    scim.remove_member(&core, &carol).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    scim.remove_member(&outer, &inner).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    scim.add_members(&outer, &[&inner]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    scim.delete(&format!("/Groups/{inner}")).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    // A group of the same name under another id is no member.
    scim.create_group("inner", &[&bob]).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn provider_that_ignores_nested_groups_gives_their_members_nothing_until_it_resolves_them() {
    let mut manifests = base();
    let ignoring = |mode: &str| format!("{}  nestedGroups: {mode}\n", provider("okta", TOKEN));
    manifests[0].1 = ignoring("Ignore");
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let inner = scim.create_group("inner", &[&bob]).await;
    scim.create_group("team-checkout", &[&alice, &inner]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    // Whoever says Ignore has decided: there is nothing to report.
    fixture.mapping_status("checkout/team", "decided", |s| condition(s, "NestedGroups").is_none()).await;
    fixture.write(manifests[0].0, &ignoring("Resolve"));
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.mapping_status("checkout/team", "resolved", |s| condition(s, "NestedGroups").is_none()).await;
    fixture.write(manifests[0].0, &ignoring("Ignore"));
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn people_who_lose_access_with_a_nested_group_are_counted_by_the_guard() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let (mut ids, mut members) = (Vec::new(), vec![ALICE.to_owned()]);
    for n in 0..12 {
        ids.push(scim.create_user(&format!("user{n}@example.com")).await);
        members.push(format!("user:user{n}@example.com"));
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    let inner = scim.create_group("inner", &ids).await;
    let outer = scim.create_group("team-checkout", &[&alice, &inner]).await;
    fixture.members_become("checkout-api", INVOKER, &all).await;
    scim.remove_member(&outer, &inner).await;
    let status = fixture.mapping_status("checkout/team", "twelve are held", |s| s["held"]["people"] == 12).await;
    fixture.members_stay("checkout-api", INVOKER, &all).await;
    let hash = status["held"]["planHash"].as_str().expect("a hash").to_owned();
    let annotated = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")
        .replace("  name: team\n", &format!("  name: team\n  annotations: {{rolecall.dev/release: \"{hash}\"}}\n"));
    fixture.write("mapping.yaml", &annotated);
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn directory_that_is_older_than_the_resolution_of_nested_groups_gives_nothing_through_them_until_told_to() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let outer = scim.create_group("team-checkout", &[&alice]).await;
    let inner = scim.create_group("inner", &[&bob]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.shutdown().await;
    // As the update of an older database leaves it.
    Database::open(&fixture.database).change("INSERT INTO directories_before_nesting VALUES ('okta')", []);
    fixture.run().await;
    scim.add_members(&outer, &[&inner]).await;
    for (kind, name) in [("RoleMapping", "checkout/team"), ("IdentityProvider", "okta")] {
        eventually(kind, async || {
            let status = fixture.status(kind, name).await;
            let reported = condition(&status, "NestedGroups").is_some_and(|it| it["reason"] == "NestingIgnored");
            if reported { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.write(manifests[0].0, &format!("{}  nestedGroups: Resolve\n", provider("okta", TOKEN)));
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    eventually("nothing is reported", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        if condition(&status, "NestedGroups").is_none() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    fixture.agree().await;
}
