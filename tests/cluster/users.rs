//! What people of a cluster can see and do: teams in their namespaces, and anybody who watches with kubectl.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

/// A merge patch for generation N of an object.
type SpecEdit = fn(i32) -> Value;

/// A binding of the aggregated role `edit` in a namespace.
fn editor(user: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": format!("edit-{user}"), "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

#[track_caller]
fn forbidden<T: std::fmt::Debug>(what: &str, answer: Result<T, Refused>) {
    match answer {
        Err(refused) => assert_eq!(refused.code, 403, "{what}: {refused}"),
        Ok(object) => panic!("{what} was allowed: {object:?}"),
    }
}

/// Checks all of these; a team cannot see other people, tokens and delegations.
#[tokio::test]
async fn namespace_user_writes_mappings_at_home_and_can_neither_delegate_nor_see_other_people() {
    let (fixture, _, _) = granted().await;
    fixture.create_services("shop-dev", &["payments"]).await;
    fixture.admin().apply(&target(&["services/checkout-*"], &[INVOKER, VIEWER])).await;
    fixture.admin().namespace("elsewhere", &json!({})).await;
    let theirs = mapping("theirs", "team-checkout", &["services/checkout-api"], &[INVOKER], "");
    fixture.admin().apply(&theirs.replace("namespace: checkout", "namespace: elsewhere")).await;
    fixture.admin().create(&editor("dana", "checkout")).await.expect("a binding");
    let dana = fixture.admin().acting_as("dana", &["system:authenticated"]);
    let own = |name: &str, resource: &str, role: &str| {
        documents(&mapping(name, "team-checkout", &[resource], &[role], "")).remove(0)
    };

    // The aggregation controller adds to `edit` a moment after the chart is installed.
    eventually("dana may create a mapping at home", async || {
        let answer = dana.create(&own("web", "services/checkout-web", INVOKER)).await;
        answer.map(|_| ()).map_err(|refused| refused.to_string())
    })
    .await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE, BOB]).await;
    let edit = json!({"spec": {"description": "of dana"}});
    dana.patch("RoleMapping", "checkout/web", &edit).await.expect("an edit at home");
    dana.apply_as("kubectl", "", &own("web", "services/checkout-web", VIEWER)).await.expect("another role");
    fixture.members_become("checkout-web", VIEWER, &[ALICE, BOB]).await;
    fixture.members_become("checkout-web", INVOKER, &[]).await;
    assert_eq!(dana.list("RoleMapping", Some("checkout")).await.expect("those at home").len(), 2);

    for (kind, name) in [("CloudRunTarget", "shop-dev"), ("IdentityProvider", "okta")] {
        let mut object = fixture.object(kind, name).await;
        forbidden(&format!("reading {kind}"), dana.get(kind, name).await);
        object["metadata"] = json!({"name": "of-dana"});
        forbidden(&format!("creating {kind}"), dana.create(&object).await);
        forbidden(
            &format!("editing {kind}"),
            dana.patch(kind, name, &json!({"metadata": {"labels": {"a": "b"}}})).await,
        );
    }
    forbidden("a token", dana.get("Secret", &format!("{SYSTEM}/okta-scim")).await);
    forbidden("all tokens", dana.list("Secret", Some(SYSTEM)).await);
    forbidden("the Lease", dana.get("Lease", &format!("{SYSTEM}/rolecall")).await);
    forbidden("another team's mapping", dana.get("RoleMapping", "elsewhere/theirs").await);
    forbidden("all mappings", dana.list("RoleMapping", None).await);
    forbidden("another team's Events", dana.list("Event", Some("elsewhere")).await);
    forbidden(
        "labels of the own namespace",
        dana.patch("Namespace", "checkout", &json!({"metadata": {"labels": {"a": "b"}}})).await,
    );
    let mut status = own("web", "services/checkout-web", VIEWER);
    status["status"] = json!({"lag": "0ms"});
    status.as_object_mut().expect("an object").remove("spec");
    forbidden("a status", dana.apply_as("dana", "/status", &status).await);

    for (name, resource, role) in
        [("greedy", "services/payments", INVOKER), ("mighty", "services/checkout-web", "roles/run.admin")]
    {
        let writes = fixture.emulator_writes("payments") + fixture.emulator_writes("checkout-web");
        dana.create(&own(name, resource, role)).await.expect("a mapping at home");
        let refused = |status: &Value| {
            has(status, "Accepted", "False", "NotDelegated")
                && has(status, "Ready", "False", "NotDelegated")
                && has(status, "Stalled", "True", "NotDelegated")
        };
        fixture.mapping_status(&format!("checkout/{name}"), "not delegated", refused).await;
        fixture.members_stay("payments", INVOKER, &[]).await;
        assert!(!fixture.policy("checkout-web").await.contains_key("roles/run.admin"));
        assert_eq!(fixture.emulator_writes("payments") + fixture.emulator_writes("checkout-web"), writes, "{name}");
    }

    for name in ["web", "greedy", "mighty"] {
        dana.delete("RoleMapping", &format!("checkout/{name}")).await;
        fixture.gone("RoleMapping", &format!("checkout/{name}")).await;
    }
    assert!(fixture.policy("checkout-web").await.is_empty(), "revoked with the mapping");
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;
}

