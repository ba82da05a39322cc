use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{Google, invokers};

async fn set_raw(google: &Google, service: &str) -> reqwest::Result<reqwest::Response> {
    let body = json!({ "policy": { "bindings": invokers(&["allUsers"]) } });
    google.raw(Method::POST, &format!("/v2/{service}:setIamPolicy"), Some(body)).await
}

fn inject(google: &Google, action: Value) {
    google.control(
        "PUT",
        "faults",
        json!({
            "faults": [{ "match": { "method": "POST", "path": ":setIamPolicy", "count": 1 }, "action": action }],
        }),
    );
}

#[tokio::test]
async fn injected_errors_look_like_google_and_change_nothing() {
    let google = Google::start().await;
    let service = google.service("s").await;
    for (action, status, word, part) in [
        (json!({ "type": "error", "status": 409 }), 409, "ABORTED", "There were concurrent policy changes."),
        (json!({ "type": "error", "status": 429 }), 429, "RESOURCE_EXHAUSTED", "Write requests per minute per region"),
        (
            json!({ "type": "error", "status": 403 }),
            403,
            "PERMISSION_DENIED",
            "Permission 'run.services.setIamPolicy' denied on resource 'projects/demo-project/",
        ),
        (
            json!({ "type": "error", "status": 403, "quota": true }),
            403,
            "PERMISSION_DENIED",
            "Quota exceeded for quota metric",
        ),
        (json!({ "type": "error", "status": 500 }), 500, "INTERNAL", "Internal"),
        (json!({ "type": "error", "status": 503 }), 503, "UNAVAILABLE", "The service is currently unavailable."),
    ] {
        inject(&google, action);
        let response = set_raw(&google, &service).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(response.headers().get("retry-after").is_none());
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["status"], word);
        assert!(body["error"]["message"].as_str().unwrap().contains(part), "{body}");
        assert_eq!(google.get(&service).await, json!({ "etag": "ACAB" }));
    }
    assert!(set_raw(&google, &service).await.unwrap().status().is_success(), "the fault is used up");
}

#[tokio::test]
async fn retry_after_is_sent_when_asked_for() {
    let google = Google::start().await;
    let service = google.service("s").await;
    inject(&google, json!({ "type": "error", "status": 429, "retryAfter": 7 }));
    assert_eq!(set_raw(&google, &service).await.unwrap().headers()["retry-after"], "7");
}

#[tokio::test]
async fn pages_of_html_and_broken_json_are_served() {
    let google = Google::start().await;
    let service = google.service("s").await;
    inject(&google, json!({ "type": "html", "status": 502 }));
    let response = set_raw(&google, &service).await.unwrap();
    assert_eq!(response.status(), 502);
    assert!(response.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    inject(&google, json!({ "type": "malformed", "when": "after" }));
    let response = set_raw(&google, &service).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(serde_json::from_str::<Value>(&response.text().await.unwrap()).is_err());
    assert_eq!(google.get(&service).await["bindings"], invokers(&["allUsers"]));
}

#[tokio::test]
async fn connection_dropped_before_or_after_the_commit() {
    let google = Google::start().await;
    let service = google.service("s").await;
    inject(&google, json!({ "type": "drop" }));
    assert!(set_raw(&google, &service).await.is_err());
    assert_eq!(google.get(&service).await, json!({ "etag": "ACAB" }));
    inject(&google, json!({ "type": "drop", "when": "after" }));
    assert!(set_raw(&google, &service).await.is_err());
    assert_eq!(google.get(&service).await["bindings"], invokers(&["allUsers"]));
    let journal = google.emulator.journal();
    let ends: Vec<_> =
        journal.iter().filter_map(|entry| entry.fault.map(|fault| (fault, entry.status, entry.committed))).collect();
    assert_eq!(ends, [("drop", None, false), ("dropAfterCommit", None, true)]);
}

#[tokio::test]
async fn timeout_after_the_commit_is_in_the_journal_while_the_client_waits() {
    let google = Google::start().await;
    let service = google.service("s").await;
    inject(&google, json!({ "type": "hang", "when": "after" }));
    let waiting = tokio::time::timeout(Duration::from_millis(300), set_raw(&google, &service)).await;
    assert!(waiting.is_err(), "no answer comes");
    assert_eq!(google.get(&service).await["bindings"], invokers(&["allUsers"]));
    assert_eq!(google.emulator.journal().iter().filter(|entry| entry.fault == Some("hangAfterCommit")).count(), 1);
}

#[tokio::test]
async fn latency_delays_the_call_it_hits_and_no_other() {
    let google = Google::start().await;
    let service = google.service("s").await;
    inject(&google, json!({ "type": "latency", "latencyMs": 200 }));
    let began = Instant::now();
    let (slow, fast) = tokio::join!(set_raw(&google, &service), async {
        google.get(&service).await;
        began.elapsed()
    });
    assert!(slow.unwrap().status().is_success());
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(fast < Duration::from_millis(200), "{fast:?}");
}

#[tokio::test]
async fn fault_that_cannot_be_understood_is_refused_whole() {
    let google = Google::start().await;
    for bad in [
        json!([{ "action": { "type": "drop" } }, { "action": { "type": "explode" } }]),
        json!({ "match": { "pathRegex": "(" }, "action": { "type": "drop" } }),
        json!({ "match": { "typo": 1 }, "action": { "type": "drop" } }),
        json!({ "action": { "type": "error", "status": 200 } }),
        json!({ "match": { "probability": 2 }, "action": { "type": "drop" } }),
    ] {
        let error = google.emulator.control("POST", "faults", &bad).unwrap_err();
        assert_eq!(error.status, 400, "{error}");
    }
    assert_eq!(google.control("GET", "faults", Value::Null), json!({ "faults": [] }));
}
