//! People who may edit mappings in a namespace cannot keep the access of leavers: only the target can permit that.

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const BOB: &str = "user:bob@example.com";
const CAROL: &str = "user:carol@example.com";

fn team(extra: &str) -> String {
    mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], extra)
}

/// Alice, bob and carol have the invoker role through the mapping. A second mapping exists, so that a single deleted
/// one is not more than half of all.
async fn granted(permit: &str) -> (Fixture, Scim, String, Vec<String>) {
    let target = format!("{}{permit}", target(&["services/*"], &[INVOKER, VIEWER]));
    let manifests = [
        ("provider.yaml", provider("okta", TOKEN)),
        ("target.yaml", target),
        ("mapping.yaml", team("")),
        ("second.yaml", mapping("second", "team-none", &["services/checkout-web"], &[VIEWER], "")),
    ];
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api", "checkout-web"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = Vec::new();
    for name in ["alice", "bob", "carol"] {
        ids.push(scim.create_user(&format!("{name}@example.com")).await);
    }
    let group = scim.create_group("team-checkout", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB, CAROL]).await;
    (fixture, scim, group, ids)
}

#[tokio::test]
async fn suspend_and_observe_freeze_everything_but_leavers() {
    for (mode, ready, reason) in [("Suspend", "False", "Suspended"), ("Observe", "True", "Observed")] {
        let (fixture, scim, group, ids) = granted("").await;
        fixture.write("mapping.yaml", &team(&format!("  mode: {mode}\n")));
        fixture.mapping_status("checkout/team", mode, |s| has(s, "Ready", ready, reason)).await;
        scim.remove_member(&group, &ids[1]).await;
        scim.set_active(&ids[0], false).await;
        fixture.members_become("checkout-api", INVOKER, &[BOB, CAROL]).await;
        // Removed from the group first, and then from the company: no mapping reaches him any more.
        scim.delete(&format!("/Users/{}", ids[1])).await;
        fixture.members_become("checkout-api", INVOKER, &[CAROL]).await;
        fixture.members_stay("checkout-api", INVOKER, &[CAROL]).await;
    }
}

#[tokio::test]
async fn suspend_keeps_leavers_where_the_target_permits_it() {
    let (fixture, scim, _, ids) = granted("      permit: [Suspend]\n").await;
    fixture.write("mapping.yaml", &team("  mode: Suspend\n"));
    fixture.mapping_status("checkout/team", "suspended", |s| has(s, "Frozen", "True", "Suspended")).await;
    scim.set_active(&ids[0], false).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB, CAROL]).await;
    fixture.write("target.yaml", &target(&["services/*"], &[INVOKER, VIEWER]));
    fixture.members_become("checkout-api", INVOKER, &[BOB, CAROL]).await;
}

#[tokio::test]
async fn grants_of_an_orphaned_mapping_stay_until_their_people_leave_also_over_a_restart() {
    let (mut fixture, scim, group, ids) = granted("").await;
    fixture.write("mapping.yaml", &team("  deletionPolicy: Orphan\n"));
    fixture.mapping_status("checkout/team", "the second generation", |s| s["observedGeneration"] == 2).await;
    fixture.remove("mapping.yaml");
    eventually("nobody waits for the mapping", async || {
        let status = fixture.status("RoleMapping", "checkout/team").await;
        if status.is_null() { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB, CAROL]).await;
    scim.set_active(&ids[0], false).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB, CAROL]).await;
    fixture.restart().await;
    scim.remove_member(&group, &ids[1]).await;
    fixture.members_stay("checkout-api", INVOKER, &[BOB, CAROL]).await;
    scim.delete(&format!("/Users/{}", ids[1])).await;
    fixture.members_become("checkout-api", INVOKER, &[CAROL]).await;
    scim.delete(&format!("/Groups/{group}")).await;
    fixture.members_stay("checkout-api", INVOKER, &[CAROL]).await;
    scim.set_active(&ids[2], false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.agree().await;
}

#[tokio::test]
async fn references_to_what_does_not_exist_do_not_keep_leavers() {
    let edits: [fn(String) -> String; 2] = [
        |text| text.replace("target: {name: shop-dev}", "target: {name: nowhere}"),
        |text| {
            let subject = "    - identityProvider: nobody\n      groups: [{displayName: team}]\n";
            text.replace("  grants:\n", &format!("{subject}  grants:\n"))
        },
    ];
    for (edit, reason) in edits.into_iter().zip(["TargetNotFound", "IdentityProviderNotFound"]) {
        let (fixture, scim, group, ids) = granted("").await;
        fixture.write("mapping.yaml", &edit(team("")));
        fixture.mapping_status("checkout/team", reason, |s| has(s, "Frozen", "True", reason)).await;
        scim.remove_member(&group, &ids[1]).await;
        scim.set_active(&ids[0], false).await;
        fixture.members_become("checkout-api", INVOKER, &[BOB, CAROL]).await;
        fixture.members_stay("checkout-api", INVOKER, &[BOB, CAROL]).await;
    }
}
