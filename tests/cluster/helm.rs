//! Life of a release: its notes, an upgrade of the CRDs, and how it is uninstalled.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::*;

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[tokio::test]
async fn upgrade_with_a_changed_definition_keeps_all_objects_and_grants() {
    let (mut fixture, _, _) = granted().await;
    let objects = [("RoleMapping", "checkout/team"), ("CloudRunTarget", "shop-dev"), ("IdentityProvider", "okta")];
    let mut before = Vec::new();
    for (kind, name) in objects {
        before.push(fixture.object(kind, name).await);
    }
    let writes = fixture.emulator_writes("checkout-api");

    let chart = fixture.cluster.folder().join("chart");
    copy(&fixture.release.chart, &chart);
    let definition = chart.join("files/crds/rolecall.dev_rolemappings.yaml");
    let text = std::fs::read_to_string(&definition).expect("a definition");
    let columns = "  - additionalPrinterColumns:\n";
    assert!(text.contains(columns), "{text}");
    let more = format!("{columns}    - jsonPath: .spec.deletionPolicy\n      name: Deletion\n      type: string\n");
    std::fs::write(&definition, text.replace(columns, &more)).expect("a changed definition");
    fixture.release.chart = chart;
    fixture.release.upgrade(&fixture.cluster, &[]).await.ok();
    let table = eventually("the new column", async || {
        let table = fixture.cluster.kubectl(&["get", "rolemappings", "--namespace=checkout"]).await.ok();
        if table.contains("DELETION") { Ok(table) } else { Err(table) }
    })
    .await;
    assert!(table.contains("Revoke") && table.contains("2/2"), "{table}");
    // The Deployment starts a new pod.
    fixture.pod.shutdown().await;
    fixture.pod = fixture.release.pod(&fixture.cluster, "rolecall-0", fixture.proxy.address).await;
    fixture.pod.start().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE, BOB]).await;
    for ((kind, name), before) in objects.into_iter().zip(before) {
        let after = fixture.object(kind, name).await;
        for field in ["uid", "generation", "finalizers"] {
            assert_eq!(after["metadata"][field], before["metadata"][field], "{kind} {field}");
        }
        assert_eq!(after["spec"], before["spec"], "{kind}");
        assert!(has(&after["status"], "Ready", "True", ""), "{after:#}");
    }
    assert_eq!(fixture.emulator_writes("checkout-api"), writes, "nothing was written");
    // The changed kind is watched again.
    fixture.admin().apply(&mapping("web", "team-checkout", &["services/checkout-web"], &[INVOKER], "")).await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE, BOB]).await;
}

/// `helm uninstall` and the end of its pod. Exactly the objects listed in the documentation stay.
async fn uninstalled(fixture: &mut Fixture) {
    fixture.release.uninstall(&fixture.cluster).await.ok();
    fixture.pod.shutdown().await;
    let here = |name: &str| format!("{SYSTEM}/{name}");
    for (kind, name) in [
        ("CustomResourceDefinition", "identityproviders.rolecall.dev".to_owned()),
        ("CustomResourceDefinition", "cloudruntargets.rolecall.dev".to_owned()),
        ("CustomResourceDefinition", "rolemappings.rolecall.dev".to_owned()),
        ("PersistentVolumeClaim", here("rolecall-database")),
        ("Lease", here("rolecall")),
        ("Secret", here("okta-scim")),
        ("IdentityProvider", "okta".to_owned()),
        ("CloudRunTarget", "shop-dev".to_owned()),
        ("RoleMapping", "checkout/team".to_owned()),
    ] {
        let object = fixture.object(kind, &name).await;
        assert!(object.is_object() && object["metadata"]["deletionTimestamp"].is_null(), "{kind} {name}: {object:#}");
    }
    for (kind, name) in [
        ("Deployment", here("rolecall")),
        ("Service", here("rolecall")),
        ("ServiceAccount", here("rolecall")),
        ("ClusterRole", "rolecall".to_owned()),
        ("ClusterRole", "rolecall-rolemappings-edit".to_owned()),
        ("ClusterRole", "rolecall-rolemappings-view".to_owned()),
        ("ClusterRoleBinding", "rolecall".to_owned()),
        ("Role", here("rolecall")),
        ("RoleBinding", here("rolecall")),
    ] {
        fixture.gone(kind, &name).await;
    }
    let finalizers = fixture.object("RoleMapping", "checkout/team").await["metadata"]["finalizers"].clone();
    assert!(finalizers.as_array().is_none_or(Vec::is_empty), "{finalizers}");
}