#[tokio::test]
async fn label_of_a_namespace_delegates_and_its_removal_revokes() {
    let fixture = Fixture::start().await;
    two_people(&fixture).await;
    let by_label =
        target(&["services/*"], &[INVOKER]).replace("{names: [checkout]}", "{matchLabels: {cloud-run: invoke}}");
    fixture.admin().apply(&by_label).await;
    fixture.admin().apply(&team()).await;
    let refused = |status: &Value| has(status, "Ready", "False", "NotDelegated");
    fixture.mapping_status("checkout/team", "not delegated without the label", refused).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), 0);

    let label = |value: Value| json!({"metadata": {"labels": {"cloud-run": value}}});
    fixture.admin().patch("Namespace", "checkout", &label(json!("invoke"))).await.expect("a label");
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.mapping_status("checkout/team", "ready", |status| has(status, "Ready", "True", "Converged")).await;

    fixture.admin().patch("Namespace", "checkout", &label(json!("read"))).await.expect("another label");
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.mapping_status("checkout/team", "not delegated again", refused).await;
    fixture.admin().patch("Namespace", "checkout", &label(json!("invoke"))).await.expect("a label");
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.admin().patch("Namespace", "checkout", &label(Value::Null)).await.expect("no label");
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.mapping_status("checkout/team", "not delegated without the label", refused).await;
}

#[tokio::test]
async fn request_to_reconcile_is_echoed_by_each_kind_and_finds_drift_at_once() {
    let mut fixture = Fixture::prepare(&["driftInterval=24h"]).await;
    for (_, text) in base() {
        fixture.admin().apply(&text).await;
    }
    fixture.pod.start().await;
    two_people(&fixture).await;
    fixture.admin().apply(&team()).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
    fixture.mapping_status("checkout/team", "ready", |status| has(status, "Ready", "True", "Converged")).await;
    // Verification of the write is finished.
    quiet(&fixture).await;
    fixture.stranger_removes("checkout-api", INVOKER, BOB).await;
    fixture.progress().settled().await;
    fixture.members_are("checkout-api", INVOKER, &[ALICE]).await;
    let objects = [("RoleMapping", "checkout/team"), ("CloudRunTarget", "shop-dev"), ("IdentityProvider", "okta")];
    for (round, (kind, name)) in objects.into_iter().enumerate() {
        let asked = format!("2026-11-22T10:00:0{round}Z");
        let patch = json!({"metadata": {"annotations": {"rolecall.dev/reconcile-requested-at": asked}}});
        let generation = fixture.object(kind, name).await["metadata"]["generation"].clone();
        fixture.admin().patch(kind, name, &patch).await.expect("an annotation");
        let object =
            fixture.until(kind, name, "echoes", |object| object["status"]["lastHandledReconcileAt"] == asked).await;
        assert_eq!(object["status"]["observedGeneration"], generation, "{kind}");
        if kind == "IdentityProvider" {
            continue;
        }
        fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB]).await;
        fixture.stranger_removes("checkout-api", INVOKER, BOB).await;
    }
}

