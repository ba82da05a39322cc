use reqwest::Method;
use serde_json::{Value, json};

use crate::{Google, PARENT, etag_number, invokers};

#[tokio::test]
async fn journal_holds_calls_with_the_policy_before_and_after() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.set(&service, json!({ "etag": "ACAB", "bindings": invokers(&["allUsers"]) })).await;
    google.get(&service).await;
    let found = google.ok(Method::GET, "/__emulator/journal?method=POST&path=:setIamPolicy", None).await;
    assert_eq!(found["count"], 1);
    let entry = &found["entries"][0];
    assert_eq!(entry["before"], json!({ "etag": "ACAB" }));
    assert_eq!(entry["after"]["bindings"], invokers(&["allUsers"]));
    assert_eq!(entry["body"]["policy"]["etag"], "ACAB");
    assert_eq!(
        (&entry["resource"], &entry["status"], &entry["caller"]),
        (&json!(service), &json!(200), &json!("anonymous"))
    );
    let count = google.ok(Method::GET, "/__emulator/journal?pathRegex=IamPolicy%24&count=true", None).await;
    assert_eq!(count["count"], 2);
    let since = format!("/__emulator/journal?since={}", entry["seq"]);
    assert_eq!(google.ok(Method::GET, &since, None).await["count"], 1);
    google.ok(Method::DELETE, "/__emulator/journal", None).await;
    assert!(google.emulator.journal().is_empty());
}

#[tokio::test]
async fn journal_is_bounded_and_counts_what_it_dropped() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.control("PATCH", "settings", json!({ "journalEntries": 10 }));
    for _ in 0..30 {
        google.get(&service).await;
    }
    let view = google.control("GET", "journal?brief=true", Value::Null);
    assert_eq!((&view["count"], &view["lastSeq"], &view["dropped"]), (&json!(10), &json!(31), &json!(21)));
    google.control("PATCH", "settings", json!({ "journalEntries": 1000, "journalBytes": 1 }));
    google.get(&service).await;
    assert_eq!(google.emulator.journal().len(), 0, "bytes bound it as well");
}

#[tokio::test]
async fn control_edits_bypass_the_checks_and_are_marked_in_the_journal() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.set(&service, json!({ "bindings": invokers(&["user:bob@example.com"]) })).await;
    let path = format!("/__emulator/policies/{service}");
    let edit = json!({
        "remove": [{ "role": "roles/run.invoker", "members": ["user:bob@example.com"] }],
        "add": [{ "role": "roles/run.viewer", "member": "user:Stranger@Example.com" }],
    });
    let after = google.ok(Method::POST, &path, Some(edit)).await;
    let expected = json!([{ "role": "roles/run.viewer", "members": ["user:Stranger@Example.com"] }]);
    assert_eq!(after["bindings"], expected);
    assert_eq!(google.get(&service).await, after);
    assert_eq!(google.emulator.policy(&service), Some(after));
    let hidden = google.control("GET", "journal?path=policies", Value::Null);
    let shown = google.control("GET", "journal?path=policies&control=true", Value::Null);
    assert_eq!((&hidden["count"], &shown["count"]), (&json!(0), &json!(1)));
    google.ok(Method::PUT, &path, Some(json!({ "bindings": invokers(&["allUsers"]) }))).await;
    assert_eq!(google.get(&service).await["bindings"], invokers(&["allUsers"]));
    google.ok(Method::DELETE, &path, None).await;
    assert_eq!(google.get(&service).await, json!({ "etag": "ACAB" }));
}

#[tokio::test]
async fn quota_is_off_until_switched_on_and_refills_with_the_clock() {
    let google = Google::start().await;
    let service = google.service("s").await;
    for _ in 0..70 {
        google.set(&service, json!({ "bindings": [] })).await;
    }
    google.control("PUT", "quota", json!({ "writes": 2, "reads": 3 }));
    google.set(&service, json!({ "bindings": [] })).await;
    google.set(&service, json!({ "bindings": [] })).await;
    let (status, body) =
        google.call(Method::POST, &format!("/v2/{service}:setIamPolicy"), Some(json!({ "policy": {} }))).await;
    assert_eq!(status, 429);
    let number =
        google.ok(Method::GET, "/v1/projects/demo-project", None).await["projectNumber"].as_str().unwrap().to_owned();
    assert_eq!(
        body["error"]["message"],
        format!(
            "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute per region' of service 'run.googleapis.com' for consumer 'project_number:{number}'."
        )
    );
    let metadata = &body["error"]["details"][0]["metadata"];
    assert_eq!((&metadata["quota_limit_value"], &metadata["quota_location"]), (&json!("2"), &json!("us-central1")));
    google.get(&service).await;
    google.control("POST", "clock", json!({ "advanceMs": 30_000 }));
    google.set(&service, json!({ "bindings": [] })).await;
    assert_eq!(google.set_refused(&service, json!({ "bindings": [] })).await.0, 429);
    google.control("DELETE", "quota", Value::Null);
    google.set(&service, json!({ "bindings": [] })).await;
}

