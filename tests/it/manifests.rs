//! What the manifest folder may and may not do to tokens and releases.

use std::time::Duration;

use reqwest::Method;

use crate::support::*;

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
