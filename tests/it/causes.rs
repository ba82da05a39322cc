//! The texts with which Google refuses a policy: what the statuses say of each, and which calls follow.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

const SERVICE: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";
const DORA: &str = "user:dora@example.com";

/// A fixture with mapping `checkout/team` of `team-checkout` to `roles` on one service, and `checkout/other` of
/// `team-other` (dora) to invoker on the same service, which is in force.
async fn two_mappings(roles: &[&str]) -> (Fixture, Scim) {
    let mut manifests = base();
    let mut all = roles.to_vec();
    if !all.contains(&INVOKER) {
        all.push(INVOKER);
    }
    manifests[0].1 = provider("okta", TOKEN).replace("[example.com]", "[example.com, partner.example]");
    manifests[1].1 = target(&["services/*"], &all);
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], roles, "")));
    manifests.push(("other.yaml", mapping("other", "team-other", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let dora = scim.create_user("dora@example.com").await;
    scim.create_group("team-other", &[&dora]).await;
    fixture.members_become("checkout-api", INVOKER, &[DORA]).await;
    (fixture, scim)
}

/// Refuses each set call whose body contains `body`, with Google's text.
async fn refuse(fixture: &Fixture, body: &str, reason: &str, message: &str) {
    let fault = json!({"match": {"method": "POST", "path": ":setIamPolicy", "body": body},
        "action": {"type": "error", "status": 400, "reason": reason, "message": message}});
    fixture.fault(fault).await;
}

fn writes(fixture: &Fixture, status: u16) -> usize {
    let calls = fixture.emulator.journal();
    calls.iter().filter(|call| call.path.contains(":setIamPolicy") && call.status == Some(status)).count()
}

fn message(status: &Value, kind: &str) -> String {
    condition(status, kind)["message"].as_str().unwrap_or_default().to_owned()
}

/// Checks that the refusal of one addition concerns its mapping alone, and that it is not sent again.
async fn concerns_only_the_mapping(fixture: &Fixture, reason: &str, words: &[&str], refused: usize) -> Value {
    let status = fixture
        .mapping_status("checkout/team", reason, |s| {
            has(s, "Ready", "False", reason) && has(s, "Stalled", "True", reason)
        })
        .await;
    for word in words {
        assert!(message(&status, "Ready").contains(word), "{word}: {status:#}");
    }
    fixture.mapping_status("checkout/other", "not concerned", |s| has(s, "Ready", "True", "Converged")).await;
    fixture.status_of_target("not failed", |s| has(s, "Ready", "True", "") && s["policies"]["failed"] == 0).await;
    fixture.progress().rounds(3).await;
    assert_eq!(writes(fixture, 400), refused, "it is not sent again: {}", tail(&fixture.log()));
    status
}

#[tokio::test]
async fn user_that_is_a_group_at_google_is_left_out_with_the_type_that_google_names() {
    let (fixture, scim) = two_mappings(&[INVOKER]).await;
    let text = "Account squad@example.com is of type \"group\". Please set the type prefix to be \"group:\".";
    refuse(&fixture, "squad@example.com", "INVALID_ARGUMENT", text).await;
    let alice = scim.create_user("alice@example.com").await;
    let squad = scim.create_user("squad@example.com").await;
    scim.create_group("team-checkout", &[&alice, &squad]).await;
    fixture.members_become("checkout-api", INVOKER, &[DORA, "user:alice@example.com"]).await;
    let words = [squad.as_str(), "is of type \"group\""];
    let status = concerns_only_the_mapping(&fixture, "PrincipalTypeMismatch", &words, 1).await;
    assert!(!status.to_string().contains("squad@"), "{status:#}");
}

#[tokio::test]
async fn custom_role_that_does_not_exist_is_left_out_and_named() {
    let role = "projects/shop-dev/roles/deployer";
    let (fixture, scim) = two_mappings(&[role]).await;
    let text = format!("Role ({role}) does not exist in the resource's hierarchy.");
    refuse(&fixture, role, "INVALID_ARGUMENT", &text).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    concerns_only_the_mapping(&fixture, "RoleNotSupported", &[role], 1).await;
}

#[tokio::test]
async fn member_that_a_managed_constraint_forbids_is_left_out_and_the_constraint_is_named() {
    let (fixture, scim) = two_mappings(&[INVOKER]).await;
    let text = format!(
        "Operation denied by org policy on resource '//run.googleapis.com/{SERVICE}': [\"constraints/iam.managed.allowedPolicyMembers\": \"Members must be of the organization.\"]"
    );
    refuse(&fixture, "partner.example", "FAILED_PRECONDITION", &text).await;
    let alice = scim.create_user("alice@example.com").await;
    let eve = scim.create_user("eve@partner.example").await;
    scim.create_group("team-checkout", &[&alice, &eve]).await;
    fixture.members_become("checkout-api", INVOKER, &[DORA, "user:alice@example.com"]).await;
    let status = fixture
        .mapping_status("checkout/team", "told", |s| {
            says(s, "Ready", "False", "DomainRestricted", "constraints/iam.managed.allowedPolicyMembers")
        })
        .await;
    assert!(message(&status, "Ready").contains(&eve), "{status:#}");
    fixture.mapping_status("checkout/other", "not concerned", |s| has(s, "Ready", "True", "Converged")).await;
    let spent = writes(&fixture, 400);
    assert!(spent <= 3, "{spent} refused");
    fixture.progress().rounds(3).await;
    assert_eq!(writes(&fixture, 400), spent);
}

#[tokio::test]
async fn addition_that_a_custom_organization_policy_denies_is_left_out_and_the_policy_is_named() {
    let (fixture, scim) = two_mappings(&[VIEWER]).await;
    let text = "Operation denied by custom org policies: [\"customConstraints/custom.noViewers\": \"No viewers.\"].";
    refuse(&fixture, VIEWER, "FAILED_PRECONDITION", text).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture
        .mapping_status("checkout/team", "told", |s| {
            says(s, "Ready", "False", "DeniedByOrgPolicy", "customConstraints/custom.noViewers")
                && has(s, "Stalled", "True", "DeniedByOrgPolicy")
        })
        .await;
    fixture.mapping_status("checkout/other", "not concerned", |s| has(s, "Ready", "True", "Converged")).await;
    let spent = writes(&fixture, 400);
    fixture.progress().rounds(3).await;
    assert_eq!(writes(&fixture, 400), spent);
}

#[tokio::test]
async fn removal_that_an_organization_policy_denies_is_pending_loudly_and_ends_when_it_is_permitted() {
    for text in [
        "Operation denied by custom org policies: [\"customConstraints/custom.keepGrants\": \"Grants stay.\"].",
        "Operation denied by org policy on resource '//run.googleapis.com/x': [\"constraints/iam.managed.keep\": \"customConstraints/custom.keepGrants\"]",
    ] {
        let (fixture, scim) = two_mappings(&[INVOKER]).await;
        let people = ["alice", "bob"].map(|name| format!("{name}@example.com"));
        let alice = scim.create_user(&people[0]).await;
        let bob = scim.create_user(&people[1]).await;
        let group = scim.create_group("team-checkout", &[&alice, &bob]).await;
        fixture
            .members_become("checkout-api", INVOKER, &[DORA, "user:alice@example.com", "user:bob@example.com"])
            .await;
        // Each write that lacks alice is refused, for as long as the fault stands: all are.
        refuse(&fixture, "", "FAILED_PRECONDITION", text).await;
        let granted = writes(&fixture, 200);
        scim.set_active(&alice, false).await;
        let status = fixture
            .mapping_status("checkout/team", "told", |s| {
                says(s, "Ready", "False", "RevocationPending", "customConstraints/custom.keepGrants")
                    && has(s, "Stalled", "True", "DeniedByOrgPolicy")
                    && s["grants"]["revoking"] == 1
            })
            .await;
        let said = message(&status, "Ready");
        assert!(!said.contains("member by hand") && !said.contains("IdP"), "no member is blamed: {said}");
        fixture
            .status_of_target("one policy failed", |s| has(s, "Ready", "False", "") && s["policies"]["failed"] == 1)
            .await;
        fixture.mapping_status("checkout/other", "not concerned", |s| has(s, "Ready", "True", "Converged")).await;
        // Bounded: not with every read of the policy.
        fixture.progress().rounds(4).await;
        let refused = writes(&fixture, 400);
        assert!(refused <= 6, "{refused} refused");
        assert_eq!(writes(&fixture, 200), granted);
        let metrics = fixture.http.get(format!("{}/metrics", fixture.admin_url)).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        assert!(metrics.contains("rolecall_engine_syncs_total{outcome=\"DeniedByOrgPolicy\"}"), "{metrics}");
        assert!(fixture.log().contains("DeniedByOrgPolicy"), "{}", tail(&fixture.log()));
        fixture.clear_faults().await;
        // A person asks for a new try; without that it would come within two minutes.
        let asked = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "").replace(
            "  namespace: checkout\n",
            "  namespace: checkout\n  annotations: {rolecall.dev/reconcile-requested-at: now}\n",
        );
        fixture.write("mapping.yaml", &asked);
        fixture.members_become("checkout-api", INVOKER, &[DORA, "user:bob@example.com"]).await;
        fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "Converged")).await;
        fixture.status_of_target("well", |s| has(s, "Ready", "True", "") && s["policies"]["failed"] == 0).await;
        scim.remove_member(&group, &bob).await;
        fixture.members_become("checkout-api", INVOKER, &[DORA]).await;
    }
}