#[tokio::test]
async fn uninstall_that_revokes_leaves_no_grant_and_no_finalizer_and_can_be_canceled() {
    let (mut fixture, _, _) = granted().await;
    fixture.stranger_adds("checkout-api", INVOKER, "user:carol@example.com").await;
    fixture.admin().apply(&mapping("web", "team-checkout", &["services/checkout-web"], &[INVOKER], "")).await;
    fixture.members_become("checkout-web", INVOKER, &[ALICE, BOB]).await;

    let said = fixture.pod.exec(&["uninstall", "--revoke", "--timeout", "60"]).await.ok();
    assert!(said.contains("settled"), "{said}");
    assert!(fixture.policy("checkout-web").await.is_empty());
    fixture.members_become("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    // No new work is started, although the process still runs.
    fixture.admin().apply(&mapping("late", "team-checkout", &["services/checkout-web"], &[INVOKER], "")).await;
    fixture.members_stay("checkout-web", INVOKER, &[]).await;
    uninstalled(&mut fixture).await;
    for name in ["web", "late"] {
        fixture.admin().delete("RoleMapping", &format!("checkout/{name}")).await;
        fixture.gone("RoleMapping", &format!("checkout/{name}")).await;
    }

    // Installed again on what was kept, it remembers the uninstall, and continues when that is canceled.
    fixture.release.reinstall(&fixture.cluster).await.ok();
    fixture.pod = fixture.release.pod(&fixture.cluster, "rolecall-0", fixture.proxy.address).await;
    fixture.pod.start().await;
    fixture.members_stay("checkout-api", INVOKER, &["user:carol@example.com"]).await;
    fixture.pod.exec(&["uninstall", "--cancel"]).await.ok();
    fixture.pod.shutdown().await;
    fixture.pod.start().await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE, BOB, "user:carol@example.com"]).await;
    fixture
        .until("RoleMapping", "checkout/team", "held and ready", |object| {
            object["metadata"]["finalizers"] == json!(["rolecall.dev/revoke"])
                && has(&object["status"], "Ready", "True", "Converged")
        })
        .await;
}

/// Gives rolecall these cluster-wide rules, and returns the former ones.
async fn with_rules(fixture: &Fixture, change: impl Fn(Vec<Value>) -> Vec<Value>) -> Vec<Value> {
    let mut role = fixture.object("ClusterRole", "rolecall").await;
    let had = role["rules"].as_array().expect("rules").clone();
    role["rules"] = change(had.clone()).into();
    fixture.admin().replace(&role).await.expect("the role is replaced");
    had
}

#[tokio::test]
async fn uninstall_continues_with_mappings_that_changed_while_their_finalizer_was_removed() {
    let (mut fixture, _, _) = granted().await;
    let changes_mappings = |rule: &Value| {
        let says = |field: &str, word: &str| rule[field].as_array().is_some_and(|words| words.contains(&json!(word)));
        says("resources", "rolemappings") && says("verbs", "patch")
    };
    let less = |rules: Vec<Value>| rules.into_iter().filter(|rule| !changes_mappings(rule)).collect();
    let rules = with_rules(&fixture, less).await;
    let said = fixture.pod.exec(&["uninstall", "--revoke", "--timeout", "1"]).await.refused();
    assert!(said.contains("not settled yet"), "{said}");
    fixture.pod.says("cannot remove the finalizer from checkout/team").await;
    // Somebody else changed the object between the read and the write, like any writer of its status does.
    fixture
        .admin()
        .patch("RoleMapping", "checkout/team", &json!({"metadata": {"labels": {"team": "a"}}}))
        .await
        .expect("it");
    with_rules(&fixture, |_| rules.clone()).await;
    let said = fixture.pod.exec(&["uninstall", "--revoke", "--timeout", "60"]).await.ok();
    assert!(said.contains("settled"), "{said}");
    uninstalled(&mut fixture).await;
}

