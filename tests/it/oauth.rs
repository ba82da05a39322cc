//! OAuth 2.0 clients: an identity provider that gets its tokens by client credentials.

use reqwest::Method;
use serde_json::Value;

use crate::common::database::Database;
use crate::support::*;

const SECRET: &str = "oauth-client-secret-0123456789abcdef";

/// The provider `okta` with one OAuth 2.0 client and no token.
fn provider_with_client(secret: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: okta-client, namespace: rolecall-system}}\n\
         stringData: {{clientId: rolecall-okta, clientSecret: {secret}}}\n---\n\
         apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {{name: okta}}\nspec:\n  \
         scim:\n    oauthClients: [{{name: a, secretRef: {{name: okta-client}}}}]\n  principals:\n    \
         allowedDomains: [example.com]\n    users: {{googleAccount: {{attribute: userName}}}}\n"
    )
}

/// The status and the body of an answer to a request for a token.
async fn token(fixture: &Fixture, secret: &str) -> (u16, Value) {
    let status = fixture.status("IdentityProvider", "okta").await;
    let url = status["tokenEndpoint"].as_str().unwrap_or_default().to_owned();
    let grant = [("grant_type", "client_credentials")];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(grant).finish();
    let request = fixture.http.post(&url).basic_auth("rolecall-okta", Some(secret)).body(body);
    let answer = request.header("content-type", "application/x-www-form-urlencoded").send().await.expect(&url);
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

async fn access_token(fixture: &Fixture, secret: &str) -> String {
    let got = eventually("a token", async || match token(fixture, secret).await {
        (200, body) => Ok(body),
        other => Err(format!("{other:?}; log:\n{}", tail(&fixture.log()))),
    });
    got.await["access_token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn client_gets_a_token_that_outlives_a_restart_and_not_a_new_secret() {
    let mut fixture = Fixture::start(&[("provider.yaml", provider_with_client(SECRET))]).await;
    eventually("the token endpoint is in the status", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        if status["tokenEndpoint"].is_string() { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    let first = access_token(&fixture, SECRET).await;
    let user = fixture.scim("okta", &first).create_user("alice@example.com").await;
    let actor = Database::open(&fixture.database).text("SELECT actor FROM audit WHERE subject LIKE '%' || ?1", [&user]);
    assert_eq!(actor, "idp:okta/oauth:a");
    eventually("the last use", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        let tokens = status["tokens"].as_array().cloned().unwrap_or_default();
        let is_used = tokens.iter().any(|token| token["name"] == "oauth:a" && token["lastUsed"].is_string());
        if is_used && has(&status, "TokensValid", "True", "") { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;

    fixture.restart().await;
    let users =
        async |fixture: &Fixture, token: &str| fixture.scim("okta", token).send(Method::GET, "/Users", None).await.0;
    assert_eq!(users(&fixture, &first).await, 200, "the token outlives the process");

    let other = "another-client-secret-0123456789abcdef";
    fixture.write("provider.yaml", &provider_with_client(other));
    eventually("the old token is refused", async || match users(&fixture, &first).await {
        401 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(token(&fixture, SECRET).await.0, 401);
    let second = access_token(&fixture, other).await;
    assert_eq!(users(&fixture, &second).await, 200);
    for secret in [SECRET, other, &*first, &*second] {
        assert!(!fixture.log().contains(secret), "a secret is in the log");
        let stored = std::fs::read(&fixture.database).expect("the database");
        assert!(!stored.windows(secret.len()).any(|part| part == secret.as_bytes()), "a secret is in the database");
    }
}