#[tokio::test]
async fn removal_that_an_organization_policy_denies_does_not_keep_others_out() {
    let (fixture, scim) = two_mappings(&[INVOKER]).await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[DORA, "user:alice@example.com"]).await;
    let text = "Operation denied by custom org policies: [\"customConstraints/custom.keepGrants\": \"Grants stay.\"].";
    // Two refusals: the plan with the removal and, later, its next try.
    let fault = json!({"match": {"method": "POST", "path": ":setIamPolicy", "count": 1},
        "action": {"type": "error", "status": 400, "reason": "FAILED_PRECONDITION", "message": text}});
    fixture.fault(fault).await;
    scim.set_active(&alice, false).await;
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "RevocationPending")).await;
    let erin = scim.create_user("erin@example.com").await;
    scim.add_members(&group, &[&erin]).await;
    eventually("erin is in", async || {
        let seen = fixture.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
        if seen.contains("user:erin@example.com") { Ok(()) } else { Err(format!("{seen:?} {}", tail(&fixture.log()))) }
    })
    .await;
    // The removal is tried again by itself.
    eventually_within(Duration::from_mins(2), "alice is out", async || {
        let seen = fixture.policy("checkout-api").await.remove(INVOKER).unwrap_or_default();
        if seen.contains("user:alice@example.com") { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
    fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "Converged")).await;
}

