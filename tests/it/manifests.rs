//! What the manifest folder may and may not do to tokens and releases.

use std::time::Duration;

use reqwest::Method;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

fn secret(namespace: &str, token: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: okta{namespace}}}\nstringData: {{token: {token}}}\n")
}

/// A provider whose token stands in a Secret `okta` of its own file.
fn provider() -> String {
    "apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {name: okta}\nspec:\n  scim: {tokens: [{name: a, \
     secretRef: {name: okta}}]}\n  principals: {allowedDomains: [example.com], users: {googleAccount: {attribute: \
     userName}}}\n"
        .to_owned()
}

async fn answers(world: &World, token: &str, wanted: u16) {
    eventually(&format!("{wanted} for a token"), async || {
        let (status, _) = world.scim("okta", token).send(Method::GET, "/Users", None).await;
        if status == wanted { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

async fn answers_still(world: &World, token: &str) {
    always("the token is accepted", Duration::from_secs(2), async || {
        let (status, _) = world.scim("okta", token).send(Method::GET, "/Users", None).await;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn token_outlives_a_namesake_elsewhere_and_a_namespace_that_is_spelled_out() {
    let first = "a-token-of-the-operator-with-40-characters";
    let second = "another-token-of-the-operator-40-characters";
    let mut world = World::prepare(&[
        ("provider.yaml", provider()),
        ("secret.yaml", secret("", first)),
        ("shop.yaml", secret(", namespace: shop", "the-token-of-somebody-else-40-characters")),
    ])
    .await;
    world.run().await;
    answers(&world, first, 200).await;
    world.remove("shop.yaml");
    answers_still(&world, first).await;
    world.write("secret.yaml", &secret(", namespace: rolecall-system", second));
    answers(&world, second, 200).await;
    answers(&world, first, 401).await;
    answers_still(&world, second).await;
    world.restart().await;
    answers_still(&world, second).await;
    world.remove("secret.yaml");
    answers(&world, second, 401).await;
}

#[tokio::test]
async fn release_of_the_manifests_ends_nothing_while_the_folder_is_missing() {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut world = World::prepare(&manifests).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    world.members_become("checkout-api", INVOKER, &[ALICE]).await;
    let away = world.folder.path().join("away");
    std::fs::rename(world.manifests(), &away).expect("move the folder");
    world.mapping_status("checkout/team", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
    world.command(&["release", "manifests"]);
    world.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    // One that was made while nobody ran, before it is known what the folder lacks.
    world.kill();
    world.command(&["release", "manifests"]);
    world.restart_unready().await;
    world.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    assert!(world.log().contains("a release of the manifests is refused"), "and it is said");
    std::fs::rename(&away, world.manifests()).expect("move it back");
    world.mapping_status("checkout/team", "thawed", |s| has(s, "Ready", "True", "")).await;
    world.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    // The release of one mapping is about that mapping, whatever became of the folder.
    std::fs::rename(world.manifests(), &away).expect("move the folder");
    world.mapping_status("checkout/team", "frozen", |s| has(s, "Frozen", "True", "ManifestsMissing")).await;
    world.command(&["release", "mapping", "checkout/team"]);
    world.members_become("checkout-api", INVOKER, &[]).await;
}

#[tokio::test]
async fn database_without_a_grant_that_no_event_stands_for_is_older() {
    let mut world = World::prepare(&base()).await;
    world.create_services("shop-dev", &["checkout-api"]).await;
    world.run().await;
    let scim = world.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    world.shutdown().await;
    let backup = world.folder.path().join("backup");
    std::fs::create_dir(&backup).expect("a folder");
    world.copy_database(&backup);
    world.run().await;
    world.write("mapping.yaml", &mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], ""));
    world.members_become("checkout-api", INVOKER, &[ALICE]).await;
    world.shutdown().await;
    world.restore_database(&backup);
    world.run().await;
    world.mapping_status("checkout/team", "StoreRewound", |s| has(s, "Frozen", "True", "StoreRewound")).await;
    world.store_accept();
    world.mapping_status("checkout/team", "thawed", |s| has(s, "Frozen", "False", "")).await;
}
