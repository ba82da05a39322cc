//! Tokens of an OpenID Connect issuer, with the real binary.

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::database::Database;
use crate::issuer::{SigningKey, TestIssuer, fixture};
use crate::support::*;

fn provider_with_issuer(issuer: &TestIssuer) -> String {
    format!(
        "apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {{name: okta}}\nspec:\n  \
         scim:\n    oidc: {{issuer: \"{}\", audience: rolecall, subjects: [entra-app]}}\n  principals:\n    \
         allowedDomains: [example.com]\n    users: {{googleAccount: {{attribute: userName}}}}\n",
        issuer.url
    )
}

fn token(issuer: &TestIssuer, key: &SigningKey, aud: &str) -> String {
    let start = now().as_second();
    let claims = json!({"iss": issuer.url, "aud": aud, "sub": "entra-app", "iat": start, "exp": start + 3600});
    key.token("a", &claims)
}

async fn started(issuer: &TestIssuer, allow_private: bool) -> Fixture {
    let mut fixture = Fixture::prepare(&[("provider.yaml", provider_with_issuer(issuer))]).await;
    fixture.environment.push(("SSL_CERT_FILE", fixture_file()));
    if allow_private {
        fixture.environment.push(("ROLECALL_ALLOW_PRIVATE_ISSUERS", "true".to_owned()));
    }
    fixture.run().await;
    fixture
}

fn fixture_file() -> String {
    fixture("ca.pem").display().to_string()
}

async fn users(fixture: &Fixture, token: &str) -> u16 {
    fixture.scim("okta", token).send(Method::GET, "/Users", None).await.0
}

/// Codes and pointers of the findings.
fn findings(status: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let findings = status["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().map(|finding| (text(finding, "code"), text(finding, "pointer"))).collect()
}

#[tokio::test]
async fn token_of_the_issuer_is_accepted_and_the_audit_names_its_subject() {
    let (key, other) = (SigningKey::rsa("rsa-one.pem"), SigningKey::rsa("rsa-two.pem"));
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    let fixture = started(&issuer, true).await;
    let good = token(&issuer, &key, "rolecall");
    let user = fixture.scim("okta", &good).create_user("alice@example.com").await;
    let actor = Database::open(&fixture.database).text("SELECT actor FROM audit WHERE subject LIKE '%' || ?1", [&user]);
    assert_eq!(actor, "idp:okta/oidc:entra-app");
    assert_eq!(users(&fixture, &token(&issuer, &key, "elsewhere")).await, 401);
    assert_eq!(users(&fixture, &token(&issuer, &other, "rolecall")).await, 401);
    eventually("the findings and the last use", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        let said =
            [("JwtNotAccepted", "/aud"), ("JwtNotAccepted", "/signature")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let found = findings(&status);
        let is_used = status["tokens"][0]["name"] == "oidc:entra-app" && status["tokens"][0]["lastUsed"].is_string();
        let is_said = said.iter().all(|one| found.contains(one)) && found.len() == 2;
        if is_used && is_said && has(&status, "TokensValid", "True", "TokensValid") {
            Ok(())
        } else {
            Err(format!("{status:#}"))
        }
    })
    .await;
    assert!(!fixture.log().contains(&good));
    issuer.stop();
    assert_eq!(users(&fixture, &good).await, 200, "the keys are known");
}

#[tokio::test]
async fn issuer_at_a_private_address_is_not_called_unless_a_flag_allows_it() {
    let key = SigningKey::ec();
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    let fixture = started(&issuer, false).await;
    assert_eq!(users(&fixture, &token(&issuer, &key, "rolecall")).await, 503);
    assert_eq!(issuer.requests(), 0);
    eventually("the reason", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        if has(&status, "TokensValid", "False", "IssuerUnavailable") { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    assert!(fixture.log().contains("--allow-private-issuers"), "{}", tail(&fixture.log()));
}
