//! Refusals of Google, and which grants they delay.

use std::time::Duration;

use serde_json::json;

use crate::common::database::Database;
use crate::support::*;

const ALICE: &str = "user:alice@example.com";

/// A fixture with these services and mapping `checkout/team` of `team-checkout` to invoker on `resources`.
async fn mapped(services: &[&str], resources: &[&str]) -> (Fixture, Scim) {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", resources, &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", services).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    (fixture, scim)
}

#[tokio::test]
async fn address_that_no_google_account_has_is_not_sent_and_delays_nobody() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let mut people = Vec::new();
    for name in ["alice@example.com", "x<y@example.com", "x..y@example.com", "\"q\"@example.com"] {
        people.push(scim.create_user(name).await);
    }
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    scim.create_group("team-checkout", &people).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture
        .mapping_status("checkout/team", "three are left out", |s| s["subjects"][0]["reason"] == "PrincipalInvalid")
        .await;
    for call in fixture.emulator.journal() {
        assert_eq!(call.status, Some(200), "nothing was refused: {call:?}");
    }
}

#[tokio::test]
async fn target_whose_list_is_not_permitted_is_listed_ever_more_rarely_and_at_once_on_request() {
    let mut manifests = base();
    manifests[1].1 = target(&["services/*"], &[INVOKER]).replace("discoveryInterval: 1s", "discoveryInterval: 2s");
    let mut fixture = Fixture::prepare(&manifests).await;
    let denied = json!({"match": {"path": "/services", "method": "GET"}, "action": {"type": "error", "status": 403}});
    fixture.fault(denied).await;
    fixture.run().await;
    let lists = || fixture.emulator.count("GET", "/locations/europe-west1/services");
    // Retried after 2, 4, 8 and 16 s: a retry at a fixed interval, or more often, would call a fourth time within 7 s.
    eventually("the second list", async || if lists() >= 2 { Ok(()) } else { Err(lists().to_string()) }).await;
    let before = lists();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(lists() <= before + 2, "{before} lists, then {}", lists());
    fixture.clear_faults().await;
    let asked = target(&["services/*"], &[INVOKER])
        .replace("discoveryInterval: 1s", "discoveryInterval: 2s")
        .replace("{name: shop-dev}", "{name: shop-dev, annotations: {rolecall.dev/reconcile-requested-at: now}}");
    fixture.write("target.yaml", &asked);
    eventually("reachable again", async || {
        let status = fixture.status("CloudRunTarget", "shop-dev").await;
        if has(&status, "Reachable", "True", "") { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

const CAROL: &str = "user:carol@example.com";
const API: &str = "projects/shop-dev/locations/europe-west1/services/checkout-api";

/// Google's answer when it refuses a policy without naming a member.
fn refused(body: &str) -> serde_json::Value {
    json!({"match": {"method": "POST", "path": ":setIamPolicy", "body": body},
        "action": {"type": "error", "status": 400, "reason": "INVALID_ARGUMENT", "message": "Request contains an invalid argument."}})
}

async fn people(scim: &Scim, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut ids = Vec::new();
    for name in names {
        ids.push(scim.create_user(&name).await);
    }
    ids
}

fn refs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

/// The members of a role on a service, without a call that the emulator counts.
fn members(fixture: &Fixture, service: &str, role: &str) -> Vec<String> {
    let resource = format!("projects/shop-dev/locations/europe-west1/services/{service}");
    let policy = fixture.emulator.policy(&resource).unwrap_or_default();
    let of_role = policy["bindings"].as_array().into_iter().flatten().find(|binding| binding["role"] == role);
    let members = of_role.and_then(|binding| binding["members"].as_array()).cloned().unwrap_or_default();
    members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

/// Number of writes of a service's policy with this status.
fn writes(fixture: &Fixture, service: &str, status: u16) -> usize {
    let path = format!("/services/{service}:setIamPolicy");
    fixture.emulator.journal().iter().filter(|call| call.path.contains(&path) && call.status == Some(status)).count()
}

#[tokio::test]
async fn refused_addition_without_a_named_member_is_isolated_and_reported_to_its_mapping() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    fixture.write("other.yaml", &mapping("other", "team-other", &["services/checkout-api"], &[INVOKER], ""));
    let dora = scim.create_user("dora@example.com").await;
    scim.create_group("team-other", &[&dora]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:dora@example.com"]).await;
    fixture.fault(refused("carol@example.com")).await;
    let ids = people(&scim, (0..20).map(|n| format!("p{n:02}@example.com"))).await;
    let carol = scim.create_user("carol@example.com").await;
    let mut all = refs(&ids);
    all.push(&carol);
    scim.create_group("team-checkout", &all).await;
    eventually("all but carol are in", async || {
        let seen = members(&fixture, "checkout-api", INVOKER);
        if seen.len() == 21 { Ok(()) } else { Err(format!("{}: {}", seen.len(), tail(&fixture.log()))) }
    })
    .await;
    let status = fixture
        .mapping_status("checkout/team", "told", |s| {
            s["grants"]["acknowledged"] == 20 && s["grants"]["failed"] == 1 && has(s, "Ready", "False", "PolicyRefused")
        })
        .await;
    assert!(!status["conditions"].to_string().contains("carol"), "people are named by their ids: {status:#}");
    assert!(status["conditions"].to_string().contains(&carol), "{status:#}");
    fixture.mapping_status("checkout/other", "not concerned", |s| has(s, "Ready", "True", "")).await;
    let spent = writes(&fixture, "checkout-api", 400);
    assert!(writes(&fixture, "checkout-api", 200) + spent <= 14, "{spent} refused");
    // A leaver is removed at once, beside what is refused, and no refused grant is retried for it.
    scim.set_active(&ids[3], false).await;
    eventually("the leaver is out", async || {
        let seen = members(&fixture, "checkout-api", INVOKER);
        if seen.len() == 20 { Ok(()) } else { Err(seen.len().to_string()) }
    })
    .await;
    assert_eq!(writes(&fixture, "checkout-api", 400), spent);
}

#[tokio::test]
async fn unresolved_additions_are_pending_when_the_writes_of_the_hour_are_spent_and_newcomers_get_in() {
    let (mut fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let first = scim.create_user("dora@example.com").await;
    let group = scim.create_group("team-checkout", &[&first]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:dora@example.com"]).await;
    fixture.fault(refused("bad-")).await;
    let ids =
        people(&scim, (0..40).map(|n| format!("{}{n:02}@example.com", if n % 8 == 0 { "bad-" } else { "good-" })))
            .await;
    scim.add_members(&group, &refs(&ids)).await;
    let status = fixture
        .mapping_status("checkout/team", "some are pending, none is lost sight of", |s| {
            let count = |name: &str| s["grants"][name].as_i64().unwrap_or_default();
            count("desired") == 41
                && count("pending") > 0
                && count("acknowledged") + count("pending") + count("failed") == 41
                && says(s, "Ready", "False", "PolicyRefused", "finding out which")
        })
        .await;
    let spent = writes(&fixture, "checkout-api", 400);
    assert!(spent <= 12, "{spent} refused: {status:#}");
    let newcomer = scim.create_user("new@example.com").await;
    scim.add_members(&group, &[&newcomer]).await;
    eventually("the newcomer is in", async || {
        let seen = members(&fixture, "checkout-api", INVOKER);
        if seen.iter().any(|member| member == "user:new@example.com") { Ok(()) } else { Err(tail(&fixture.log())) }
    })
    .await;
    scim.set_active(&first, false).await;
    eventually("the leaver is out", async || {
        let seen = members(&fixture, "checkout-api", INVOKER);
        if seen.iter().any(|member| member == "user:dora@example.com") { Err(tail(&fixture.log())) } else { Ok(()) }
    })
    .await;
    // A restart does not add writes either.
    fixture.restart().await;
    fixture.mapping_status("checkout/team", "read again", |s| !s.is_null()).await;
    fixture.progress().settled_and_read().await;
    let after = writes(&fixture, "checkout-api", 400);
    assert!(after <= spent + 1, "{after} refused after the restart");
}

#[tokio::test]
async fn member_of_somebody_else_that_google_refuses_is_the_cause_and_nothing_is_bisected() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let add = json!({"add": [{"role": VIEWER, "member": "user:stranger@elsewhere.example"}]});
    fixture.emulator.control("POST", &format!("policies/{API}"), &add).expect("a stranger's member");
    fixture.fault(refused("stranger@elsewhere.example")).await;
    let ids = people(&scim, (0..10).map(|n| format!("p{n:02}@example.com"))).await;
    scim.add_members(&group, &refs(&ids)).await;
    fixture
        .mapping_status("checkout/team", "the cause is told", |s| has(s, "Ready", "False", "ForeignMemberRejected"))
        .await;
    fixture.progress().rounds(2).await;
    assert!(writes(&fixture, "checkout-api", 400) <= 2, "the additions, and the policy as it was");
    // The removal of a leaver is tried anyway, and succeeds as soon as possible.
    scim.set_active(&alice, false).await;
    fixture.mapping_status("checkout/team", "said", |s| has(s, "Ready", "False", "RevocationPending")).await;
    fixture.clear_faults().await;
    eventually_within(Duration::from_mins(1), "the leaver is out and the others are in", async || {
        let seen = members(&fixture, "checkout-api", INVOKER);
        if seen.len() == 10 && !seen.contains(&ALICE.to_owned()) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn role_that_the_resource_does_not_accept_blocks_nobody_else() {
    let jobs = "roles/run.jobsExecutor";
    let mut manifests = base();
    manifests[1].1 = target(&["services/*"], &[INVOKER, jobs]);
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/*"], &[INVOKER], "")));
    manifests.push(("jobs.yaml", mapping("jobs", "team-checkout", &["services/*"], &[jobs], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["a", "b", "c"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let ids = people(&scim, ["alice@example.com".to_owned(), "carol@example.com".to_owned()]).await;
    scim.create_group("team-checkout", &refs(&ids)).await;
    for service in ["a", "b", "c"] {
        fixture.members_become(service, INVOKER, &[ALICE, CAROL]).await;
    }
    fixture.mapping_status("checkout/jobs", "told", |s| has(s, "Ready", "False", "RoleNotSupported")).await;
    fixture.mapping_status("checkout/team", "not concerned", |s| has(s, "Ready", "True", "")).await;
    scim.set_active(&ids[0], false).await;
    for service in ["a", "b", "c"] {
        fixture.members_become(service, INVOKER, &[CAROL]).await;
    }
}

#[tokio::test]
async fn person_outside_domain_restricted_sharing_is_left_out_in_the_whole_project_and_blocks_nobody() {
    let mut manifests = base();
    manifests[0].1 = provider("okta", TOKEN).replace("[example.com]", "[example.com, partner.example]");
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/*"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    let services = ["a", "b", "c", "d"];
    fixture.create_services("shop-dev", &services).await;
    fixture.emulator.control("PUT", "directory", &json!({"allowedDomains": ["example.com"]})).expect("a restriction");
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let mut ids = people(&scim, (0..10).map(|n| format!("p{n:02}@example.com"))).await;
    ids.extend(people(&scim, ["x@partner.example".to_owned()]).await);
    scim.create_group("team-checkout", &refs(&ids)).await;
    for service in services {
        eventually("all insiders are in", async || {
            let seen = members(&fixture, service, INVOKER);
            if seen.len() == 10 { Ok(()) } else { Err(format!("{service}: {seen:?} {}", tail(&fixture.log()))) }
        })
        .await;
    }
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "DomainRestricted")).await;
    let refused: usize = services.iter().map(|service| writes(&fixture, service, 400)).sum();
    assert!(refused <= 10, "what one document found out the others know: {refused}");
    scim.set_active(&ids[0], false).await;
    for service in services {
        eventually("the leaver is out", async || {
            let seen = members(&fixture, service, INVOKER);
            if seen.len() == 9 { Ok(()) } else { Err(format!("{service}: {seen:?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn refusals_outlive_a_restart_and_are_lifted_by_request_and_by_the_directory() {
    let services = ["a", "b", "c"];
    let (mut fixture, scim) = mapped(&services, &["services/*"]).await;
    fixture.unknown_to_google(ALICE);
    fixture.unknown_to_google("user:bob@example.com");
    let ids = people(&scim, ["alice", "bob", "carol"].map(|name| format!("{name}@example.com"))).await;
    scim.create_group("team-checkout", &refs(&ids)).await;
    for service in services {
        fixture.members_become(service, INVOKER, &[CAROL]).await;
    }
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "MemberRefused")).await;
    let refused = || services.iter().map(|service| writes(&fixture, service, 400)).sum::<usize>();
    let before = refused();
    assert!(before <= 8, "{before} refused");
    fixture.restart().await;
    let refused = || services.iter().map(|service| writes(&fixture, service, 400)).sum::<usize>();
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "MemberRefused")).await;
    let dora = scim.create_user("dora@example.com").await;
    let other = scim.create_group("team-other", &[&dora]).await;
    fixture.progress().settled_and_read().await;
    assert_eq!(refused(), before, "nothing is tried again after a restart");
    // The account appears at Google, and a person requests a reconcile.
    fixture.emulator.control("POST", "directory/undelete", &json!({"member": ALICE})).expect("an account");
    let asked = mapping("team", "team-checkout", &["services/*"], &[INVOKER], "").replace(
        "  namespace: checkout\n",
        "  namespace: checkout\n  annotations: {rolecall.dev/reconcile-requested-at: now}\n",
    );
    fixture.write("mapping.yaml", &asked);
    for service in services {
        fixture.members_become(service, INVOKER, &[ALICE, CAROL]).await;
    }
    // The directory has a new value for bob.
    fixture
        .emulator
        .control("POST", "directory/undelete", &json!({"member": "user:bob@example.com"}))
        .expect("an account");
    scim.set_active(&ids[1], false).await;
    scim.set_active(&ids[1], true).await;
    for service in services {
        fixture.members_become(service, INVOKER, &[ALICE, "user:bob@example.com", CAROL]).await;
    }
    fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "")).await;
    scim.delete(&format!("/Groups/{other}")).await;
}

#[tokio::test]
async fn refusal_that_is_due_is_probed_on_one_document_and_lifted_on_all() {
    let services = ["a", "b", "c"];
    let (mut fixture, scim) = mapped(&services, &["services/*"]).await;
    fixture.unknown_to_google(ALICE);
    let ids = people(&scim, ["alice", "carol"].map(|name| format!("{name}@example.com"))).await;
    scim.create_group("team-checkout", &refs(&ids)).await;
    for service in services {
        fixture.members_become(service, INVOKER, &[CAROL]).await;
    }
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "MemberRefused")).await;
    // Five minutes later, as far as the refusal is concerned.
    for known in [false, true] {
        fixture.shutdown().await;
        let database = Database::open(&fixture.database);
        let refusals = database.refusals();
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert_eq!(refusals[0].probes, i64::from(known));
        assert!(refusals[0].probe_at > now(), "{refusals:?}");
        database.probe_at(now());
        drop(database);
        if known {
            fixture.emulator.control("POST", "directory/undelete", &json!({"member": ALICE})).expect("an account");
        }
        let before: usize = services.iter().map(|service| writes(&fixture, service, 400)).sum();
        fixture.run().await;
        if known {
            for service in services {
                fixture.members_become(service, INVOKER, &[ALICE, CAROL]).await;
            }
        } else {
            let refused = || services.iter().map(|service| writes(&fixture, service, 400)).sum::<usize>();
            eventually("a probe", async || if refused() > before { Ok(()) } else { Err(tail(&fixture.log())) }).await;
            fixture.progress().rounds(2).await;
            fixture.progress().settled().await;
            assert_eq!(refused(), before + 1, "one probe, on one document");
        }
    }
    fixture.agree().await;
}

#[tokio::test]
async fn newcomer_whom_google_refuses_is_not_written_again_and_again_once_the_writes_of_the_hour_are_spent() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let first = scim.create_user("dora@example.com").await;
    let group = scim.create_group("team-checkout", &[&first]).await;
    fixture.members_become("checkout-api", INVOKER, &["user:dora@example.com"]).await;
    fixture.fault(refused("bad-")).await;
    let name = |n: usize| format!("{}{n:02}@example.com", if n.is_multiple_of(8) { "bad-" } else { "good-" });
    let ids = people(&scim, (0..40).map(name)).await;
    scim.add_members(&group, &refs(&ids)).await;
    fixture
        .mapping_status("checkout/team", "the writes are spent", |s| {
            says(s, "Ready", "False", "PolicyRefused", "finding out which")
        })
        .await;
    let spent = writes(&fixture, "checkout-api", 400);
    let newcomer = scim.create_user("bad-new@example.com").await;
    scim.add_members(&group, &[&newcomer]).await;
    fixture.progress().rounds(3).await;
    let after = writes(&fixture, "checkout-api", 400);
    assert!(after <= spent + 1, "{} refused writes for one newcomer", after - spent);
    fixture
        .mapping_status("checkout/team", "counts add up", |s| {
            let count = |name: &str| s["grants"][name].as_i64().unwrap_or_default();
            count("desired") == 42 && count("acknowledged") + count("pending") + count("failed") == 42
        })
        .await;
    // People who come after a refused one are granted access.
    let good = scim.create_user("new@example.com").await;
    scim.add_members(&group, &[&good]).await;
    eventually("a good newcomer is in", async || {
        let seen = members(&fixture, "checkout-api", INVOKER);
        if seen.contains(&"user:new@example.com".to_owned()) { Ok(()) } else { Err(tail(&fixture.log())) }
    })
    .await;
}

#[tokio::test]
async fn removal_whose_answer_was_lost_is_settled_although_the_only_addition_is_refused() {
    let (mut fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    fixture.unknown_to_google(ALICE);
    let ids = people(&scim, ["alice", "bob", "carol"].map(|name| format!("{name}@example.com"))).await;
    scim.create_group("team-checkout", &refs(&ids)).await;
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com", CAROL]).await;
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "MemberRefused")).await;
    fixture
        .fault(json!({"match": {"path": ":setIamPolicy", "count": 1}, "action": {"type": "drop", "when": "after"}}))
        .await;
    scim.set_active(&ids[1], false).await;
    fixture.members_become("checkout-api", INVOKER, &[CAROL]).await;
    // The policy is read several times.
    fixture.progress().rounds(3).await;
    fixture
        .mapping_status("checkout/team", "nothing is left to be removed", |s| {
            s["grants"]["revoking"] == 0 && has(s, "Ready", "False", "MemberRefused")
        })
        .await;
    fixture.agree().await;
}

#[tokio::test]
async fn policy_that_a_foreign_member_blocks_does_not_keep_other_policies_from_probing() {
    let services = ["a", "b"];
    let (mut fixture, scim) = mapped(&services, &["services/*"]).await;
    fixture.unknown_to_google(ALICE);
    let ids = people(&scim, ["alice", "carol"].map(|name| format!("{name}@example.com"))).await;
    let group = scim.create_group("team-checkout", &refs(&ids)).await;
    for service in services {
        fixture.members_become(service, INVOKER, &[CAROL]).await;
    }
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "MemberRefused")).await;
    let add = json!({"add": [{"role": VIEWER, "member": "user:stranger@elsewhere.example"}]});
    let first = "projects/shop-dev/locations/europe-west1/services/a";
    fixture.emulator.control("POST", &format!("policies/{first}"), &add).expect("a stranger's member");
    fixture.fault(refused("stranger@elsewhere.example")).await;
    let dora = scim.create_user("dora@example.com").await;
    scim.add_members(&group, &[&dora]).await;
    fixture.members_become("b", INVOKER, &[CAROL, "user:dora@example.com"]).await;
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "ForeignMemberRejected")).await;
    // The probe is due some seconds after the next start.
    fixture.shutdown().await;
    let database = Database::open(&fixture.database);
    assert_eq!(database.refusals().len(), 1, "{:?}", database.refusals());
    database.probe_at(now() + Duration::from_secs(12));
    drop(database);
    fixture.emulator.control("POST", "directory/undelete", &json!({"member": ALICE})).expect("an account");
    fixture.run().await;
    fixture.mapping_status("checkout/team", "told", |s| has(s, "Ready", "False", "ForeignMemberRejected")).await;
    eventually_within(Duration::from_secs(40), "alice is in where nothing is in the way", async || {
        let seen = members(&fixture, "b", INVOKER);
        if seen.contains(&ALICE.to_owned()) { Ok(()) } else { Err(format!("{seen:?} {}", tail(&fixture.log()))) }
    })
    .await;
}

#[tokio::test]
async fn policy_is_not_failed_any_more_when_nothing_is_left_to_be_written_to_it() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    let alice = scim.create_user("alice@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let add = json!({"add": [{"role": VIEWER, "member": "user:stranger@elsewhere.example"}]});
    fixture.emulator.control("POST", &format!("policies/{API}"), &add).expect("a stranger's member");
    fixture.fault(refused("stranger@elsewhere.example")).await;
    let carol = scim.create_user("carol@example.com").await;
    scim.add_members(&group, &[&carol]).await;
    fixture.status_of_target("one policy failed", |s| s["policies"]["failed"] == 1).await;
    scim.remove_member(&group, &carol).await;
    fixture.mapping_status("checkout/team", "well", |s| has(s, "Ready", "True", "")).await;
    fixture.status_of_target("no policy failed", |s| s["policies"]["failed"] == 0).await;
}

#[tokio::test]
async fn refused_people_who_come_first_do_not_keep_the_others_of_a_new_role_out() {
    let (fixture, scim) = mapped(&["checkout-api"], &["services/checkout-api"]).await;
    fixture.fault(refused("bad-")).await;
    let name = |n: usize| format!("{}{n:02}@example.com", if n < 2 { "bad-" } else { "good-" });
    let ids = people(&scim, (0..40).map(name)).await;
    scim.create_group("team-checkout", &refs(&ids)).await;
    eventually("the others are in", async || {
        let seen = members(&fixture, "checkout-api", INVOKER);
        if seen.len() == 38 { Ok(()) } else { Err(format!("{}: {}", seen.len(), tail(&fixture.log()))) }
    })
    .await;
    fixture.mapping_status("checkout/team", "two are refused", |s| s["grants"]["failed"] == 2).await;
}
