//! A real kustomize-controller of Flux with `wait: true` and `prune: true`: when it considers what it applied Ready.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

const CAROL: &str = "user:carol@example.com";

fn members(members: &[&str]) -> BTreeSet<String> {
    members.iter().map(|&member| member.to_owned()).collect()
}

/// Waits until Flux has read a mapping this often while its `Kustomization` is not Ready and its health checks
/// continue.
async fn looked_in_vain(fixture: &Fixture, flux: &Flux, revision: &str, times: usize) {
    let then = fixture.cluster.now();
    eventually_within(Duration::from_mins(1), &format!("{times} polls of Flux"), async || {
        let object = flux.kustomization().await;
        assert!(checks_health(&object, revision), "still waited for: {:#}\n{}", object["status"], tail(&flux.said()));
        assert!(has(&object["status"], "Ready", "Unknown", "Progressing"), "{:#}", object["status"]);
        let calls = fixture.cluster.calls_since(then);
        let polls = calls.iter().filter(|call| call.user == flux.user && call.resource == "rolemappings");
        let polls = polls.filter(|call| call.verb == "get").count();
        if polls >= times { Ok(()) } else { Err(format!("{polls} polls")) }
    })
    .await;
}

/// Delays each write of a policy by more than Flux needs from an apply to its first poll.
async fn slow_writes(fixture: &Fixture) {
    let slow =
        json!({"match": {"method": "POST", "path": ":setIamPolicy"}, "action": {"type": "latency", "latencyMs": 2000}});
    fixture.fault(slow).await;
}

#[tokio::test]
async fn kustomization_that_waits_is_not_ready_before_its_mapping_is_reconciled_and_granted() {
    let mut fixture = Fixture::prepare(&[]).await;
    for (_, text) in base() {
        fixture.admin().apply(&text).await;
    }
    let mut flux = Flux::start(&fixture.cluster).await;
    let revision = flux.publish(&[("team.yaml", &team())]).await;

    // rolecall is not running.
    flux.waiting(&revision).await;
    looked_in_vain(&fixture, &flux, &revision, 2).await;
    let mapping = fixture.object("RoleMapping", "checkout/team").await;
    assert_eq!(mapping["status"], json!({"observedGeneration": -1}), "nobody has looked at it");

    // rolecall reconciles, and the group has not been pushed.
    fixture.pod.start().await;
    fixture.mapping_status("checkout/team", "looked at", |status| status["observedGeneration"] == 1).await;
    looked_in_vain(&fixture, &flux, &revision, 1).await;

    slow_writes(&fixture).await;
    two_people(&fixture).await;
    flux.ready(&revision).await;
    assert_eq!(fixture.policy("checkout-api").await.remove(INVOKER), Some(members(&[ALICE, BOB])));
    let mapping = fixture.object("RoleMapping", "checkout/team").await;
    assert!(has(&mapping["status"], "Ready", "True", "Converged"), "{mapping:#}");
}

#[tokio::test]
async fn mapping_after_mapping_that_flux_applies_while_rolecall_is_up_is_granted_when_the_kustomization_is_ready() {
    let fixture = Fixture::start().await;
    two_people(&fixture).await;
    let services = ["first", "second", "third", "fourth"];
    fixture.create_services("shop-dev", &services).await;
    fixture.until("CloudRunTarget", "shop-dev", "ready", |object| has(&object["status"], "Ready", "True", "")).await;
    slow_writes(&fixture).await;
    let mut flux = Flux::start(&fixture.cluster).await;
    let mut files: Vec<(String, String)> = Vec::new();
    for service in services {
        let text = mapping(service, "team-checkout", &[&format!("services/{service}")], &[INVOKER], "");
        files.push((format!("{service}.yaml"), text));
        assert!(fixture.policy(service).await.is_empty(), "{service} is not granted yet");
        let listed: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let revision = flux.publish(&listed).await;
        flux.ready(&revision).await;
        assert_eq!(fixture.policy(service).await.remove(INVOKER), Some(members(&[ALICE, BOB])), "{service}");
    }
}