#[tokio::test]
async fn observed_generation_follows_the_spec_and_the_columns_show_the_most_important_fields() {
    let (fixture, _, _) = granted().await;
    let edits: [(&str, &str, SpecEdit); 3] = [
        ("RoleMapping", "checkout/team", |n| json!({"spec": {"description": format!("edition {n}")}})),
        ("CloudRunTarget", "shop-dev", |n| json!({"spec": {"discoveryInterval": format!("{n}s")}})),
        ("IdentityProvider", "okta", |n| json!({"spec": {"staleAfter": format!("{n}h")}})),
    ];
    for (kind, name, edit) in edits {
        for generation in [2, 3] {
            fixture.admin().patch(kind, name, &edit(generation)).await.expect("an edit");
            let object = fixture
                .until(kind, name, "observed", |object| object["status"]["observedGeneration"] == generation)
                .await;
            assert_eq!(object["metadata"]["generation"], generation, "{kind}");
            for condition in object["status"]["conditions"].as_array().expect("conditions") {
                assert_eq!(condition["observedGeneration"], generation, "{kind}: {condition}");
            }
        }
    }
    fixture.mapping_status("checkout/team", "ready", |status| has(status, "Ready", "True", "Converged")).await;

    let cells = |table: &str| -> Vec<Vec<String>> {
        table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let table = fixture.cluster.kubectl(&["get", "rolemappings", "--namespace=checkout"]).await.ok();
    let mut rows = cells(&table);
    assert_eq!(rows[0], ["NAME", "MODE", "GRANTS", "HELD", "DRIFT", "LAG", "READY", "REASON", "AGE"]);
    rows[1].remove(5);
    assert_eq!(rows[1][..7], ["team", "Enforce", "2/2", "0", "0", "True", "Converged"], "{table}");
    let table = fixture.cluster.kubectl(&["get", "cloudruntargets"]).await.ok();
    assert_eq!(cells(&table)[0], ["NAME", "PROJECT", "SERVICES", "IN-SYNC", "DRIFTED", "READY", "REASON", "AGE"]);
    assert_eq!(cells(&table)[1][..7], ["shop-dev", "shop-dev", "2", "1", "0", "True", "Converged"], "{table}");
    let table = fixture.cluster.kubectl(&["get", "identityproviders"]).await.ok();
    assert_eq!(cells(&table)[0], ["NAME", "STATE", "DIALECT", "USERS", "GROUPS", "READY", "REASON", "AGE"]);
    assert!(table.contains("True") && table.contains("Accepted"), "{table}");
    // The short name and the category.
    fixture.cluster.kubectl(&["get", "rmap", "--namespace=checkout"]).await.ok();
    let all = fixture.cluster.kubectl(&["get", "rolecall", "--all-namespaces"]).await.ok();
    for name in ["shop-dev", "okta", "team"] {
        assert!(all.contains(name), "{all}");
    }
}

/// Number of Events of an object by reason, including repetitions.
async fn events(fixture: &Fixture, namespace: &str, object: &Value) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for event in fixture.admin().list("Event", Some(namespace)).await.expect("Events") {
        if event["regarding"]["name"] == object["metadata"]["name"] && event["regarding"]["kind"] == object["kind"] {
            assert_eq!(event["regarding"]["uid"], object["metadata"]["uid"], "{event:#}");
            assert_eq!(event["reportingController"], "rolecall.dev/rolecall", "{event:#}");
            let times = event["series"]["count"].as_u64().unwrap_or(1);
            *counted.entry(event["reason"].as_str().expect("a reason").to_owned()).or_default() += times;
        }
    }
    counted
}

