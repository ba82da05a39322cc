//! The folder of manifests: formats, names, Secrets and the rotation of tokens.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

fn secret(name: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: rolecall-system}}\nstringData: {{token: {token}}}\n"
    )
}

/// `IdentityProvider` okta whose tokens are `(name, Secret, notAfter)`.
fn with_tokens(tokens: &[(&str, &str, &str)]) -> String {
    let tokens: Vec<Value> = tokens
        .iter()
        .map(|(name, secret, not_after)| {
            let mut token = json!({"name": name, "secretRef": {"name": secret}});
            if !not_after.is_empty() {
                token["notAfter"] = json!(not_after);
            }
            token
        })
        .collect();
    provider("okta", TOKEN)
        .split_once("---\n")
        .map(|(_, provider)| provider.replace("[{name: a, secretRef: {name: okta-scim}}]", &json!(tokens).to_string()))
        .expect("a provider")
}

async fn answers(fixture: &Fixture, token: &str) -> u16 {
    fixture.scim("okta", token).send(reqwest::Method::GET, "/Users", None).await.0
}

async fn answers_become(fixture: &Fixture, token: &str, wanted: u16) {
    eventually(&format!("{wanted} for {token}"), async || {
        let status = answers(fixture, token).await;
        if status == wanted { Ok(()) } else { Err(format!("{status}")) }
    })
    .await;
}

