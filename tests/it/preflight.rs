//! The permissions that a target needs at Google: tested before they are used, in every mode.

use serde_json::{Value, json};

use crate::support::*;

/// All that is needed for services, without what is named.
fn hold_all_but(fixture: &Fixture, missing: &[&str]) {
    let all = ["list", "get", "getIamPolicy", "setIamPolicy"].map(|verb| format!("run.services.{verb}"));
    let mut held: Vec<&str> = all.iter().map(String::as_str).filter(|one| !missing.contains(one)).collect();
    held.extend(["run.jobs.list", "run.workerpools.list"]);
    switch(fixture, "PUT", "callers", &json!({"permissions": {"anonymous": held}}));
}

fn preflight(fixture: &Fixture, arguments: &[&str]) -> (i32, String) {
    let files = fixture.manifests().display().to_string();
    let mut all = vec!["preflight"];
    all.extend(arguments);
    if arguments.contains(&"FILES") {
        all.retain(|one| *one != "FILES");
        all.extend([files.as_str(), "--google-endpoint", &fixture.google.url, "--google-credentials", "none"]);
    } else {
        all.extend(["--admin", &fixture.admin_url]);
    }
    // The emulator answers on other threads of this process.
    let (code, out, err) = Fixture::rolecall(&all);
    (code, out + &err)
}

#[tokio::test]
async fn every_missing_permission_is_named_before_a_call_needs_it() {
    let mut fixture = Fixture::prepare(&base()).await;
    fixture.google.create_services("shop-dev", &["checkout-api"]).await;
    hold_all_but(&fixture, &["run.services.setIamPolicy"]);
    fixture.run().await;
    // No mapping: nothing is to be written, and the permission for it is missing all the same.
    let status = fixture.target_status("not Ready", |s| has(s, "PermissionsValid", "False", "PermissionDenied")).await;
    assert_eq!(status["missingPermissions"], json!(["run.services.setIamPolicy"]), "{status}");
    assert!(has(&status, "Ready", "False", "PermissionDenied"), "{status}");
    let (code, text) = preflight(&fixture, &[]);
    assert_eq!(code, 1, "{text}");
    for line in [
        "run.services.setIamPolicy   no",
        "run.services.getIamPolicy   yes",
        "--permissions=run.services.get,run.services.getIamPolicy,run.services.list,run.services.setIamPolicy",
        "google_project_iam_custom_role",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    switch(&fixture, "DELETE", "callers", &Value::Null);
    let status = fixture.target_status("Ready", |s| has(s, "Ready", "True", "Converged")).await;
    assert!(has(&status, "PermissionsValid", "True", "PermissionsValid"), "{status}");
    let (code, text) = preflight(&fixture, &[]);
    assert!(code == 0 && !text.contains("gcloud"), "{text}");
}

#[tokio::test]
async fn in_observe_mode_permissions_for_writing_are_tested_and_not_needed_yet() {
    let mut fixture = Fixture::prepare(&base()).await;
    fixture.mode = "observe".to_owned();
    fixture.google.create_services("shop-dev", &["checkout-api"]).await;
    hold_all_but(&fixture, &["run.services.setIamPolicy"]);
    fixture.run().await;
    let status = fixture.target_status("tested", |s| has(s, "PermissionsValid", "False", "PermissionDenied")).await;
    assert!(has(&status, "Ready", "True", ""), "{status}");
    assert_eq!(preflight(&fixture, &[]).0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_tested_before_anything_runs() {
    let fixture = Fixture::prepare(&base()).await;
    fixture.google.create_services("shop-dev", &["checkout-api"]).await;
    hold_all_but(&fixture, &["run.services.list"]);
    let member = "serviceAccount:rolecall@shop-dev.iam.gserviceaccount.com";
    let (code, text) = preflight(&fixture, &["FILES", "--member", member]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("run.services.list           no") && text.contains(&format!("--member='{member}'")),
        "{text}"
    );
    let (code, text) = preflight(&fixture, &["FILES", "-o", "json"]);
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &all["targets"][0]["projects"][0]["missing"]), (1, &json!(["run.services.list"])), "{all}");
    assert_eq!(preflight(&fixture, &["FILES", "--member", "user:$(id)"]).0, 2);
    assert_eq!(preflight(&fixture, &["FILES", "--target", "nowhere"]).0, 1);
    switch(&fixture, "DELETE", "callers", &Value::Null);
    let (code, text) = preflight(&fixture, &["FILES"]);
    assert_eq!(code, 0, "{text}");
}