#[tokio::test]
async fn event_is_written_once_for_a_change_of_reason_and_blocks_nothing_where_it_cannot_be_written() {
    let (mut fixture, _, _) = granted().await;
    let object = fixture.object("RoleMapping", "checkout/team").await;
    let then = eventually("Converged is told", async || {
        let seen = events(&fixture, "checkout", &object).await;
        if seen.get("Converged") == Some(&1) { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await;
    // Reads for drift, and a restart.
    fixture.progress().rounds(3).await;
    fixture.pod.shutdown().await;
    fixture.pod.start().await;
    fixture.pod.at_work().await;
    fixture.progress().rounds(3).await;
    assert_eq!(events(&fixture, "checkout", &object).await, then, "no pass and no restart is an Event");

    fixture.stranger_adds("checkout-api", INVOKER, "user:carol@example.com").await;
    eventually("ForeignMembers is told", async || {
        let seen = events(&fixture, "checkout", &object).await;
        if seen.get("ForeignMembers") == Some(&1) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    fixture.progress().rounds(2).await;
    let now = events(&fixture, "checkout", &object).await;
    assert_eq!(now.get("ForeignMembers"), Some(&1), "{now:?}");
    assert_eq!(now.values().sum::<u64>(), then.values().sum::<u64>() + 1, "{then:?} became {now:?}");
    for command in [
        ["events", "--for=rolemapping/team", "--namespace=checkout"],
        ["describe", "rolemapping/team", "--namespace=checkout"],
    ] {
        let said = fixture.cluster.kubectl(&command).await.ok();
        assert!(said.contains("ForeignMembers"), "{command:?}: {said}");
    }

    // Without the permission to write any.
    let mut role = fixture.admin().get("ClusterRole", "rolecall").await.expect("the role");
    let rules = role["rules"].as_array_mut().expect("rules");
    let before = rules.len();
    rules.retain(|rule| rule["resources"] != json!(["events"]));
    assert_eq!(rules.len() + 1, before);
    fixture.admin().replace(&role).await.expect("a smaller role");
    let writes_nothing = |calls: &[u16]| !calls.is_empty() && calls.iter().all(|code| *code == 403);
    let then = fixture.cluster.now();
    fixture.admin().apply(&mapping("web", "team-checkout", &["services/checkout-web"], &[INVOKER], "")).await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE, BOB]).await;
    fixture.mapping_status("checkout/web", "ready", |status| has(status, "Ready", "True", "Converged")).await;
    eventually("an Event is refused", async || {
        let calls = fixture.cluster.calls_since(then);
        let events = calls.iter().filter(|call| call.user == fixture.pod.user && call.resource == "events");
        let codes: Vec<u16> = events.map(|call| call.code).collect();
        if writes_nothing(&codes) { Ok(()) } else { Err(format!("{codes:?}")) }
    })
    .await;
    // And in a namespace that is being deleted, where nothing can be created any more.
    fixture.admin().delete("Namespace", "checkout").await;
    eventually_within(Duration::from_mins(1), "the namespace is gone", async || {
        let namespace = fixture.object("Namespace", "checkout").await;
        if namespace.is_null() { Ok(()) } else { Err(format!("{namespace:#}\n{}", tail(&fixture.pod.said()))) }
    })
    .await;
    for service in ["checkout-api", "checkout-web"] {
        let left = fixture.policy(service).await.remove(INVOKER).unwrap_or_default();
        assert!(left.iter().all(|member| member == "user:carol@example.com"), "{left:?}");
    }
    assert!(fixture.pod.ended().is_none(), "it goes on");
}

#[tokio::test]
async fn secret_that_the_chart_does_not_name_is_forbidden_until_it_is_named() {
    let mut fixture = Fixture::prepare(&["secrets={entra-scim}"]).await;
    for (_, text) in base() {
        fixture.admin().apply(&text).await;
    }
    fixture.pod.start().await;
    let forbidden = |object: &Value| {
        has(&object["status"], "TokensValid", "False", "TokenSecretForbidden")
            && has(&object["status"], "Ready", "False", "TokenSecretForbidden")
            && object["status"]["tokens"][0]["reason"] == "TokenSecretForbidden"
    };
    let object = fixture.until("IdentityProvider", "okta", "the Secret is forbidden", forbidden).await;
    let message = condition(&object["status"], "TokensValid")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("`secrets`"), "{message}");
    let scim = fixture.scim("okta", TOKEN);
    accepted(&scim, 401).await;
    fixture.release.upgrade(&fixture.cluster, &["secrets={okta-scim,entra-scim}"]).await.ok();
    // A watch that was refused is retried within half a minute.
    accepted_within(Duration::from_mins(1), &scim, 200).await;
    fixture.until("IdentityProvider", "okta", "ready", |object| has(&object["status"], "Ready", "True", "")).await;

    // A temporarily missing permission, as when an API server starts, costs no push, and nothing is missed.
    let then = fixture.cluster.now();
    let role = fixture.admin().get("Role", &format!("{SYSTEM}/rolecall")).await.expect("the role");
    let mut smaller = json!({"apiVersion": role["apiVersion"], "kind": "Role", "metadata": {"name": "rolecall", "namespace": SYSTEM}});
    smaller["rules"] = role["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .filter(|rule| rule["resources"] != json!(["secrets"]))
        .cloned()
        .collect();
    let replace = async |mut object: Value| {
        let now = fixture.object("Role", &format!("{SYSTEM}/rolecall")).await;
        object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        fixture.admin().replace(&object).await.expect("another role");
    };
    replace(smaller).await;
    fixture.proxy.cut();
    eventually("a Secret is refused", async || {
        let calls = fixture.cluster.calls_since(then);
        let refused =
            calls.iter().filter(|call| call.user == fixture.pod.user && call.resource == "secrets" && call.code == 403);
        if refused.count() > 1 { Ok(()) } else { Err(tail(&fixture.pod.said())) }
    })
    .await;
    accepted(&scim, 200).await;
    let other = "another-token-of-okta-0123456789abcdef";
    let patch = json!({"stringData": {"token": other}});
    fixture.admin().patch("Secret", &format!("{SYSTEM}/okta-scim"), &patch).await.expect("a new token");
    replace(role).await;
    accepted_within(Duration::from_mins(1), &fixture.scim("okta", other), 200).await;
    accepted(&scim, 401).await;
    assert!(fixture.pod.ended().is_none(), "the same process");
}

#[tokio::test]
async fn kubectl_waits_for_each_kind_and_an_idle_cluster_is_left_alone() {
    let (fixture, _, _) = granted().await;
    for object in ["rolemapping/team", "cloudruntarget/shop-dev", "identityprovider/okta"] {
        let arguments = ["wait", "--for=condition=Ready", object, "--namespace=checkout", "--timeout=20s"];
        fixture.cluster.kubectl(&arguments).await.ok();
    }
    quiet(&fixture).await;
    let (then, reads) = (fixture.cluster.now(), fixture.emulator.count("GET", "/services/checkout-api:getIamPolicy"));
    let begun = std::time::Instant::now();
    fixture.progress().rounds(6).await;
    let passes = fixture.emulator.count("GET", "/services/checkout-api:getIamPolicy") - reads;
    assert!(passes >= 5, "only {passes} passes that found nothing to do");
    let written = patches(&fixture, then);
    assert!(written.is_empty(), "{written:?}");
    let calls = fixture.cluster.calls_since(then);
    let ours = calls.iter().filter(|call| call.user == fixture.pod.user).count();
    println!(
        "measured: idle for {:.0} s with {passes} reads of the policy: 0 patches of resources, {ours} calls in all",
        begun.elapsed().as_secs_f64()
    );
}

#[tokio::test]
async fn orphaned_mapping_and_its_namespace_go_and_the_grants_go_when_their_people_leave() {
    let (mut fixture, scim, [group, alice, bob]) = granted().await;
    // People who edit mappings cannot keep the access of leavers: the target does not permit it.
    let orphan = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "  deletionPolicy: Orphan\n");
    fixture.admin().apply(&orphan).await;
    fixture.mapping_status("checkout/team", "the second generation", |status| status["observedGeneration"] == 2).await;
    fixture.admin().delete("RoleMapping", "checkout/team").await;
    fixture.gone("RoleMapping", "checkout/team").await;
    fixture.admin().delete("Namespace", "checkout").await;
    fixture.gone("Namespace", "checkout").await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;
    scim.remove_member(&group, &bob).await;
    fixture.pod.shutdown().await;
    fixture.pod.start().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;
    let scim = fixture.scim("okta", TOKEN);
    accepted(&scim, 200).await;
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[BOB]).await;
    scim.delete(&format!("/Users/{bob}")).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

/// The text of everything in the cluster that a reader of its namespaces or of custom resources can see.
async fn everything_readable(fixture: &Fixture) -> String {
    let mut text = String::new();
    for kind in ["IdentityProvider", "CloudRunTarget", "RoleMapping"] {
        for mut object in fixture.admin().list(kind, None).await.expect("a list") {
            // Text written by people themselves is not checked.
            object.as_object_mut().expect("an object").remove("spec");
            text += &object.to_string();
        }
    }
    for kind in ["Event", "Lease"] {
        for object in fixture.admin().list(kind, None).await.expect("a list") {
            text += &object.to_string();
        }
    }
    text
}

#[tokio::test]
async fn nobody_is_named_in_custom_resources_events_and_logs() {
    let (fixture, scim, [group, alice, _]) = granted().await;
    fixture.unknown_to_google("user:unknown.person@example.com");
    fixture.stranger_adds("checkout-api", INVOKER, "user:was.there@example.com").await;
    let mut people = vec!["alice@", "bob@", "unknown.person", "was.there", "eve.google", "not.a.person"];
    let mut ids = Vec::new();
    for name in ["unknown.person", "was.there"] {
        ids.push(scim.create_user(&format!("{name}@example.com")).await);
    }
    scim.add_members(&group, &[&ids[0], &ids[1]]).await;
    let counts =
        |what: &'static str| move |status: &Value| status["drift"][what].as_u64().is_some_and(|count| count > 0);
    fixture.mapping_status("checkout/team", "refused", |status| status["grants"]["failed"].as_u64() > Some(0)).await;
    fixture.stranger_removes("checkout-api", INVOKER, BOB).await;
    let told = |status: &Value| counts("missing")(status) || counts("reverted")(status);
    fixture.mapping_status("checkout/team", "missing or again", told).await;
    scim.remove_member(&group, &ids[1]).await;
    fixture.mapping_status("checkout/team", "remaining", counts("remaining")).await;
    let text = "Policy names user:alice@example.com and eve.google@example.org, who may not";
    let action = json!({"type": "error", "status": 400, "message": text});
    fixture.fault(json!({"match": {"path": "/services/checkout-api:setIamPolicy"}, "action": action})).await;
    scim.set_active(&alice, false).await;
    fixture
        .mapping_status("checkout/team", "Google's words", |status| says(status, "Stalled", "True", "", "who may not"))
        .await;
    scim.send(reqwest::Method::POST, "/Users", Some(json!({"userName": "Not.A.Person@example.com", "active": 7})))
        .await;
    quiet(&fixture).await;

    let seen = everything_readable(&fixture).await;
    assert!(seen.contains("Google") && seen.contains("events.k8s.io"), "there is something to read: {seen}");
    people.retain(|person| seen.to_lowercase().contains(person));
    assert_eq!(people, Vec::<&str>::new(), "{seen}");
    let log = fixture.pod.said().to_lowercase();
    assert!(!log.contains("alice@") && !log.contains("unknown.person@") && !log.contains("eve.google@"), "{log}");
}