#[tokio::test]
async fn uninstall_that_orphans_leaves_the_grants_and_no_finalizer() {
    let (mut fixture, _, _) = granted().await;
    let writes = fixture.emulator_writes("checkout-api");
    let said = fixture.pod.exec(&["uninstall", "--orphan", "--timeout", "60"]).await.ok();
    assert!(said.contains("settled"), "{said}");
    uninstalled(&mut fixture).await;
    fixture.admin().delete("RoleMapping", "checkout/team").await;
    fixture.gone("RoleMapping", "checkout/team").await;
    fixture.admin().delete("Namespace", "checkout").await;
    fixture.gone("Namespace", "checkout").await;
    fixture.members_are("checkout-api", INVOKER, &[ALICE, BOB]).await;
    assert_eq!(fixture.emulator_writes("checkout-api"), writes);
}

/// The commands of a numbered step of the notes: the lines indented by five.
fn step(notes: &str, number: usize) -> Vec<String> {
    let begins = format!("{number}. ");
    let lines = notes.lines().skip_while(|line| !line.starts_with(&begins)).skip(1);
    let mut commands: Vec<String> = Vec::new();
    for line in lines.take_while(|line| line.is_empty() || line.starts_with("     ")) {
        let line = line.trim_start();
        match commands.last_mut() {
            _ if line.is_empty() => {}
            Some(last) if last.ends_with('\\') => {
                last.push('\n');
                last.push_str(line);
            }
            _ => commands.push(line.to_owned()),
        }
    }
    assert!(!commands.is_empty(), "step {number} of:\n{notes}");
    commands
}

#[tokio::test]
async fn notes_of_the_installation_are_shown_and_their_commands_work_as_they_stand() {
    let mut fixture = Fixture::prepare(&["externalUrl=https://rolecall.example.com"]).await;
    let notes = fixture.cluster.helm(&["get", "notes", "rolecall", "--namespace", SYSTEM]).await.ok();
    assert!(notes.contains("runs in namespace rolecall-system in enforce mode"), "{notes}");
    assert!(!notes.contains("WARNING: externalUrl") && !notes.contains("WARNING: secrets"), "{notes}");
    assert!(notes.contains("rolecall-database"), "{notes}");
    fixture.pod.start().await;

    fixture.cluster.shell(&step(&notes, 1).join("\n")).await.ok();
    let token = fixture.cluster.shell("cat scim.token").await.ok().trim().to_owned();
    let secret = fixture.admin().get("Secret", &format!("{SYSTEM}/okta-scim")).await.expect("a Secret");
    assert!(secret["data"]["tokenSHA256"].is_string() && secret["data"]["token"].is_null(), "{secret:#}");

    for object in base().iter().flat_map(|(_, text)| documents(text)).filter(|object| object["kind"] != "Secret") {
        fixture.admin().apply_as("kubectl", "", &object).await.expect("applied");
    }
    accepted(&fixture.scim("okta", &token), 200).await;
    fixture.until("IdentityProvider", "okta", "an endpoint", |object| object["status"]["endpoint"].is_string()).await;
    let [endpoint] = &step(&notes, 2)[..] else { panic!("one command in step 2 of:\n{notes}") };
    let said = fixture.cluster.shell(endpoint).await.ok();
    assert!(said.contains("https://rolecall.example.com/idp/okta/scim/v2"), "{said}");

    fixture.create_services("shop-dev", &["checkout-api"]).await;
    let alice = fixture.scim("okta", &token).create_user("alice@example.com").await;
    fixture.scim("okta", &token).create_group("team-checkout", &[&alice]).await;
    fixture.admin().apply(&team()).await;
    fixture.mapping_status("checkout/team", "ready", |status: &Value| has(status, "Ready", "True", "Converged")).await;
    let [watching, inside] = &step(&notes, 3)[..] else { panic!("two commands in step 3 of:\n{notes}") };
    // A watch ends with the request, without a message of kubectl.
    let said = fixture.cluster.shell(&format!("{watching} --request-timeout=3s")).await.stdout;
    assert!(said.contains("team") && said.contains("1/1"), "{said}");
    let inside = inside.strip_prefix("kubectl -n rolecall-system exec deploy/rolecall -- /rolecall ");
    let said = fixture.pod.exec(&inside.expect("a command in the pod").split(' ').collect::<Vec<_>>()).await.ok();
    assert!(said.contains("team") && said.contains("okta") && said.contains("shop-dev"), "{said}");
    let leaving = notes.lines().find(|line| line.contains("/rolecall uninstall --revoke")).expect("how to leave");
    assert!(leaving.trim_start().starts_with("kubectl -n rolecall-system exec deploy/rolecall -- "), "{leaving}");
}