async fn provider_says(fixture: &Fixture, reason: &str) {
    eventually(&format!("TokensValid {reason}"), async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        let value = if reason.is_empty() { "True" } else { "False" };
        if has(&status, "TokensValid", value, reason) { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

const OLD: &str = "scim-token-old-0123456789abcdef0123";
const NEW: &str = "scim-token-new-0123456789abcdef0123";

#[tokio::test]
async fn json_yml_and_sub_folders_are_read_and_names_that_begin_with_a_dot_are_left_out() {
    let target_json = json!({
        "apiVersion": "rolecall.dev/v1alpha1", "kind": "CloudRunTarget", "metadata": {"name": "shop-dev"},
        "spec": {"project": "shop-dev", "locations": ["europe-west1"], "discoveryInterval": "1s", "allow": [
            {"namespaces": {"names": ["checkout"]}, "identityProviders": ["okta"], "resources": ["services/*"],
             "roles": [INVOKER, VIEWER]}]},
    });
    let manifests = [("provider.yml", provider("okta", TOKEN)), ("target.json", target_json.to_string())];
    let mut fixture = Fixture::prepare(&manifests).await;
    for folder in ["team", ".git"] {
        std::fs::create_dir(fixture.manifests().join(folder)).expect("a folder");
    }
    let granted = mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "");
    let hidden = mapping("hidden", "team-checkout", &["services/checkout-api"], &[VIEWER], "");
    std::fs::write(fixture.manifests().join("team/mapping.yaml"), granted).expect("a manifest");
    for file in [".hidden.yaml", ".git/hidden.yaml", "hidden.txt", "hidden.yaml~"] {
        std::fs::write(fixture.manifests().join(file), &hidden).expect("a file that is no manifest");
    }
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    assert!(fixture.status("RoleMapping", "checkout/hidden").await.is_null());
    assert!(!fixture.policy("checkout-api").await.contains_key(VIEWER));
}

#[tokio::test]
async fn several_tokens_are_accepted_until_their_end_and_that_is_how_one_rotates() {
    let past = "2020-01-01T00:00:00Z";
    let mut manifests = base();
    manifests[0].1 = with_tokens(&[("a", "old", ""), ("b", "new", "")]);
    manifests.push(("old.yaml", secret("old", OLD)));
    manifests.push(("new.yaml", secret("new", NEW)));
    let fixture = Fixture::start(&manifests).await;
    for token in [OLD, NEW] {
        assert_eq!(answers(&fixture, token).await, 200, "both live at once");
    }
    provider_says(&fixture, "").await;
    let soon = now() + Duration::from_secs(4);
    fixture.write("provider.yaml", &with_tokens(&[("a", "old", &soon.to_string()), ("b", "new", "")]));
    eventually("the end is said before it comes", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        let said = status["tokens"].as_array().is_some_and(|tokens| tokens.iter().any(|t| !t["notAfter"].is_null()));
        if said { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    answers_become(&fixture, OLD, 401).await;
    assert!(now() >= soon, "not before its end");
    assert_eq!(answers(&fixture, NEW).await, 200);
    // All of them have expired: refused, and reported.
    fixture.write("provider.yaml", &with_tokens(&[("a", "old", past), ("b", "new", past)]));
    answers_become(&fixture, NEW, 401).await;
    provider_says(&fixture, "TokenExpired").await;
}

#[tokio::test]
async fn token_in_a_changed_secret_is_accepted_and_a_deleted_secret_ends_access() {
    let mut manifests = base();
    manifests[0].1 = with_tokens(&[("a", "scim", "")]);
    manifests.push(("secret.yaml", secret("scim", OLD)));
    let fixture = Fixture::start(&manifests).await;
    assert_eq!(answers(&fixture, OLD).await, 200);
    fixture.write("secret.yaml", &secret("scim", NEW));
    answers_become(&fixture, NEW, 200).await;
    assert_eq!(answers(&fixture, OLD).await, 401, "the old one is not accepted beside it");
    fixture.remove("secret.yaml");
    answers_become(&fixture, NEW, 401).await;
    provider_says(&fixture, "TokenSecretNotFound").await;
    fixture.write("secret.yaml", &secret("scim", OLD));
    answers_become(&fixture, OLD, 200).await;
    provider_says(&fixture, "").await;
    for token in [OLD, NEW] {
        assert!(!fixture.log().contains(token), "a token is in the log");
    }
}

#[tokio::test]
async fn token_stays_accepted_when_its_secret_stops_parsing_also_over_a_restart() {
    let mut manifests = base();
    manifests[0].1 = with_tokens(&[("a", "scim", "")]);
    manifests.push(("secret.yaml", secret("scim", OLD)));
    let mut fixture = Fixture::start(&manifests).await;
    fixture.write(
        "secret.yaml",
        &format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: scim\nstringData: {{token: {NEW}}}\n"),
    );
    eventually("the file is reported", async || {
        if fixture.log().contains("secret.yaml:") { Ok(()) } else { Err(fixture.log()) }
    })
    .await;
    assert_eq!(answers(&fixture, OLD).await, 200);
    fixture.restart().await;
    assert_eq!(answers(&fixture, OLD).await, 200, "what it last said is in force");
    assert_eq!(answers(&fixture, NEW).await, 401);
    fixture.write("secret.yaml", &secret("scim", NEW));
    answers_become(&fixture, NEW, 200).await;
    assert!(!fixture.log().contains(NEW), "not even in the report of the file");
}

#[tokio::test]
async fn secret_of_another_namespace_is_not_read() {
    let mut manifests = base();
    manifests[0].1 = with_tokens(&[("a", "scim", "")]);
    manifests.push(("secret.yaml", secret("scim", OLD).replace("rolecall-system", "checkout")));
    let mut fixture = Fixture::start(&manifests).await;
    assert_eq!(answers(&fixture, OLD).await, 401);
    provider_says(&fixture, "TokenSecretNotFound").await;
    fixture.kill();
    fixture.more.push(("--namespace", "checkout".to_owned()));
    fixture.run().await;
    answers_become(&fixture, OLD, 200).await;
}

#[tokio::test]
async fn leaver_is_removed_in_spite_of_a_missing_folder_and_an_addition_waits() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    let bob = scim.create_user("bob@example.com").await;
    let group = scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let away = fixture.folder.path().join("away");
    std::fs::rename(fixture.manifests(), &away).expect("move the folder");
    fixture.mapping_status("checkout/team", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
    scim.add_members(&group, &[&bob]).await;
    scim.set_active(&alice, false).await;
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    fixture.members_stay("checkout-api", INVOKER, &[]).await;
    std::fs::rename(&away, fixture.manifests()).expect("move it back");
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
}

#[tokio::test]
async fn nothing_is_written_for_a_leaver_under_observe_or_suspend_not_even_when_the_folder_is_missing() {
    for (ceiling, mode) in [("observe", "Enforce"), ("enforce", "Suspend")] {
        let extra = format!("  mode: {mode}\n");
        let text = |extra: &str| mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], extra);
        let mut manifests = base();
        // The target permits mappings to suspend; the process-wide observe mode needs no permission.
        manifests[1].1.push_str("      permit: [Suspend]\n");
        manifests.push(("mapping.yaml", text("")));
        let mut fixture = Fixture::prepare(&manifests).await;
        fixture.create_services("shop-dev", &["checkout-api"]).await;
        fixture.run().await;
        let scim = fixture.scim("okta", TOKEN);
        let alice = scim.create_user("alice@example.com").await;
        scim.create_group("team-checkout", &[&alice]).await;
        fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
        fixture.kill();
        fixture.write("mapping.yaml", &text(&extra));
        ceiling.clone_into(&mut fixture.mode);
        fixture.run().await;
        let said = |s: &Value| has(s, "Ready", "True", "Observed") || has(s, "Ready", "False", "Suspended");
        fixture.mapping_status("checkout/team", "nothing is written", said).await;
        let away = fixture.folder.path().join("away");
        std::fs::rename(fixture.manifests(), &away).expect("move the folder");
        fixture.mapping_status("checkout/team", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
        scim.set_active(&alice, false).await;
        fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    }
}

#[tokio::test]
async fn leaver_of_a_database_that_is_too_old_waits_until_it_is_accepted() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.mapping_status("checkout/team", "at rest", |s| s["grants"]["verified"] == 1).await;
    fixture.shutdown().await;
    let backup = fixture.folder.path().join("backup");
    std::fs::create_dir(&backup).expect("a folder");
    fixture.copy_database(&backup);
    fixture.run().await;
    for i in 0..3 {
        scim.create_user(&format!("later{i}@example.com")).await;
    }
    fixture.shutdown().await;
    fixture.restore_database(&backup);
    fixture.run().await;
    fixture.mapping_status("checkout/team", "StoreRewound", |s| has(s, "Frozen", "True", "StoreRewound")).await;
    // The directory is not known to be right, so nothing is concluded from it.
    scim.set_active(&alice, false).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.store_accept();
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}