#[tokio::test]
async fn lagging_reads_show_the_version_before_until_the_time_has_passed() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.control("PUT", "lag", json!({ "readMs": 60_000 }));
    let after = google.set(&service, json!({ "bindings": invokers(&["allUsers"]) })).await;
    assert_eq!(google.get(&service).await, json!({ "etag": "ACAB" }));
    google.control("POST", "clock", json!({ "advanceMs": 60_001 }));
    assert_eq!(google.get(&service).await, after);
}

#[tokio::test]
async fn snapshot_and_restore_bring_back_resources_and_policies() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let after = google.set(&service, json!({ "bindings": invokers(&["allUsers"]) })).await;
    let view = google.ok(Method::GET, &format!("/v2/{service}"), None).await;
    let taken = google.ok(Method::GET, "/__emulator/snapshot", None).await;
    google.ok(Method::POST, "/__emulator/reset", None).await;
    assert_eq!(google.refused(Method::GET, &format!("/v2/{service}"), None).await.0, 404);
    google.ok(Method::POST, "/__emulator/restore", Some(taken.clone())).await;
    assert_eq!(google.get(&service).await, after);
    assert_eq!(google.ok(Method::GET, &format!("/v2/{service}"), None).await, view);
    assert_eq!(google.control("GET", "snapshot", Value::Null), taken);
    let next = google.set(&service, json!({ "etag": after["etag"], "bindings": [] })).await;
    assert!(etag_number(&next) > etag_number(&after));
}

#[tokio::test]
async fn resources_are_made_in_bulk_relabelled_and_recreated() {
    let google = Google::start().await;
    let list: Vec<Value> =
        (0..1000).map(|n| json!({ "name": format!("{PARENT}/services/s{n}"), "labels": { "team": "a" } })).collect();
    assert_eq!(google.control("POST", "resources", json!({ "resources": list })), json!({ "created": 1000 }));
    let name = format!("{PARENT}/services/s7");
    google.set(&name, json!({ "bindings": invokers(&["allUsers"]) })).await;
    let before = google.ok(Method::GET, &format!("/v2/{name}"), None).await;
    let change = json!({ "labels": { "team": "b" }, "invokerIamDisabled": true });
    let path = format!("/__emulator/resources/{name}");
    let relabelled = google.ok(Method::PATCH, &path, Some(change)).await;
    assert_eq!((&relabelled["labels"]["team"], &relabelled["uid"]), (&json!("b"), &before["uid"]));
    let recreated = google.ok(Method::POST, &format!("{path}:recreate"), None).await;
    assert_eq!(recreated["labels"]["team"], "b");
    assert_ne!(recreated["uid"], before["uid"]);
    assert_eq!(google.get(&name).await, json!({ "etag": "ACAB" }));
}

#[tokio::test]
async fn unknown_fields_of_the_control_api_are_named() {
    let google = Google::start().await;
    for (topic, body) in [
        ("quota", json!({ "wites": 1 })),
        ("directory", json!({ "mod": "strict" })),
        ("settings", json!({ "principal": 1 })),
        ("lag", json!({ "read": 1 })),
        ("callers", json!({ "token": {} })),
    ] {
        let error = google.emulator.control("PUT", topic, &body).unwrap_err();
        let field = body.as_object().unwrap().keys().next().unwrap();
        assert!(error.message.contains(&format!("`{field}`")), "{error}");
    }
    assert_eq!(google.emulator.control("GET", "nothing", &Value::Null).unwrap_err().status, 404);
}

#[tokio::test]
async fn shutdown_closes_open_connections() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let url = google.emulator.url();
    google.emulator.shutdown().await;
    let refused = google.client.get(format!("{url}/v2/{service}")).send().await;
    assert!(refused.is_err());
}
