use reqwest::Method;
use serde_json::{Value, json};

use crate::{Google, invokers};

/// `{"alg":"RS256"}` and `{"iss":"rolecall@demo.iam.gserviceaccount.com"}`, padded as `gcp_auth` pads.
const ASSERTION: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJyb2xlY2FsbEBkZW1vLmlhbS5nc2VydmljZWFjY291bnQuY29tIn0=.c2ln";

async fn form(google: &Google, path: &str, body: String) -> Value {
    let response = google
        .client
        .post(format!("{}{path}", google.emulator.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .await
        .unwrap();
    response.json().await.unwrap()
}

#[tokio::test]
async fn service_account_token_identifies_the_caller_and_its_assertion_is_not_recorded() {
    let google = Google::start().await;
    google.control("PUT", "callers", json!({ "requireToken": true }));
    let refusal = google.refused(Method::GET, "/v1/projects/demo-project", None).await;
    assert_eq!((refusal.0, refusal.1.as_str()), (401, "UNAUTHENTICATED"));
    let body = format!("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={ASSERTION}");
    let answer = form(&google, "/token", body).await;
    assert_eq!(answer["token_type"], "Bearer");
    let token = answer["access_token"].as_str().unwrap();
    let url = format!("{}/v1/projects/demo-project", google.emulator.url());
    let response = google.client.get(&url).bearer_auth(token).send().await.unwrap();
    assert!(response.status().is_success());
    let journal = google.emulator.journal();
    assert_eq!(journal.last().unwrap().caller, "serviceAccount:rolecall@demo.iam.gserviceaccount.com");
    let exchange = journal.iter().find(|entry| entry.path == "/token").unwrap();
    assert!(exchange.body.is_empty());
    google.control("POST", "clock", json!({ "advanceMs": 3_600_000 }));
    assert_eq!(google.client.get(&url).bearer_auth(token).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn sts_metadata_and_impersonation_give_tokens() {
    let google = Google::start().await;
    let body =
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&audience=//iam.googleapis.com/p&subject_token=x"
            .to_owned();
    let answer = form(&google, "/v1/token", body).await;
    assert_eq!(answer["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");

    let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/token", google.emulator.url());
    assert_eq!(google.client.get(&url).send().await.unwrap().status(), 403);
    let answer: Value =
        google.client.get(&url).header("metadata-flavor", "Google").send().await.unwrap().json().await.unwrap();
    assert!(answer["access_token"].is_string());

    let path = "/v1/projects/-/serviceAccounts/a@demo.iam.gserviceaccount.com:generateAccessToken";
    let good = json!({ "scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "600s" });
    assert!(google.ok(Method::POST, path, Some(good.clone())).await["accessToken"].is_string());
    for bad in [json!({}), json!({ "scope": ["x"], "lifetime": "3601s" }), json!({ "scope": [] })] {
        assert_eq!(google.refused(Method::POST, path, Some(bad)).await.0, 400);
    }
    assert_eq!(google.refused(Method::POST, &path.replace("/-/", "/demo/"), Some(good.clone())).await.0, 400);
    google.control("POST", "directory", json!({ "mode": "strict" }));
    let refusal = google.refused(Method::POST, path, Some(good)).await;
    assert_eq!(refusal.2, "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).");
}

#[tokio::test]
async fn permissions_of_a_caller_are_enforced_and_tested() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.control(
        "PUT",
        "callers",
        json!({
            "tokens": { "t1": "user:bob@example.com" },
            "permissions": { "user:bob@example.com": ["run.services.get*"] },
        }),
    );
    let as_bob = |method: Method, path: &str, body: Value| {
        google
            .client
            .request(method, format!("{}/v2/{service}{path}", google.emulator.url()))
            .bearer_auth("t1")
            .json(&body)
            .send()
    };
    assert!(as_bob(Method::GET, ":getIamPolicy", Value::Null).await.unwrap().status().is_success());
    let denied: Value =
        as_bob(Method::POST, ":setIamPolicy", json!({ "policy": {} })).await.unwrap().json().await.unwrap();
    assert_eq!(
        denied["error"]["message"],
        format!("Permission 'run.services.setIamPolicy' denied on resource '{service}' (or resource may not exist).")
    );
    let asked = json!({ "permissions": ["run.services.get", "run.routes.invoke"] });
    let held: Value = as_bob(Method::POST, ":testIamPermissions", asked.clone()).await.unwrap().json().await.unwrap();
    assert_eq!(held, json!({ "permissions": ["run.services.get"] }));
    google.set(&service, json!({ "bindings": invokers(&["user:bob@example.com"]) })).await;
    let held: Value = as_bob(Method::POST, ":testIamPermissions", asked).await.unwrap().json().await.unwrap();
    assert_eq!(held, json!({ "permissions": ["run.services.get", "run.routes.invoke"] }));
}