#[tokio::test]
async fn tombstone_of_somebody_else_with_a_wrong_uid_is_named_with_the_command_that_takes_it_out() {
    let (fixture, scim) = two_mappings(&[INVOKER]).await;
    let tombstone = "deleted:user:gone@elsewhere.example?uid=123456789012345678901";
    let add = json!({"add": [{"role": VIEWER, "member": tombstone}]});
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &add).expect("a stranger's member");
    let text = format!(
        "Email 'gone@elsewhere.example' is not the primary email address for unique ID '123456789012345678901' of deleted member '{tombstone}'."
    );
    refuse(&fixture, "gone@elsewhere.example", "INVALID_ARGUMENT", &text).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    let status =
        fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "ForeignMemberRejected")).await;
    let said = message(&status, "Ready");
    for word in [
        "deleted:user:elsewhere.example#",
        "?uid=123456789012345678901",
        "gcloud run services remove-iam-policy-binding checkout-api",
        "--region=europe-west1",
        "--project=shop-dev",
        "--role=roles/run.viewer",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!status.to_string().contains("gone@") && !said.contains("at the IdP"), "{status:#}");
    fixture.progress().rounds(2).await;
    assert!(writes(&fixture, 400) <= 2, "{}", writes(&fixture, 400));
}

#[tokio::test]
async fn every_foreign_member_that_google_named_is_listed_with_the_commands() {
    let (fixture, scim) = two_mappings(&[INVOKER]).await;
    let strangers: Vec<String> = (1..=5).map(|n| format!("user:stranger{n}@elsewhere.example")).collect();
    let add: Vec<Value> = strangers.iter().map(|member| json!({"role": VIEWER, "member": member})).collect();
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &json!({"add": add})).expect("strangers");
    refuse(&fixture, "stranger1", "INVALID_ARGUMENT", "User stranger1@elsewhere.example does not exist.").await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    let listed = |status: &Value| {
        let said = message(status, "Ready");
        let named = said.split("; it named ").nth(1).and_then(|rest| rest.split(", for example").next());
        named.map_or(0, |named| named.matches("elsewhere.example#").count())
    };
    for n in 1..=5 {
        fixture.clear_faults().await;
        let name = format!("stranger{n}@elsewhere.example");
        refuse(&fixture, &name, "INVALID_ARGUMENT", &format!("User {name} does not exist.")).await;
        let asked = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "").replace(
            "  namespace: checkout\n",
            &format!("  namespace: checkout\n  annotations: {{rolecall.dev/reconcile-requested-at: \"{n}\"}}\n"),
        );
        fixture.write("mapping.yaml", &asked);
        let status = fixture
            .mapping_status("checkout/team", &format!("{n} are named"), |s| {
                has(s, "Ready", "False", "ForeignMemberRejected") && listed(s) == n
            })
            .await;
        assert!(!status.to_string().contains("stranger"), "{status:#}");
    }
    // One of them is taken out by hand, and is no cause any more.
    fixture.clear_faults().await;
    let remove = json!({"remove": [{"role": VIEWER, "member": strangers[0]}]});
    fixture.emulator.control("POST", &format!("policies/{SERVICE}"), &remove).expect("an edit");
    refuse(&fixture, "stranger5@", "INVALID_ARGUMENT", "User stranger5@elsewhere.example does not exist.").await;
    fixture.mapping_status("checkout/team", "not five any more", |s| listed(s) != 5).await;
}

#[tokio::test]
async fn all_refused_people_of_a_mapping_are_listed() {
    let (fixture, scim) = two_mappings(&[INVOKER]).await;
    let mut ids = Vec::new();
    for n in 0..7 {
        let name = format!("ghost{n}@example.com");
        fixture.unknown_to_google(&format!("user:{name}"));
        ids.push(scim.create_user(&name).await);
    }
    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
    scim.create_group("team-checkout", &refs).await;
    let status = fixture
        .mapping_status("checkout/team", "seven are refused", |s| {
            has(s, "Ready", "False", "MemberRefused") && s["grants"]["failed"] == 7
        })
        .await;
    let said = message(&status, "Ready");
    for id in &ids {
        assert!(said.contains(id.as_str()), "{id}: {said}");
    }
}
