use reqwest::Method;
use serde_json::json;

use crate::{Google, PARENT, invokers};

#[tokio::test]
async fn creation_and_deletion_come_back_as_done_operations() {
    let google = Google::start().await;
    let body = json!({ "labels": { "team": "a" }, "uid": "forged", "template": { "containers": [{ "image": "x" }] } });
    let done = google.ok(Method::POST, &format!("/v2/{PARENT}/services?serviceId=s"), Some(body)).await;
    assert_eq!(done["done"], true);
    assert_eq!(done["response"]["name"], format!("{PARENT}/services/s"));
    assert_ne!(done["response"]["uid"], "forged");
    let operation = done["name"].as_str().unwrap();
    assert_eq!(google.ok(Method::GET, &format!("/v2/{operation}"), None).await, done);
    let again = google.refused(Method::POST, &format!("/v2/{PARENT}/services?serviceId=s"), Some(json!({}))).await;
    assert_eq!((again.0, again.1.as_str()), (409, "ALREADY_EXISTS"));
    let gone = google.ok(Method::DELETE, &format!("/v2/{PARENT}/services/s"), None).await;
    assert_eq!(gone["done"], true);
    assert_eq!(google.refused(Method::DELETE, &format!("/v2/{PARENT}/services/s"), None).await.0, 404);
}

#[tokio::test]
async fn recreated_service_has_a_new_uid_and_no_policy() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let uid = google.ok(Method::GET, &format!("/v2/{service}"), None).await["uid"].clone();
    google.set(&service, json!({ "bindings": invokers(&["allUsers"]) })).await;
    google.ok(Method::DELETE, &format!("/v2/{service}"), None).await;
    google.service("s").await;
    assert_ne!(google.ok(Method::GET, &format!("/v2/{service}"), None).await["uid"], uid);
    assert_eq!(google.get(&service).await, json!({ "etag": "ACAB" }));
}

#[tokio::test]
async fn bad_names_are_refused() {
    let google = Google::start().await;
    for name in ["", "UPPER", "1st", "ends-", "a_b"] {
        let refusal =
            google.refused(Method::POST, &format!("/v2/{PARENT}/services?serviceId={name}"), Some(json!({}))).await;
        assert_eq!(refusal.0, 400, "{name}");
    }
}

#[tokio::test]
async fn list_is_newest_first_and_pages_survive_changes_in_between() {
    let google = Google::start().await;
    for n in 0..25 {
        google.service(&format!("s{n}")).await;
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v2/{PARENT}/services?pageSize=10&pageToken={token}&showDeleted=false");
        let page = google.ok(Method::GET, &path, None).await;
        seen.extend(page["services"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
        google.service(&format!("late{}", seen.len())).await;
    }
    let expected: Vec<String> = (0..25).rev().map(|n| format!("{PARENT}/services/s{n}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(google.refused(Method::GET, &format!("/v2/{PARENT}/services?pageToken=%2F"), None).await.0, 400);
}

#[tokio::test]
async fn location_wildcard_is_for_jobs_and_v1() {
    let google = Google::start().await;
    google.service("s").await;
    google.ok(Method::POST, "/v2/projects/demo-project/locations/europe-west1/jobs?jobId=j", Some(json!({}))).await;
    let all = "projects/demo-project/locations/-";
    assert_eq!(google.refused(Method::GET, &format!("/v2/{all}/services"), None).await.0, 400);
    assert_eq!(google.refused(Method::GET, &format!("/v2/{all}/workerPools"), None).await.0, 400);
    assert_eq!(google.ok(Method::GET, &format!("/v2/{all}/jobs"), None).await["jobs"].as_array().unwrap().len(), 1);
    let listed = google.ok(Method::GET, &format!("/v1/{all}/services"), None).await;
    assert_eq!(listed["kind"], "ServiceList");
    assert_eq!(listed["items"][0]["metadata"]["labels"]["cloud.googleapis.com/location"], "us-central1");
}

#[tokio::test]
async fn regional_host_selects_the_region_also_through_a_proxy_request() {
    let google = Google::start().await;
    google.service("here").await;
    google
        .ok(Method::POST, "/v2/projects/demo-project/locations/europe-west1/services?serviceId=there", Some(json!({})))
        .await;
    let proxied =
        reqwest::Client::builder().proxy(reqwest::Proxy::http(google.emulator.url()).unwrap()).build().unwrap();
    let url = "http://europe-west1-run.googleapis.com/apis/serving.knative.dev/v1/namespaces/demo-project/services";
    let listed: serde_json::Value = proxied.get(url).send().await.unwrap().json().await.unwrap();
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["there"]);
}

#[tokio::test]
async fn patch_changes_what_the_mask_names() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let body = json!({ "labels": { "team": "b" }, "invokerIamDisabled": true, "description": "not named" });
    google.ok(Method::PATCH, &format!("/v2/{service}?updateMask=labels,invoker_iam_disabled"), Some(body)).await;
    let view = google.ok(Method::GET, &format!("/v2/{service}"), None).await;
    assert_eq!((&view["labels"]["team"], &view["invokerIamDisabled"]), (&json!("b"), &json!(true)));
    assert!(view.get("description").is_none());
    assert_eq!(view["generation"], "2");
}

#[tokio::test]
async fn unknown_paths_get_a_page_of_html() {
    let google = Google::start().await;
    let response = google.raw(Method::GET, "/v9/nothing", None).await.unwrap();
    assert_eq!(response.status(), 404);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
}
