//! A provider name that belonged to another `IdentityProvider` before: ownership of the people stored under it.

use reqwest::Method;
use serde_json::json;

use crate::support::*;

const ALICE: &str = "user:alice@example.com";
const OTHER: &str = "scim-token-of-a-new-tenant-0123456789";

/// A fixture whose provider `okta` pushed alice, who was granted the invoker role. Its manifest was then deleted, and
/// another one of the same name written.
async fn succeeded() -> Fixture {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let mut fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture.run().await;
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    fixture.remove("provider.yaml");
    frozen(&fixture, "IdentityProviderNotFound").await;
    fixture.write("provider.yaml", &provider("okta", OTHER));
    frozen(&fixture, "IdentityProviderChanged").await;
    fixture
}

async fn frozen(fixture: &Fixture, reason: &str) {
    fixture.mapping_status("checkout/team", reason, |s| has(s, "Frozen", "True", reason)).await;
}

/// Waits until the provider's condition `Ready` has this status and reason.
async fn provider_is(fixture: &Fixture, value: &str, reason: &str) {
    eventually(&format!("okta: {value} {reason}"), async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        if has(&status, "Ready", value, reason) {
            Ok(())
        } else {
            Err(format!("{status:#}; log:\n{}", tail(&fixture.log())))
        }
    })
    .await;
}

#[tokio::test]
async fn new_provider_of_an_old_name_reads_and_writes_nobody_until_it_is_accepted_also_over_a_restart() {
    let mut fixture = succeeded().await;
    for restarted in [false, true] {
        if restarted {
            fixture.restart().await;
        }
        provider_is(&fixture, "False", "IdentityProviderChanged").await;
        let scim = fixture.scim("okta", OTHER);
        let body =
            json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "mallory@example.com"});
        for (method, path, body) in [
            (Method::GET, "/Users", None),
            (Method::GET, "/Users?filter=userName%20eq%20%22alice@example.com%22", None),
            (Method::GET, "/Groups", None),
            (Method::POST, "/Users", Some(body)),
        ] {
            let (status, answer) = scim.send(method, path, body).await;
            assert_eq!(status, 503, "{path}: {answer}");
            assert!(answer["detail"].as_str().is_some_and(|text| text.contains("accept-provider")), "{answer}");
            assert!(!answer.to_string().contains("alice"), "{answer}");
        }
        assert_eq!(fixture.scim("okta", TOKEN).send(Method::GET, "/Users", None).await.0, 401, "the former token");
    }
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
    fixture.command(&["store", "accept-provider", "okta"]);
    provider_is(&fixture, "True", "Accepted").await;
    let (status, answer) = fixture.scim("okta", OTHER).send(Method::GET, "/Users", None).await;
    assert_eq!((status, &answer["totalResults"]), (200, &json!(1)), "{answer}");
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "Converged")).await;
    fixture.members_stay("checkout-api", INVOKER, &[ALICE]).await;
}

#[tokio::test]
async fn purged_people_lose_what_they_were_granted_and_the_new_provider_begins_without_anybody() {
    let fixture = succeeded().await;
    fixture.command(&["store", "purge-provider", "okta"]);
    provider_is(&fixture, "True", "Accepted").await;
    let (status, answer) = fixture.scim("okta", OTHER).send(Method::GET, "/Users", None).await;
    assert_eq!((status, &answer["totalResults"]), (200, &json!(0)), "{answer}");
    fixture.members_become("checkout-api", INVOKER, &[]).await;
    let database = format!("sqlite:{}", fixture.database.display());
    let (exit, _, said) = Fixture::rolecall(&["store", "purge-provider", "okta", "--database", &database]);
    assert_eq!(exit, 1, "a provider in use is not purged: {said}");
}
