//! Requests of an IdP that are captured, printed and sent again.

use serde_json::{Value, json};

use crate::support::*;

/// The provider `okta` with requests captured until a time.
fn capturing(until: &str) -> String {
    provider("okta", TOKEN).replacen("  scim:\n", &format!("  scim:\n    captureUntil: \"{until}\"\n"), 1)
}

fn in_an_hour() -> String {
    (crate::common::now() + jiff::SignedDuration::from_hours(1)).to_string()
}

async fn is(fixture: &Fixture, value: &str, reason: &str) {
    eventually(&format!("Capturing={value}/{reason}"), async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        if has(&status, "Capturing", value, reason) { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

/// Sends the requests of the dialogue of an IdP with bodies that need no id.
async fn dialogue(fixture: &Fixture) -> usize {
    let scim = fixture.scim("okta", TOKEN);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/idp/okta");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut sent = 0;
    for file in files {
        let file: Value = serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
        let request = &file["request"];
        if request.to_string().contains("{{") || request["headers"].get("Authorization").is_some() {
            continue;
        }
        let method = request["method"].as_str().expect("a method").parse().expect("a method");
        let (status, _) =
            scim.send(method, request["path"].as_str().expect("a path"), request.get("body").cloned()).await;
        assert!(status < 500);
        sent += 1;
    }
    sent
}

#[tokio::test]
async fn dialogue_of_an_idp_is_captured_without_names_and_answered_alike_by_replay() {
    let mut fixture = Fixture::prepare(&base()).await;
    fixture.write("provider.yaml", &capturing("2100-01-01T00:00:00Z"));
    fixture.run().await;
    is(&fixture, "False", "CaptureWaiting").await;
    let admin = fixture.admin_url.clone();
    let (status, out, err) = Fixture::rolecall(&["doctor", "okta", "--capture", "--admin", &admin]);
    assert_eq!(status, 0, "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")["requests"], json!([]));
    fixture.write("provider.yaml", &capturing(&in_an_hour()));
    is(&fixture, "True", "Capturing").await;
    let sent = dialogue(&fixture).await;
    assert!(sent > 10, "{sent}");
    let (_, captured, err) = Fixture::rolecall(&["doctor", "okta", "--capture", "--admin", &admin]);
    let requests =
        serde_json::from_str::<Value>(&captured).expect("JSON")["requests"].as_array().expect("a list").len();
    assert_eq!(requests, sent, "{err}");
    for name in [TOKEN, "example.com", "Test.User", "test.user"] {
        assert!(!captured.contains(name), "{name}: {captured}");
    }
    let file = fixture.manifests().with_file_name("okta.json");
    std::fs::write(&file, &captured).expect("a file");
    let file = file.display().to_string();
    let (status, out, err) = Fixture::rolecall(&["replay", &file]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("Each request is answered as it was captured."), "{out}");
    // A different answer is a difference.
    std::fs::write(&file, captured.replacen("\"status\": 200", "\"status\": 404", 1)).expect("a file");
    let (status, out, _) = Fixture::rolecall(&["replay", &file, "-o", "json"]);
    assert_eq!(status, 1, "{out}");
    let replayed: Value = serde_json::from_str(&out).expect("JSON");
    let different =
        replayed["requests"].as_array().expect("a list").iter().filter(|one| one.get("differences").is_some());
    assert_eq!(different.map(|one| one["replayed"].clone()).collect::<Vec<_>>(), [json!(200)]);
    // Without the field nothing is left.
    fixture.write("provider.yaml", &provider("okta", TOKEN));
    eventually("no capture", async || {
        let (status, _, err) = Fixture::rolecall(&["doctor", "okta", "--capture", "--admin", &admin]);
        if status == 1 && err.contains("captureUntil") { Ok(()) } else { Err(err) }
    })
    .await;
    fixture.shutdown().await;
}
