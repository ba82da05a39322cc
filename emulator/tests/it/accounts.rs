//! Service accounts, and the regions of a project.

use reqwest::Method;
use serde_json::json;

use crate::Google;

const PROJECT: &str = "demo-project";
const RUNNER: &str = "projects/demo-project/serviceAccounts/runner@demo-project.iam.gserviceaccount.com";
const USER: &str = "roles/iam.serviceAccountUser";

async fn created(google: &Google, name: &str) -> serde_json::Value {
    let body = json!({ "accountId": name, "serviceAccount": { "displayName": name } });
    google.ok(Method::POST, &format!("/v1/projects/{PROJECT}/serviceAccounts"), Some(body)).await
}

#[tokio::test]
async fn service_account_is_created_read_listed_and_deleted() {
    let google = Google::start().await;
    let account = created(&google, "runner").await;
    assert_eq!(account["name"], RUNNER);
    let id = account["uniqueId"].as_str().unwrap();
    assert!(id.len() == 21 && id.bytes().all(|b| b.is_ascii_digit()), "{id}");
    for name in [RUNNER.to_owned(), format!("projects/-/serviceAccounts/{id}")] {
        assert_eq!(google.ok(Method::GET, &format!("/v1/{name}"), None).await, account);
    }
    created(&google, "builder").await;
    created(&google, "deployer").await;
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v1/projects/{PROJECT}/serviceAccounts?pageSize=2&pageToken={token}");
        let page = google.ok(Method::GET, &path, None).await;
        seen.extend(page["accounts"].as_array().unwrap().iter().map(|account| account["displayName"].clone()));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(json!(seen), json!(["builder", "deployer", "runner"]));
    google.ok(Method::DELETE, &format!("/v1/{RUNNER}"), None).await;
    for (method, path) in [(Method::GET, RUNNER.to_owned()), (Method::POST, format!("{RUNNER}:getIamPolicy"))] {
        let refusal = google.refused(method, &format!("/v1/{path}"), Some(json!({}))).await;
        assert_eq!((refusal.0, refusal.1.as_str()), (404, "NOT_FOUND"), "{path}");
    }
    assert_ne!(created(&google, "runner").await["uniqueId"], account["uniqueId"]);
}

#[tokio::test]
async fn policy_of_a_service_account_is_read_by_post_with_the_version_in_the_query() {
    let google = Google::start().await;
    created(&google, "runner").await;
    let read = format!("/v1/{RUNNER}:getIamPolicy?options.requestedPolicyVersion=3");
    assert_eq!(google.ok(Method::POST, &read, Some(json!({}))).await, json!({ "etag": "ACAB" }));
    let asked = json!({ "options": { "requestedPolicyVersion": 3 } });
    assert_eq!(google.refused(Method::POST, &read, Some(asked)).await.0, 400, "the body has no such field");
    let condition = json!({ "title": "t", "expression": "request.time < timestamp('2030-01-01T00:00:00Z')" });
    let bindings = json!([{ "role": USER, "members": ["user:Bob@Example.com"], "condition": condition }]);
    let policy = json!({ "version": 3, "etag": "ACAB", "bindings": bindings });
    let set = format!("/v1/{RUNNER}:setIamPolicy");
    let stored = google.ok(Method::POST, &set, Some(json!({ "policy": policy }))).await;
    assert_eq!(stored["bindings"][0]["members"], json!(["user:bob@example.com"]));
    let stale = google.refused(Method::POST, &set, Some(json!({ "policy": policy }))).await;
    assert_eq!((stale.0, stale.1.as_str()), (409, "ABORTED"));
    let low = google.ok(Method::POST, &format!("/v1/{RUNNER}:getIamPolicy"), Some(json!({}))).await;
    assert!(low["bindings"][0]["role"].as_str().unwrap().starts_with("roles/iam.serviceAccountUser_withcond_"));
    let wrong =
        json!({ "policy": { "bindings": [{ "role": "roles/run.invoker", "members": ["user:a@example.com"] }] } });
    let refusal = google.refused(Method::POST, &set, Some(wrong)).await;
    assert_eq!(refusal.2, "Role roles/run.invoker is not supported for this resource.");
}

#[tokio::test]
async fn caller_without_the_permission_is_told_it_in_the_words_of_iam() {
    let google = Google::start().await;
    created(&google, "runner").await;
    google.emulator.control("POST", "callers", &json!({ "permissions": { "anonymous": [] } })).unwrap();
    let refusal = google.refused(Method::POST, &format!("/v1/{RUNNER}:getIamPolicy"), Some(json!({}))).await;
    assert_eq!(refusal.2, "Permission 'iam.serviceAccounts.getIamPolicy' denied on resource (or it may not exist).");
}

#[tokio::test]
async fn snapshot_and_control_api_know_service_accounts() {
    let google = Google::start().await;
    let control = |method: &str, path: &str| google.emulator.control(method, path, &json!({}));
    let first = control("POST", &format!("resources/{RUNNER}")).unwrap();
    assert_eq!(control("POST", &format!("resources/{RUNNER}")).unwrap_err().status, 409);
    let second = control("POST", &format!("resources/{RUNNER}:recreate")).unwrap();
    assert_ne!(first["uniqueId"], second["uniqueId"]);
    let policy = json!({ "bindings": [{ "role": USER, "members": ["user:bob@example.com"] }] });
    google.emulator.control("PUT", &format!("policies/{RUNNER}"), &policy).unwrap();
    let snapshot = control("GET", "snapshot").unwrap();
    control("DELETE", &format!("resources/{RUNNER}")).unwrap();
    assert_eq!(control("GET", &format!("resources/{RUNNER}")).unwrap_err().status, 404);
    google.emulator.control("POST", "restore", &snapshot).unwrap();
    assert_eq!(control("GET", &format!("resources/{RUNNER}")).unwrap(), second);
    assert_eq!(control("GET", "snapshot").unwrap(), snapshot);
}

#[tokio::test]
async fn regions_of_a_project_are_listed() {
    let google = Google::start().await;
    let list = google.ok(Method::GET, &format!("/v1/projects/{PROJECT}/locations"), None).await;
    let locations = list["locations"].as_array().unwrap();
    assert!(locations.len() > 30);
    assert!(locations.iter().any(|location| {
        location["locationId"] == "europe-west1" && location["name"] == "projects/demo-project/locations/europe-west1"
    }));
}