#[tokio::test]
async fn mapping_that_flux_prunes_is_revoked_and_what_another_mapping_gives_on_the_same_service_stays() {
    let fixture = Fixture::start().await;
    let (scim, [_, alice, _]) = two_people(&fixture).await;
    let carol = scim.create_user("carol@example.com").await;
    scim.create_group("solo", &[&carol]).await;
    scim.create_group("twin", &[&alice]).await;
    let on_api = |name: &str| mapping(name, name, &["services/checkout-api"], &[INVOKER], "");
    let web = mapping("web", "team-checkout", &["services/checkout-web"], &[VIEWER], "");
    let (team, solo, twin) = (team(), on_api("solo"), on_api("twin"));
    let all: [(&str, &str); 4] = [("team.yaml", &team), ("solo.yaml", &solo), ("twin.yaml", &twin), ("web.yaml", &web)];
    let mut flux = Flux::start(&fixture.cluster).await;
    let revision = flux.publish(&all).await;
    flux.ready(&revision).await;
    assert_eq!(fixture.policy("checkout-api").await.remove(INVOKER), Some(members(&[ALICE, BOB, CAROL])));
    assert_eq!(fixture.policy("checkout-web").await.remove(VIEWER), Some(members(&[ALICE, BOB])));

    // Carol has the role through the pruned mapping alone; Alice has it through another one too.
    let revision = flux.publish(&[all[0], all[2], all[3]]).await;
    flux.ready(&revision).await;
    fixture.gone("RoleMapping", "checkout/solo").await;
    assert_eq!(fixture.policy("checkout-api").await.remove(INVOKER), Some(members(&[ALICE, BOB])), "before it went");
    let revision = flux.publish(&[all[0], all[3]]).await;
    flux.ready(&revision).await;
    fixture.gone("RoleMapping", "checkout/twin").await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;

    // All mappings of a service are pruned.
    let revision = flux.publish(&[all[0]]).await;
    flux.ready(&revision).await;
    fixture.gone("RoleMapping", "checkout/web").await;
    assert!(fixture.policy("checkout-web").await.is_empty(), "revoked before it went");
    assert_eq!(fixture.policy("checkout-api").await.remove(INVOKER), Some(members(&[ALICE, BOB])));
    let left = fixture.admin().list("RoleMapping", None).await.expect("mappings");
    assert_eq!(left.len(), 1, "{left:#?}");
}

#[tokio::test]
async fn all_kinds_in_one_kustomization_become_ready_together_and_are_not_written_again() {
    let mut fixture = Fixture::prepare(&[]).await;
    fixture.pod.start().await;
    let mut flux = Flux::start(&fixture.cluster).await;
    let (manifests, team) = (base(), team());
    let mut files: Vec<(&str, &str)> = manifests.iter().map(|(name, text)| (*name, text.as_str())).collect();
    files.push(("team.yaml", &team));
    let revision = flux.publish(&files).await;
    flux.waiting(&revision).await;
    two_people(&fixture).await;
    let object = flux.ready(&revision).await;
    for line in flux.said().lines().filter(|line| line.contains("Reconciliation failed")) {
        println!("before: {line}");
    }
    let ids: BTreeSet<&str> = object["status"]["inventory"]["entries"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["id"].as_str())
        .collect();
    let all = [
        "_okta_rolecall.dev_IdentityProvider",
        "_shop-dev_rolecall.dev_CloudRunTarget",
        "checkout_team_rolecall.dev_RoleMapping",
        "rolecall-system_okta-scim__Secret",
    ];
    assert_eq!(ids, BTreeSet::from(all));
    assert_eq!(fixture.policy("checkout-api").await.remove(INVOKER), Some(members(&[ALICE, BOB])));
    let kinds = [("IdentityProvider", "okta"), ("CloudRunTarget", "shop-dev"), ("RoleMapping", "checkout/team")];
    for (kind, name) in kinds {
        let object: Value = fixture.object(kind, name).await;
        assert!(has(&object["status"], "Ready", "True", ""), "{object:#}");
    }

    // Flux does not consider the default of the status and the finalizer as drift.
    let then = fixture.cluster.now();
    flux.reconcile("again").await;
    let calls = fixture.cluster.calls_since(then);
    let writes: Vec<_> = calls
        .iter()
        .filter(|call| call.user == flux.user && call.group == "rolecall.dev" && !call.uri.contains("dryRun"))
        .filter(|call| !matches!(call.verb.as_str(), "get" | "list" | "watch"))
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
}
