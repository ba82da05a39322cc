//! Effects of the manifest folder on tokens and releases.

use reqwest::Method;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

fn secret(namespace: &str, token: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: okta{namespace}}}\nstringData: {{token: {token}}}\n")
}

/// A provider whose token is in a Secret `okta` in its own file.
fn provider() -> String {
    "apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {name: okta}\nspec:\n  scim: {tokens: [{name: a, \
     secretRef: {name: okta}}]}\n  principals: {allowedDomains: [example.com], users: {googleAccount: {attribute: \
     userName}}}\n"
        .to_owned()
}

async fn answers(fixture: &Fixture, token: &str, wanted: u16) {
    eventually(&format!("{wanted} for a token"), async || {
        let (status, _) = fixture.scim("okta", token).send(Method::GET, "/Users", None).await;
        if status == wanted { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

async fn answers_still(fixture: &Fixture, token: &str) {
    fixture.progress().settled().await;
    let (status, answer) = fixture.scim("okta", token).send(Method::GET, "/Users", None).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn token_outlives_a_namesake_elsewhere_and_a_namespace_that_is_spelled_out() {
    let first = "a-token-of-the-operator-with-40-characters";
    let second = "another-token-of-the-operator-40-characters";
    let mut fixture = Fixture::prepare(&[
        ("provider.yaml", provider()),
        ("secret.yaml", secret("", first)),
        ("shop.yaml", secret(", namespace: shop", "the-token-of-somebody-else-40-characters")),
    ])
    .await;
    fixture.run().await;
    answers(&fixture, first, 200).await;
    fixture.remove("shop.yaml");
    answers_still(&fixture, first).await;
    fixture.write("secret.yaml", &secret(", namespace: rolecall-system", second));
    answers(&fixture, second, 200).await;
    answers(&fixture, first, 401).await;
    answers_still(&fixture, second).await;
    fixture.restart().await;
    answers_still(&fixture, second).await;
    fixture.remove("secret.yaml");
    answers(&fixture, second, 401).await;
}

#[tokio::test]
async fn release_of_the_manifests_ends_nothing_while_the_folder_is_missing() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let away = fixture.folder.path().join("away");
    std::fs::rename(fixture.manifests(), &away).expect("move the folder");
    fixture.mapping_status("checkout/team", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
    fixture.command(&["release", "manifests"]);
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    // A decision made while rolecall was down, before it is known what the folder lacks.
    fixture.kill();
    fixture.command(&["release", "manifests"]);
    fixture.restart_unready().await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    assert!(fixture.log().contains("a release of the manifests is refused"), "and it is said");
    std::fs::rename(&away, fixture.manifests()).expect("move it back");
    fixture.mapping_status("checkout/team", "thawed", |s| has(s, "Ready", "True", "")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    // The release of one mapping applies to that mapping only, whatever happened to the folder.
    std::fs::rename(fixture.manifests(), &away).expect("move the folder");
    fixture.mapping_status("checkout/team", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
    fixture.command(&["release", "mapping", "checkout/team"]);
    fixture.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn database_that_lacks_a_grant_without_an_event_is_older() {
    let mut fixture = Fixture::prepare(&base()).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.shutdown().await;
    let backup = fixture.folder.path().join("backup");
    std::fs::create_dir(&backup).expect("a folder");
    fixture.copy_database(&backup);
    fixture.run().await;
    fixture.write("mapping.yaml", &mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], ""));
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.shutdown().await;
    fixture.restore_database(&backup);
    fixture.run().await;
    fixture.mapping_status("checkout/team", "StoreRewound", |s| has(s, "Frozen", "True", "StoreRewound")).await;
    // Pushes of the IdP advance the store to its former position, but do not restore what it lost.
    for n in 0..30 {
        scim.create_user(&format!("user-{n}@example.com")).await;
    }
    fixture.progress().settled_and_read().await;
    let status = fixture.status("RoleMapping", "checkout/team").await;
    assert!(has(&status, "Frozen", "True", "StoreRewound"), "{status:#}");
    fixture.store_accept();
    fixture.mapping_status("checkout/team", "thawed", |s| !s.is_null() && !has(s, "Frozen", "True", "")).await;
}
